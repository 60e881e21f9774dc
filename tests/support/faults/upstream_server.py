"""An upstream on 127.0.0.1 that behaves as well or as badly as it is told to, request by request.

It speaks TLS and HTTP/1.1, keeps connections, and answers conditions and ranges as nginx does, by
the same entity tags: size and whole seconds, so that another file may have the same one.
"""

from __future__ import annotations

import os
import select
import socketserver
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from tests.support.clients.mirror_server import Certificate

_STALL_SECONDS = 60
_PIECE = bytes(64 << 10)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one answer; without any of it, nothing is."""

    status: int = 0
    """Answer with this status, and with little more; 0: as is right."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers besides, or instead."""
    content: bytes | None = None
    """Send this instead of the file, as if it were the file."""
    flipped: int | None = None
    """Flip the bits of this byte of the body, counted round and round."""
    cut: int | None = None
    """Close the connection after so many bytes of the body, counted round and round."""
    stall: int | None = None
    """Say nothing more after so many bytes of the body, counted round and round."""
    longer: int = 0
    """Say in ``Content-Length`` that the body is so much longer than it is."""
    is_endless: bool = False
    """Send a body that never ends."""
    is_whole: bool = False
    """Ignore ``Range``."""
    before: Callable[[], object] | None = None
    """Call this before answering, as the file is looked for only then."""

    def __str__(self) -> str:
        """Return what is wrong, in a word or two."""
        default = Fault()
        names = (one.name for one in fields(self))
        wrong = {name: getattr(self, name) for name in names}
        return ", ".join(
            f"{name}={value!r}" for name, value in wrong.items() if value != getattr(default, name)
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    path: str
    """Its path, without the slash it begins with."""
    part: str
    """``Range``."""
    headers: dict[str, str]
    """All its headers, by their names in lower case."""


class UpstreamServer:
    """A server in front of a directory.

    Args:
        root: the directory; another one may take its place at any time.
        port: where it listens, with TLS.
        certificate: what it shows.
    """

    def __init__(self, root: Path, port: int, certificate: Path) -> None:
        self.root = root
        self.certificate = certificate
        self.url = f"https://127.0.0.1:{port}"
        self.requests: list[Asked] = []
        """What it was asked for."""
        self.choose: Callable[[Asked], Fault | None] | None = None
        """Returns what goes wrong with a request for which nothing is planned."""
        self._planned: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def plan(self, path: str, *faults: Fault) -> None:
        """Have the next requests for a path go wrong, each in its way.

        Args:
            path: the end of the path.
            faults: one for each request.
        """
        self._planned[path].extend(faults)

    def always(self, path: str, fault: Fault) -> None:
        """Have all requests for a path go wrong in the same way.

        Args:
            path: the end of the path.
            fault: how.
        """
        self._always[path] = fault

    def behave(self) -> None:
        """Be a good server from now on, with no memory."""
        with self._lock:
            self.requests.clear()
            self._planned.clear()
            self._always.clear()
            self.choose = None

    def paths(self) -> list[str]:
        """Return the paths of all requests, sorted."""
        return sorted(asked.path for asked in self.requests)

    def take(self, asked: Asked) -> Fault:
        """Note a request; return what is to go wrong with it."""
        with self._lock:
            self.requests.append(asked)
            for end, faults in self._planned.items():
                if faults and asked.path.endswith(end):
                    return faults.popleft()
            for end, fault in self._always.items():
                if asked.path.endswith(end):
                    return fault
            return (self.choose(asked) if self.choose is not None else None) or Fault()


@contextmanager
def serve_upstream(root: Path, certificate: Certificate) -> Iterator[UpstreamServer]:
    """Serve ``root`` while the context lasts.

    Args:
        root: the directory.
        certificate: what the server shows.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path, certificate.key)

    class Handler(_Handler):
        upstream: UpstreamServer

        def setup(self) -> None:
            self.request.settimeout(_STALL_SECONDS)
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        allow_reuse_address = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that go away."""

    with Server(("127.0.0.1", 0), Handler) as server:
        Handler.upstream = UpstreamServer(root, server.server_address[1], certificate.path)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Handler.upstream
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: UpstreamServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = unquote(self.path, errors="surrogateescape").lstrip("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.upstream.take(Asked(path, headers.get("range", ""), headers))
        if fault.before is not None:
            fault.before()
        if fault.status:
            self._answer(fault, fault.status, f"This is {fault.status}.\n".encode(), {})
            return
        try:
            file = (self.upstream.root / path).open("rb")
        except OSError:
            if fault.content is None:
                self._answer(fault, 404, b"There is no such file.\n", {})
                return
            self._send(fault, fault.content, '"made-up"', formatdate(0, usegmt=True))
            return
        with file:
            status = os.fstat(file.fileno())
            content = file.read() if fault.content is None else fault.content
        etag = f'"{int(status.st_mtime):x}-{len(content):x}"'
        self._send(fault, content, etag, formatdate(int(status.st_mtime), usegmt=True))

    def _send(self, fault: Fault, content: bytes, etag: str, modified: str) -> None:
        validators = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
        condition = self.headers.get("If-None-Match")
        is_known = etag == condition if condition else False
        if not condition and self.headers.get("If-Modified-Since") == modified:
            is_known = True
        if is_known:
            self._answer(fault, 304, b"", validators)
            return
        part = self._find_part(fault, len(content), etag, modified)
        if part is None:
            self._answer(fault, 200, content, validators)
            return
        start, end = part
        if start >= end:
            headers = {**validators, "Content-Range": f"bytes */{len(content)}"}
            self._answer(fault, 416, b"", headers)
            return
        headers = {**validators, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self._answer(fault, 206, content[start:end], headers)

    def _find_part(
        self, fault: Fault, length: int, etag: str, modified: str
    ) -> tuple[int, int] | None:
        asked, condition = self.headers.get("Range", ""), self.headers.get("If-Range")
        if fault.is_whole or not asked or condition not in (None, etag, modified):
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1 if last else length, length)

    def _answer(self, fault: Fault, status: int, body: bytes, headers: dict[str, str]) -> None:
        if fault.flipped is not None and body:
            place = fault.flipped % len(body)
            body = body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]
        self.send_response(status)
        if status != 304 and not fault.is_endless:
            headers = {"Content-Length": str(len(body) + fault.longer), **headers}
        for name, value in {**headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self._send_body(fault, body)

    def _send_body(self, fault: Fault, body: bytes) -> None:
        self.close_connection = self.close_connection or bool(fault.longer) or fault.is_endless
        for count in (fault.cut, fault.stall):
            if count is not None:
                body = body[: count % (len(body) + 1)]
                self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        while fault.is_endless:
            self.wfile.write(_PIECE)
        if fault.stall is not None:
            # Until the client has had enough, and goes.
            select.select([self.connection], [], [], _STALL_SECONDS)
