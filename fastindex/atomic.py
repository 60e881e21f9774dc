"""The only door through which metadata is written, and the lock.

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
from contextlib import contextmanager, suppress

from fastindex import interrupt
from fastindex.errors import LockHeldError, PublishError

RWF_DONTCACHE = 0x80
"""For preadv2 and pwritev2: leave no pages behind (linux/fs.h, since Linux 6.14)."""
NO_SUCH_FLAG = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""How a kernel or a file system that does not know that flag says so."""

_MODE = 0o644
_POLL_SECONDS = 0.1
_PIECE_BYTES = 1 << 20

_inherited_locks: set[int] = set()


def _close_inherited_locks() -> None:
    # A forked worker that outlives a killed parent must not keep its lock.
    for descriptor in _inherited_locks:
        with suppress(OSError):
            os.close(descriptor)
    _inherited_locks.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


def replace_file(path: str, data: bytes, *, is_durable: bool = True) -> None:
    """Make ``path`` hold ``data``, atomically; its directory is made where missing.

    Args:
        path: the file; a symlink in its place is replaced, never followed.
        data: all that the file is to hold.
        is_durable: sync file and directory, so that the new bytes survive a power
            cut. Caches go without: a torn one is as good as none, and 20,000 syncs
            are minutes.

    Raises:
        OSError: nothing was replaced; the old file is as it was.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name.lstrip('.')}.tmp")
    try:
        with _naming(temporary):
            _write_new(temporary, data, is_durable=is_durable)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if is_durable:
        sync_directory(directory)


def _write_new(path: str, data: bytes, *, is_durable: bool) -> None:
    try:
        descriptor = _create(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = _create(path)
    try:
        os.fchmod(descriptor, _MODE)  # not what the umask of a cron job makes of it
        _write_all(descriptor, data)
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Let an error of a call on a descriptor name its file, as those on paths do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


class UnwritableError(OSError):
    """A file of an image could not be written: the target's fault, not the source's."""


class NewFile:
    """A file that takes an image's bytes, one piece after the other.

    Not atomic by itself: it stands in a directory that nobody sees yet. Written without
    the page cache where the system can: the disk is busy from the first piece on, and the
    sync at the end has little left to do (half the time of benchmarks/import_copy.py).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._flags = RWF_DONTCACHE
        try:
            self._descriptor = _create(path)
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
            os.fchmod(self._descriptor, _MODE)
            os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(error.errno, error.strerror, self._path)


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, _MODE)
    except FileExistsError:
        os.unlink(path)  # a killed run's
        return os.open(path, flags, _MODE)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: str) -> None:
    """Make the names in ``directory`` survive a power cut; raises OSError."""
    descriptor = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _naming(directory):
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def holds(path: str, data: bytes) -> bool:
    """Return whether ``path`` is a regular file of exactly these bytes, read piecewise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
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
        os.close(descriptor)


def read_small_file(path: str, most_bytes: int) -> bytes:
    """Return the bytes of a regular file of at most ``most_bytes`` bytes.

    Raises:
        OSError: as ``pieces_of`` does.
    """
    return b"".join(pieces_of(path, most_bytes))


def pieces_of(path: str, most_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a regular file of at most ``most_bytes`` bytes.

    Never blocks on a FIFO and never reads a device.

    Raises:
        OSError: absent, unreadable, no regular file, or larger; that it is larger shows
            only at the end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
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
        with suppress(OSError):  # nothing was written that could be lost
            os.close(descriptor)


@contextmanager
def lock(path: str, wait_seconds: float) -> Iterator[None]:
    """Hold the lock file ``path`` (``flock``) while the context lasts.

    The file holds the holder's pid and is never unlinked: two runs that lock two
    files of one name would not see each other.

    Args:
        path: the lock file; made, with its directory, where missing.
        wait_seconds: how long to wait for another holder; 0: not at all, ``inf``: for ever.

    Raises:
        LockHeldError: another run holds it.
        PublishError: the lock file cannot be made.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, _MODE)
    except OSError as error:
        raise PublishError(
            f"{path}: the lock file cannot be made ({error.strerror}); "
            "run as a user who may write there, or name another place with --output"
        ) from error
    _inherited_locks.add(descriptor)
    try:
        _acquire(descriptor, path, wait_seconds)
        with suppress(OSError):  # for people only; a full disk holds nobody up
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        _inherited_locks.discard(descriptor)
        with suppress(OSError):  # it is closed all the same
            os.close(descriptor)


def _acquire(descriptor: int, path: str, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        interrupt.check()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left_seconds = deadline - time.monotonic()
            if left_seconds > 0:
                time.sleep(min(_POLL_SECONDS, left_seconds))
                continue
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise LockHeldError(
                f"{path}: another run (pid {pid}) holds the lock; "
                "try again when it has ended, or use --wait"
            ) from None
        return
