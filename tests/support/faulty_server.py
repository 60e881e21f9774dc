"""A web server on 127.0.0.1, with TLS or without, that does wrong what a test tells it to."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from tests.support.clients.mirror_server import Certificate

MODIFIED = "Sat, 28 Nov 2026 18:00:00 GMT"


@dataclass(frozen=True)
class Asked:
    """A request that has come."""

    path: str
    headers: dict[str, str]
    """By lower-case names."""
    client_port: int
    """Tells one connection from another."""
    method: str = "GET"

    @property
    def start(self) -> int:
        """The first byte that was asked for."""
        matched = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(matched[1]) if matched else 0


Fault = Callable[["Handler"], None]
"""Answers a request, wrongly."""


@dataclass
class FaultyServer:
    """What the server serves, and what has been asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    """Path → content."""
    etags: dict[str, str] = field(default_factory=dict)
    """Path → entity tag; the others have one made of their size."""
    faults: defaultdict[str, list[Fault | None]] = field(default_factory=lambda: defaultdict(list))
    """Path → what answers its next requests, one after the other; None: rightly."""
    always: dict[str, Fault] = field(default_factory=dict)
    """Path → what answers all other requests for it."""
    requests: list[Asked] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    """Set at the end: what hangs may go on."""

    def etag(self, path: str) -> str:
        """Return the entity tag of a file."""
        return self.etags.get(path, f'"{len(self.files[path])}"')

    def asked(self, path: str) -> list[Asked]:
        """Return the requests for ``path``, in their order."""
        return [asked for asked in self.requests if asked.path == path]


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    state: FaultyServer

    def do_GET(self) -> None:
        """Answer, rightly or wrongly."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.state.requests.append(Asked(self.path, headers, self.client_address[1], self.command))
        waiting = self.state.faults[self.path]
        fault = waiting.pop(0) if waiting else self.state.always.get(self.path)
        (fault or Handler.serve)(self)

    def do_HEAD(self) -> None:
        """Answer, rightly or wrongly."""
        self.do_GET()

    def serve(self) -> None:
        """Answer rightly."""
        content = self.state.files.get(self.path)
        if content is None:
            self.answer(404, b"no such file")
            return
        etag = self.state.etag(self.path)
        if etag and self.headers.get("If-None-Match") == etag:
            self.answer(304, b"", ("ETag", etag))
            return
        part = self.part(len(content))
        if part is None or self.headers.get("If-Range", etag) not in (etag, MODIFIED):
            self.answer(200, content, ("ETag", etag))
            return
        start, end = part
        if start >= len(content):
            self.answer(416, b"", ("Content-Range", f"bytes */{len(content)}"))
            return
        content_range = f"bytes {start}-{end - 1}/{len(content)}"
        self.answer(206, content[start:end], ("ETag", etag), ("Content-Range", content_range))

    def part(self, size_bytes: int) -> tuple[int, int] | None:
        """Return the start and the end of what is asked for; None: all."""
        matched = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return (int(matched[1]), min(int(matched[2]) + 1, size_bytes)) if matched else None

    def answer(
        self, status: int, body: bytes, *headers: tuple[str, str], length: int | None = -1
    ) -> None:
        """Send an answer; ``length`` is what it says of its length, None nothing."""
        self.send_response(status)
        if status != 304 and length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in {"Last-Modified": MODIFIED, **dict(headers)}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection as if the server had crashed."""
        self.close_connection = True
        with suppress(OSError):
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve_faulty(
    certificate: Certificate | None, host: str = "localhost"
) -> Iterator[FaultyServer]:
    """Serve while the context lasts.

    Args:
        certificate: what the server shows; None: it speaks plain HTTP.
        host: how its URL calls it.
    """
    scheme = "http" if certificate is None else "https"
    state = FaultyServer("")
    handler = cast("type[Handler]", type("Handler", (Handler,), {"state": state}))
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"{scheme}://{host}:{server.server_address[1]}"
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(certificate.path, certificate.key)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext | None = None

    def finish_request(self, request: object, client_address: object) -> None:
        """Shake hands in the thread of the connection."""
        connection = cast("socket.socket", request)
        with suppress(OSError):
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                super().finish_request(connection, cast("tuple[str, int]", client_address))

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients break connections off."""
