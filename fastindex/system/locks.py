"""One run at a time: the lock, which a process takes along when it dies."""

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
_LOOKS = 20
"""How often to look who holds a lock: between two holders nobody has told yet."""

_inherited_locks: set[int] = set()


def _close_inherited_locks() -> None:
    # A forked worker that outlives a killed parent must not keep its lock.
    for descriptor in _inherited_locks:
        with suppress(OSError):
            os.close(descriptor)
    _inherited_locks.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def lock(path: str, wait_seconds: float, directory: int | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` (``flock``) while the context lasts.

    The file holds the holder's pid while there is one. Two runs that lock two files of
    one name would not see each other: a mirror's is never removed, and who has come by
    one that was removed while he waited takes the new one.

    Args:
        path: the lock file; made, with its directory, where missing.
        wait_seconds: how long to wait for another holder; 0: not at all, ``inf``: for ever.
        directory: the open directory that it lies in, where others than the operator may
            write; None: it is the operator's, and made where missing.

    Raises:
        LockHeldError: another run holds it.
        PublishError: the lock file cannot be opened.
    """
    descriptor = _lock(path, wait_seconds, directory)
    # Asked once: a hard link to another's file may be on its own when the lock is let go.
    is_ours = _has_one_name(descriptor)
    try:
        if is_ours:
            _tell_holder(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        if is_ours:
            _tell_holder(descriptor, b"")
        _close_lock(descriptor)


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
                error.filename = path  # flock and fstat know of none
            raise
        _close_lock(descriptor)  # of a file that was removed meanwhile; another locks the new one


def _open_lock(path: str, directory: int | None) -> int:
    above, name = os.path.split(path)
    try:
        with ExitStack() as stack:
            if directory is None:
                directory = stack.enter_context(directories.held(directories.make(above)))
            return _open_in(directory, name)
    except OSError as error:
        raise PublishError(
            f"{path}: the lock file cannot be opened ({error.strerror}); "
            "run as a user who may write there, or name another place with --output"
        ) from error


def _open_in(directory: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags | os.O_EXCL, _MODE, dir_fd=directory)
    except FileExistsError:
        with suppress(PermissionError):
            return os.open(name, flags, _MODE, dir_fd=directory)
        return directories.open_file(name, directory)  # another user's, who ran before
    directories.set_mode_and_group(descriptor, directory, _MODE)
    return descriptor


def _close_lock(descriptor: int) -> None:
    _inherited_locks.discard(descriptor)
    with suppress(OSError):  # it is closed all the same
        os.close(descriptor)


def _tell_holder(descriptor: int, told: bytes) -> None:
    with suppress(OSError):  # for people only; a full disk holds nobody up
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, told, 0)


def _has_one_name(descriptor: int) -> bool:
    """Return whether a lock file is not a hard link to something worth its bytes."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _holder(descriptor: int) -> str:
    for _ in range(_LOOKS):
        told = os.pread(descriptor, 32, 0).strip()
        if told.isdigit():
            return told.decode()
        time.sleep(_POLL_SECONDS / _LOOKS)  # it may have come just now, or the next one has
    return "unknown"


def _acquire(descriptor: int, path: str, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        signals.check()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left_seconds = deadline - time.monotonic()
            if left_seconds > 0:
                time.sleep(min(_POLL_SECONDS, left_seconds))
                continue
            raise LockHeldError(
                f"{path}: another run (pid {_holder(descriptor)}) holds the lock; "
                "try again when it has ended, or use --wait"
            ) from None
        return


def is_at(descriptor: int, path: str, directory: int | None = None) -> bool:
    """Return whether ``path``, relative to ``directory``, is still the file that was opened."""
    try:
        there = os.stat(path, dir_fd=directory, follow_symlinks=False)
        return os.path.samestat(os.fstat(descriptor), there)
    except FileNotFoundError:
        return False
