"""Reading one file piece by piece, as long as it is the one that was scanned.

What is in memory is read into a buffer of the caller. From the first piece on that is not, threads
read ahead (see ``ahead``): the disk works while the CPU does.

Hashing a mirror must not push the web server's files out of the page cache. On the file systems of
most servers, what is not in memory is therefore read past it, with O_DIRECT, which also takes
13 to 18 % less CPU time with three digests. Other reads are ``preadv2`` with RWF_DONTCACHE if the
kernel has it. Not used: mapping the files (a truncated one kills the process with SIGBUS), and
``posix_fadvise(DONTNEED)`` (it drops pages that others use).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from functools import cache

from fastindex.errors import Code, is_shortage, suggest_remedy
from fastindex.hashing.ahead import read_ahead
from fastindex.hashing.tasks import Failed, FileRef
from fastindex.system import directories, files
from fastindex.system.disks import find_file_system_type
from fastindex.system.new_file import (
    RWF_DONTCACHE,
    UNKNOWN_FLAG_ERRNOS,
    NewFile,
    UnwritableError,
)
from fastindex.system.stamps import COARSEST_TICK_NS, Stamp, stamp_of

KERNEL_TICK_NS = 20_000_000
"""More than a tick of Linux's clock at 100 Hz. On a file system that keeps fractions of a
second, two writes further apart than this have different modification times."""

RWF_NOWAIT = 0x8
"""``preadv2``: read what is in memory, and do not wait for the rest. Source: linux/fs.h"""

MIN_DIRECT_BYTES = 8 << 20
"""Less is read sooner through the page cache: threads and their memory take longer than they gain
(a third longer for 600 KB, nothing for 5 MB)."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: if it is a FIFO by now, opening it must not hang."""

AFTER_UPLOAD = "run again after the upload (--settle leaves files alone that changed recently)"
"""What to do about a file that changes."""


class ChangedError(Exception):
    """The file is not, or no longer, the one that was scanned."""


def read_pieces(
    ref: FileRef, find_buffer: Callable[[], memoryview]
) -> Generator[memoryview, None, None]:
    """Yield the bytes of a file in order; a piece is valid until the next one is asked for.

    If ``ref.copy_to`` is set, they are copied there. The copy appears, complete, at the end.
    Close the generator if you leave it early.

    Args:
        ref: the file.
        find_buffer: returns the memory to read into, or, where a thread reads ahead, as much as
            a piece may have.

    Raises:
        ChangedError: the file is not, or no longer, the one that was scanned.
        UnwritableError: the copy cannot be written.
        OSError: the file cannot be read.
    """
    _wait_for_next_tick(ref.stamp.mtime_ns)
    descriptor = os.open(ref.path, OPEN_FLAGS)
    try:
        _check_unchanged(ref, os.fstat(descriptor))
        with NewFile(ref.copy_to) if ref.copy_to else nullcontext() as copy:
            bytes_read = 0
            with closing(_read_to_end(descriptor, find_buffer, ref.stamp)) as pieces:
                for piece in pieces:
                    if copy is not None:
                        copy.write(piece)
                    yield piece
                    bytes_read += len(piece)
            if bytes_read != ref.stamp.size_bytes:
                raise ChangedError
            if copy is not None:
                copy.finish(ref.stamp.mtime_ns)
        _check_unchanged(ref, os.fstat(descriptor))
    finally:
        directories.close(descriptor)
    _check_unchanged(ref, os.stat(ref.path))  # has a rename replaced it?


def _read_to_end(
    descriptor: int, find_buffer: Callable[[], memoryview], stamp: Stamp
) -> Generator[memoryview, None, None]:
    """Yield pieces of the file; once past the size in ``stamp``, no more."""
    offset = 0
    while offset <= stamp.size_bytes:  # at the end: has anything been added?
        buffer = find_buffer()
        count = _read_here(descriptor, buffer, offset, stamp)
        if count is None:
            yield from _read_in_threads(descriptor, len(buffer), offset, stamp)
            return
        if count == 0:
            return
        yield buffer[:count]
        offset += count


def _read_here(descriptor: int, buffer: memoryview, offset: int, stamp: Stamp) -> int | None:
    """Read as ``_read_into`` does; None if a thread should, from ``offset`` on."""
    device = stamp.device
    if stamp.size_bytes - offset <= len(buffer) or _is_always_in_memory(device):
        return _read_into(descriptor, buffer, offset, device)
    if _is_read_directly(stamp, offset) and _is_uncached(descriptor, offset, stamp):
        return None
    if offset == 0:  # this read tells whether the file system knows RWF_DONTCACHE
        return _read_into(descriptor, buffer, offset, device)
    return _read_from_memory(descriptor, buffer, offset, device)


def _is_uncached(descriptor: int, offset: int, stamp: Stamp) -> bool:
    """Return whether a file is to be read from ``offset`` on as one that is not in memory.

    At the beginning, a byte anywhere in the file is looked at, too. To ask for the first one lets
    the kernel read the first pages, and the next run would take the file for one that is hot.
    """
    offsets = [offset] if offset else [0, time.monotonic_ns() % stamp.size_bytes]
    return any(files.is_uncached(descriptor, one) for one in offsets)


def _read_in_threads(
    descriptor: int, piece_bytes: int, offset: int, stamp: Stamp
) -> Generator[memoryview, None, None]:
    device = stamp.device
    is_direct = _is_read_directly(stamp, offset) and files.make_direct(descriptor)
    read = _read_directly if is_direct else _read_into
    unit_bytes = files.DIRECT_UNIT_BYTES if is_direct else 1
    return read_ahead(
        lambda own, free, at: read(own, free, at, device),
        descriptor,
        piece_bytes,
        offset,
        stamp.size_bytes,
        unit_bytes=unit_bytes,
    )


