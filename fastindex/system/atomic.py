"""Atomic replacement of files: the only way in which metadata is written.

A file is written to a hidden temporary file beside it and renamed over the old one, so that a
reader sees the old bytes or the new ones, even if the process is killed or the disk is full. The
temporary file has a fixed name, so that a run removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress

from fastindex.system import directories
from fastindex.system.files import name_path_in_errors
from fastindex.system.locks import is_at

_MODE = 0o644
_SECOND_NS = 1_000_000_000
_MAX_LEAD_SECONDS = 3600
_MAX_WAIT_SECONDS = 1.0
_MAX_TIMEOUTS = 3
"""After so many waits in vain, one after the other, nobody is waited for any more: a stranger could
lock a file in each of thousands of directories."""

_timeouts = 0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(
    path: str,
    data: bytes | Iterable[bytes],
    *,
    is_durable: bool = True,
    is_served: bool = False,
    directory: int | None = None,
) -> None:
    """Replace the content of ``path`` by ``data``, atomically; all may read it whatever the umask.

    Args:
        path: the file. A symlink in its place is replaced, never followed.
        data: the new content, in one piece or in several.
        is_durable: sync the file and its directory, so that the new content survives a power
            cut. Not worth it for caches: a torn one is treated as absent, and 20,000 syncs
            take minutes.
        is_served: give the file an mtime at least one second later than that of the file it
            replaces. Web servers and rsync compare sizes and whole seconds: of two files
            from one second, a proxy could keep the older for ever, or join pieces of both.
        directory: descriptor of the directory of ``path``, if others than the operator can
            write on the way to it. If None, the directory is made where missing.

    Raises:
        OSError: the file was not replaced; the old one is unchanged. If only the last sync
            of the directory failed, it was replaced.
    """
    above, name = os.path.split(path)
    temporary = f".{name.lstrip('.')}.tmp"
    with name_path_in_errors(os.path.join(above, temporary)):
        if directory is not None:
            _replace_in(directory, name, temporary, data, is_durable, is_served)
            return
        with directories.closing(directories.open_or_make(above, is_durable=is_durable)) as made:
            _replace_in(made, name, temporary, data, is_durable, is_served)


def replace_named_file(path: str, data: bytes) -> None:
    """Replace the content of a file that the operator names, as ``replace_file`` does.

    A rename would put a file in place of a device or a FIFO, such as ``/dev/stdout``, and in place
    of a symlink instead of what it leads to.

    Args:
        path: an absolute path.
        data: the new content.

    Raises:
        OSError: the file was not replaced; the old one is unchanged. Something else than a regular
            file is never replaced.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file", path)
    replace_file(path, data)


def _replace_in(
    directory: int,
    name: str,
    temporary: str,
    data: bytes | Iterable[bytes],
    is_durable: bool,
    is_served: bool,
) -> None:
    descriptor = _create_locked(directory, temporary)
    try:
        directories.set_mode_and_group(descriptor, directory, _MODE)
        for piece in (data,) if isinstance(data, bytes) else data:
            _write_all(descriptor, piece)
        if is_served:
            _advance_mtime(descriptor, directory, name)
        if is_durable:
            os.fsync(descriptor)
        os.close(os.dup(descriptor))  # network file systems report a full disk here
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        directories.close(descriptor)
    if is_durable:
        os.fsync(directory)


def _create_locked(directory: int, name: str) -> int:
    """Create a file that is locked until it is closed; wait for another run that is writing it."""
    while True:
        try:
            descriptor = os.open(name, _NEW_FILE, _MODE, dir_fd=directory)
        except FileExistsError:
            _remove_stale(directory, name)
            continue
        try:
            _lock(descriptor)
            if is_at(descriptor, name, directory):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_stale(directory: int, name: str) -> None:
    """Remove the file of a killed run, or wait for a run that is still writing it."""
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
    """Lock a temporary file.

    Raises:
        BlockingIOError: another process holds the lock for longer than a write takes, as
            someone would who wants to stop this run.
    """
    global _timeouts  # noqa: PLW0603  # it is about this process, whatever it writes
    has_waited = False
    until = time.monotonic() + (_MAX_WAIT_SECONDS if _timeouts < _MAX_TIMEOUTS else 0)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                _timeouts += 1
                raise
            time.sleep(0.01)
            has_waited = True
        except OSError:  # the file system has no locks; then runs must not overlap
            return
        else:
            if has_waited:
                _timeouts = 0
            return


def _advance_mtime(descriptor: int, directory: int, name: str) -> None:
    """Give a new file an mtime at least one second later than that of the file ``name``."""
    try:
        last = os.stat(name, dir_fd=directory, follow_symlinks=False)
        last_second = last.st_mtime_ns // _SECOND_NS
    except OSError:
        return
    second = os.fstat(descriptor).st_mtime_ns // _SECOND_NS
    # An mtime further ahead comes from a wrong clock. It is not worth keeping up with.
    if second <= last_second < second + _MAX_LEAD_SECONDS:
        later_ns = (last_second + 1) * _SECOND_NS
        os.utime(descriptor, ns=(later_ns, later_ns))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
