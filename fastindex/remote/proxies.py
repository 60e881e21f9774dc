"""Proxies: those that the environment names (http_proxy, https_proxy, all_proxy, no_proxy)."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from msgspec import Struct

from fastindex.errors import UsageError
from fastindex.remote.addresses import Address, show_url
from fastindex.remote.credentials import encode_basic

_PORT = 3128


class Proxy(Struct, frozen=True):
    """An HTTP proxy."""

    host: str
    """Its name or IP address."""
    port: int
    """Its port."""
    authorization: str = ""
    """The value of ``Proxy-Authorization``; empty: none."""

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_proxy(address: Address) -> Proxy | None:
    """Return the proxy through which ``address`` is to be asked; None: directly.

    Raises:
        UsageError: the environment names a proxy that cannot be used.
    """
    from urllib.request import getproxies, proxy_bypass

    named = getproxies()
    url = named.get(address.scheme) or named.get("all")
    if not url or proxy_bypass(address.authority):
        return None
    return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Take the URL of a proxy apart; ``http://`` may be missing.

    Raises:
        UsageError: it is malformed, or the proxy does not speak plain HTTP.
    """
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host:
        raise UsageError(f"{show_url(full)}: a proxy must be given as http://HOST:PORT")
    authorization = ""
    if parts.username is not None:
        authorization = encode_basic(unquote(parts.username), unquote(parts.password or ""))
    return Proxy(host, port or _PORT, authorization)
