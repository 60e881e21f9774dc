"""The only door through which metadata is written.

A file is written whole into a hidden sibling and renamed over the old one, so that
a reader sees the old bytes or the new ones, whatever is killed or full. The sibling's
name is fixed: what a killed run left is overwritten by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from fastindex.system import directories
from fastindex.system.locks import is_at

RWF_DONTCACHE = 0x80
"""For preadv2 and pwritev2: leave no pages behind (linux/fs.h, since Linux 6.14)."""
NO_SUCH_FLAG = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""How a kernel or a file system that does not know that flag says so."""

_MODE = 0o644
_SECOND_NS = 1_000_000_000
_MOST_LEAD_SECONDS = 3600
_PATIENCE_SECONDS = 1.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE_BYTES = 1 << 20


def replace_file(
    path: str,
    data: bytes,
    *,
    is_durable: bool = True,
    is_served: bool = False,
    directory: int | None = None,
) -> None:
    """Make ``path`` hold ``data``, atomically, for all to read whatever the umask.

    Args:
        path: the file; a symlink in its place is replaced, never followed.
        data: all that the file is to hold.
        is_durable: sync file and directory, so that the new bytes survive a power
            cut. Caches go without: a torn one is as good as none, and 20,000 syncs
            are minutes.
        is_served: give the file a later second than the one that it replaces. Web
            servers and rsync tell files apart by size and whole second: of two in one
            second a proxy could keep the older for ever, or join pieces of both.
        directory: the open directory that it lies in, where others than the operator may
            write; None: it is the operator's, and made where missing.

    Raises:
        OSError: nothing was replaced; the old file is as it was.
    """
    above, name = os.path.split(path)
    temporary = f".{name.lstrip('.')}.tmp"
    with _naming(os.path.join(above, temporary)), ExitStack() as stack:
        if directory is None:
            made = directories.make(above, is_durable=is_durable)
            directory = stack.enter_context(directories.held(made))
        descriptor = _create_alone(directory, temporary)
        try:
            directories.settle(descriptor, directory, _MODE)
            _write_all(descriptor, data)
            if is_served:
                _stamp_later(descriptor, directory, name)
            if is_durable:
                os.fsync(descriptor)
            os.close(os.dup(descriptor))  # a network's file system says now that it is full
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        finally:
            with suppress(OSError):
                os.close(descriptor)
        if is_durable:
            os.fsync(directory)


def _create_alone(directory: int, name: str) -> int:
    """Create a file, locked until it is closed: a run with another lock waits for its turn."""
    while True:
        try:
            descriptor = os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
        except FileExistsError:
            _remove_given_up(directory, name)
            continue
        try:
            _lock(descriptor)
            if is_at(descriptor, name, directory):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_given_up(directory: int, name: str) -> None:
    """Remove a killed run's file, or wait until the run that is writing it has ended."""
    try:
        descriptor = directories.open_file(name, directory)
    except FileNotFoundError:
        return
    except OSError:
        os.unlink(name, dir_fd=directory)
        return
    try:
        _lock(descriptor)
        if is_at(descriptor, name, directory):
            os.unlink(name, dir_fd=directory)
    finally:
        directories.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock a temporary; raises BlockingIOError where somebody does not let it go.

    A write takes moments: who holds it longer was put there to hold this run up.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        except OSError:  # a file system without locks: one run at a time is asked of people
            return
        else:
            return


def _stamp_later(descriptor: int, directory: int, name: str) -> None:
    """Give a new file a later second than that of ``name``, be that in the future."""
    try:
        last = os.stat(name, dir_fd=directory, follow_symlinks=False)
        last_second = last.st_mtime_ns // _SECOND_NS
    except OSError:
        return
    second = os.fstat(descriptor).st_mtime_ns // _SECOND_NS
    # A greater lead comes of a clock that was wrong: back to the right time, as soon as it is.
    if second <= last_second < second + _MOST_LEAD_SECONDS:
        later_ns = (last_second + 1) * _SECOND_NS
        os.utime(descriptor, ns=(later_ns, later_ns))


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Let an error name the whole path, of calls on a descriptor, too."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = path, None
        raise


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
                directories.settle(self._descriptor, directory, _MODE)
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
                if error.errno not in NO_SUCH_FLAG:
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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def holds(path: str, data: bytes) -> bool:
    """Return whether ``path`` is a regular file of exactly these bytes, read piecewise."""
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


def read_small_file(path: str, most_bytes: int) -> bytes:
    """Return the bytes of a regular file of at most ``most_bytes`` bytes.

    Raises:
        OSError: as ``pieces_of`` does.
    """
    return b"".join(pieces_of(path, most_bytes))


def read_same_file(path: str, status: os.stat_result, most_bytes: int) -> bytes:
    """Return the bytes of a small file that must still be that of ``status``.

    Raises:
        OSError: as ``pieces_of`` does; or it is another by now, or a symlink.
    """
    with _naming(path):
        descriptor = directories.open_file(path)
        if not os.path.samestat(os.fstat(descriptor), status):
            directories.close(descriptor)
            raise OSError(None, "it is another file by now", path)
        return b"".join(_pieces(descriptor, most_bytes))


def read_file_inside(path: str, bounds: tuple[str, ...], most_bytes: int) -> bytes:
    """Return the bytes of a small file that must lie inside ``bounds``, wherever links lead.

    Raises:
        OSError: as ``pieces_of`` does; or it lies elsewhere.
    """
    with _naming(path):
        return b"".join(_pieces(directories.open_file_inside(path, bounds), most_bytes))


def pieces_of(path: str, most_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a regular file of at most ``most_bytes`` bytes.

    Never blocks on a FIFO and never reads a device.

    Raises:
        OSError: absent, unreadable, no regular file, or larger; that it is larger shows
            only at the end.
    """
    with _naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        yield from _pieces(descriptor, most_bytes)


def _pieces(descriptor: int, most_bytes: int) -> Iterator[bytes]:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file")
        left_bytes = most_bytes + 1
        while left_bytes and (piece := os.read(descriptor, min(left_bytes, _PIECE_BYTES))):
            left_bytes -= len(piece)
            yield piece
        if not left_bytes:
            raise OSError(None, f"larger than {most_bytes} bytes")
    finally:
        directories.close(descriptor)
