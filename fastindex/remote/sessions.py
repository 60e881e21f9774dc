"""Requests of one thread: connections that are kept, redirects, credentials, local files."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Literal, Protocol

from msgspec import Struct

from fastindex.remote.addresses import (
    Address,
    BadUrlError,
    ClearTextError,
    follow,
    is_private_name,
    is_same_host,
)
from fastindex.remote.answers import Answered, is_strong, read_headers
from fastindex.remote.connections import Connection, PacedResponse, Route
from fastindex.remote.credentials import choose_credentials
from fastindex.remote.errors import NoHeadError, PermanentError, TransientError
from fastindex.remote.options import RemoteOptions
from fastindex.remote.proxies import find_proxy
from fastindex.remote.retrying import explain_failure, explain_status
from fastindex.system.files import open_regular

MAX_REDIRECTS = 5
"""More lead in a circle."""
_REDIRECTS = (301, 302, 303, 307, 308)
_ANSWERS = (200, 206, 304, 416)
_HEAD_REFUSALS = (405, 501)
_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII)
_MAX_CONNECTIONS = 4
"""A thread keeps no more: one for each server that it is redirected to."""


class Request(Struct, frozen=True):
    """What to ask for."""

    address: Address
    """What."""
    is_redirected: bool = False
    """Whether it is where a redirect of another server led."""
    part: tuple[int, int] | None = None
    """Its first byte and its end, which is not wanted; None: all."""
    if_range: str = ""
    """The validator under which the part is wanted; empty: under any."""
    if_none_match: str = ""
    """The entity tag of what is known already."""
    method: Literal["GET", "HEAD"] = "GET"
    """HEAD: without the body."""
    accept_encoding: str = "identity"
    """``Accept-Encoding``."""
    is_anonymous: bool = False
    """Whether to send no credentials, whatever netrc says."""


class Reply(Protocol):
    """What a server sends: the headers, and then the body."""

    answered: Answered
    """The headers."""
    request: Request
    """What was asked in the end, after redirects."""

    def fill(self, view: memoryview, patience_seconds: float) -> int:
        """Read more of the body into ``view``; return how many bytes, 0 at the end.

        Args:
            view: where to.
            patience_seconds: after so long, what has come is returned, once there is something.

        Raises:
            TransientError: the body ends early, or comes too slowly.
        """

    def close(self) -> None:
        """Read no more of the body."""


class Trust(Struct, frozen=True):
    """What all sessions of a client share."""

    options: RemoteOptions
    """How the caller wants servers to be asked."""
    context: ssl.SSLContext
    """TLS, as it is wanted."""
    credentials: Mapping[str, str]
    """Host → value of ``Authorization``."""


class Session:
    """Asks servers, in one thread.

    Args:
        trust: what all sessions share.
    """

    def __init__(self, trust: Callable[[], Trust], options: RemoteOptions) -> None:
        self._trust = trust
        self._options = options
        self._connections: dict[Route, Connection] = {}
        self._is_aborted = False

    def open(self, request: Request) -> Reply:
        """Ask for something, following redirects.

        Args:
            request: what to ask for.

        Returns:
            The reply, with status 200, 206, 304 or 416.

        Raises:
            TransientError: it may be had later.
            PermanentError: it cannot be had.
            NoHeadError: the server does not answer HEAD.
            UsageError: netrc has a password for the host, and the scheme is http.
        """
        if request.address.scheme == "file":
            return open_local(request)
        first = request.address
        for _ in range(MAX_REDIRECTS + 1):
            response, connection, route = self._ask(request, first)
            status = response.status
            if status in _ANSWERS:
                get = _getter(response)
                answered = read_headers(status, _find_length(request, response), get)
                return _RemoteReply(answered, request, response, connection)
            get = _getter(response)
            location, retry_after = get("Location"), get("Retry-After")
            self._drain(route, response, connection)
            if request.method == "HEAD" and status in _HEAD_REFUSALS:
                raise NoHeadError
            if status not in _REDIRECTS:
                raise explain_status(status, retry_after, time.time())
            request = self._redirect(request, first, location)
        raise PermanentError(
            f"the server redirects more than {MAX_REDIRECTS} times", "check the URL"
        )

    def ask_once(self, request: Request) -> tuple[int, str]:
        """Return the status of an answer, and where it redirects to; follow no redirect.

        Raises:
            TransientError, PermanentError: there is no answer.
        """
        response, connection, route = self._ask(request, request.address)
        location = _getter(response)("Location")
        self._drain(route, response, connection)
        return response.status, location

    def find_expiry(self, address: Address) -> float | None:
        """Return when the certificate of a server expires, in seconds since 1970; None: unknown.

        Raises:
            TransientError, PermanentError: there is no connection.
        """
        route = Route(address.scheme, address.host, address.port, must_be_public=False)
        try:
            return self._connect(route, address, self._trust()).find_expiry()
        except (OSError, HTTPException) as error:
            self._forget(route)
            raise explain_failure(error) from error

    def _redirect(self, request: Request, first: Address, location: str) -> Request:
        from msgspec.structs import replace

        try:
            target = follow(request.address, location)
        except BadUrlError as error:
            raise PermanentError(
                f"the server's redirect is refused: {error}",
                "check the URL",
                is_insecure=isinstance(error, ClearTextError),
            ) from None
        is_redirected = request.is_redirected or not is_same_host(first, target)
        must_be_public = is_redirected and not self._options.allow_private
        if must_be_public and is_private_name(target.host):
            raise PermanentError(
                f"a redirect leads to the private address {target.host}",
                "if that is meant, use --allow-private",
            )
        return replace(request, address=target, is_redirected=is_redirected)

    def _ask(self, request: Request, first: Address) -> tuple[PacedResponse, Connection, Route]:
        trust = self._trust()
        address = request.address
        headers = self._make_headers(request)
        has_credentials = not (request.is_redirected or request.is_anonymous)
        if has_credentials and (
            authorization := choose_credentials(trust.credentials, first, address)
        ):
            headers["Authorization"] = authorization
        must_be_public = request.is_redirected and not self._options.allow_private
        route = Route(address.scheme, address.host, address.port, must_be_public)
        try:
            connection = self._connect(route, address, trust)
            was_used = connection.is_used
            try:
                return connection.ask(address, headers, request.method), connection, route
            except (OSError, HTTPException) as error:
                connection.close()
                if not was_used or isinstance(error, TimeoutError) or self._is_aborted:
                    raise
            # The server may have closed it while it was idle. That is no failure.
            return connection.ask(address, headers, request.method), connection, route
        except (OSError, HTTPException) as error:
            self._forget(route)
            proxy = find_proxy(address)
            raise explain_failure(error, proxy.authority if proxy else "") from error
        except BaseException:
            self._forget(route)
            raise

    def _make_headers(self, request: Request) -> dict[str, str]:
        headers = {
            "User-Agent": self._options.user_agent,
            "Accept-Encoding": request.accept_encoding,
        }
        if request.part is not None:
            start, end = request.part
            headers["Range"] = f"bytes={start}-{end - 1}"
            if request.if_range:
                headers["If-Range"] = request.if_range
        if request.if_none_match:
            headers["If-None-Match"] = request.if_none_match
        return headers

    def _connect(self, route: Route, address: Address, trust: Trust) -> Connection:
        """Return the connection to use; it is at the end of those that are kept."""
        connection = self._connections.pop(route, None)
        if connection is None:
            while len(self._connections) >= _MAX_CONNECTIONS:
                self._forget(next(iter(self._connections)))
            connection = Connection(
                route, find_proxy(address), trust.context, self._options.timeout_seconds
            )
        self._connections[route] = connection
        if connection.has_unasked():
            connection.close()
        if connection.sock is None:
            connection.is_used = False
            connection.connect()
        if self._is_aborted:
            raise TransientError("it was stopped")
        return connection

    def _drain(self, route: Route, response: PacedResponse, connection: Connection) -> None:
        try:
            is_usable = response.drain()
        except (OSError, HTTPException):
            is_usable = False
        if not is_usable:
            response.close()
            connection.close()

    def _forget(self, route: Route) -> None:
        connection = self._connections.pop(route, None)
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """Make whatever this session waits for fail; any thread may call it."""
        self._is_aborted = True
        for connection in list(self._connections.values()):
            connection.abort()

    def close(self) -> None:
        """Close all connections."""
        for route in list(self._connections):
            self._forget(route)


def _find_length(request: Request, response: PacedResponse) -> int | None:
    """Return how long a body is; after HEAD, how long it would be."""
    if response.status == 304:
        return None
    if request.method == "HEAD":
        length = _getter(response)("Content-Length").strip()
        return int(length) if _LENGTH.fullmatch(length) else None
    return response.length_bytes


def _getter(response: PacedResponse) -> Callable[[str], str]:
    return lambda name: response.headers.get(name) or ""


class _RemoteReply:
    """A reply of a server."""

    def __init__(
        self, answered: Answered, request: Request, response: PacedResponse, connection: Connection
    ) -> None:
        self.answered = answered
        self.request = request
        self._response = response
        self._connection = connection

    def fill(self, view: memoryview, patience_seconds: float) -> int:
        try:
            return self._response.fill(view, patience_seconds)
        except (OSError, HTTPException) as error:
            raise explain_failure(error) from error

    def close(self) -> None:
        if not self._response.finish():
            self._response.close()
            self._connection.close()


def open_local(request: Request) -> Reply:
    """Answer from a local file as a server would.

    Raises:
        PermanentError: there is no such file, or it cannot be read.
    """
    path = request.address.target
    try:
        descriptor = open_regular(path)
        status = os.fstat(descriptor)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        problem = error.strerror or str(error)
        raise PermanentError(problem, "check the path", is_missing=is_missing) from error
    etag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
    size_bytes = status.st_size
    if request.if_none_match == etag:
        return _LocalReply(Answered(304, None, etag=etag), request, descriptor, 0, 0)
    is_same = not request.if_range or (request.if_range == etag and is_strong(etag))
    if request.part is None or not is_same:
        answered = Answered(200, size_bytes, etag=etag)
        return _LocalReply(answered, request, descriptor, 0, size_bytes)
    start, end = request.part[0], min(request.part[1], size_bytes)
    if start >= end:
        return _LocalReply(Answered(416, None, etag=etag), request, descriptor, 0, 0)
    content_range = f"bytes {start}-{end - 1}/{size_bytes}"
    answered = Answered(206, end - start, content_range, etag=etag)
    return _LocalReply(answered, request, descriptor, start, end)


class _LocalReply:
    """A part of a local file."""

    def __init__(
        self, answered: Answered, request: Request, descriptor: int, start: int, end: int
    ) -> None:
        self.answered = answered
        self.request = request
        self._descriptor = descriptor
        self._position = start
        self._end = end

    def fill(self, view: memoryview, patience_seconds: float) -> int:
        wanted = view[: self._end - self._position]
        if not wanted:
            return 0
        try:
            count = os.preadv(self._descriptor, [wanted], self._position)
        except OSError as error:
            raise TransientError(error.strerror or str(error)) from error
        self._position += count
        return count

    def close(self) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
