"""Reading ahead: threads read the next pieces of a file while those before are hashed."""

from __future__ import annotations

import _thread
import mmap
import os
import time
from collections.abc import Callable, Generator
from itertools import cycle
from queue import SimpleQueue

from msgspec import Struct

RING_BYTES = 8 << 20
"""How much of a file may wait for being hashed. Half of it leaves the disk idle now and then, and
more gains nothing (benchmarks/cold_build.py)."""
MAX_PIECES = 16
"""How many pieces may wait: they are small where many files are read side by side, of which each
has its own."""
MIN_PIECES = 3
"""How many pieces there are at least, if they are large: one is hashed, one waits, one is read."""

DIRECT_BYTES = 2 << 20
"""How much is read at once past the page cache. The kernel does not read ahead there: with shorter
reads, or with fewer under way, the disk is idle between them."""
DIRECT_RING_BYTES = 32 << 20
"""How much of a file may then wait for being hashed, if it is the only one that is read."""
ALONE_PIECE_BYTES = 512 << 10
"""Smaller pieces are those of files that are read side by side."""

END_SECONDS = 1.0
"""How long to wait for the reads under way when a file is left early. If one takes longer, as on a
server that hangs, its thread is left behind."""

Read = Callable[[int, memoryview, int], int]
"""Reads from a descriptor into a buffer, from an offset on; returns the number of bytes, 0 at the
end of the file."""


class Ring(Struct, frozen=True):
    """How a file is read ahead."""

    threads: int
    """How many threads read, in turn."""
    slots: int
    """How many buffers each of them has."""
    slot_bytes: int
    """The size of each buffer, which is filled at once."""


