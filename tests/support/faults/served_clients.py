"""Clients of what is served, and what they were given.

Each takes the index, the product files that it names, and some of the files that those name, as
late as the grace allows.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.support.downstream import Downstream
from tests.support.faults.served_record import INDEX, digest, read_signed

KINDS = ("plain", "gz", "signed", "rsync", "bucket")
"""What clients are."""
_PATIENCE_SECONDS = 60.0
_NICENESS = 10
"""Clients have machines of their own; here they leave the publisher the CPU that it would have."""
_FILES = 4
"""How many files a client takes of what one catalogue names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A file of the catalogue."""

    kind: str
    """The client's."""
    path: str
    """Which one; compressed ones: that of the copy which was sent."""
    digest: str
    """SHA-256 of the file, as it was published."""
    asked: float
    """When, by the monotonic clock, it was asked for."""
    begun: float
    """When the head of the answer had come: by then the server had chosen a file."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A product that an index named, and the product file which came after it did not have."""

    kind: str
    product: str
    begun: float
    """When the head of the product file had come."""


@dataclass
class Seen:
    """What clients of one kind were given."""

    answers: list[Answer] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What shows at once."""
    files: int = 0
    """How many files of images came whole."""
    late: int = 0
    """How many were gone, and the grace was over."""
    visits: int = 0
    """How many catalogues were taken to the end."""
    retries: int = 0
    """How often a run of the script stopped, as it may: upstream published meanwhile."""

    def add(self, other: Seen) -> None:
        """Add what another client was given."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class WrongAnswerError(Exception):
    """An answer that is wrong by itself."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: float
    begun: float


@dataclass(frozen=True)
class Places:
    """Where clients ask, and what they trust."""

    urls: Mapping[str, str]
    """Kind of client → URL."""
    certificate: Path
    keyring: Path
    work: Path
    """An empty directory for what they fetch."""
    grace_seconds: float


class _Visitor:
    """A client of one kind."""

    def __init__(self, kind: str, places: Places, number: int, is_over: Event) -> None:
        self.seen = Seen()
        self._kind = kind
        self._places = places
        self._chance = random.Random(f"{kind} {number}")
        self._is_over = is_over

    def live(self) -> None:
        """Come again and again, until all is over."""
        while not self._is_over.is_set():
            try:
                self._visit()
                self.seen.visits += 1
            except (OSError, ValueError, KeyError, TypeError, WrongAnswerError) as error:
                self._complain(f"{type(error).__name__}: {error}")
            self._is_over.wait(self._chance.uniform(0, 1))

    def _visit(self) -> None:
        raise NotImplementedError

    def _complain(self, what: str) -> None:
        self.seen.wrong.append(f"{self._kind}: {what}")

    def _note_lost(self, named: set[str], had: set[str], begun: float) -> None:
        self.seen.lost += [Lost(self._kind, key, begun) for key in named - had]


class HttpClient(_Visitor):
    """Fetches by HTTPS, over a connection that is kept."""

    def __init__(self, kind: str, places: Places, number: int, is_over: Event) -> None:
        super().__init__(kind, places, number, is_over)
        self._connection = http.client.HTTPSConnection(
            urlsplit(places.urls[kind]).netloc,
            timeout=_PATIENCE_SECONDS,
            context=ssl.create_default_context(cafile=str(places.certificate)),
        )

    def _ask(self, method: str, path: str) -> _Reply:
        is_old = self._connection.sock is not None
        try:
            return self._ask_once(method, path)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if is_old and isinstance(error, ConnectionError | http.client.RemoteDisconnected):
                return self._ask_once(method, path)  # a server may close one that is kept
            raise WrongAnswerError(f"{path}: {type(error).__name__}: {error}") from error

    def _ask_once(self, method: str, path: str) -> _Reply:
        headers = {"Accept-Encoding": "gzip" if self._kind == "gz" else "identity"}
        asked = time.monotonic()
        self._connection.request(method, f"/{quote(path)}", headers=headers)
        response = self._connection.getresponse()
        begun = time.monotonic()
        body = response.read()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return _Reply(response.status, fields, body, asked, begun)

    def _visit(self) -> None:
        index, _ = self._take(INDEX)
        for entry in index["index"].values():
            document, reply = self._take(entry["path"])
            products = document["products"]
            self._note_lost({*entry["products"]}, {*products}, reply.begun)
            self._take_files(products, reply)
        if self._kind == "plain" and self._chance.random() < 0.3:
            self._take_other(self._chance.choice(["index.html", "feed.atom", "streams/trace.json"]))

    def _take(self, path: str) -> tuple[Any, _Reply]:
        """Return a catalogue file."""
        if self._kind == "signed":
            path = f"{path.removesuffix('.json').removesuffix('.sjson')}.sjson"
        reply = self._get_current(path)
        content = reply.body
        if self._kind == "gz":
            if reply.headers.get("content-encoding") != "gzip":
                raise WrongAnswerError(f"{path}: not compressed")
            try:
                content = gzip.decompress(content)
            except (EOFError, zlib.error) as error:
                raise WrongAnswerError(f"{path}: compressed, and not whole ({error})") from error
        published = path if self._kind != "gz" else f"{path}.gz"
        one = Answer(self._kind, published, digest(reply.body), reply.asked, reply.begun)
        self.seen.answers.append(one)
        if self._kind == "signed":
            content = read_signed(self._places.keyring, content)
        return json.loads(content), reply

    def _get_current(self, path: str) -> _Reply:
        """Return what is there at any time, and must not be kept for ever."""
        reply = self._ask("GET", path)
        if reply.status != 200:
            raise WrongAnswerError(f"{path}: status {reply.status}")
        if "immutable" in reply.headers.get("cache-control", ""):
            raise WrongAnswerError(f"{path}: may be kept for ever")
        return reply

    def _take_other(self, path: str) -> None:
        reply = self._get_current(path)
        one = Answer(self._kind, path, digest(reply.body), reply.asked, reply.begun)
        self.seen.answers.append(one)

    def _take_files(self, products: Mapping[str, Any], named: _Reply) -> None:
        """Take some files, the last of them when the grace is nearly over, or just was."""
        most = 1.2 * self._places.grace_seconds * self._chance.random() ** 2
        for number in range(_FILES):
            self._is_over.wait(most / _FILES)
            product = self._chance.choice([*products.values()])
            names = sorted(product["versions"])
            # The oldest goes next.
            version = product["versions"][names[0] if number % 2 else self._chance.choice(names)]
            self._take_file(self._chance.choice([*version["items"].values()]), named)

    def _take_file(self, item: dict[str, Any], named: _Reply) -> None:
        path, method = item["path"], self._chance.choice(["GET", "GET", "HEAD"])
        reply = self._ask(method, path)
        late_by = reply.begun - named.asked - self._places.grace_seconds
        if reply.status != 200:
            if reply.status == 404 and late_by > 0:
                self.seen.late += 1
            else:
                self._complain(f"{path}: {reply.status}, {-late_by:.2f} s before the grace ends")
            return
        if int(reply.headers["content-length"]) != item["size"]:
            self._complain(f"{path}: another size")
        elif method == "GET" and hashlib.sha256(reply.body).hexdigest() != item["sha256"]:
            self._complain(f"{path}: another digest")
        else:
            self.seen.files += 1


def _list_items(products: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        item
        for product in products.values()
        for one in product["versions"].values()
        for item in one["items"].values()
    ]


class RsyncClient(_Visitor):
    """Mirrors the mirror by the script of the documentation, and looks at what it has meanwhile."""

    def __init__(self, kind: str, places: Places, number: int, is_over: Event) -> None:
        super().__init__(kind, places, number, is_over)
        work = places.work / f"{kind}{number}"
        work.mkdir(parents=True)
        self._downstream = Downstream(work, places.urls[kind])
        self._digests: dict[tuple[str, int, int], str] = {}

    def _visit(self) -> None:
        self._age()
        begun = time.monotonic()
        done: list[Any] = []
        run = threading.Thread(target=lambda: done.append(self._downstream.fetch()))
        run.start()
        while run.is_alive():
            run.join(0.5)
            self._look()
        code, told = done[0].returncode, done[0].stderr
        if code == 0:
            return
        is_late = time.monotonic() - begun > self._places.grace_seconds
        if "is of another generation" in told or is_late:
            self.seen.retries += 1
        else:
            self._complain(f"the script ended with {code}: {told[-600:]}")

    def _age(self) -> None:
        """Let two hours have gone by since the catalogue changed, if the grace has."""
        published = self._downstream.root / ".published"
        if (
            published.exists()
            and time.time() - published.stat().st_mtime > self._places.grace_seconds
        ):
            long_ago = time.time() - 7300
            os.utime(published, (long_ago, long_ago))

    def _look(self) -> None:
        """Read what is here as a client does; all that it names must be here, whole."""
        root = self._downstream.root
        try:
            index = (root / INDEX).read_bytes()
        except FileNotFoundError:
            return  # the first run has not ended yet
        self._note(INDEX, index)
        for entry in json.loads(index)["index"].values():
            content = (root / entry["path"]).read_bytes()
            begun = self._note(entry["path"], content)
            document = json.loads(content)
            self._note_lost({*entry["products"]}, {*document["products"]}, begun)
            for item in _list_items(document["products"]):
                if self._measure(root / item["path"]) != item["sha256"]:
                    self._complain(f"{item['path']}: missing, or not whole")
                else:
                    self.seen.files += 1

    def _note(self, path: str, content: bytes) -> float:
        """Note a file of the catalogue, of which upstream may have a newer one; return when."""
        begun = time.monotonic()
        one = Answer(self._kind, path, digest(content), float("-inf"), begun)
        self.seen.answers.append(one)
        return begun

    def _measure(self, path: Path) -> str:
        try:
            status = path.stat()
            key = (str(path), status.st_ino, status.st_mtime_ns)
            if key not in self._digests:
                self._digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return ""
        return self._digests[key]


def _be_clients(kind: str, count: int, places: Places, is_over: Event, results: Connection) -> None:
    os.nice(_NICENESS)
    make = RsyncClient if kind == "rsync" else HttpClient
    visitors = [make(kind, places, number, is_over) for number in range(count)]
    threads = [threading.Thread(target=one.live) for one in visitors]
    for thread in threads:
        thread.start()
    seen = Seen()
    for thread, one in zip(threads, visitors, strict=True):
        thread.join()
        seen.add(one.seen)
    results.send(seen)


@contextmanager
def clients(count: int, places: Places) -> Iterator[dict[str, Seen]]:
    """Let ``count`` clients of each kind loose while the context lasts.

    What they were given is in the dictionary after it, by their kind.
    """
    context = multiprocessing.get_context("spawn")
    is_over = context.Event()
    results: dict[str, Seen] = {}
    running = []
    for kind in KINDS:
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_be_clients, args=(kind, count, places, is_over, writer))
        process.start()
        writer.close()
        running.append((kind, process, reader))
    try:
        yield results
    finally:
        is_over.set()
        for kind, process, reader in running:
            try:
                results[kind] = reader.recv()
            except EOFError:
                results[kind] = Seen(wrong=[f"{kind}: the clients died"])
            process.join()
