"""Runs in a worker: reads each file once and computes all its digests.

The only module that reads complete images. An import can have them copied at the same time. A
file that cannot be read, or is not the one that was scanned, is a ``Failed``, not an
exception.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from blake3 import blake3

from fastindex.errors import is_panic
from fastindex.formats.content import HEAD_BYTES, find_fault
from fastindex.formats.simplestreams import VIRTUAL_MACHINE
from fastindex.hashing.engine import usable_engine
from fastindex.hashing.reader import ChangedError, describe_failure, read_pieces, read_small
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
    from typing_extensions import Buffer

    from fastindex.hashing.engine import Engine, Sha256

BUFFER_BYTES = 512 * 1024
"""Tuned with benchmarks/hash_throughput.py: it stays in the second-level cache of a core while
three hashes read it, and the cost of system calls is negligible."""
MAX_SHARES = 4
"""Up to so many files that are read side by side share it. More get such a part each: smaller ones
cost more time than is lost in the third-level cache."""

STRIDE_BYTES = 64
"""What lies between the parts. Lanes that are a multiple of 4096 bytes apart get into each other's
way in the first-level cache: a tenth of the speed of sixteen lanes."""

SMALL_BYTES = 16 << 10
"""Files up to this size are read at once. Hashing one takes less time than what is saved."""

THREADED_BUFFER_BYTES = 8 << 20
"""For BLAKE3 with several threads, which split each piece among them."""

Advance = Callable[[int], None]
"""Called with the number of bytes just read."""
_Metadata = tuple["FileDigest | Failed", "Sha256 | None"]
"""The digest of a metadata file, and the SHA-256 state after it; None if the file failed."""


def digest_batch(batch: Batch, advance: Advance) -> tuple[Outcome, ...]:
    """Digest the tasks of ``batch``; metadata that they share is read once.

    Args:
        batch: what to read.
        advance: called with the number of bytes just read. What it raises ends the
            work.

    Returns:
        An outcome for each task, in their order. No file makes it raise.
    """
    with closing(Digester(advance)) as digester:
        digester.take(0, batch)
        while True:
            for finished in digester.read_on():
                return finished.outcomes


class _File:
    """A file that is being read, and the states that take in its bytes.

    Args:
        ref: the file.
        states: SHA-256 states; the first, if any, takes in nothing but this file.
        quick: a BLAKE3 state, or None.
    """

    def __init__(self, ref: FileRef, states: list[Sha256], quick: blake3 | None) -> None:
        self.buffer = memoryview(b"")
        self.states = states
        self.quick = quick
        self.bytes_read = 0
        self.is_done = False
        self._ref = ref
        self._failed: Failed | None = None
        self._began_ns = time.time_ns()
        self._pieces = read_pieces(ref, lambda: self.buffer)
        self._head = b""
        self._is_examined = not ref.roles
        self._is_ambiguous = False

    def next(self) -> memoryview | None:
        """Return the next piece; None at the end of the file, or if it failed."""
        try:
            piece = next(self._pieces, None)
        except (ChangedError, OSError) as error:
            self._failed = describe_failure(error)
            piece = None
        if not self._is_examined and self._failed is None:
            piece = self._examine_head(piece)
        if piece is None:
            self.is_done = True
        else:
            self.bytes_read += len(piece)
        return piece

    def _examine_head(self, piece: memoryview | None) -> memoryview | None:
        """Add ``piece`` to the first bytes; return it, or None if they fit no role."""
        self._head += bytes(piece[: HEAD_BYTES - len(self._head)]) if piece is not None else b""
        size_bytes = self._ref.stamp.size_bytes
        if len(self._head) < min(HEAD_BYTES, size_bytes):
            return piece  # a short read, as on network file systems
        self._is_examined = True
        faults = [find_fault(role, self._head, size_bytes) for role in self._ref.roles]
        first = faults[0]
        if first is None or not all(faults):
            self._is_ambiguous = any(faults)
            return piece
        self._failed = Failed(first.code, first.problem, first.remedy, head=self._head)
        self.close()
        return None

    def close(self) -> None:
        """Stop reading the file."""
        self._pieces.close()

    def make_digest(self) -> FileDigest | Failed:
        """Return the digests of the file, or why it failed."""
        return self._failed or FileDigest(
            self.states[0].hexdigest() if self.states else "",
            self.quick.hexdigest() if self.quick is not None else "",
            self._ref.stamp.key_if_trusted(self._began_ns),
            bool(self._ref.roles),
            self._head if self._is_ambiguous else b"",
        )


class _Root:
    """A task whose metadata has been read and whose root is being read.

    Args:
        task: the task.
        metadata: its metadata files, each with its digest and its state.
        fingerprints: digest of a metadata file → the state that takes in the root after it.
        file: the root.
        metadata_read: how many bytes and files were read for its metadata.
    """

    def __init__(
        self,
        task: RootTask,
        metadata: dict[Stamp, _Metadata],
        fingerprints: dict[bytes, Sha256],
        file: _File,
        metadata_read: tuple[int, int],
    ) -> None:
        self.file = file
        self.task = task
        self._metadata = metadata
        self._fingerprints = fingerprints
        self._metadata_read = metadata_read

    def make_outcome(self) -> Outcome:
        """Return the outcome of the task; the root has been read."""
        digest = self.file.make_digest()
        if isinstance(digest, Failed):
            return digest
        metadata_bytes, metadata_files = self._metadata_read
        return Digested(
            digest,
            {stamp: digest for stamp, (digest, _) in self._metadata.items()},
            {
                stamp: self._fingerprints[state.digest()].hexdigest()
                for stamp, (_, state) in self._metadata.items()
                if state is not None
            },
            self.file.bytes_read + metadata_bytes,
            1 + metadata_files,
            VIRTUAL_MACHINE if self.task.is_unified and _is_virtual_machine(self.task.root) else "",
        )


class Finished(NamedTuple):
    """A batch all of whose tasks are done."""

    number: int
    """Of the batch."""
    outcomes: tuple[Outcome, ...]
    """Of its tasks, in their order."""
    bytes_read: int
    """Bytes that were read for it, in all."""

    @property
    def was_read(self) -> bool:
        """Whether all files were read to their ends."""
        return not any(isinstance(outcome, Failed) for outcome in self.outcomes)


class Digester:
    """Reads the files of some batches side by side and computes their digests.

    No file makes it raise. Close it if you leave it early.

    Args:
        advance: called with the number of bytes just read. What it raises ends the
            work.
    """

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._held: dict[int, _Reading] = {}
        self._files: list[_File] = []
        self._has_room = True
        # mmap aligns to pages. OpenSSL's SHA-256 is a fifth slower on a buffer that is not on a
        # 32-byte boundary, and a bytearray may start anywhere.
        self._memory = self._shared = memoryview(mmap.mmap(-1, BUFFER_BYTES))

    @property
    def is_busy(self) -> bool:
        """Whether it has a batch."""
        return bool(self._held)

    def take(self, number: int, batch: Batch) -> None:
        """Read ``batch``, too.

        Args:
            number: of the batch, to tell it from others.
            batch: what to read. If it is not the only one, all have the same engine, and none
                has threads.
        """
        needed_bytes = BUFFER_BYTES if batch.threads == 1 else THREADED_BUFFER_BYTES
        if len(self._memory) != needed_bytes:
            self._memory = self._shared = memoryview(mmap.mmap(-1, needed_bytes))
        self._held[number] = _Reading(batch, self._memory, self._advance)
        self._has_room = True

    def read_on(self) -> list[Finished]:
        """Read the next piece of each file; return the batches that are done now."""
        if self._has_room:
            self._open_tasks()
        if self._files:
            engine = next(iter(self._held.values())).engine
            _read_next_pieces(self._files, engine, self._advance)
            self._has_room = any(file.is_done for file in self._files)
        return self._end_tasks() if self._has_room else []

    def _open_tasks(self) -> None:
        for reading in self._held.values():
            reading.open_tasks(can_wait=self._has_open_files())
        self._files = [file for reading in self._held.values() for file in reading.files]
        if self._files:
            self._share_memory()

    def _share_memory(self) -> None:
        """Give each file a part of the memory to be read into, in whole blocks of SHA-256."""
        files = len(self._files)
        part_bytes = max(1, len(self._memory) // min(files, MAX_SHARES))
        if part_bytes > 64:
            part_bytes -= part_bytes % 64
        stride = part_bytes + STRIDE_BYTES if files > 1 else part_bytes
        if len(self._shared) < stride * files:
            self._shared = memoryview(mmap.mmap(-1, stride * files))
        for number, file in enumerate(self._files):
            file.buffer = self._shared[stride * number :][:part_bytes]

    def _has_open_files(self) -> bool:
        return any(not file.is_done for file in self._files)

    def _end_tasks(self) -> list[Finished]:
        finished: list[Finished] = []
        for number, reading in list(self._held.items()):
            reading.end_tasks(can_wait=self._has_open_files())
            if reading.is_done:
                del self._held[number]
                finished.append(Finished(number, reading.list_outcomes(), reading.bytes_read))
        return finished

    def close(self) -> None:
        """Stop reading."""
        for reading in self._held.values():
            for file in reading.files:
                file.close()


def _read_next_pieces(files: Iterable[_File], engine: Engine, advance: Advance) -> None:
    """Read the next piece of each file, and update all states at once."""
    read = [(file, piece) for file in files if (piece := file.next()) is not None]
    states = [state for file, _ in read for state in file.states]
    if states:
        engine.update(states, [piece for file, piece in read for _ in file.states])
    for file, piece in read:
        if file.quick is not None:
            file.quick.update(piece)
    advance(sum(len(piece) for _, piece in read))


class _Reading:
    """A batch that is being read, and the metadata that its tasks share.

    Attributes:
        bytes_read: how many bytes were read of files that are done.
        engine: what computes SHA-256.

    Args:
        batch: what to read.
        memory: nothing is left in it between two rounds.
        advance: called with the number of bytes just read.
    """

    def __init__(self, batch: Batch, memory: memoryview, advance: Advance) -> None:
        self.bytes_read = 0
        self.engine = usable_engine(batch.engine)
        self._advance = advance
        self._batch = batch
        self._memory = memory
        self._metadata: dict[Stamp, _Metadata] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._running: dict[int, _Root] = {}
        self._waiting = deque(enumerate(batch.tasks))

    @property
    def files(self) -> list[_File]:
        """The files that are open."""
        return [root.file for root in self._running.values()]

    @property
    def is_done(self) -> bool:
        """Whether all tasks have their outcome."""
        return len(self._outcomes) == len(self._batch.tasks)

    def list_outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcomes of all tasks, in their order."""
        return tuple(self._outcomes[number] for number in range(len(self._outcomes)))

    def open_tasks(self, *, can_wait: bool) -> None:
        """Begin with as many tasks as may be read side by side; do those of small files.

        Args:
            can_wait: as for ``end_tasks``.
        """
        while self._waiting and len(self._running) < self._batch.files_at_once:
            number, task = self._waiting.popleft()
            outcome = self._digest_small(task) or self._open_task(task)
            if isinstance(outcome, _Root):
                self._running[number] = outcome
            elif can_wait and find_shortage(outcome):
                self._put_back(number, task)
                return
            else:
                self._outcomes[number] = outcome

    def end_tasks(self, *, can_wait: bool) -> None:
        """Note the outcomes of tasks whose root has been read.

        Args:
            can_wait: whether other files are open, so that a task for which the system was out of
                descriptors or memory may have them when those are closed. It is put back.
        """
        for number in [n for n, root in self._running.items() if root.file.is_done]:
            root = self._running.pop(number)
            self.bytes_read += root.file.bytes_read
            outcome = root.make_outcome()
            if can_wait and find_shortage(outcome):
                self._put_back(number, root.task)
            elif _is_worth_another_path(outcome, root.task.root):
                task = msgspec.structs.replace(root.task, root=_next_path(root.task.root))
                self._waiting.appendleft((number, task))
            else:
                self._outcomes[number] = outcome

    def _put_back(self, number: int, task: RootTask) -> None:
        self._waiting.appendleft((number, task))
        self._metadata = {
            stamp: known for stamp, known in self._metadata.items() if known[1] is not None
        }

    def _digest_small(self, task: RootTask) -> Outcome | None:
        """Read the small files of ``task``, one after the other.

        Returns:
            None if a file is not small, or anything is unusual. Then the task is to be digested
            as any other, which says what is wrong.
        """
        if task.is_unified or task.root.stamp.size_bytes > SMALL_BYTES:
            return None
        new: dict[Stamp, _Metadata] = {}
        digests: dict[Stamp, FileDigest | Failed] = {}
        after: dict[Stamp, Sha256] = {}
        bytes_read = task.root.stamp.size_bytes
        for ref in task.metadata:
            stamp = ref.stamp
            known = self._metadata.get(stamp)
            if known is None:
                state = self.engine.sha256(b"")
                digest = self._read_small(ref, [state])
                if isinstance(digest, Failed):
                    self._metadata[stamp] = (digest, None)
                if not isinstance(digest, FileDigest):
                    return None
                known = new[stamp] = (digest, state)
                bytes_read += stamp.size_bytes
            digests[stamp], known_state = known
            if known_state is None:
                return None
            after[stamp] = known_state.copy()
        own = [self.engine.sha256(b"")] if self._batch.wants_sha256 else []
        root = self._read_small(task.root, [*own, *after.values()])
        if root is not None:
            self._metadata.update(new)
        if not isinstance(root, FileDigest):
            return root
        self.bytes_read += bytes_read
        self._advance(bytes_read)
        fingerprints = {stamp: state.hexdigest() for stamp, state in after.items()}
        return Digested(root, digests, fingerprints, bytes_read, 1 + len(new))

    def _read_small(self, ref: FileRef, states: list[Sha256]) -> FileDigest | Failed | None:
        """Read a file into ``states``; None if it is not small, or anything is unusual."""
        size_bytes, buffer = ref.stamp.size_bytes, self._memory
        if size_bytes > SMALL_BYTES or size_bytes >= len(buffer) or ref.copy_to:
            return None
        try:
            data = read_small(ref, buffer)
        except (ChangedError, OSError) as error:
            # Not read again by the same path: a disk that fails takes its time.
            return None if ref.other_paths else describe_failure(error)
        if data is None:
            return None
        if ref.roles:
            head = bytes(data[:HEAD_BYTES])
            for role in ref.roles:
                if find_fault(role, head, size_bytes) is not None:
                    return None
        self.engine.update(states, [data] * len(states))
        quick = new_blake3(1, data).hexdigest() if self._batch.wants_blake3 else ""
        sha256 = states[0].hexdigest() if self._batch.wants_sha256 else ""
        # It is old enough, or read_small would have returned None.
        return FileDigest(sha256, quick, ref.stamp.key, bool(ref.roles))

    def _open_task(self, task: RootTask) -> _Root | Failed:
        """Read the metadata of ``task`` that has not been read yet; open its root."""
        new = [self._read_metadata(ref) for ref in task.metadata if ref.stamp not in self._metadata]
        metadata = {ref.stamp: self._metadata[ref.stamp] for ref in task.metadata}
        failures = {
            stamp: digest for stamp, (digest, _) in metadata.items() if isinstance(digest, Failed)
        }
        if failures and len(failures) == len(metadata):
            first = next(iter(failures.values()))
            return msgspec.structs.replace(first, head=None, metadata=failures)
        # Metadata files with equal bytes share one fingerprint.
        fingerprints = {state.digest(): state.copy() for _, state in metadata.values() if state}
        own = [self.engine.sha256(b"")] if self._batch.wants_sha256 else []
        file = self._open(task.root, [*own, *fingerprints.values()])
        return _Root(task, metadata, fingerprints, file, (sum(new), len(new)))

    def _read_metadata(self, ref: FileRef) -> int:
        """Read a metadata file; return the number of bytes read."""
        while True:
            state = self.engine.sha256(b"")
            file = self._open(ref, [state])
            file.buffer = self._memory
            with closing(file):
                while not file.is_done:
                    _read_next_pieces([file], self.engine, self._advance)
            self.bytes_read += file.bytes_read
            digest = file.make_digest()
            if not _is_worth_another_path(digest, ref):
                break
            ref = _next_path(ref)
        self._metadata[ref.stamp] = (digest, None if isinstance(digest, Failed) else state)
        return file.bytes_read

    def _open(self, ref: FileRef, states: list[Sha256]) -> _File:
        quick = new_blake3(self._batch.threads) if self._batch.wants_blake3 else None
        return _File(ref, states, quick)