def choose_ring(piece_bytes: int, unit_bytes: int = 1) -> Ring:
    """Return how to read a file ahead whose pieces have up to ``piece_bytes``.

    Args:
        piece_bytes: as above.
        unit_bytes: what reads past the page cache are aligned to; 1: they are of the usual kind,
            and the kernel reads ahead, too.
    """
    if unit_bytes == 1:
        slots = min(MAX_PIECES, max(MIN_PIECES, RING_BYTES // piece_bytes))
        return Ring(1, slots, piece_bytes)
    slot_bytes = max(piece_bytes, min(DIRECT_BYTES, 4 * piece_bytes))
    slot_bytes = -(-slot_bytes // unit_bytes) * unit_bytes
    if piece_bytes < ALONE_PIECE_BYTES:
        return Ring(2, 2, slot_bytes)
    return Ring(4, max(1, DIRECT_RING_BYTES // slot_bytes // 4), slot_bytes)


def read_ahead(
    read: Read,
    descriptor: int,
    piece_bytes: int,
    offset: int,
    size_bytes: int,
    *,
    unit_bytes: int = 1,
) -> Generator[memoryview, None, None]:
    """Yield a file from ``offset`` on; a piece is valid until the next one is asked for.

    Where the system denies a thread, memory or a descriptor, each piece is read when it is asked
    for. Close the generator if you leave it early.

    Args:
        read: called in the threads, with descriptors of their own.
        descriptor: the file; it stays open.
        piece_bytes: the greatest size of a piece.
        offset: where to begin.
        size_bytes: the size of the file. Once past it, nothing more is read.
        unit_bytes: what reads are aligned to, in the file and in memory, as long as none falls
            short.

    Raises:
        OSError: raised by ``read``.
    """
    ring = choose_ring(piece_bytes, unit_bytes)
    passed_bytes = offset % unit_bytes
    readers = _start_readers(read, ring, descriptor, offset - passed_bytes, size_bytes)
    if not readers:
        yield from _read_in_turn(read, descriptor, piece_bytes, offset, size_bytes)
        return
    try:
        for reader in cycle(readers):
            slot = reader.take()
            for at in range(passed_bytes, len(slot), piece_bytes):
                yield slot[at:][:piece_bytes]
            if len(slot) < ring.slot_bytes:
                return
            passed_bytes = 0
            reader.give_back()
    finally:
        _stop(readers)


def _start_readers(
    read: Read, ring: Ring, descriptor: int, offset: int, size_bytes: int
) -> list[_Reader]:
    """Return the readers of a file, at work; none if the system denies one what it needs."""
    readers: list[_Reader] = []
    try:
        for begin in range(offset, size_bytes + 1, ring.slot_bytes)[: ring.threads]:
            reader = _Reader(read, ring, begin, size_bytes)
            reader.start(descriptor)
            readers.append(reader)
    except (OSError, RuntimeError, MemoryError):
        _stop(readers)
        return []
    return readers


def _stop(readers: list[_Reader]) -> None:
    """Let no more be read, and wait a moment for the threads to end."""
    for reader in readers:
        reader.stop()
    until = time.monotonic() + END_SECONDS
    for reader in readers:
        reader.wait(until)


def _read_in_turn(
    read: Read, descriptor: int, piece_bytes: int, offset: int, size_bytes: int
) -> Generator[memoryview, None, None]:
    buffer = memoryview(bytearray(piece_bytes))
    while offset <= size_bytes and (count := read(descriptor, buffer, offset)):
        yield buffer[:count]
        offset += count


class _Reader:
    """A thread that fills buffers, and another one that empties them in the same order.

    It reads one of as many parts of the file as there are readers, in turn.

    Args:
        read: as for ``read_ahead``.
        ring: how many readers there are, and what buffers each has.
        offset: where its first part begins.
        size_bytes: the size of the file.

    Raises:
        OSError: there is no memory for the buffers.
    """

    def __init__(self, read: Read, ring: Ring, offset: int, size_bytes: int) -> None:
        self._read = read
        self._offset = offset
        self._size_bytes = size_bytes
        self._step_bytes = ring.threads * ring.slot_bytes
        parts = -(-(size_bytes + 1 - offset) // self._step_bytes)  # beginning up to its end
        slots = min(ring.slots, parts)
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._filled: SimpleQueue[tuple[memoryview, int] | BaseException] = SimpleQueue()
        self._taken = memoryview(b"")
        self._is_stopped = False
        # Not threading.Thread: its start() waits for ever if the new thread gets no memory.
        self._is_running = _thread.allocate_lock()
        memory = memoryview(mmap.mmap(-1, slots * ring.slot_bytes))
        for number in range(slots):
            self._free.put(memory[number * ring.slot_bytes :][: ring.slot_bytes])

    def start(self, descriptor: int) -> None:
        """Start the thread; raises OSError or RuntimeError if the system denies it."""
        own = os.dup(descriptor)  # the thread may outlive the other one
        self._is_running.acquire()
        try:
            _thread.start_new_thread(self._run, (own,))
        except RuntimeError:
            self._is_running.release()
            os.close(own)
            raise

    def _run(self, descriptor: int) -> None:
        """Fill buffers until the end of the file, an error, or ``stop``."""
        offset = self._offset
        is_full = True
        try:
            while is_full:
                buffer = self._free.get()
                if self._is_stopped:
                    return
                count = self._fill(descriptor, buffer, offset)
                is_full = count == len(buffer)
                offset += self._step_bytes
                self._filled.put((buffer, count))
        except BaseException as error:
            self._filled.put(error)
        finally:
            os.close(descriptor)
            self._is_running.release()

    def _fill(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        """Read until ``buffer`` is full, or to the end of the file; return how much that is."""
        count = 0
        while count < len(buffer) and offset + count <= self._size_bytes and not self._is_stopped:
            just_read = self._read(descriptor, buffer[count:], offset + count)
            if not just_read:
                break
            count += just_read
        return count

    def take(self) -> memoryview:
        """Return what has been read of the next part; less than a buffer: it was the last one.

        Raises:
            OSError: raised by the read.
        """
        filled = self._filled.get()
        if isinstance(filled, BaseException):
            raise filled
        self._taken, count = filled
        return self._taken[:count]

    def give_back(self) -> None:
        """Let the buffer be used again that was taken last."""
        self._free.put(self._taken)

    def stop(self) -> None:
        """Let no more be read."""
        self._is_stopped = True
        self._free.put(memoryview(b""))  # it may be waiting for a buffer

    def wait(self, until: float) -> None:
        """Wait for the end of the thread, but no longer than ``until``, by ``time.monotonic``."""
        self._is_running.acquire(timeout=max(0, until - time.monotonic()))
