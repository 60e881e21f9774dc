"""Retries, the rate, answers, options, proxies and credentials: what needs no server."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from email.utils import formatdate
from http.client import (
    BadStatusLine,
    HTTPException,
    IncompleteRead,
    LineTooLong,
    RemoteDisconnected,
)
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import UsageError
from fastindex.remote.addresses import parse_url
from fastindex.remote.answers import Answered, Asked, Body, interpret
from fastindex.remote.credentials import choose_credentials, encode_basic, read_netrc
from fastindex.remote.errors import ChangedError, NoRangesError, PermanentError, TransientError
from fastindex.remote.options import RemoteOptions
from fastindex.remote.proxies import Proxy, find_proxy, parse_proxy
from fastindex.remote.rate import Rate
from fastindex.remote.retrying import (
    MAX_RETRY_AFTER_SECONDS,
    explain_failure,
    explain_status,
    find_delay,
    parse_retry_after,
)

# Delays


@given(st.integers(1, 1000), st.floats(0, 10), st.floats(0, 1e9))
def test_a_delay_doubles_within_bounds(failures: int, first: float, wait: float) -> None:
    expected = min(first * 2.0 ** min(failures - 1, 30), 60)
    asked = min(wait, MAX_RETRY_AFTER_SECONDS)
    assert max(expected / 2, asked) <= find_delay(failures, first, wait) <= max(expected, asked)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("9" * 50, MAX_RETRY_AFTER_SECONDS),
        ("", 0),
        ("-3", 0),
        ("soon", 0),
        ("٣", 0),
        (formatdate(1_000_020, usegmt=True), 20),
        (formatdate(999_000, usegmt=True), 0),
        (formatdate(2_000_000, usegmt=True), MAX_RETRY_AFTER_SECONDS),
        ("Sat, 99 Nov 9999999 99:99:99 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert parse_retry_after(value, 1_000_000) == seconds


@given(st.text())
def test_any_retry_after_is_understood_or_ignored(value: str) -> None:
    assert 0 <= parse_retry_after(value, 1_000_000) <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_status_that_may_pass_is_transient(status: int) -> None:
    error = explain_status(status, "3", 0)
    assert isinstance(error, TransientError)
    assert error.wait_seconds == 3
    assert str(status) in error.problem


@pytest.mark.parametrize(
    ("status", "is_missing"), [(404, True), (410, True), (401, False), (403, False), (400, False)]
)
def test_another_status_is_permanent(status: int, *, is_missing: bool) -> None:
    error = explain_status(status, "", 0)
    assert isinstance(error, PermanentError)
    assert error.is_missing == is_missing


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), TransientError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), TransientError),
        (ConnectionResetError(), TransientError),
        (RemoteDisconnected(""), TransientError),
        (IncompleteRead(b""), TransientError),
        (BadStatusLine("\x1b[2J"), TransientError),
        (LineTooLong("header line"), PermanentError),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), TransientError),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), PermanentError),
        (ssl.SSLError(1, "\x1b[2J"), TransientError),
        (OSError("Tunnel connection failed: 403 \x1b[2J"), TransientError),
    ],
)
def test_a_failed_connection_is_explained(
    error: OSError | HTTPException, kind: type[Exception]
) -> None:
    explained = explain_failure(error)
    assert type(explained) is kind
    assert explained.problem
    assert explained.problem.isprintable()


# The rate


def test_without_a_limit_nobody_waits() -> None:
    assert Rate(0).take(1 << 40, 0) == 0
    assert Rate(0).bound(1 << 20) == 1 << 20


@given(st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 5)), min_size=1))
def test_those_who_wait_as_told_keep_the_limit(takes: list[tuple[int, float]]) -> None:
    rate, now, total = Rate(10_000), 100.0, 0
    for count, pause in takes:
        now += pause
        now += rate.take(count, now)
        total += count
    assert total <= 10_000 * (now - 100 + 0.25) * 1.001


def test_a_slow_download_reads_little_at_once() -> None:
    assert Rate(40_000).bound(1 << 20) == 10_000
    assert Rate(1).bound(1 << 20) == 4096


# Answers

WHOLE = Asked(0, 100, 100, is_ranged=False, validator="")
PART = Asked(10, 50, 100, is_ranged=True, validator='"a"')


@pytest.mark.parametrize(
    ("asked", "answered", "body"),
    [
        (WHOLE, Answered(200, 100), Body(0, 100)),
        (WHOLE, Answered(200, None, encoding="identity"), Body(0, 100)),
        (PART, Answered(206, 40, "bytes 10-49/100", '"a"'), Body(0, 50)),
        (PART, Answered(206, None, "bytes 10-49/*"), Body(0, 50)),
        (PART, Answered(206, 10, "bytes 10-19/100", '"a"'), Body(0, 20)),
        (Asked(30, 100, 100, is_ranged=False, validator='"a"'), Answered(200, 100), Body(30, 100)),
    ],
)
def test_a_good_answer_is_understood(asked: Asked, answered: Answered, body: Body) -> None:
    assert interpret(asked, answered) == body


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (WHOLE, Answered(200, 99)),
        (WHOLE, Answered(200, 101)),
        (PART, Answered(200, 100, etag='"b"')),
        (PART, Answered(206, 40, "bytes 10-49/100", '"b"')),
        (PART, Answered(206, 40, "bytes 10-49/100", 'W/"a"')),
        (PART, Answered(206, 40, "bytes 10-49/101", '"a"')),
        (PART, Answered(206, 40, "bytes 11-50/100", '"a"')),
        (PART, Answered(206, 41, "bytes 10-50/100", '"a"')),
        (PART, Answered(206, 39, "bytes 10-49/100", '"a"')),
        (PART, Answered(206, 40, "bytes 10-9/100", '"a"')),
        (PART, Answered(206, 40, "", '"a"')),
        (PART, Answered(416, 0)),
    ],
)
def test_an_answer_about_another_file_is_recognized(asked: Asked, answered: Answered) -> None:
    with pytest.raises(ChangedError):
        interpret(asked, answered)


def test_a_server_without_ranges_is_recognized() -> None:
    with pytest.raises(NoRangesError):
        interpret(PART, Answered(200, 100, etag='"a"'))


@pytest.mark.parametrize(
    "answered", [Answered(206, 100, "bytes 0-99/100"), Answered(200, 100, encoding="gzip")]
)
def test_an_answer_that_nobody_asked_for_is_refused(answered: Answered) -> None:
    with pytest.raises(PermanentError):
        interpret(WHOLE, answered)


def test_the_validator_is_the_strong_entity_tag_or_the_time() -> None:
    assert Answered(200, 1, etag='"a"', last_modified="b").validator == '"a"'
    assert Answered(200, 1, etag='W/"a"', last_modified="b").validator == "b"


# Options


@pytest.mark.parametrize(
    "changes",
    [
        {"connections": 0},
        {"connections": 65},
        {"connections": 2.5},
        {"retries": -1},
        {"limit_bytes_per_second": -1},
        {"limit_bytes_per_second": float("nan")},
        {"timeout_seconds": 0},
        {"first_delay_seconds": float("inf")},
        {"min_piece_bytes": 2, "max_piece_bytes": 1},
        {"user_agent": "a\r\nb"},
        {"user_agent": ""},
        {"ca_file": "/nonexistent"},
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    options = RemoteOptions(**{"user_agent": "fastindex", **changes})  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        options.check()


# Proxies


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:8080", Proxy("proxy.example", 8080)),
        ("proxy.example", Proxy("proxy.example", 3128)),
        ("http://a%40b:c@proxy.example", Proxy("proxy.example", 3128, encode_basic("a@b", "c"))),
    ],
)
def test_a_proxy_is_understood(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize("url", ["socks5://me:secret@proxy.example", "http://", "http://p:x"])
def test_another_proxy_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


def test_the_environment_names_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://upper.example:1")
    monkeypatch.setenv("http_proxy", "http://lower.example:2")
    monkeypatch.setenv("no_proxy", ".internal.example")
    assert find_proxy(parse_url("https://example.org/")) == Proxy("upper.example", 1)
    assert find_proxy(parse_url("http://example.org/")) == Proxy("lower.example", 2)
    assert find_proxy(parse_url("http://a.internal.example/")) is None


# Credentials


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    return path


def test_netrc_names_hosts(netrc: Path) -> None:
    netrc.write_text("machine A.example login me password secret\ndefault login x password y\n")
    assert read_netrc() == {"a.example": encode_basic("me", "secret")}


def test_a_broken_netrc_is_named_without_what_it_says(netrc: Path) -> None:
    netrc.write_text("machine a.example login me password secret\nsecret\n")
    with pytest.raises(UsageError) as caught:
        read_netrc()
    assert re.fullmatch(rf"{netrc}, line \d: cannot be understood", str(caught.value))


def test_a_netrc_that_is_named_must_be_there(netrc: Path) -> None:
    with pytest.raises(UsageError, match="NETRC must name a readable file"):
        read_netrc()


def test_the_netrc_at_home_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_netrc() == {}


def test_credentials_stay_with_the_host_that_netrc_names() -> None:
    entries = {"a.example": "A", "b.example": "B"}
    first = parse_url("https://a.example/")
    assert choose_credentials(entries, first, parse_url("https://a.example/x")) == "A"
    assert choose_credentials(entries, first, parse_url("https://b.example/")) == ""
    assert choose_credentials(entries, first, parse_url("https://a.example:8443/")) == ""
    assert choose_credentials(entries, parse_url("https://c.example/"), first) == ""


def test_credentials_are_not_sent_in_clear() -> None:
    first = parse_url("http://a.example/x?token=secret")
    with pytest.raises(UsageError) as caught:
        choose_credentials({"a.example": "A"}, first, first)
    assert "a.example" in str(caught.value)
    assert "secret" not in str(caught.value)
