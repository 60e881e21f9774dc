"""Puts files of images into a store, several at once, and hashes each on the way.

An object whose bytes are not those that the catalogue describes never appears: small ones are
hashed before they are sent, and of large ones the last part is not sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.formats.object_stores import PushedObject
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.stream import StreamDigest
from fastindex.mirror.mirror import Mirror
from fastindex.operations.push.planning import choose_headers
from fastindex.remote.stores import (
    DIGEST_HEADER,
    PART_BYTES,
    ConflictError,
    Guards,
    Store,
    Stored,
    StoreError,
    choose_part_bytes,
)
from fastindex.system import directories, signals
from fastindex.system.files import name_path_in_errors

_MAX_STORE_FAILURES = 8
"""After so many objects that the store did not take, no others are tried."""
_MAX_LARGE_AT_ONCE = 4
_POLL_SECONDS = 0.2
_REPUBLISH = "run fastindex ROOT to publish what is there, then push again"


class _DiffersError(Exception):
    """A file is not what the catalogue describes.

    Args:
        code: what kind of thing is wrong.
        problem: what is wrong.
    """

    def __init__(self, code: Code, problem: str) -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem


class _StoppedError(Exception):
    """The run ends."""


class Job(Struct, frozen=True):
    """A file to put into the store."""

    path: str
    """Relative to ROOT, and below the prefix."""
    wanted: PushedObject
    """What the catalogue says of it."""
    seen: Stored | None
    """What is there with other bytes; None: nothing."""


class Outcome(Struct, frozen=True):
    """What became of the jobs."""

    done: dict[str, Stored]
    """Path → the object that is there now."""
    findings: tuple[Finding, ...]
    """A finding for each that is not."""
    untried: int
    """How many were not tried after the store failed too often."""


class Uploader:
    """Puts files into a store.

    Args:
        mirror: where the files are.
        store: where they go.
        guards: the conditions that the store keeps to.
        observer: told of the progress, in the thread that calls ``run``.
    """

    def __init__(self, mirror: Mirror, store: Store, guards: Guards, observer: Observer) -> None:
        self._mirror = mirror
        self._store = store
        self._guards = guards
        self._observer = observer
        self._stop = Event()
        self._bytes: dict[str, int] = {}
        self._failures = 0
        self._done: dict[str, Stored] = {}
        self._findings: list[Finding] = []
        self._untried = 0

    def run(self, jobs: Iterable[Job]) -> Outcome:
        """Put all files into the store, those that take parts first, the largest of them first.

        A file that fails is a finding, and the others go on.
        """
        ordered = sorted(jobs, key=lambda job: (-job.wanted.size, job.path))
        large = [job for job in ordered if job.wanted.size > PART_BYTES]
        small = ordered[len(large) :]
        connections = self._store.options.connections
        at_once = min(connections, _MAX_LARGE_AT_ONCE, len(large) or 1)
        self._observer.hashing_started(sum(job.wanted.size for job in ordered))
        try:
            self._run(large, at_once, lambda job: self._put_large(job, connections // at_once))
            self._run(small, connections, self._put_small)
        finally:
            self._observer.hashing_finished()
        return Outcome(self._done, tuple(self._findings), self._untried)

    def _run(self, jobs: list[Job], workers: int, put: Callable[[Job], Stored]) -> None:
        if not jobs:
            return
        executor = ThreadPoolExecutor(workers, thread_name_prefix="push")
        waiting = iter(jobs)
        running: dict[Future[Stored], Job] = {}
        try:
            while True:
                while len(running) < workers and (job := next(waiting, None)) is not None:
                    if self._failures >= _MAX_STORE_FAILURES:
                        self._untried += 1
                    else:
                        running[executor.submit(put, job)] = job
                if not running:
                    break
                ended, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
                signals.check()
                self._observer.bytes_hashed(sum(self._bytes.values()))
                for future in ended:
                    self._take(running.pop(future), future)
        finally:
            # A thread that waits for the store does not keep an interrupted run from ending.
            self._stop.set() if running else None
            executor.shutdown(wait=not running, cancel_futures=True)

    def _take(self, job: Job, future: Future[Stored]) -> None:
        try:
            self._done[job.path] = future.result()
        except _DiffersError as error:
            self._findings.append(Finding(error.code, job.path, error.problem, _REPUBLISH))
        except FileNotFoundError:
            problem = "is published, but is not there"
            self._findings.append(Finding(Code.MISSING_FILE, job.path, problem, _REPUBLISH))
        except StoreError as error:
            self._failures += 1
            self._findings.append(Finding(Code.STORE_FAILED, job.path, error.problem, error.remedy))
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            remedy = "see to that, then push again"
            self._findings.append(Finding(Code.UNREADABLE, job.path, problem, remedy))

    def _put_small(self, job: Job) -> Stored:
        data = b"".join(self._open(job, PART_BYTES))
        headers = make_headers(job.path, job.wanted)
        try:
            return self._store.put(job.path, data, headers, self._guards, job.seen)
        except ConflictError:
            return require_same(self._store, job.path, job.wanted)

    def _put_large(self, job: Job, side_by_side: int) -> Stored:
        part_bytes = choose_part_bytes(job.wanted.size)
        self._store.put_in_parts(
            job.path,
            self._open(job, part_bytes),
            make_headers(job.path, job.wanted),
            part_bytes=part_bytes,
            side_by_side=max(1, side_by_side),
        )
        return require_same(self._store, job.path, job.wanted)

    def _open(self, job: Job, piece_bytes: int) -> Iterator[bytes]:
        """Return what ``_read`` yields; whether the file can be opened is known then.

        Raises:
            OSError: it cannot be.
        """
        return self._read(job, piece_bytes, self._mirror.open_file(job.path))

    def _read(self, job: Job, piece_bytes: int, descriptor: int) -> Iterator[bytes]:
        """Yield the bytes of a file; the last of them only if all are as the catalogue says.

        Raises:
            _DiffersError: they are not.
            OSError: the file cannot be read.
        """
        digest = StreamDigest(HashingOptions(blake3=False))
        held = b""
        try:
            with name_path_in_errors(self._mirror.path(job.path)):
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(None, "not a regular file")
                self._require_size(job, status.st_size)
                while piece := _read_piece(descriptor, piece_bytes):
                    if self._stop.is_set():
                        raise _StoppedError
                    digest.update(piece)
                    self._require_at_most(job, digest.size_bytes)
                    self._bytes[job.path] = digest.size_bytes
                    if held:
                        yield held
                    held = piece
        finally:
            directories.close(descriptor)
        self._require_size(job, digest.size_bytes)
        if digest.sha256 != job.wanted.sha256:
            raise _DiffersError(
                Code.CHECKSUM_MISMATCH,
                f"its SHA-256 is {digest.sha256}, and the catalogue says {job.wanted.sha256}",
            )
        if held:
            yield held

    def _require_at_most(self, job: Job, size_bytes: int) -> None:
        if size_bytes > job.wanted.size:
            self._require_size(job, size_bytes)

    def _require_size(self, job: Job, size_bytes: int) -> None:
        if size_bytes != job.wanted.size:
            is_short = size_bytes < job.wanted.size
            raise _DiffersError(
                Code.TRUNCATED if is_short else Code.CHANGED,
                f"has {size_bytes:,} bytes, and the catalogue says {job.wanted.size:,}",
            )


def _read_piece(descriptor: int, piece_bytes: int) -> bytes:
    """Return the next ``piece_bytes`` of a file, fewer only at its end."""
    piece = os.read(descriptor, piece_bytes)
    if not piece or len(piece) == piece_bytes:
        return piece
    pieces = [piece]
    rest = piece_bytes - len(piece)
    while rest and (piece := os.read(descriptor, rest)):
        pieces.append(piece)
        rest -= len(piece)
    return b"".join(pieces)


def make_headers(path: str, one: PushedObject) -> dict[str, str]:
    """Return the attributes and the metadata of an object."""
    return {**choose_headers(path, one.kind), DIGEST_HEADER: one.sha256}


def require_same(store: Store, path: str, wanted: PushedObject) -> Stored:
    """Return an object that is there, if it is what is wanted.

    A request that was repeated, as its answer was lost, may have met its own object.

    Raises:
        ConflictError: it is another.
        StoreError: it cannot be told, or it is not there.
    """
    stored = store.describe(path)
    if stored is None:
        raise StoreError(f"{path}: is not in the bucket after it was put there", "push again")
    is_labelled = store.is_directory or stored.sha256 == wanted.sha256
    if stored.size_bytes != wanted.size or not is_labelled:
        raise ConflictError(
            f"{path}: somebody else has put other bytes there", "see whether somebody else pushes"
        )
    return stored


def describe_each(
    store: Store, paths: Iterable[str], observer: Observer
) -> Mapping[str, Stored | None]:
    """Return what each object is, asked side by side.

    Raises:
        StoreError: it cannot be told.
    """
    names = list(paths)
    found: dict[str, Stored | None] = {}
    if not names:
        return found
    observer.counting_started("asking for", "object", len(names))
    executor = ThreadPoolExecutor(store.options.connections, thread_name_prefix="push")
    try:
        futures = {executor.submit(store.describe, path): path for path in names}
        pending = set(futures)
        while pending:
            ended, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            signals.check()
            for future in ended:
                found[futures[future]] = future.result()
            observer.counted(len(found))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        observer.counting_finished()
    return found
