"""One file, piece by piece, and only as long as it is the one that was scanned.

Reads go through a buffer of the caller and ``preadv2`` with RWF_DONTCACHE where the kernel
has it, so that hashing a mirror does not push the web server's hot files out of memory.
Rejected: to map the files (a truncated file kills the process with SIGBUS) and
``posix_fadvise(DONTNEED)`` (it drops pages that others had in memory).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator
from contextlib import nullcontext

from fastindex.errors import is_shortage
from fastindex.hashing.tasks import Failed, FileRef
from fastindex.system import directories
from fastindex.system.new_file import (
    RWF_DONTCACHE,
    UNKNOWN_FLAG_ERRNOS,
    NewFile,
    UnwritableError,
)
from fastindex.system.stamps import COARSEST_TICK_NS, stamp_of

KERNEL_TICK_NS = 20_000_000
"""More than a tick of Linux' clock at 100 Hz: on a file system that keeps fractions of a
second, writes that are farther apart have different modification times."""


class ChangedError(Exception):
    """The file is not, or no longer, what was scanned."""


def read_pieces(ref: FileRef, buffer: memoryview) -> Generator[memoryview, None, None]:
    """Yield the file's bytes in order, each piece until the next is asked for.

    Where ``ref.copy_to`` says so, they are copied on the way; that file is there when the
    last piece was taken, and whole. To be closed, if it is not run to its end.

    Raises:
        ChangedError: it is not, or no longer, what was scanned.
        UnwritableError: the copy cannot be written.
        OSError: it cannot be read.
    """
    _wait_for_next_tick(ref.stamp.mtime_ns)
    # O_NONBLOCK: should a FIFO stand here by now, opening it must not hang.
    descriptor = os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_unchanged(ref, os.fstat(descriptor))
        with NewFile(ref.copy_to) if ref.copy_to else nullcontext() as copy:
            offset = 0
            while offset <= ref.stamp.size_bytes:  # past the end once: was something appended?
                count = _read_into(descriptor, buffer, offset, ref.stamp.device)
                if count == 0:
                    break
                piece = buffer[:count]
                if copy is not None:
                    copy.write(piece)
                yield piece
                offset += count
            if offset != ref.stamp.size_bytes:
                raise ChangedError
            if copy is not None:
                copy.finish(ref.stamp.mtime_ns)
        _check_unchanged(ref, os.fstat(descriptor))
    finally:
        directories.close(descriptor)
    _check_unchanged(ref, os.stat(ref.path))  # replaced by a rename meanwhile?


def failure_of(error: OSError | ChangedError) -> Failed:
    """Return what an error of ``pieces`` means for the file, for people."""
    if isinstance(error, ChangedError):
        return Failed(
            "changed while it was being read",
            "let the upload finish, then run again (--settle waits for quiet files)",
        )
    if isinstance(error, UnwritableError):
        return Failed(
            f"cannot be copied to {error.filename} ({error.strerror})",
            "make room there, or give this user the right to write",
        )
    if isinstance(error, FileNotFoundError):
        return Failed("vanished while the run was on", "run again")
    if is_shortage(error):
        return Failed(
            f"cannot be read ({error.strerror})",
            "use fewer --jobs, or raise the limits on open files and memory",
            is_shortage=True,
        )
    return Failed(
        f"cannot be read ({error.strerror})",
        "give this user the right to read it, or mend the file system",
    )


def _wait_for_next_tick(mtime_ns: int) -> None:
    """Wait, where a write in this tick of the clock would leave the stamp as it is.

    Else bytes from before and after such a write could be taken for one content.
    """
    is_coarse = mtime_ns % 1_000_000_000 == 0
    tick_ns = COARSEST_TICK_NS if is_coarse else KERNEL_TICK_NS
    left_ns = mtime_ns + tick_ns - time.time_ns()
    if 0 < left_ns <= 2 * tick_ns:  # of one that lies farther ahead no clock tells anything
        time.sleep(left_ns / 1e9)


def _check_unchanged(ref: FileRef, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or stamp_of(status) != ref.stamp:
        raise ChangedError


_without_flag: set[int] = set()
"""Devices whose file system does not know RWF_DONTCACHE."""


def _read_into(descriptor: int, buffer: memoryview, offset: int, device: int) -> int:
    """Fill ``buffer`` from ``offset`` on; return the number of bytes, 0 at the end."""
    if device not in _without_flag:
        try:
            return os.preadv(descriptor, [buffer], offset, RWF_DONTCACHE)
        except NotImplementedError:
            _without_flag.add(device)
        except OSError as error:
            if error.errno not in UNKNOWN_FLAG_ERRNOS:
                raise
            _without_flag.add(device)
    return os.preadv(descriptor, [buffer], offset)
