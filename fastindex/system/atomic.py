"""The only door through which metadata is written.

A file is written whole into a hidden sibling and renamed over the old one, so that
a reader sees the old bytes or the new ones, whatever is killed or full. The sibling's
name is fixed: what a killed run left is overwritten by the next.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, suppress

from fastindex.system import directories
from fastindex.system.files import name_path_in_errors
from fastindex.system.locks import is_at

_MODE = 0o644
_SECOND_NS = 1_000_000_000
_MOST_LEAD_SECONDS = 3600
_PATIENCE_SECONDS = 1.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    with name_path_in_errors(os.path.join(above, temporary)), ExitStack() as stack:
        if directory is None:
            made = directories.make(above, is_durable=is_durable)
            directory = stack.enter_context(directories.held(made))
        descriptor = _create_alone(directory, temporary)
        try:
            directories.set_mode_and_group(descriptor, directory, _MODE)
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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
