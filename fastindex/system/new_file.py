"""A new file that takes an image's bytes while they are read; not atomic by itself."""

from __future__ import annotations

import errno
import os

from fastindex.system import directories

RWF_DONTCACHE = 0x80
"""For preadv2 and pwritev2: leave no pages in the page cache (linux/fs.h, since Linux 6.14)."""
UNKNOWN_FLAG_ERRNOS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""How a kernel or a file system that does not know that flag says so."""

_MODE = 0o644
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnwritableError(OSError):
    """A file of an image could not be written: the target's fault, not the source's."""


class NewFile:
    """A file that takes an image's bytes, one piece after the other.

    Its path is a real one: a symlink that comes in its way is not followed. Not atomic by
    itself: it stands in a directory that nobody sees yet. Written without the page cache
    where the system can: the disk is busy from the first piece on, and the sync at the end
    has little left to do (half the time of benchmarks/import_copy.py).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._flags = RWF_DONTCACHE
        above, name = os.path.split(path)
        try:
            with directories.held(directories.open_below("/", above)) as directory:
                self._descriptor = _create(directory, name)
                directories.set_mode_and_group(self._descriptor, directory, _MODE)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def write(self, piece: memoryview) -> None:
        """Append ``piece``; raises UnwritableError."""
        try:
            while piece:
                written = self._write(piece)
                self._offset += written
                piece = piece[written:]
        except OSError as error:
            raise self._unwritable(error) from error

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
        """Give the file its modification time and sync it; raises UnwritableError."""
        try:
            os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(error.errno, error.strerror, self._path)


def _create(directory: int, name: str) -> int:
    try:
        return os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)  # a killed run's
        return os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
