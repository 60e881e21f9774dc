"""How fast processes read files past the page cache, by number of readers.

A build does use the page cache, but a figure of the disk must not come from memory: files
are read with O_DIRECT into a page-aligned buffer. Where the file system does not support
that, a reader drops each block from the page cache before it reads it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import partial

from msgspec import Struct

from fastindex.errors import TreeError
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench.memory import double_up_to
from fastindex.operations.bench.options import DiskFigure, DiskReport, Method
from fastindex.operations.bench.rounds import Step, TimedWorkers
from fastindex.operations.bench.selection import File, Selection
from fastindex.system.disks import is_rotational
from fastindex.system.files import DROP_BYTES, drop_pages, open_buffered, open_direct

_MIN_READERS = 4


class ReadTask(Struct, frozen=True):
    """What one reader reads: the files one after the other, as if they were one."""

    files: tuple[File, ...]
    start_bytes: int
    """Where to start, counted from the beginning of the first file; a multiple of the buffer."""
    method: Method
    """How to read past the page cache."""


def choose_reader_counts(jobs: int) -> list[int]:
    """Return the numbers of readers to measure: 1, 2, 4 … up to at least 4, and ``jobs``."""
    return sorted({*double_up_to(max(jobs, _MIN_READERS)), jobs})


def measure_disk(
    selection: Selection, jobs: int, workers: TimedWorkers, seconds: float
) -> DiskReport:
    """Read the selected files, each reader from a place of its own.

    Each number of readers goes on where the one before ended: what was read lately may come
    from a cache of the disk.

    Args:
        selection: what to read.
        jobs: the maximum number of jobs that are considered.
        workers: what to read it with.
        seconds: how long to measure each number of readers.

    Raises:
        TreeError: the files can no longer be read.
        FastindexError: a worker cannot be started, died, or ran out of memory.
    """
    selected_bytes = sum(file.size_bytes for file in selection.files)
    figures: list[DiskFigure] = []
    start = bytes_read = 0
    for readers in choose_reader_counts(jobs):
        distance = selected_bytes // readers // BUFFER_BYTES * BUFFER_BYTES
        if not distance:
            break
        starts = [(start + distance * reader) % selected_bytes for reader in range(readers)]
        tasks = [ReadTask(selection.files, each, selection.method) for each in starts]
        speed, done_bytes = workers.measure(f"the disk, {readers} at once", prepare, tasks, seconds)
        if not speed:
            raise TreeError(
                f"{selection.path}: files could be opened but not read; run again, and if that "
                "does not help, check the kernel log for disk errors"
            )
        start += (done_bytes // readers // BUFFER_BYTES + 1) * BUFFER_BYTES
        bytes_read += done_bytes
        figures.append(
            DiskFigure(readers=readers, buffer_bytes=BUFFER_BYTES, bytes_per_second=speed)
        )
    return DiskReport(
        path=selection.path,
        method=selection.method,
        file_system=selection.file_system,
        is_rotational=is_rotational(selection.files[0].device),
        total_bytes=selection.total_bytes,
        offered_bytes=selected_bytes,
        bytes_read=bytes_read,
        figures=tuple(figures),
    )


def prepare(task: ReadTask) -> Step:
    """Return a step that reads the next piece."""
    return partial(next, _read_pieces(task, memoryview(mmap.mmap(-1, BUFFER_BYTES))))


def _read_pieces(task: ReadTask, buffer: memoryview) -> Iterator[int]:
    """Read endlessly; yield the size of each piece, or 0 where reading failed."""
    open_file = open_direct if task.method == "direct" else open_buffered
    skip_bytes = task.start_bytes
    while True:
        for file in task.files:
            if skip_bytes >= file.size_bytes:
                skip_bytes -= file.size_bytes
                continue
            try:
                with open_file(file.path) as stream:
                    for offset in range(skip_bytes, file.size_bytes, BUFFER_BYTES):
                        is_new_block = offset == skip_bytes or offset % DROP_BYTES == 0
                        if task.method == "dropped" and is_new_block:
                            drop_pages(stream, offset)
                        yield os.preadv(stream.fileno(), [buffer], offset)
            except OSError:  # the file was removed or truncated, or the disk fails
                yield 0
            skip_bytes = 0
