"""URLs and addresses: what may be asked, where a redirect may lead, what messages show.

Pure functions.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, unquote, urljoin, urlsplit

from msgspec import Struct

from fastindex.errors import UsageError

_PORTS = {"http": 80, "https": 443, "file": 0}
_RESERVED = "/%:@!$&'()*+,;=~-._"
_MAX_URL_CHARACTERS = 8192
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BadUrlError(ValueError):
    """A URL that is not to be asked; the message says why, and does not repeat the URL."""


class ClearTextError(BadUrlError):
    """A redirect that leads from https to http."""


class Address(Struct, frozen=True):
    """A URL, taken apart."""

    scheme: str
    """``http``, ``https`` or ``file``."""
    host: str
    """The host's name in lower case, or its IP address; of a local file: empty."""
    port: int
    """The port; of a local file: 0."""
    target: str
    """Path and query as they are sent; of a local file: its path."""

    @property
    def url(self) -> str:
        """The URL."""
        if self.scheme == "file":
            return "file://" + quote(self.target)
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """Host and port, as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What stands before the path."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        """Return the URL as messages show it."""
        return show_url(self.url)


def parse_url(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadUrlError: it is malformed, has another scheme than http, https and file, or contains
            credentials.
    """
    if len(url) > _MAX_URL_CHARACTERS:
        raise BadUrlError(f"a URL must have at most {_MAX_URL_CHARACTERS} characters")
    if not url.isprintable():
        raise BadUrlError("a URL must not contain control characters")
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadUrlError("the URL is malformed") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise BadUrlError("the URL must begin with https://, http:// or file://")
    if parts.username is not None or parts.password is not None:
        raise BadUrlError("a URL must not contain credentials; put them into ~/.netrc")
    if scheme == "file":
        return _parse_file_url(host, port, parts.path)
    try:
        host = host.encode("idna").decode("ascii").rstrip(".")
    except UnicodeError:
        raise BadUrlError("the URL's host is malformed") from None
    if not host or port == 0 or not host.isprintable() or " " in host:
        raise BadUrlError("the URL's host or port is malformed")
    target = quote(parts.path, safe=_RESERVED) or "/"
    if parts.query:
        target += "?" + quote(parts.query, safe=_RESERVED + "?")
    return Address(scheme, host, port or _PORTS[scheme], target)


def _parse_file_url(host: str, port: int | None, path: str) -> Address:
    if host not in ("", "localhost") or port is not None:
        raise BadUrlError("a file URL must name a local file, as file:///srv/images")
    path = unquote(path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise BadUrlError("a file URL must name an absolute path, as file:///srv/images")
    return Address("file", "", 0, path)


def check_url(url: str) -> None:
    """Check a URL that the operator wrote.

    Raises:
        UsageError: as ``parse_url`` raises BadUrlError; or it has a query or a fragment, which no
            path can be appended to.
    """
    try:
        parse_url(url)
    except BadUrlError as error:
        raise UsageError(f"{show_url(url)}: {error}") from None
    if "?" in url or "#" in url:
        raise UsageError(f"{show_url(url)}: the URL must not have a query or a fragment")


def join_url(base: str, path: str) -> str:
    """Return the URL of ``path``, which is not quoted, below ``base``."""
    return f"{base.rstrip('/')}/{quote(path.lstrip('/'), errors='surrogateescape')}"


def show_url(url: str) -> str:
    """Return a URL for messages: without credentials, query and control characters."""
    shown = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = shown.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return show_text(shown)


def show_text(text: str, max_characters: int = 300) -> str:
    """Return text of a stranger for messages: short, and nothing that a terminal obeys."""
    cut = text if len(text) <= max_characters else text[:max_characters] + "..."
    return cut if cut.isprintable() else ascii(cut)


def follow(address: Address, location: str) -> Address:
    """Return where a redirect leads.

    Args:
        address: what was asked.
        location: what the server sent as ``Location``.

    Raises:
        BadUrlError: it leads to where no redirect may lead.
    """
    if not location:
        raise BadUrlError("it leads nowhere")
    if not location.isprintable():
        raise BadUrlError("it leads to a malformed URL")
    try:
        joined = urljoin(address.url, location)
    except ValueError:
        raise BadUrlError("it leads to a malformed URL") from None
    try:
        target = parse_url(joined)
    except BadUrlError as error:
        raise BadUrlError(f"it leads to {show_url(joined)}: {error}") from None
    if target.scheme != address.scheme and (address.scheme, target.scheme) != ("http", "https"):
        kind = ClearTextError if target.scheme == "http" else BadUrlError
        raise kind(f"it leads from {address.scheme} to {target.scheme}")
    return target


def is_same_host(first: Address, second: Address) -> bool:
    """Return whether two addresses are of one server; http on port 80 and https on 443 are, too."""
    if first.host != second.host:
        return False
    return first.port == second.port or (
        (first.scheme, first.port) == ("http", 80)
        and (second.scheme, second.port) == ("https", 443)
    )


def is_public(host: str) -> bool:
    """Return whether an IP address is one of the internet, not of a private network or this host.

    Args:
        host: the address, with a zone or without. What is not an address is not public.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return address.is_global and not address.is_multicast


def is_private_name(host: str) -> bool:
    """Return whether a host is by its name alone one that no redirect may lead to."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not is_public(host)
