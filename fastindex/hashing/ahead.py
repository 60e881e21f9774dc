"""Reading ahead: a thread reads the next pieces of a file while those before are hashed."""

from __future__ import annotations

import _thread
import mmap
import os
from collections.abc import Callable, Generator
from queue import SimpleQueue

RING_BYTES = 8 << 20
"""How much of a file may wait for being hashed. Half of it leaves the disk idle now and then, and
more gains nothing (benchmarks/cold_build.py)."""
MAX_PIECES = 16
"""How many pieces may wait: they are small where many files are read side by side, of which each
has its own."""
MIN_PIECES = 3
"""How many pieces there are at least, if they are large: one is hashed, one waits, one is read."""

END_SECONDS = 1.0
"""How long to wait for the read under way when a file is left early. If it takes longer, as on a
server that hangs, the thread is left behind."""

Read = Callable[[int, memoryview, int], int]
"""Reads from a descriptor into a buffer, from an offset on; returns the number of bytes, 0 at the
end of the file."""


def read_ahead(
    read: Read, descriptor: int, piece_bytes: int, offset: int, size_bytes: int
) -> Generator[memoryview, None, None]:
    """Yield a file from ``offset`` on; a piece is valid until the next one is asked for.

    Where the system denies a thread, memory or a descriptor, each piece is read when it is asked
    for. Close the generator if you leave it early.

    Args:
        read: called in the thread, with a descriptor of its own.
        descriptor: the file; it stays open.
        piece_bytes: the greatest size of a piece.
        offset: where to begin.
        size_bytes: the size of the file. Once past it, nothing more is read.

    Raises:
        OSError: raised by ``read``.
    """
    most = min(MAX_PIECES, max(MIN_PIECES, RING_BYTES // piece_bytes))
    count = min(most, (size_bytes - offset) // piece_bytes + 2)
    try:
        reader = _Reader(read, memoryview(mmap.mmap(-1, count * piece_bytes)), count)
        reader.start(descriptor, offset, size_bytes)
    except (OSError, RuntimeError, MemoryError):
        buffer = memoryview(bytearray(piece_bytes))
        while offset <= size_bytes and (read_bytes := read(descriptor, buffer, offset)):
            yield buffer[:read_bytes]
            offset += read_bytes
        return
    try:
        yield from reader.take()
    finally:
        reader.stop()


class _Reader:
    """A ring of buffers that a thread fills and another one empties, in the same order.

    Args:
        read: as for ``read_ahead``.
        memory: the memory for all buffers.
        count: how many there are.
    """

    def __init__(self, read: Read, memory: memoryview, count: int) -> None:
        self._read = read
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._filled: SimpleQueue[tuple[memoryview, int] | BaseException] = SimpleQueue()
        self._is_stopped = False
        # Not threading.Thread: its start() waits for ever if the new thread gets no memory.
        self._is_running = _thread.allocate_lock()
        self._is_running.acquire()
        size_bytes = len(memory) // count
        for number in range(count):
            self._free.put(memory[number * size_bytes :][:size_bytes])

    def start(self, descriptor: int, offset: int, size_bytes: int) -> None:
        """Start the thread; raises OSError or RuntimeError if the system denies it."""
        own = os.dup(descriptor)  # the thread may outlive the other one
        try:
            _thread.start_new_thread(self._run, (own, offset, size_bytes))
        except RuntimeError:
            os.close(own)
            raise

    def _run(self, descriptor: int, offset: int, size_bytes: int) -> None:
        """Fill buffers until the end of the file, an error, or ``stop``."""
        try:
            read_bytes = 1
            while read_bytes:
                buffer = self._free.get()
                if self._is_stopped:
                    return
                is_past_end = offset > size_bytes
                read_bytes = 0 if is_past_end else self._read(descriptor, buffer, offset)
                offset += read_bytes
                self._filled.put((buffer, read_bytes))
        except BaseException as error:
            self._filled.put(error)
        finally:
            os.close(descriptor)
            self._is_running.release()

    def take(self) -> Generator[memoryview, None, None]:
        """Yield what has been read, in order.

        Raises:
            OSError: raised by the read of the next piece.
        """
        while True:
            filled = self._filled.get()
            if isinstance(filled, BaseException):
                raise filled
            buffer, read_bytes = filled
            if not read_bytes:
                return
            yield buffer[:read_bytes]
            self._free.put(buffer)

    def stop(self) -> None:
        """Let no more be read, and wait a moment for the end of the thread."""
        self._is_stopped = True
        self._free.put(memoryview(b""))  # it may be waiting for a buffer
        self._is_running.acquire(timeout=END_SECONDS)