def find_shortage(outcome: Outcome) -> Failed | None:
    """Return the failure of a file of a task for which the system was out of something, if any."""
    parts = (outcome,) if isinstance(outcome, Failed) else outcome.metadata.values()
    for part in parts:
        if isinstance(part, Failed) and part.is_shortage:
            return part
    return None


def _is_worth_another_path(outcome: Outcome | FileDigest, ref: FileRef) -> bool:
    """Return whether a file failed, and might not if it is read by another of its paths.

    Somebody who links to a file must not decide with his link whether it can be read.
    """
    is_misfit = isinstance(outcome, Failed) and outcome.head is not None
    return bool(ref.other_paths) and isinstance(outcome, Failed) and not is_misfit


def _next_path(ref: FileRef) -> FileRef:
    """Return ``ref`` with its next path."""
    path, *others = ref.other_paths
    return msgspec.structs.replace(ref, path=path, other_paths=tuple(others))


def _is_virtual_machine(unified: FileRef) -> bool:
    from fastindex.formats.tarball import is_virtual_machine  # only if needed

    return is_virtual_machine(unified.path)


def new_blake3(threads: int, data: Buffer = b"") -> blake3:
    """Return a BLAKE3 state that uses ``threads`` threads, or one if the system denies them.

    Args:
        threads: how many.
        data: what it has taken in.
    """
    if threads == 1:
        return blake3(data)
    try:
        return blake3(data, max_threads=threads)
    except BaseException as error:
        # The Rust code panics, after a message of its own, if no threads can be started.
        if not is_panic(error):
            raise
        return blake3(data)
