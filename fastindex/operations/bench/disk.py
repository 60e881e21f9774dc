"""How fast files are read by so many processes at once, past the page cache.

With O_DIRECT and page-aligned buffers where the file system has that; else each part's
pages are dropped before it is read. A build does otherwise (it pushes nobody's pages out);
but whoever measures a disk wants no answer from memory.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Generator

from msgspec import Struct

from fastindex.errors import TreeError
from fastindex.events import Observer
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench.memory import doublings
from fastindex.operations.bench.options import DiskFigure, DiskReport, Method
from fastindex.operations.bench.parts import Offer, Part, is_dropped, opened
from fastindex.operations.bench.rounds import Crew, Work
from fastindex.system.disks import is_rotational

BUFFER_SIZES = (256 << 10, BUFFER_BYTES, 1 << 20, 4 << 20)

SLOWER = 3
"""A disk is measured so many times as long as a contender in memory."""

_LEAST_READERS = 4
_PARTS_AT_ONCE = 64
"""Parts that a reader is handed; it begins anew where it has read them all."""


class DiskTask(Struct, frozen=True, kw_only=True):
    """What one reader reads."""

    parts: tuple[Part, ...]
    """In this order."""
    buffer_bytes: int
    """How much at a time."""
    method: Method
    """How."""


def reader_counts(jobs: int) -> list[int]:
    """Return how many readers are measured: 1, 2, 4 …, at least up to 4, and ``jobs``."""
    return sorted({*doublings(max(jobs, _LEAST_READERS)), jobs})


def measure_disk(
    path: str, offered: Offer, crew: Crew, jobs: int, seconds: float, observer: Observer
) -> DiskReport:
    """Read what is offered, each time other parts until all were read.

    Args:
        path: what was asked for.
        offered: what there is to read.
        crew: with as many workers as there are readers at most.
        jobs: the most jobs that are considered.
        seconds: how long for each number of readers and each buffer size.
        observer: told of each figure.

    Raises:
        TreeError: what could be read before cannot be read any more.
        FastindexError: a worker died.
    """
    parts = offered.parts
    figures: list[DiskFigure] = []
    bytes_read = begin = 0
    for readers in reader_counts(jobs):
        if readers > len(parts):
            break
        for buffer_bytes in BUFFER_SIZES:
            turned = parts[begin:] + parts[:begin]
            tasks = [
                DiskTask(
                    parts=turned[reader::readers][:_PARTS_AT_ONCE],
                    buffer_bytes=buffer_bytes,
                    method=offered.method,
                )
                for reader in range(readers)
            ]
            measured = crew.measure(prepare, tasks, seconds)
            if not measured.bytes_per_second:
                raise TreeError(f"{path}: could be read before, and no more now")
            bytes_read += measured.bytes_done
            # Past the parts that were begun: their size is that of the first ones, or less.
            begun = -(-measured.bytes_done // parts[0].size_bytes) + readers
            begin = (begin + begun) % len(parts)
            figures.append(
                DiskFigure(
                    readers=readers,
                    buffer_bytes=buffer_bytes,
                    bytes_per_second=measured.bytes_per_second,
                )
            )
            observer.log(
                f"disk: {readers} readers, {buffer_bytes >> 10} KiB: "
                f"{measured.bytes_per_second / 1e9:.2f} GB/s"
            )
    return DiskReport(
        path=path,
        method=offered.method,
        file_system=offered.file_system,
        is_rotational=is_rotational(offered.device),
        total_bytes=offered.total_bytes,
        offered_bytes=sum(part.size_bytes for part in parts),
        bytes_read=bytes_read,
        figures=tuple(figures),
    )


def prepare(task: DiskTask) -> Work:
    """Return what reads on in the parts of ``task`` until a moment; returns how many bytes."""
    reads = _reads(task)

    def work(until: float) -> int:
        bytes_read = 0
        while True:
            bytes_read += next(reads)
            if time.monotonic() >= until:
                return bytes_read

    return work


def _reads(task: DiskTask) -> Generator[int, None, None]:
    """Read a piece for each number that is asked for; 0: it could not be read."""
    buffer = memoryview(mmap.mmap(-1, task.buffer_bytes))
    while True:
        for part in task.parts:
            try:
                with opened(part.path, task.method) as descriptor:
                    if task.method == "dropped":
                        is_dropped(descriptor, part.offset, part.size_bytes)
                    end = part.offset + part.size_bytes
                    for offset in range(part.offset, end, task.buffer_bytes):
                        yield os.preadv(descriptor, [buffer], offset)
            except OSError:  # the file went, or the disk fails
                yield 0
