"""One run at a time: a lock that the kernel releases when its holder dies (flock(2))."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from fastindex.errors import LockHeldError, PublishError
from fastindex.system import directories, signals

_MODE = 0o644
_POLL_SECONDS = 0.1
_PID_READS = 20
"""How often to read the holder's pid: a new holder may not have written it yet."""

_inherited_locks: set[int] = set()
_waited: list[float] = []
"""How long each wait for a lock took, in seconds."""


def count_waited_seconds() -> float:
    """Return how long this process has waited for other runs to release their locks."""
    return sum(_waited)


def _close_inherited_locks() -> None:
    # A forked worker that outlives its killed parent must not keep the lock.
    for descriptor in _inherited_locks:
        with suppress(OSError):
            os.close(descriptor)
    _inherited_locks.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def lock(path: str, wait_seconds: float, directory: int | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` while the context lasts.

    While it is held, the file contains the holder's pid. A mirror's lock file is never
    removed. If another one is removed while a run waits for it, that run locks the new file of
    that name: two runs must not hold locks on two files.

    Args:
        path: the lock file. It is made if it is missing.
        wait_seconds: how long to wait for another holder; 0: do not wait, ``inf``: for ever.
        directory: descriptor of the directory of ``path``, if others than the operator can
            write on the way to it. If None, the directory is made where missing.

    Raises:
        LockHeldError: another run holds the lock.
        PublishError: the lock file cannot be opened.
        OSError: the file system has no locks.
        Interrupted: a signal arrived while waiting.
    """
    descriptor = _lock(path, wait_seconds, directory)
    # Determined once: the other name of a hard link may be gone when the lock is released.
    may_write = _has_one_name(descriptor)
    try:
        if may_write:
            _write_holder(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        try:
            if may_write:
                _write_holder(descriptor, b"")
        finally:  # even if interrupted: a program that goes on must not hold it for ever
            _close_lock(descriptor)


@contextmanager
def hold(name: str, directory: int) -> Iterator[bool]:
    """Keep others from taking a lock while the context lasts; its file is not changed or made.

    Args:
        name: the lock file.
        directory: descriptor of its directory.

    Yields:
        Whether nobody else holds the lock; so if there is no such file, or no locks.
    """
    with ExitStack() as stack:
        is_free = True
        with suppress(OSError):  # no such file, or no locks on this file system
            descriptor = directories.open_file(name, directory)
            stack.callback(directories.close, descriptor)
            is_free = _try_to_share(descriptor)
        yield is_free


def _try_to_share(descriptor: int) -> bool:
    try:
        # Not exclusive: NFS would want the right to write.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(path: str, wait_seconds: float, directory: int | None) -> int:
    while True:
        descriptor = _open_lock(path, directory)
        _inherited_locks.add(descriptor)
        try:
            _acquire(descriptor, path, wait_seconds)
            if is_at(descriptor, path if directory is None else os.path.basename(path), directory):
                return descriptor
        except BaseException as error:
            _close_lock(descriptor)
            if isinstance(error, OSError):
                error.filename = path  # flock and fstat know no path
            raise
        _close_lock(descriptor)  # the file was removed meanwhile; others lock a new one


def _open_lock(path: str, directory: int | None) -> int:
    above, name = os.path.split(path)
    try:
        with ExitStack() as stack:
            if directory is None:
                directory = stack.enter_context(
                    directories.closing(directories.open_or_make(above))
                )
            return _open_in(directory, name)
    except OSError as error:
        raise PublishError(
            f"{path}: cannot open the lock file ({error.strerror}); "
            "run as a user who can write it, or choose another directory with --output"
        ) from error


def _open_in(directory: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags | os.O_EXCL, _MODE, dir_fd=directory)
    except FileExistsError:
        with suppress(PermissionError):
            return os.open(name, flags, _MODE, dir_fd=directory)
        return directories.open_file(name, directory)  # made by another user
    directories.set_mode_and_group(descriptor, directory, _MODE)
    return descriptor


def _close_lock(descriptor: int) -> None:
    _inherited_locks.discard(descriptor)
    with suppress(OSError):  # it is closed even if close() fails
        os.close(descriptor)


def _write_holder(descriptor: int, pid: bytes) -> None:
    with suppress(OSError):  # only people read it; a full disk is no reason to fail
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, pid, 0)


def _has_one_name(descriptor: int) -> bool:
    """Return whether nothing is lost by writing to a lock file: it is not a hard link."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _read_holder(descriptor: int) -> str:
    for _ in range(_PID_READS):
        pid = os.pread(descriptor, 32, 0).strip()
        if pid.isdigit():
            return pid.decode()
        time.sleep(_POLL_SECONDS / _PID_READS)  # it may be about to write it
    return "unknown"


def _acquire(descriptor: int, path: str, wait_seconds: float) -> None:
    began = time.monotonic()
    try:
        _wait_for(descriptor, path, wait_seconds)
    finally:
        _waited.append(time.monotonic() - began)


def _wait_for(descriptor: int, path: str, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        signals.check()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds > 0:
                time.sleep(min(_POLL_SECONDS, remaining_seconds))
                continue
            holder = f"{path}: another run (pid {_read_holder(descriptor)})"
            if wait_seconds > 0:
                waited = f"still holds the lock after {wait_seconds:g} s"
                raise LockHeldError(f"{holder} {waited}; wait longer, or try again later") from None
            remedy = "try again when it has ended, or use --wait"
            raise LockHeldError(f"{holder} holds the lock; {remedy}") from None
        return


def is_at(descriptor: int, path: str, directory: int | None = None) -> bool:
    """Return whether ``path`` is still the file that was opened.

    Args:
        descriptor: the open file.
        path: its path, relative to ``directory``.
        directory: descriptor of a directory; None for the working directory.

    Raises:
        OSError: its status cannot be read.
    """
    try:
        current = os.stat(path, dir_fd=directory, follow_symlinks=False)
        return os.path.samestat(os.fstat(descriptor), current)
    except FileNotFoundError:
        return False
