"""The server: Tornado takes connections and requests; what is answered is decided elsewhere.

Memory is bounded: so many connections, a request header each, and 64 KiB of a file, which must be
taken within a minute. Files are read in the loop where the page cache has them, else in threads, so
that a slow disk holds up nobody else.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, cast

from fastindex.errors import Code, FastindexError, ResourceError, UsageError, is_shortage
from fastindex.events import Finding, Observer
from fastindex.mirror.mirror import Mirror
from fastindex.operations.serve import offer
from fastindex.operations.serve.answers import (
    METHODS,
    Answer,
    Headers,
    Resource,
    accepts_gzip,
    answer,
    refuse,
)
from fastindex.operations.serve.requests import BadTargetError, find_path
from fastindex.system import signals
from fastindex.system.directories import close
from fastindex.system.files import raise_max_descriptors, read_cached
from fastindex.system.stamps import stamp_of

if TYPE_CHECKING:
    import socket

    from tornado.http1connection import HTTP1Connection
    from tornado.httpserver import HTTPServer
    from tornado.httputil import HTTPServerRequest

PIECE_BYTES = 64 << 10
_MAX_HEADER_BYTES = 64 << 10
_MAX_BODY_BYTES = 4096
_MAX_BACKLOG = 1024
_SPARE_DESCRIPTORS = 64
_DESCRIPTORS_EACH = 2
"""Of a connection: its socket, and the file that is sent."""
_LOOK_SECONDS = 5.0
"""How often to look for another catalogue while all that is asked for is offered."""
_MAX_TOLD = 1000
"""So many files that are missing are told, each once."""
_UPKEEP_SECONDS = 3600.0
_PAGE = "index.html"
"""What is served at the top, if a build made it."""
_REASONS = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Upkeep = Callable[[], None]
"""Renews what the server shows, where it is due."""


class Limits:
    """What a server grants.

    Args:
        patience_seconds: how long downloads may go on after a signal.
        stall_seconds: how long a client may take for a request or a piece of an answer.
        max_connections: how many there may be.
    """

    def __init__(self, patience_seconds: float, stall_seconds: float, max_connections: int) -> None:
        self.patience_seconds = patience_seconds
        self.stall_seconds = stall_seconds
        has_room_for = (raise_max_descriptors() - _SPARE_DESCRIPTORS) // _DESCRIPTORS_EACH
        self.max_connections = max(1, min(max_connections, has_room_for))


class Clerk:
    """Finds the files that are asked for.

    Args:
        mirror: where everything lies.
        observer: told of files that are missing, and of a catalogue that cannot be read.

    Raises:
        FastindexError: the catalogue cannot be read.
    """

    def __init__(self, mirror: Mirror, observer: Observer) -> None:
        self._mirror = mirror
        self._observer = observer
        self._offer = offer.read_offer(mirror)
        self._looked = time.monotonic()
        self._reading: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    @property
    def offered(self) -> offer.Offer:
        """What is served now."""
        return self._offer

    async def find(self, path: str, *, gzip: bool) -> tuple[int, Resource] | None:
        """Open the file at a path; None: nothing is published there.

        Args:
            path: relative to the mirror.
            gzip: whether the client takes compressed content.

        Returns:
            A descriptor, which the caller closes, and what it is.

        Raises:
            OSError: it is published, but cannot be opened.
        """
        path = path or _PAGE
        opening = self._choose(path, gzip)
        is_due = time.monotonic() - self._looked > _LOOK_SECONDS
        if opening is None or is_due:
            task = await self._refresh()
            if opening is None and task is not None:
                await asyncio.wait([task])
                opening = self._choose(path, gzip)
        if opening is None:
            return None
        try:
            return await asyncio.to_thread(opening)
        except OSError as error:
            if is_shortage(error):
                raise
            if path in self._offer.images:
                self._tell(path, error)
            return None

    def _choose(self, path: str, gzip: bool) -> Callable[[], tuple[int, Resource]] | None:
        if self._offer.has_document(path):
            made = self._offer.companions.get(f"{path}.gz")
            return functools.partial(offer.open_document, self._mirror, path, gzip=gzip, made=made)
        if self._offer.has_image(path):
            return functools.partial(offer.open_image, self._mirror, path)
        return None

    async def _refresh(self) -> asyncio.Task[None] | None:
        """Return what reads the catalogue again, if there is another one."""
        if self._reading is None or self._reading.done():
            self._looked = time.monotonic()
            known = self._offer
            now = await asyncio.to_thread(offer.look, self._mirror, known.catalogue)
            is_first = self._reading is None or self._reading.done()
            if now == known.stamps or not is_first:
                return self._reading
            self._reading = asyncio.ensure_future(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            self._offer = await asyncio.to_thread(offer.read_offer, self._mirror, self._offer)
        except (FastindexError, OSError) as error:
            message = f"the new catalogue cannot be used: {error}; the last one is served on"
            if message not in self._told:
                self._told.add(message)
                self._observer.log(message)

    def _tell(self, path: str, error: OSError) -> None:
        if path in self._told or len(self._told) > _MAX_TOLD:
            return
        self._told.add(path)
        is_missing = isinstance(error, FileNotFoundError)
        self._observer.warn(
            Finding(
                Code.MISSING_FILE if is_missing else Code.UNREADABLE,
                path,
                "is published, but not there" if is_missing else f"cannot be served ({error})",
                "run fastindex ROOT to publish what is there",
            )
        )


def listen(address: str, port: int) -> list[socket.socket]:
    """Return sockets that listen.

    Raises:
        ResourceError: somebody else does, or this user may not, or the address is not of this
            machine.
        UsageError: there is no such port.
    """
    from tornado.netutil import bind_sockets

    if not 0 <= port < 1 << 16:
        raise UsageError(f"--listen: {port} is no port; it must be from 1 to 65535")
    try:
        return bind_sockets(port, address, backlog=_MAX_BACKLOG)
    except OSError as error:
        raise ResourceError(
            f"cannot listen at {address} port {port} ({error.strerror or error}); choose another "
            "address or port with --listen"
        ) from error


class _Shift:
    """One server, from its first connection to its last.

    Args:
        clerk: finds the files.
        limits: what it grants.
        observer: told of each request.
    """

    def __init__(self, clerk: Clerk, limits: Limits, observer: Observer) -> None:
        self._clerk = clerk
        self._limits = limits
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals: list[int] = []
        self._is_told = asyncio.Event()

    def hear(self, number: int) -> None:
        """Take note of a signal."""
        self._loop.call_soon_threadsafe(self._note, number)

    def _note(self, number: int) -> None:
        self._signals.append(number)
        self._is_told.set()

    def take(self, request: HTTPServerRequest) -> None:
        """Answer a request, beside others."""
        task = self._loop.create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def work(self, server: HTTPServer, upkeep: Upkeep) -> int:
        """Serve until a signal comes, and end in order; return how many downloads were cut off."""
        keeping = self._loop.create_task(self._keep_up(upkeep))
        try:
            await self._is_told.wait()
        finally:
            keeping.cancel()
        server.stop()
        self._is_told.clear()
        again = self._loop.create_task(self._is_told.wait())
        running = set(self._tasks)
        until = self._loop.time() + self._limits.patience_seconds
        while running and not again.done() and (left := until - self._loop.time()) > 0:
            await asyncio.wait({again, *running}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            running = {task for task in self._tasks if not task.done()}
        again.cancel()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(1):
                await server.close_all_connections()
        return len(running)

    async def _keep_up(self, upkeep: Upkeep) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            try:
                await asyncio.to_thread(upkeep)
            except (FastindexError, OSError) as error:
                self._observer.log(f"the certificate is not renewed: {error}")

    async def _serve(self, request: HTTPServerRequest) -> None:
        connection = cast("HTTP1Connection", request.connection)
        from tornado.iostream import StreamClosedError

        is_whole = False
        status = 500
        try:
            with ExitStack() as stack:
                decided, descriptor, resource = await self._decide(request, stack)
                status = decided.status
                await self._send(connection, decided, descriptor, resource)
            is_whole = True
        except (TimeoutError, StreamClosedError):
            pass  # the client went away, or takes too long
        except OSError as error:
            self._observer.log(f"{request.uri}: {error}")
        finally:
            if is_whole:
                with suppress(StreamClosedError):
                    connection.finish()
            else:
                connection.stream.close()  # so that the client knows that something is missing
            end = "" if is_whole else ", broken off"
            self._observer.log(f"{request.remote_ip} {request.method} {request.uri} {status}{end}")

    async def _decide(
        self, request: HTTPServerRequest, stack: ExitStack
    ) -> tuple[Answer, int, Resource | None]:
        headers = cast("Headers", request.headers)
        if request.method not in METHODS:
            return refuse(405), -1, None
        try:
            path = find_path(request.uri or "")
            found = await self._clerk.find(path, gzip=accepts_gzip(headers))
        except BadTargetError as error:
            return refuse(error.status), -1, None
        except OSError as error:
            self._observer.log(f"{request.uri}: {error}")
            return refuse(503), -1, None
        if found is None:
            return refuse(404), -1, None
        descriptor, resource = found
        stack.callback(close, descriptor)
        return answer(request.method, headers, resource), descriptor, resource

    async def _send(
        self,
        connection: HTTP1Connection,
        decided: Answer,
        descriptor: int,
        resource: Resource | None,
    ) -> None:
        """Send an answer.

        Raises:
            StreamClosedError: the client is gone.
            TimeoutError: it takes too long.
            OSError: the file cannot be read, or has been changed.
        """
        from tornado.httputil import HTTPHeaders, ResponseStartLine

        start = ResponseStartLine("HTTP/1.1", decided.status, _REASONS[decided.status])
        patience = self._limits.stall_seconds
        async with asyncio.timeout(patience):
            await connection.write_headers(start, HTTPHeaders(dict(decided.headers)))
        offset, end = decided.first, decided.first + decided.length
        while offset < end:
            length = min(PIECE_BYTES, end - offset)
            piece = read_cached(descriptor, length, offset)
            if piece is None:
                piece = await asyncio.to_thread(os.pread, descriptor, length, offset)
            offset += len(piece)
            is_last = offset == end
            if not piece or (is_last and _has_changed(descriptor, resource)):
                raise OSError(None, "changed while it was sent; broken off")
            async with asyncio.timeout(patience):
                await connection.write(piece)


def _has_changed(descriptor: int, resource: Resource | None) -> bool:
    return resource is not None and stamp_of(os.fstat(descriptor)) != resource.stamp


async def run_server(
    clerk: Clerk,
    limits: Limits,
    sockets: list[socket.socket],
    context: ssl.SSLContext | None,
    upkeep: Upkeep,
    observer: Observer,
    is_ready: Callable[[], None],
) -> int:
    """Serve until a signal comes; return how many downloads were cut off then.

    Args:
        clerk: finds the files.
        limits: what the server grants.
        sockets: where it listens.
        context: what it shows; None: plain HTTP.
        upkeep: called every hour.
        observer: told of each request, and of what goes wrong.
        is_ready: called when it answers.
    """
    from tornado.httpserver import HTTPServer
    from tornado.iostream import IOStream

    class Bounded(HTTPServer):
        """Takes no more connections than there may be."""

        def handle_stream(self, stream: IOStream, address: tuple[object, ...]) -> None:
            if len(self._connections) >= limits.max_connections:
                stream.close()
                return
            super().handle_stream(stream, address)

    shift = _Shift(clerk, limits, observer)
    server = Bounded(
        shift.take,
        ssl_options=context,
        idle_connection_timeout=limits.stall_seconds,
        body_timeout=limits.stall_seconds,
        max_header_size=_MAX_HEADER_BYTES,
        max_body_size=_MAX_BODY_BYTES,
        chunk_size=PIECE_BYTES,
    )
    asyncio.get_running_loop().set_exception_handler(
        lambda _, told: observer.log(f"{told.get('message')}: {told.get('exception')}")
    )
    with signals.told_to(shift.hear), _silence_library():
        server.add_sockets(sockets)
        is_ready()
        return await shift.work(server, upkeep)


@contextmanager
def _silence_library() -> Iterator[None]:
    """Keep Tornado from printing: scanners, broken connections and plain HTTP are daily bread."""
    from tornado.log import access_log, app_log, gen_log

    loggers = (access_log, app_log, gen_log)
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was
