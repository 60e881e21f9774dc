"""Credentials: from netrc, for the host that it names, over https only."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping

from fastindex.errors import UsageError
from fastindex.remote.addresses import Address, is_same_host


def read_netrc() -> dict[str, str]:
    """Return host → value of ``Authorization``, from $NETRC or ~/.netrc if there is one.

    A ``default`` entry is ignored: it would give the password to any host.

    Raises:
        UsageError: the file cannot be read or understood.
    """
    named = os.environ.get("NETRC", "")
    path = named or os.path.expanduser("~/.netrc")
    if not named and not os.path.exists(path):
        return {}
    from netrc import NetrcParseError, netrc

    try:
        hosts = netrc(path).hosts
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; NETRC must name a readable file") from error
    except NetrcParseError as error:  # its message repeats what stands there
        raise UsageError(f"{path}, line {error.lineno}: cannot be understood") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: must be UTF-8") from None
    return {
        host.lower(): encode_basic(login, password or "")
        for host, (login, _, password) in hosts.items()
        if host != "default"
    }


def encode_basic(login: str, password: str) -> str:
    """Return the value of an ``Authorization`` header."""
    return "Basic " + b64encode(f"{login}:{password}".encode()).decode("ascii")


def choose_credentials(entries: Mapping[str, str], first: Address, now: Address) -> str:
    """Return the value of ``Authorization`` for a request; empty: none.

    Args:
        entries: what netrc says.
        first: what was to be fetched.
        now: what is asked now, after redirects.

    Raises:
        UsageError: the password would be sent in clear.
    """
    entry = entries.get(first.host, "")
    if not entry:
        return ""
    if first.scheme == "http":
        raise UsageError(
            f"{first}: netrc has a password for {first.host}, which http would send in clear; use"
            " https, or remove the entry"
        )
    return entry if is_same_host(first, now) and now.scheme == "https" else ""
