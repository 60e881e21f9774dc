"""Runs in a worker: one file, one read, all its digests. Knows no catalogue.

The only module that reads images whole, and copies them on the way where an import wants
that. Nothing here raises across the pool: a file that cannot be read, or is not the one
that was scanned, is a ``Failed``.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from fastindex.formats.simplestreams import VIRTUAL_MACHINE
from fastindex.hashing.engine import usable_engine
from fastindex.hashing.reader import ChangedError, failure_of, read_pieces
from fastindex.hashing.tasks import (
    Batch,
    Digested,
    Failed,
    FileDigest,
    FileRef,
    Outcome,
    RootTask,
)
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from blake3 import blake3

    from fastindex.hashing.engine import Sha256

BUFFER_BYTES = 512 * 1024
"""Tuned with benchmarks/hash_throughput.py: small enough to stay in a core's second-level
cache while three hashes walk it, large enough that system calls do not show. Files that
are read at once share it."""

THREADED_BUFFER_BYTES = 8 << 20
"""For BLAKE3 with several threads, which share each piece between them."""

Advance = Callable[[int], None]
"""Told the number of bytes just read."""
_Metadata = tuple["FileDigest | Failed", "Sha256 | None"]
"""What came out of a metadata file, and the state that has taken it in, if it did."""


def digest_batch(batch: Batch, advance: Advance) -> tuple[Outcome, ...]:
    """Digest the tasks of ``batch``; metadata that they share is read once.

    Args:
        batch: what to read.
        advance: called with each number of bytes read.

    Returns:
        An outcome for each task, in their order. Never raises on account of a file.
    """
    return _Reader(advance, batch).outcomes()


class _File:
    """A file that is being read, and the states that its bytes go to."""

    def __init__(
        self, ref: FileRef, buffer: memoryview, states: list[Sha256], quick: blake3 | None
    ) -> None:
        self.buffer = buffer
        self.states = states
        self.quick = quick
        self.bytes_read = 0
        self.is_done = False
        self._ref = ref
        self._failed: Failed | None = None
        self._began_ns = time.time_ns()
        self._pieces = read_pieces(ref, buffer)

    def next(self) -> memoryview | None:
        """Return the next piece, or None at the end, good or bad."""
        try:
            piece = next(self._pieces, None)
        except (ChangedError, OSError) as error:
            self._failed = failure_of(error)
            piece = None
        if piece is None:
            self.is_done = True
        else:
            self.bytes_read += len(piece)
        return piece

    def close(self) -> None:
        """Leave the file, wherever the reading stands."""
        self._pieces.close()

    def digest(self) -> FileDigest | Failed:
        """Return what came out; the first state is the file's own."""
        return self._failed or FileDigest(
            self.states[0].hexdigest() if self.states else "",
            self.quick.hexdigest() if self.quick is not None else "",
            self._ref.stamp.key_if_trusted(self._began_ns),
        )


class _Root:
    """A task whose metadata is read and whose root is being read.

    Args:
        task: what to do.
        metadata: its metadata files, each with its digest and its state.
        fingerprints: digest of a metadata file → the state of it and the root together.
        file: the root.
        extra: bytes and files that were read for its metadata.
    """

    def __init__(
        self,
        task: RootTask,
        metadata: dict[Stamp, _Metadata],
        fingerprints: dict[bytes, Sha256],
        file: _File,
        extra: tuple[int, int],
    ) -> None:
        self.file = file
        self._task = task
        self._metadata = metadata
        self._fingerprints = fingerprints
        self._extra = extra

    def outcome(self) -> Outcome:
        """Return what came out, when the root has been read."""
        digest = self.file.digest()
        if isinstance(digest, Failed):
            return digest
        extra_bytes, extra_files = self._extra
        return Digested(
            digest,
            {stamp: digest for stamp, (digest, _) in self._metadata.items()},
            {
                stamp: self._fingerprints[state.digest()].hexdigest()
                for stamp, (_, state) in self._metadata.items()
                if state is not None
            },
            self.file.bytes_read + extra_bytes,
            1 + extra_files,
            VIRTUAL_MACHINE
            if self._task.is_unified and _is_virtual_machine(self._task.root)
            else "",
        )


