"""One connection to a server, and the replies that come over it.

All that is received passes ``_PacedRaw``, which gives up on a server that yields next to nothing,
be it in the headers, in the lengths of chunks or in the body.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, cast

from msgspec import Struct

from fastindex.remote.addresses import Address, is_public
from fastindex.remote.errors import PermanentError
from fastindex.remote.proxies import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    Buffer = bytearray | memoryview

MIN_BYTES_PER_SECOND = 1024
"""A server that yields less is as good as silent."""
_MAX_DRAINED_BYTES = 64 << 10
"""So much of a body that is not wanted is read; else a new connection costs less."""
_BUFFER_BYTES = 16 << 10
"""What is read ahead with the headers: as much as TLS yields at once."""


class Route(Struct, frozen=True):
    """What a connection can be used for."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """The server's name or IP address."""
    port: int
    """The server's port."""
    must_be_public: bool
    """Whether the server must not have a private address."""


class StalledError(TimeoutError):
    """The server yields next to nothing."""


class Connection(HTTPConnection):
    """A connection, made when it is first used.

    Args:
        route: where to.
        proxy: through which proxy; None: directly.
        context: TLS, as it is wanted.
        timeout_seconds: how long the server may be silent.
    """

    def __init__(
        self, route: Route, proxy: Proxy | None, context: ssl.SSLContext, timeout_seconds: float
    ) -> None:
        first_host, first_port = (proxy.host, proxy.port) if proxy else (route.host, route.port)
        super().__init__(first_host, first_port, timeout=timeout_seconds)
        self.response_class = PacedResponse
        self.is_used = False
        """Whether it has served a request."""
        self._connected: socket.socket | None = None
        self._route = route
        self._proxy = proxy
        self._context = context
        if route.scheme == "https":
            self.default_port = 443  # which the Host header leaves out
            if proxy is not None:
                headers = (
                    {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
                )
                self.set_tunnel(route.host, route.port, headers)

    def connect(self) -> None:
        """Connect, and check who is at the other end before anything is sent.

        Raises:
            PermanentError: the server has a private address and must not.
            OSError: there is no connection.
        """
        super().connect()
        self._connected = self.sock
        if self._route.must_be_public and self._proxy is None:
            peer = self.sock.getpeername()[0]
            if not is_public(peer):
                self.close()
                raise PermanentError(
                    f"a redirect leads to {self._route.host}, which has the private address {peer}",
                    "if that is meant, use --allow-private",
                )
        if self._route.scheme == "https":
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._route.host)
            self._connected = self.sock

    def ask(self, address: Address, headers: dict[str, str], method: str = "GET") -> PacedResponse:
        """Send a request; return the reply when its headers have come.

        Raises:
            OSError: the connection failed.
            HTTPException: the answer is not HTTP.
        """
        target = address.target
        if self._proxy is not None and address.scheme == "http":
            target = address.url
            if self._proxy.authorization:
                headers = {**headers, "Proxy-Authorization": self._proxy.authorization}
            headers = {**headers, "Host": address.authority}
        self.request(method, target, headers=headers)
        response = cast("PacedResponse", self.getresponse())
        self.is_used = True
        return response

    def has_unasked(self) -> bool:
        """Return whether something has come that was not asked for, or the server has hung up.

        After HEAD, for example, a body: the next answer would begin with it.
        """
        if self.sock is None:
            return False
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def find_expiry(self) -> float | None:
        """Return when the server's certificate expires, in seconds since 1970; None: unknown."""
        if not isinstance(self._connected, ssl.SSLSocket):
            return None
        expiry = (self._connected.getpeercert() or {}).get("notAfter")
        return float(ssl.cert_time_to_seconds(expiry)) if isinstance(expiry, str) else None

    def abort(self) -> None:
        """Make whatever waits for this connection fail; any thread may call it."""
        # http.client forgets a socket that serves the last request, so this is another name for it.
        if (connected := self._connected) is not None:
            with suppress(OSError):
                # Not the method of ssl.SSLSocket, which takes TLS away from under the reader.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class PacedResponse(HTTPResponse):
    """A reply whose server must keep a minimal pace."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        self._source = _PacedSource(sock)
        self._is_direct = False
        self._is_head = method == "HEAD"
        super().__init__(cast("socket.socket", self._source), debuglevel, method, url)

    @property
    def length_bytes(self) -> int | None:
        """How long the body is; None: not known before its end."""
        return None if self.chunked else self.length

    def fill(self, view: memoryview, patience_seconds: float) -> int:
        """Read more of the body into ``view``; return how many bytes, 0 at the end.

        Args:
            view: where to.
            patience_seconds: after so long, what has come is returned, once there is something.

        Raises:
            OSError: the connection failed.
            HTTPException: a chunk is malformed, or the body ends early.
        """
        if self.chunked or self.length is None:
            data = self.read1(len(view))
            view[: len(data)] = data
            return len(data)
        wanted = view[: self.length]
        if self._is_direct:
            filled = self._source.fill(wanted, patience_seconds)
        else:
            # Something of the body may have come with the headers.
            data = self.fp.read1(min(len(wanted), _BUFFER_BYTES))
            filled = len(data)
            wanted[:filled] = data
            self._is_direct = filled < min(len(wanted), _BUFFER_BYTES)
        self.length -= filled
        return filled

    def finish(self) -> bool:
        """End reading; return whether the connection can serve another request."""
        if self.isclosed():
            return not self.will_close
        if self.length_bytes == 0 or self._is_head:
            self.close()
            return not self.will_close
        return False

    def drain(self) -> bool:
        """Read what is left, if it is little; return as ``finish`` does."""
        if self.length_bytes is not None and self.length_bytes <= _MAX_DRAINED_BYTES:
            self.read()
        return self.finish()


class _PacedSource(io.RawIOBase):
    """What comes from a socket, at a minimal pace; and what ``HTTPResponse`` needs of a socket.

    Args:
        connected: the socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._timeout_seconds = connected.gettimeout() or 0
        self._raw = connected.makefile("rb", buffering=0)
        # Two layers less than by way of ``makefile``, for each 16 KiB that TLS yields.
        self._read = _find_reader(connected)
        self._seconds = 0.0
        self._bytes = 0

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that a response is read from."""
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]
        return self.fill(memoryview(buffer), 0)

    def fill(self, view: memoryview, patience_seconds: float) -> int:
        """Read until ``view`` is full or patience ends; return how many bytes, 0 at the end.

        Args:
            view: where to.
            patience_seconds: after so long, what has come is returned, once there is something.

        Raises:
            OSError: the connection failed.
        """
        filled, wanted = 0, len(view)
        now = began = time.monotonic()
        until = began + patience_seconds
        while filled < wanted:
            count = self._read(wanted - filled, view[filled:])
            now = time.monotonic()
            if not count:
                break
            filled += count
            if now >= until:
                break
        self._check_pace(filled, now - began)
        return filled

    def _check_pace(self, count: int, seconds: float) -> None:
        self._seconds += seconds
        self._bytes += count
        if self._seconds > self._timeout_seconds:
            if count and self._bytes < self._seconds * MIN_BYTES_PER_SECOND:
                raise StalledError
            self._seconds, self._bytes = 0.0, 0

    def close(self) -> None:
        self._raw.close()
        super().close()


def _find_reader(connected: socket.socket) -> Callable[[int, memoryview], int]:
    """Return what reads at most so many bytes into a view: the fewest calls that do that."""
    if isinstance(connected, ssl.SSLSocket):
        return cast("Callable[[int, memoryview], int]", connected.read)
    return lambda count, view: connected.recv_into(view, count)
