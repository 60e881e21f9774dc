"""Clients of a catalogue under load, each a process of its own, and what they were given.

They ask as ``incus`` and ``lxc`` do (whole files), as proxies and mirrors do (only if it has
changed), as downloaders do that go on where they stopped, slowly, and compressed.
"""

from __future__ import annotations

import hashlib
import http.client
import multiprocessing
import os
import random
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

INDEX, IMAGES = "streams/v1/index.json", "streams/v1/images.json"
KINDS = (
    *("whole", "if other ETag", "if modified since", "resumed", "slow", "gzip"),
    *("if other ETag", "if modified since", "whole", "whole"),
)
"""What clients are, in turn."""
_PATIENCE_SECONDS = 120.0
_CLIENT_NICENESS = 10
"""Clients have machines of their own; here they leave the publisher the CPU that it would have."""
_BUFFER_BYTES = 1 << 20
_SLOW_BYTES = 50_000
"""The most that a slow client takes at once, 100 times a second."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request was answered with."""

    kind: str
    """The client's."""
    path: str
    """What was asked for."""
    status: int
    """HTTP status; 0: none came, or not all that was promised."""
    digest: str
    """SHA-256 of the file: the one that came, or the copy that is said to be good."""
    asked: float
    """When, by the monotonic clock, the request was sent."""
    begun: float
    """When the answer's head had come: by then the server had chosen a file."""
    size_bytes: int = 0
    """What was transferred."""
    problem: str = ""
    """What was wrong with it, if that shows at once."""


class WrongAnswerError(Exception):
    """An answer that is wrong by itself."""


@dataclass(frozen=True, slots=True)
class _Copy:
    digest: str
    etag: str
    modified: str


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    size_bytes: int
    etag: str
    modified: str
    encoding: str
    asked: float
    begun: float


class Client:
    """One client, with a connection that is kept and the copies that it holds.

    Args:
        kind: one of ``KINDS``.
        url: of the mirror.
        certificate: what the mirror shows.
        seed: of its chances.
        is_over: set when it is to end.
    """

    def __init__(self, kind: str, url: str, certificate: Path, seed: int, is_over: Event) -> None:
        self.answers: list[Answer] = []
        self._kind = kind
        self._chance = random.Random(seed)
        self._is_over = is_over
        self._copies: dict[str, _Copy] = {}
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._connection = http.client.HTTPSConnection(
            urlsplit(url).netloc,
            timeout=_PATIENCE_SECONDS,
            context=ssl.create_default_context(cafile=str(certificate)),
        )
        ways: dict[str, Callable[[str], None]] = {
            "if other ETag": self._take_if_changed,
            "if modified since": self._take_if_changed,
            "resumed": self._take_in_pieces,
            "gzip": self._take_compressed,
        }
        self._take = ways.get(kind, self._take_whole)

    def live(self) -> None:
        """Ask again and again, until all is over."""
        while not self._is_over.is_set():
            for path in (INDEX, IMAGES):
                self._take_noting_trouble(path)
            self._is_over.wait(self._chance.uniform(0, 0.1))
        self._connection.close()

    def _take_noting_trouble(self, path: str) -> None:
        asked = time.monotonic()
        try:
            self._take(path)
        except (OSError, http.client.HTTPException, WrongAnswerError, zlib.error) as error:
            self._connection.close()
            now = time.monotonic()
            self._note(path, 0, "", asked, now, problem=f"{type(error).__name__}: {error}")

    def _note(
        self,
        path: str,
        status: int,
        digest: str,
        asked: float,
        begun: float,
        size_bytes: int = 0,
        problem: str = "",
    ) -> None:
        answer = Answer(self._kind, path, status, digest, asked, begun, size_bytes, problem)
        self.answers.append(answer)

    def _connect(self) -> None:
        self._connection.connect()
        if self._kind == "slow":
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    @contextmanager
    def _asking(self, method: str, path: str, **headers: str) -> Iterator[_Answering]:
        """Send a request; what is not read of its answer costs the connection."""
        if self._connection.sock is None:
            self._connect()
        asked = time.monotonic()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, f"/{path}", headers=named)
        with self._connection.getresponse() as response:
            head = _Head(
                response.status,
                int(response.headers.get("Content-Length", "-1")),
                response.headers.get("ETag", ""),
                response.headers.get("Last-Modified", ""),
                response.headers.get("Content-Encoding", ""),
                asked,
                time.monotonic(),
            )
            yield _Answering(head, response, self._buffer, self._is_over, self._kind == "slow")
            if not response.isclosed():
                self._connection.close()

    def _take_whole(self, path: str) -> None:
        with self._asking("GET", path) as answer:
            self._finish(path, answer)

    def _finish(self, path: str, answer: _Answering) -> None:
        """Read a whole file to its end, and keep note of it."""
        hasher = hashlib.sha256()
        size_bytes = answer.read_into(hasher.update)
        head = answer.head
        if answer.is_abandoned:
            return
        digest = hasher.hexdigest()
        self._copies[path] = _Copy(digest, head.etag, head.modified)
        self._note(path, head.status, digest, head.asked, head.begun, size_bytes)

    def _take_if_changed(self, path: str) -> None:
        """Ask for a file only if it is another than the copy; often only whether it is."""
        copy = self._copies.get(path)
        if copy is None:
            self._take_whole(path)
            return
        condition = {"If_None_Match": copy.etag}
        if self._kind == "if modified since":
            condition = {"If_Modified_Since": copy.modified}
        method = "HEAD" if path == IMAGES and self._chance.random() < 0.9 else "GET"
        with self._asking(method, path, **condition) as answer:
            head = answer.head
            if head.status == 304:
                self._note(path, 304, copy.digest, head.asked, head.begun)
            elif method == "GET":
                self._finish(path, answer)

    def _take_in_pieces(self, path: str) -> None:
        """Take a file in three pieces, with time between them, as long as it is the same."""
        hasher = hashlib.sha256()
        with self._asking("GET", path, Range="bytes=0-99999") as answer:
            whole = answer.whole_bytes()
            first = answer.head
            offset = answer.read_into(hasher.update)
            heads = [first]
        if first.status == 200:
            raise WrongAnswerError("a piece was asked for, the whole came")
        middle = (offset + whole) // 2
        for end in (middle, whole):
            if end <= offset:
                continue
            self._is_over.wait(self._chance.uniform(0, 0.5))
            piece = {"Range": f"bytes={offset}-{end - 1}", "If_Range": first.etag}
            with self._asking("GET", path, **piece) as answer:
                if answer.head.status == 200:  # another generation
                    self._finish(path, answer)
                    return
                heads.append(answer.head)
                offset += answer.read_into(hasher.update)
        for head in heads:
            self._note(
                path, head.status, hasher.hexdigest(), head.asked, head.begun, head.size_bytes
            )

    def _take_compressed(self, path: str) -> None:
        if path == IMAGES and self._copies.get(path) and self._chance.random() < 0.8:
            return
        hasher = hashlib.sha256()
        unpacking = zlib.decompressobj(wbits=31)
        with self._asking("GET", path, Accept_Encoding="gzip") as answer:
            head = answer.head
            if head.encoding != "gzip":
                self._finish(path, answer)
                return
            size_bytes = answer.read_into(lambda piece: hasher.update(unpacking.decompress(piece)))
        if answer.is_abandoned:
            return
        if not unpacking.eof:
            raise WrongAnswerError("compressed, and cut short")
        self._copies[path] = _Copy(hasher.hexdigest(), head.etag, head.modified)
        self._note(path, head.status, hasher.hexdigest(), head.asked, head.begun, size_bytes)


