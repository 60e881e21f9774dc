"""Atomic replacement of files: the only way in which metadata is written.

A file is written to a hidden temporary file beside it and renamed over the old one, so that a
reader sees the old bytes or the new ones, even if the process is killed or the disk is full. The
temporary file has a fixed name, so that a run removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import closing, suppress

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


_STAGED = re.compile(r"\.(.+?)(?:\.\d+)?\.tmp")
"""The name of a new content: see ``stage_file``."""


def replace_file(
    path: str,
    data: bytes | Iterable[bytes],
    *,
    is_durable: bool = True,
    is_served: bool = False,
    directory: int | None = None,
    mode: int = _MODE,
) -> None:
    """Replace the content of ``path`` by ``data``, atomically.

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
        mode: its permissions, whatever the umask, from before it has content; by default all may
            read it.

    Raises:
        OSError: the file was not replaced; the old one is unchanged. If only the last sync
            of the directory failed, it was replaced.
    """
    staged = stage_file(
        path, data, is_durable=is_durable, is_served=is_served, directory=directory, mode=mode
    )
    with closing(staged):
        staged.commit()


def stage_file(
    path: str,
    data: bytes | Iterable[bytes],
    *,
    is_durable: bool = True,
    is_served: bool = False,
    directory: int | None = None,
    number: int = 0,
    mode: int = _MODE,
) -> StagedFile:
    """Write the new content of ``path`` beside it; close the result in the end.

    Args:
        path: the file.
        data: the new content.
        is_durable: as for ``replace_file``.
        is_served: as for ``replace_file``.
        directory: as for ``replace_file``.
        number: tells several contents apart that are to replace one file in turn.
        mode: as for ``replace_file``.

    Raises:
        OSError: it cannot be written, and nothing is left of it.
    """
    above = os.path.dirname(path)
    temporary = _name_aside(path, number)
    with name_path_in_errors(temporary):
        if directory is None:
            opened = directories.open_or_make(above, is_durable=is_durable)
        else:
            opened = os.dup(directory)
        return StagedFile(path, temporary, opened, data, is_durable, is_served, mode)


def remove_staged(path: str) -> None:
    """Remove what a killed run has left of ``stage_file``, if anything; errors are ignored."""
    with suppress(OSError):
        os.unlink(_name_aside(path, 0))


def _name_aside(path: str, number: int) -> str:
    above, name = os.path.split(path)
    suffix = f".{number}.tmp" if number else ".tmp"
    return os.path.join(above, f".{name.lstrip('.')}{suffix}")


class StagedFile:
    """The new content of a file, in a hidden file beside it; ``stage_file`` makes it.

    Args:
        path: the file.
        place: the path of the hidden file.
        directory: descriptor of the directory of both; it is closed with this.
        data: the new content.
        is_durable: as for ``replace_file``.
        is_served: as for ``replace_file``.
        mode: as for ``replace_file``.

    Raises:
        OSError: it cannot be written, and nothing is left of it.
    """

    def __init__(
        self,
        path: str,
        place: str,
        directory: int,
        data: bytes | Iterable[bytes],
        is_durable: bool,
        is_served: bool,
        mode: int,
    ) -> None:
        self.place = place
        """Where the new content is until it is committed."""
        self._path = path
        self._name = os.path.basename(path)
        self._temporary = os.path.basename(place)
        self._directory = directory
        self._is_durable = is_durable
        self._is_pending = True
        try:
            self._descriptor = _create_locked(directory, self._temporary, mode)
        except BaseException:
            directories.close(directory)
            raise
        try:
            self._write(data, is_served, mode)
        except BaseException:
            self.close()
            raise

    def rest(self) -> None:
        """Close all descriptors until it is committed, for there may be thousands of such files.

        Its lock goes with them: the caller has one that keeps other runs away.
        """
        directories.close(self._descriptor)
        directories.close(self._directory)
        self._descriptor = self._directory = -1

    def commit(self) -> None:
        """Put the new content in the place of the old.

        Raises:
            OSError: the old content is unchanged. If only the last sync of the directory failed,
                it was replaced.
        """
        with name_path_in_errors(self.place):
            if self._directory < 0:
                self._directory = directories.open_or_make(os.path.dirname(self._path))
            os.rename(
                self._temporary,
                self._name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
            )
            self._is_pending = False
            if self._is_durable:
                os.fsync(self._directory)

    def close(self) -> None:
        """Remove what was not committed."""
        if self._is_pending:
            self._is_pending = False
            with suppress(OSError):
                # By its directory's descriptor: others may be able to write on the way to it.
                if self._directory >= 0:
                    os.unlink(self._temporary, dir_fd=self._directory)
                else:
                    os.unlink(self.place)
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                directories.close(descriptor)
        self._descriptor = self._directory = -1

    def _write(self, data: bytes | Iterable[bytes], is_served: bool, mode: int) -> None:
        descriptor = self._descriptor
        directories.set_mode_and_group(descriptor, self._directory, mode)
        for piece in (data,) if isinstance(data, bytes) else data:
            _write_all(descriptor, piece)
        if is_served:
            _advance_mtime(descriptor, self._directory, self._name)
        if self._is_durable:
            os.fsync(descriptor)
        os.close(os.dup(descriptor))  # network file systems report a full disk here


def remove_file(path: str) -> None:
    """Remove a file that only the operator can have put there, and sync its directory.

    Raises:
        OSError: it is still there, or it was not.
    """
    above, name = os.path.split(path)
    with directories.closing(os.open(above, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        os.unlink(name, dir_fd=directory)
        os.fsync(directory)


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


def remove_stale(above: str, name: re.Pattern[str]) -> None:
    """Remove what killed runs left of contents that were to replace files in a directory.

    What another run is writing is waited for.

    Args:
        above: the directory; it need not be there.
        name: what the names of those files match.

    Raises:
        OSError: one is still there.
    """
    try:
        directory = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with directories.closing(directory):
        with name_path_in_errors(above):
            entries = os.listdir(directory)
        for entry in entries:
            match = _STAGED.fullmatch(entry)
            if match is not None and name.fullmatch(match[1]):
                with name_path_in_errors(os.path.join(above, entry)):
                    _remove_stale(directory, entry)


def _create_locked(directory: int, name: str, mode: int = _MODE) -> int:
    """Create a file that is locked until it is closed; wait for another run that is writing it."""
    while True:
        try:
            descriptor = os.open(name, _NEW_FILE, mode, dir_fd=directory)
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
