"""URLs and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import UsageError
from fastindex.remote.addresses import (
    Address,
    BadUrlError,
    check_url,
    follow,
    is_private_name,
    is_public,
    is_same_host,
    join_url,
    parse_url,
    show_text,
    show_url,
)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://Example.ORG", Address("https", "example.org", 443, "/")),
        ("http://example.org.:8080/a b?c=d#e", Address("http", "example.org", 8080, "/a%20b?c=d")),
        ("https://[::1]:8443/a%2fb", Address("https", "::1", 8443, "/a%2fb")),
        ("https://bücher.example/ü", Address("https", "xn--bcher-kva.example", 443, "/%C3%BC")),
        ("file:///srv/a%20b", Address("file", "", 0, "/srv/a b")),
        ("file://localhost/srv", Address("file", "", 0, "/srv")),
    ],
)
def test_a_url_is_taken_apart(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert parse_url(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/images",
        "ftp://example.org",
        "https://",
        "https://user@example.org",
        "https://user:secret@example.org",
        "https://example.org:0",
        "https://example.org:99999",
        "https://example.org:x",
        "https://[::1",
        "https://exa mple.org",
        "https://example.org/\r\nX: y",
        "https://example.org/" + "a" * 9000,
        "file://example.org/srv",
        "file://localhost:80/srv",
        "file:srv",
        "file:///a%00b",
    ],
)
def test_a_url_that_is_not_to_be_asked_is_refused(url: str) -> None:
    with pytest.raises(BadUrlError) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError) as wrong:
        check_url(url)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize("url", ["https://example.org/?a", "https://example.org/#a"])
def test_nothing_can_be_appended_to_a_query(url: str) -> None:
    with pytest.raises(UsageError):
        check_url(url)


def test_a_path_is_quoted_below_its_base() -> None:
    assert (
        join_url("https://example.org/a/", "b c/?d#e%") == "https://example.org/a/b%20c/%3Fd%23e%25"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.org/a?token=secret#secret", "https://example.org/a"),
        ("https://example.org/\x1b[2J", "'https://example.org/\\x1b[2J'"),
        ("https://example.org/@a", "https://example.org/@a"),
    ],
)
def test_messages_show_no_secrets_and_no_control_characters(url: str, shown: str) -> None:
    assert show_url(url) == shown


@given(st.text())
def test_text_of_strangers_is_short_and_printable(text: str) -> None:
    shown = show_text(text, 50)
    assert shown.isprintable()
    assert len(shown) <= 50 * 10 + 5


BASE = parse_url("https://example.org/a/b")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/c", "https://example.org/c"),
        ("c", "https://example.org/a/c"),
        ("//example.com/c", "https://example.com/c"),
        ("https://example.com:8443/", "https://example.com:8443/"),
    ],
)
def test_a_redirect_is_followed(location: str, url: str) -> None:
    assert follow(BASE, location).url == url


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://example.org/a",
        "file:///etc/passwd",
        "ftp://example.org",
        "gopher://x",
        "//[",
        "/\n",
    ],
)
def test_a_redirect_to_another_scheme_is_refused(location: str) -> None:
    with pytest.raises(BadUrlError, match="it leads"):
        follow(BASE, location)


def test_a_redirect_from_http_to_https_is_followed() -> None:
    assert follow(parse_url("http://example.org/"), "https://example.org/").scheme == "https"


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("http://a.example/", "https://a.example/", True),
        ("https://a.example/b", "https://a.example/c", True),
        ("https://a.example/", "https://b.example/", False),
        ("https://a.example/", "https://a.example:8443/", False),
        ("http://a.example:8080/", "https://a.example/", False),
    ],
)
def test_hosts_are_compared_with_their_ports(first: str, second: str, *, is_same: bool) -> None:
    assert is_same_host(parse_url(first), parse_url(second)) == is_same


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_an_address_of_the_internet_is_public(host: str) -> None:
    assert is_public(host)
    assert not is_private_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # nosec B104
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)
def test_an_address_of_a_private_network_is_not_public(host: str) -> None:
    assert not is_public(host)
    assert is_private_name(host)


def test_names_are_private_only_if_they_mean_this_host() -> None:
    assert is_private_name("localhost")
    assert is_private_name("a.localhost")
    assert not is_private_name("example.org")
    assert not is_public("example.org")
