"""What this machine is called, and which addresses it has, for a certificate and a URL."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from fastindex.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ELSEWHERE = (
    (socket.AF_INET, "192.0.2.1"),  # for documentation (RFC 5737): nobody has it
    (socket.AF_INET6, "2001:db8::1"),
)


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an IP address."""
    return ipaddress.ip_address(address).is_loopback


def check_address(address: str) -> str:
    """Return an IP address as it is written; ``localhost`` is one.

    Raises:
        UsageError: it is none.
    """
    if address == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise UsageError(
            f"--listen {address}: not an IP address of this machine; write one, such as "
            "127.0.0.1, or 0.0.0.0 for all of them"
        ) from error


def list_names(address: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """Return what clients may call a server that listens at an IP address, the best name first.

    Args:
        address: the IP address.
        more: names that the operator adds.
    """
    if is_loopback(address):
        found = [*more, *LOOPBACK]
    elif ipaddress.ip_address(address).is_unspecified:
        found = [*more, *_list_host_names(), *_list_own_addresses(), *LOOPBACK]
    else:
        found = [*more, *_list_host_names(), address]
    return tuple(dict.fromkeys(found))


def _list_host_names() -> list[str]:
    """Return the names of this machine, of which a certificate can be made."""
    name = socket.gethostname().rstrip(".").lower()
    names = [name] if _is_name(name) else []
    with suppress(OSError):
        full = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3].lower()
        if "." in full and _is_name(full) and full.partition(".")[0] == name.partition(".")[0]:
            names.insert(0, full)
    return list(dict.fromkeys(names))


def _is_name(name: str) -> bool:
    return bool(name) and name.isascii() and name.replace("-", "").replace(".", "").isalnum()


def _list_own_addresses() -> list[str]:
    """Return the addresses that this machine's packets to others would come from."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # sends nothing
            found.append(str(probe.getsockname()[0]))
    return found


def list_reachable(address: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names without addresses of the other family, where nobody listens.

    Args:
        address: the IP address that is listened at.
        names: what the server may be called.
    """
    version = ipaddress.ip_address(address).version
    return tuple(
        name
        for name in names
        if (parsed := parse_address(name)) is None or parsed.version == version
    )


def parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a name is; None: it is another name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def make_url(scheme: str, name: str, port: int) -> str:
    """Return the URL of a server by one of its names."""
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"