def read_small(ref: FileRef, buffer: memoryview) -> memoryview | None:
    """Return all bytes of a small file, read at once: an eighth of the time of ``read_pieces``.

    Args:
        ref: the file; it is not copied.
        buffer: the memory to read into, longer than the file. The bytes are valid until it is
            used again.

    Returns:
        None if that is not enough to be sure of them, or to say why not: the file is young, or the
        read fell short. Then ``read_pieces`` tells.

    Raises:
        ChangedError: the file is not, or no longer, the one that was scanned.
        OSError: the file cannot be read.
    """
    stamp = ref.stamp
    if stamp.mtime_ns + COARSEST_TICK_NS > time.time_ns():
        return None
    descriptor = os.open(ref.path, OPEN_FLAGS)
    try:
        _check_unchanged(ref, os.fstat(descriptor))
        count = _read_into(descriptor, buffer, 0, stamp.device)
        _check_unchanged(ref, os.fstat(descriptor))
    finally:
        directories.close(descriptor)
    _check_unchanged(ref, os.stat(ref.path))
    return buffer[:count] if count == stamp.size_bytes else None


def read_head(ref: FileRef, max_bytes: int) -> bytes:
    """Return the first ``max_bytes`` bytes of a file, or all of it.

    Raises:
        ChangedError: the file is not the one that was scanned.
        OSError: the file cannot be read.
    """
    descriptor = os.open(ref.path, OPEN_FLAGS)
    try:
        _check_unchanged(ref, os.fstat(descriptor))
        head = b""
        # One read may return less than was asked for, as on network file systems.
        while len(head) < max_bytes and (piece := os.read(descriptor, max_bytes - len(head))):
            head += piece
        return head
    finally:
        directories.close(descriptor)


def describe_failure(error: OSError | ChangedError) -> Failed:
    """Return what an error of ``read_pieces`` means for the file."""
    if isinstance(error, ChangedError):
        return Failed(
            Code.CHANGED,
            "changed while it was being read",
            AFTER_UPLOAD,
        )
    if isinstance(error, UnwritableError):
        return Failed(
            Code.NOT_WRITTEN,
            f"cannot be copied to {error.filename} ({error.strerror})",
            suggest_remedy(error),
        )
    if isinstance(error, FileNotFoundError):
        return Failed(Code.CHANGED, "was removed during the run", "run again")
    if is_shortage(error):
        return Failed(
            Code.UNREADABLE,
            f"cannot be read ({error.strerror})",
            "use fewer --jobs, or raise the limits on open files and memory",
            is_shortage=True,
        )
    is_denied = isinstance(error, PermissionError)
    return Failed(
        Code.NOT_PERMITTED if is_denied else Code.UNREADABLE,
        f"cannot be read ({error.strerror})",
        "give this user read permission" if is_denied else "repair the file system, or remove it",
    )


def _wait_for_next_tick(mtime_ns: int) -> None:
    """Wait if a write in this tick of the clock would not change the stamp.

    Otherwise bytes from before and after such a write could pass for one content.
    """
    is_coarse = mtime_ns % 1_000_000_000 == 0
    tick_ns = COARSEST_TICK_NS if is_coarse else KERNEL_TICK_NS
    remaining_ns = mtime_ns + tick_ns - time.time_ns()
    if 0 < remaining_ns <= 2 * tick_ns:  # a time further ahead is not the clock's
        time.sleep(remaining_ns / 1e9)


def _check_unchanged(ref: FileRef, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or stamp_of(status) != ref.stamp:
        raise ChangedError


_without_flag: set[int] = set()
"""Devices whose file system does not support RWF_DONTCACHE."""
_without_nowait: set[int] = set()
"""Devices whose file system does not say whether bytes are in memory."""


def _read_into(descriptor: int, buffer: memoryview, offset: int, device: int) -> int:
    """Read into ``buffer`` from ``offset`` on; return the number of bytes, 0 at the end."""
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


def _read_directly(descriptor: int, buffer: memoryview, offset: int, device: int) -> int:
    """Read as ``_read_into`` does, from a file that was made direct."""
    try:
        return os.preadv(descriptor, [buffer], offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    files.make_buffered(descriptor)  # something is not aligned
    return _read_into(descriptor, buffer, offset, device)


def _read_from_memory(descriptor: int, buffer: memoryview, offset: int, device: int) -> int | None:
    """Read as ``_read_into`` does; None if that would wait for the disk, or might."""
    if device in _without_nowait:
        return None
    flags = RWF_NOWAIT if device in _without_flag else RWF_NOWAIT | RWF_DONTCACHE
    try:
        return os.preadv(descriptor, [buffer], offset, flags)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in UNKNOWN_FLAG_ERRNOS:
            raise
    except NotImplementedError:
        pass
    _without_nowait.add(device)
    return None


def _is_read_directly(stamp: Stamp, offset: int) -> bool:
    """Return whether the rest of a file is read past the page cache if it is not in memory."""
    return stamp.size_bytes - offset >= MIN_DIRECT_BYTES and _is_measured(stamp.device)


@cache
def _is_measured(device: int) -> bool:
    """Return whether it was measured that reading past the page cache is quicker there."""
    return find_file_system_type(device) in {"ext4", "xfs"}


@cache
def _is_always_in_memory(device: int) -> bool:
    return find_file_system_type(device) in {"tmpfs", "ramfs"}
