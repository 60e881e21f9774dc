"""New files, for the bytes of an image while they are read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from fastindex.system import directories

RWF_DONTCACHE = 0x80
"""A flag of preadv2(2) and pwritev2(2): leave no pages in the page cache (since Linux 6.14)."""
UNKNOWN_FLAG_ERRNOS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Errors of a kernel or a file system that does not know the flag."""

_MODE = 0o644
_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnwritableError(OSError):
    """A file of an image could not be written: the target failed, not the source.

    An OSError, so that it is handled as one that names the new file.
    """


class NewFile:
    """A file that an image is written to, piece by piece.

    Not atomic by itself: it is in a directory that nobody uses yet. Where the system can, the
    page cache is left out. Then the disk is busy from the first piece on and the final sync has
    little to do, which halves the time of ``benchmarks/import_copy.py``.

    Args:
        path: the new file, an absolute path without symlinks; none is followed. An
            existing file is replaced.
        kept_bytes: keep so many bytes of an existing file, and append to them.

    Raises:
        UnwritableError: it cannot be made, or has fewer bytes to keep.
    """

    def __init__(self, path: str, kept_bytes: int = 0) -> None:
        self._path = path
        self._offset = kept_bytes
        self._flags = RWF_DONTCACHE
        above, name = os.path.split(path)
        try:
            with directories.closing(directories.open_below("/", above)) as directory:
                self._descriptor = (
                    _open_again(directory, name, kept_bytes)
                    if kept_bytes
                    else _create(directory, name)
                )
                directories.set_mode_and_group(self._descriptor, directory, _MODE)
        except OSError as error:
            raise self._to_unwritable(error) from error

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def read_kept(self, buffer: memoryview) -> Iterator[memoryview]:
        """Yield the bytes that were kept; each piece is valid until the next.

        Args:
            buffer: the memory to read into.

        Raises:
            UnwritableError: they cannot be read.
        """
        offset, end = 0, self._offset
        try:
            while offset < end:
                count = os.preadv(self._descriptor, [buffer[: end - offset]], offset)
                if not count:
                    raise OSError(errno.EIO, "was cut off meanwhile")
                yield buffer[:count]
                offset += count
        except OSError as error:
            raise self._to_unwritable(error) from error

    def write(self, piece: memoryview) -> None:
        """Append ``piece``.

        Raises:
            UnwritableError: it could not be written.
        """
        try:
            while piece:
                written = self._write(piece)
                self._offset += written
                piece = piece[written:]
        except OSError as error:
            raise self._to_unwritable(error) from error

    def _write(self, piece: memoryview) -> int:
        if self._flags:
            try:
                return os.pwritev(self._descriptor, [piece], self._offset, self._flags)
            except NotImplementedError:
                pass
            except OSError as error:
                if error.errno not in UNKNOWN_FLAG_ERRNOS:
                    raise
            self._flags = 0
        return os.pwrite(self._descriptor, piece, self._offset)

    def finish(self, mtime_ns: int) -> None:
        """Set the modification time, in nanoseconds since 1970, and sync the file.

        Raises:
            UnwritableError: it could not be written.
        """
        try:
            os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._to_unwritable(error) from error

    def _to_unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(error.errno, error.strerror, self._path)


def _open_again(directory: int, name: str, kept_bytes: int) -> int:
    descriptor = os.open(name, _OLD_FILE, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < kept_bytes:
            raise OSError(errno.EINVAL, "is not the file that was begun")
        os.ftruncate(descriptor, kept_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _create(directory: int, name: str) -> int:
    try:
        return os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)  # left by a killed run
        return os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