class _Answering:
    """An answer that is coming."""

    def __init__(
        self,
        head: _Head,
        response: http.client.HTTPResponse,
        buffer: memoryview,
        is_over: Event,
        is_slow: bool,
    ) -> None:
        self.head = head
        self.is_abandoned = False
        self._response = response
        self._buffer = buffer[:_SLOW_BYTES] if is_slow else buffer
        self._is_over = is_over
        self._is_slow = is_slow

    def whole_bytes(self) -> int:
        """Return the length of the file of which a piece comes."""
        of = self._response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(of) if of else self.head.size_bytes

    def read_into(self, take: Callable[[memoryview], object]) -> int:
        """Give the body to ``take`` piece by piece; return its length.

        Raises:
            WrongAnswerError: it is an error's body, or shorter than was said.
        """
        if self.head.status not in {200, 206}:
            raise WrongAnswerError(f"status {self.head.status}")
        size_bytes = 0
        while count := self._response.readinto(self._buffer):
            size_bytes += count
            take(self._buffer[:count])
            if self._is_slow:
                self.is_abandoned = self._is_over.wait(0.01)
                if self.is_abandoned:
                    return size_bytes
        if self.head.size_bytes not in {-1, size_bytes}:
            raise WrongAnswerError(f"{size_bytes} of {self.head.size_bytes} bytes")
        return size_bytes


def _be_a_client(
    kind: str, url: str, certificate: Path, seed: int, is_over: Event, results: Connection
) -> None:
    os.nice(_CLIENT_NICENESS)
    client = Client(kind, url, certificate, seed, is_over)
    client.live()
    results.send(client.answers)


@contextmanager
def clients(count: int, url: str, certificate: Path) -> Iterator[list[Answer]]:
    """Let clients loose while the context lasts; what they were given is in the list after it."""
    context = multiprocessing.get_context("fork")
    is_over = context.Event()
    answers: list[Answer] = []
    running = []
    for number in range(count):
        reader, writer = context.Pipe(duplex=False)
        kind = KINDS[number % len(KINDS)]
        process = context.Process(
            target=_be_a_client, args=(kind, url, certificate, number, is_over, writer)
        )
        process.start()
        writer.close()
        running.append((process, reader))
    try:
        yield answers
    finally:
        is_over.set()
        for process, reader in running:
            try:
                answers += reader.recv()
            except EOFError:
                answers.append(Answer("", "", 0, "", 0, 0, problem="a client died"))
            process.join()
