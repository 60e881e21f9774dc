"""What a machine is called."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from fastindex.errors import UsageError
from fastindex.operations.serve.addresses import (
    LOOPBACK,
    check_address,
    is_loopback,
    list_names,
    list_reachable,
    make_url,
)

EVERY = str(ipaddress.IPv4Address(0))
"""What stands for all addresses of a machine."""


def test_loopback_is_called_localhost() -> None:
    assert list_names("127.0.0.1", ("my.name",)) == ("my.name", *LOOPBACK)


def test_all_addresses_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box")
    names = list_names(EVERY, ("my.name",))
    assert names[0] == "my.name"
    assert "box" in names
    assert set(LOOPBACK) <= {*names}


def test_one_address_is_called_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a_b c")  # no name in a certificate
    assert list_names("192.0.2.7", ()) == ("192.0.2.7",)


def test_the_full_name_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "box.lan", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert list_names("192.0.2.7", ()) == ("box.lan", "box", "192.0.2.7")


def test_only_what_is_listened_at_is_reachable() -> None:
    names = ("a.lan", *LOOPBACK)
    assert list_reachable(EVERY, names) == ("a.lan", "localhost", "127.0.0.1")
    assert list_reachable("::", names) == ("a.lan", "localhost", "::1")


def test_addresses() -> None:
    assert check_address("localhost") == "127.0.0.1"
    assert check_address("::1") == "::1"
    assert is_loopback("127.9.9.9")
    assert not is_loopback(EVERY)
    with pytest.raises(UsageError, match=r"example\.org: not an IP address"):
        check_address("example.org")


def test_a_url_has_an_address_of_ipv6_in_brackets() -> None:
    assert make_url("https", "::1", 8444) == "https://[::1]:8444"
    assert make_url("http", "localhost", 80) == "http://localhost:80"