class _Reader:
    """The files of a batch that are read at once, and the metadata read so far."""

    def __init__(self, advance: Advance, batch: Batch) -> None:
        self._advance = advance
        self._batch = batch
        self._engine = usable_engine(batch.engine)
        self._metadata: dict[Stamp, _Metadata] = {}
        files_at_once = min(batch.files_at_once, len(batch.tasks))
        # Page-aligned: OpenSSL's SHA-256 is a fifth slower on a buffer that is not on a
        # 32-byte boundary, and a bytearray is where malloc happens to put it.
        size_bytes = BUFFER_BYTES if batch.threads == 1 else THREADED_BUFFER_BYTES
        whole = memoryview(mmap.mmap(-1, size_bytes))
        part_bytes = max(1, size_bytes // files_at_once)
        self._buffers = [whole[part_bytes * n :][:part_bytes] for n in range(files_at_once)]

    def outcomes(self) -> tuple[Outcome, ...]:
        """Read all tasks: in their order, as many at once as there are buffers."""
        outcomes: dict[int, Outcome] = {}
        waiting = deque(enumerate(self._batch.tasks))
        running: dict[int, _Root] = {}
        try:
            while waiting or running:
                while waiting and self._buffers:
                    number, task = waiting.popleft()
                    begun = self._begin(task)
                    if isinstance(begun, Failed):
                        outcomes[number] = begun
                    else:
                        running[number] = begun
                self._read_on(*(root.file for root in running.values()))
                for number in [n for n, root in running.items() if root.file.is_done]:
                    root = running.pop(number)
                    outcomes[number] = root.outcome()
                    self._buffers.append(root.file.buffer)
        finally:
            for root in running.values():
                root.file.close()
        return tuple(outcomes[number] for number in range(len(outcomes)))

    def _begin(self, task: RootTask) -> _Root | Failed:
        """Read what is not yet known of the metadata of ``task``; open its root."""
        new = [self._read_metadata(ref) for ref in task.metadata if ref.stamp not in self._metadata]
        metadata = {ref.stamp: self._metadata[ref.stamp] for ref in task.metadata}
        failures = [digest for digest, _ in metadata.values() if isinstance(digest, Failed)]
        if failures and len(failures) == len(metadata):
            return failures[0]
        # Metadata of equal bytes shares one fingerprint.
        fingerprints = {state.digest(): state.copy() for _, state in metadata.values() if state}
        own = [self._engine.sha256(b"")] if self._batch.wants_sha256 else []
        file = self._open(task.root, [*own, *fingerprints.values()])
        return _Root(task, metadata, fingerprints, file, (sum(new), len(new)))

    def _read_metadata(self, ref: FileRef) -> int:
        """Read a metadata file; return how many bytes that took."""
        state = self._engine.sha256(b"")
        file = self._open(ref, [state])
        with closing(file):
            while not file.is_done:
                self._read_on(file)
        digest = file.digest()
        self._metadata[ref.stamp] = (digest, None if isinstance(digest, Failed) else state)
        self._buffers.append(file.buffer)
        return file.bytes_read

    def _open(self, ref: FileRef, states: list[Sha256]) -> _File:
        quick = new_blake3(self._batch.threads) if self._batch.wants_blake3 else None
        return _File(ref, self._buffers.pop(), states, quick)

    def _read_on(self, *files: _File) -> None:
        """Take the next piece of each file to its states, all of them together."""
        read = [(file, piece) for file in files if (piece := file.next()) is not None]
        states = [state for file, _ in read for state in file.states]
        if states:
            buffers = [piece for file, piece in read for _ in file.states]
            self._engine.update(states, buffers)
        for file, piece in read:
            if file.quick is not None:
                file.quick.update(piece)
            self._advance(len(piece))


def _is_virtual_machine(unified: FileRef) -> bool:
    from fastindex.formats.tarball import is_virtual_machine  # where there is one

    return is_virtual_machine(unified.path)


def new_blake3(threads: int) -> blake3:
    """Return a state that uses so many threads, if the system starts them, or one."""
    from blake3 import blake3

    try:
        return blake3(max_threads=threads)
    except BaseException as error:
        # Where the system starts no threads, the Rust behind it has said so, and panics.
        if type(error).__name__ != "PanicException":
            raise
        return blake3()
