"""Reading files within bounds: never from a device, and without blocking on a FIFO."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO

from fastindex.system import directories

DIRECT_UNIT_BYTES = 4096
"""What reads past the page cache must be aligned to: no disk asks for more."""
DROP_BYTES = 16 << 20
"""How much is dropped from the page cache at once; much more than the kernel reads ahead, which
is dropped too and read again."""

_BECAME_SHORTER = "became shorter while it was read"
_PIECE_BYTES = 1 << 20


def max_descriptors() -> int:
    """Return how many files and directories this process may have open at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def raise_max_descriptors() -> int:
    """Let this process open as many files as it may ask for; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max_descriptors()


def exists(path: str) -> bool:
    """Return whether there is anything at ``path``, be it a symlink that leads nowhere.

    ``os.path.lexists`` says no if the disk fails, too: what is there would be overwritten, or taken
    for gone.

    Raises:
        OSError: it cannot be told.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def name_path_in_errors(path: str) -> Iterator[None]:
    """Make an OSError in the context name ``path``: calls on descriptors know no path.

    Args:
        path: the file that the calls are about.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = path
            if error.filename2 is not None:
                del error.filename2  # of a rename; as None it would print as "-> None"
        raise


def has_content(path: str, data: bytes) -> bool:
    """Return whether ``path`` is a regular file that contains exactly ``data``.

    False if it cannot be read, or is a symlink.
    """
    try:
        descriptor = directories.open_file(path)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(data):
            return False
        view = memoryview(data)
        while view:
            piece = os.read(descriptor, _PIECE_BYTES)
            if not piece or piece != view[: len(piece)]:
                return False
            view = view[len(piece) :]
        return True
    except OSError:
        return False
    finally:
        directories.close(descriptor)


def read_small_file(path: str, max_bytes: int) -> bytes:
    """Return the bytes of a regular file of at most ``max_bytes`` bytes.

    Raises:
        OSError: as in ``read_pieces``.
    """
    return b"".join(read_pieces(path, max_bytes))


def read_same_file(path: str, status: os.stat_result, max_bytes: int) -> bytes:
    """Return the bytes of a file that must still be the one that was inspected.

    Args:
        path: the file.
        status: its status when it was inspected.
        max_bytes: the largest size that is read.

    Raises:
        OSError: as in ``read_pieces``; or the file was replaced, or is a symlink.
    """
    with name_path_in_errors(path):
        descriptor = directories.open_file(path)
        if not os.path.samestat(os.fstat(descriptor), status):
            directories.close(descriptor)
            raise OSError(None, "replaced by another file meanwhile", path)
        return b"".join(_read_pieces(descriptor, max_bytes))


def read_descriptor(descriptor: int, max_bytes: int, path: str) -> bytes:
    """Return the bytes of an open regular file, and close it.

    Args:
        descriptor: the file.
        max_bytes: the largest size that is read.
        path: what errors call it.

    Raises:
        OSError: as in ``read_pieces``.
    """
    with name_path_in_errors(path):
        return b"".join(_read_pieces(descriptor, max_bytes))


def read_pieces(path: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a regular file of at most ``max_bytes`` bytes.

    Never blocks on a FIFO and never reads a device.

    Raises:
        OSError: the file is missing, unreadable, not a regular file, or larger. It is found
            to be larger only at the end.
    """
    with name_path_in_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        yield from _read_pieces(descriptor, max_bytes)


def _read_pieces(descriptor: int, max_bytes: int) -> Iterator[bytes]:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file")
        remaining_bytes = max_bytes + 1
        while remaining_bytes and (
            piece := os.read(descriptor, min(remaining_bytes, _PIECE_BYTES))
        ):
            remaining_bytes -= len(piece)
            yield piece
        if not remaining_bytes:
            raise OSError(None, f"larger than {max_bytes} bytes")
    finally:
        directories.close(descriptor)


def open_direct(path: str) -> FileIO:
    """Open a file for reading past the page cache (O_DIRECT), without blocking on a FIFO.

    Raises:
        OSError: it cannot be opened. EINVAL: the system or the file system has no O_DIRECT.
    """
    if not hasattr(os, "O_DIRECT"):
        raise OSError(errno.EINVAL, "O_DIRECT is not supported", path)
    return open_buffered(path, os.O_DIRECT)


def make_direct(descriptor: int) -> bool:
    """Let an open file be read past the page cache (O_DIRECT); return whether it can be.

    Reads must then begin and end at multiples of ``DIRECT_UNIT_BYTES``, in the file and in memory,
    except at the end of the file. All duplicates of the descriptor are affected.
    """
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except (OSError, AttributeError):  # the file system or the system has none
        return False
    return True


def make_buffered(descriptor: int) -> None:
    """Let an open file be read through the page cache again, after ``make_direct``."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)


def open_buffered(path: str, flags: int = 0) -> FileIO:
    """Open a file for reading through the page cache; never wait for the writer of a FIFO.

    Raises:
        OSError: it cannot be opened, or is a symlink.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    return FileIO(path, opener=lambda name, mode: os.open(name, mode | flags))


def drop_pages(stream: FileIO, offset: int) -> None:
    """Drop the block of ``DROP_BYTES`` around ``offset`` from the page cache, if that is possible.

    Pages that are not yet written to the disk, or that a process has mapped, stay.

    Raises:
        OSError: it is a FIFO or the like.
    """
    if hasattr(os, "posix_fadvise"):
        block = offset // DROP_BYTES * DROP_BYTES
        os.posix_fadvise(stream.fileno(), block, DROP_BYTES, os.POSIX_FADV_DONTNEED)


def is_uncached(descriptor: int, offset: int) -> bool:
    """Return whether a byte of an open file is known not to be in the page cache.

    If it is not, the kernel may start to read it.
    """
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except (OSError, AttributeError) as error:  # others: the file system or Python cannot tell
        return isinstance(error, BlockingIOError)
    return False


def read_cached(descriptor: int, length: int, offset: int) -> bytes | None:
    """Return up to ``length`` bytes of an open file that are in the page cache.

    Returns:
        None: the disk would have to be waited for, or nobody can tell.

    Raises:
        OSError: the file cannot be read.
    """
    buffer = bytearray(length)
    try:
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return bytes(memoryview(buffer)[:count])


def open_regular(path: str) -> int:
    """Open a regular file for reading; never wait for the writer of a FIFO.

    Raises:
        OSError: it is missing, unreadable, or not a regular file.
    """
    with name_path_in_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(None, "not a regular file")
        except OSError:
            directories.close(descriptor)
            raise
    return descriptor


def read_windows(descriptor: int, window_bytes: int, max_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of an open file from its beginning, wherever its position is.

    Raises:
        OSError: the file cannot be read. At the end only is it found that it is larger than
            ``max_bytes``, or ended before the size that it had at the beginning.
    """
    size_bytes = os.fstat(descriptor).st_size
    offset = 0
    while window := os.pread(descriptor, min(window_bytes, max_bytes + 1 - offset), offset):
        offset += len(window)
        if offset > max_bytes:
            raise OSError(None, f"larger than {max_bytes} bytes")
        yield window
    if offset < size_bytes:
        raise OSError(errno.EIO, _BECAME_SHORTER)


def read_span(descriptor: int, offset: int, length: int) -> bytes:
    """Return ``length`` bytes of an open file from ``offset`` on.

    Raises:
        OSError: the file cannot be read, or ends before.
    """
    pieces: list[bytes] = []
    while length:
        piece = os.pread(descriptor, length, offset)
        if not piece:
            raise OSError(errno.EIO, _BECAME_SHORTER)
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """Open a file with ``data`` that is on no disk, for a program that is started.

    Yields:
        Its descriptor. Programs that inherit it find the file at ``/proc/self/fd/NUMBER``.

    Raises:
        OSError: the system is out of memory or descriptors.
    """
    with os.fdopen(os.memfd_create("fastindex"), "wb") as file:
        file.write(data)
        file.flush()
        yield file.fileno()
