"""Directories in the tree, opened so that no symlink can redirect a write or a deletion.

Uploaders own parts of the tree and can replace a directory by a symlink at any moment. So files
there are written and deleted through a descriptor of their directory. It is opened name by name,
from a trusted directory down, and follows no symlinks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MODE = 0o755
_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PASS_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""For the directories on the way down: O_PATH does not need the right to list them."""
MAX_LINKS = 40
"""Symlinks on the way to a file; as many as Linux follows (path_resolution(7))."""
MAX_STEPS = 1000
"""Names on the way to a file, those in symlinks included."""
SYMLINK_ERRNOS = (errno.ENOTDIR, errno.ELOOP, errno.EMLINK)
"""Errors of O_NOFOLLOW and O_DIRECTORY for a symlink (Linux, BSD)."""


class LeadsOutError(OSError):
    """A path leads out of the mirror.

    An OSError, so that whoever reads a file handles it as an unreadable one.

    Args:
        path: the path.
    """

    def __init__(self, path: str) -> None:
        super().__init__(None, "leads out of the mirror", path)


def bounds_of(root: str, *streams: str) -> tuple[str, ...]:
    """Return the prefixes of real paths inside a mirror, each with a final slash.

    Args:
        root: ROOT.
        streams: names of its streams. A stream directory may be a symlink that the operator
            made to another disk.
    """
    tops = (root, *(os.path.join(root, stream) for stream in streams))
    return tuple(os.path.join(real_path(top) or top, "") for top in tops)


def is_inside(path: str, bounds: tuple[str, ...]) -> bool:
    """Return whether ``path``, with all symlinks followed, lies inside ``bounds``."""
    real = real_path(path)
    return bool(real) and os.path.join(real, "").startswith(bounds)


def real_path(path: str) -> str:
    """Return ``path`` with all symlinks followed; what does not exist stays as it is.

    It follows as many symlinks as the kernel does when it opens a file, and takes as many steps
    from directory to directory as sane paths need. Without that bound, a stranger's symlinks could
    keep a run busy for minutes, or lead to files that nobody can open.

    Returns:
        An absolute path; "" if it takes more than ``MAX_LINKS`` symlinks or ``MAX_STEPS`` steps.

    Raises:
        FileNotFoundError: it is relative, and the current directory has been deleted.
    """
    names = path.split("/")[::-1]
    real = "" if path.startswith("/") else os.getcwd().rstrip("/")
    links = steps = 0
    while names:
        name = names.pop()
        steps += 1
        if steps > MAX_STEPS:
            return ""
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            real = real.rpartition("/")[0]
            continue
        try:
            target = os.readlink(f"{real}/{name}")
        except (OSError, ValueError):  # no symlink, or missing, or no name at all
            real = f"{real}/{name}"
            continue
        links += 1
        if links > MAX_LINKS:
            return ""
        names += target.split("/")[::-1]
        if target.startswith("/"):
            real = ""
    return real or "/"


def open_file(path: str, directory: int | None = None) -> int:
    """Open a file for reading, without following a symlink or blocking on a FIFO.

    Args:
        path: the file, relative to ``directory``.
        directory: descriptor of a directory; None for the working directory.

    Raises:
        OSError: it cannot be opened, or is a symlink.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=directory)


def open_below(top: str, path: str, *, make: bool = False, is_durable: bool = True) -> int:
    """Open the directory ``path`` in the directory ``top``, following no symlink in ``path``.

    Args:
        top: a trusted directory. Symlinks on the way to it are followed.
        path: the directory, relative to ``top``.
        make: make missing directories; all may read them whatever the umask.
        is_durable: sync the directories that are made.

    Returns:
        Its descriptor; the caller closes it.

    Raises:
        LeadsOutError: ``path`` contains ``..``.
        OSError: it cannot be opened or made, or a symlink or another file is in the way.
    """
    names = [name for name in path.split("/") if name]
    if ".." in names:
        raise LeadsOutError(path)
    descriptor = os.open(top, _PASS_FLAGS if names else _OPEN_FLAGS)
    for number, name in enumerate(names, 1):
        flags = _OPEN_FLAGS if number == len(names) else _PASS_FLAGS
        above = descriptor
        try:
            descriptor = _open_in(above, name, flags, make=make, is_durable=is_durable)
        except OSError as error:
            error.filename = os.path.join(top, *names[:number])
            raise
        finally:
            close(above)
    return descriptor


def open_in(above: int, name: str, *, make: bool = False) -> int:
    """Open the directory ``name`` in the open directory ``above``; as ``open_below`` does.

    Raises:
        OSError: it cannot be opened or made, or a symlink or another file is in the way.
    """
    return _open_in(above, name, _OPEN_FLAGS, make=make, is_durable=True)


def _open_in(above: int, name: str, flags: int, *, make: bool, is_durable: bool) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another process made it first
        os.mkdir(name, _MODE, dir_fd=above)
    descriptor = os.open(name, _OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=above)
    try:
        set_mode_and_group(descriptor, above, _MODE)
        if is_durable:
            _sync(above)
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def _sync(directory: int) -> None:
    # Through another descriptor: fsync does not work on one that was opened with O_PATH.
    with closing(os.open(".", _OPEN_FLAGS, dir_fd=directory)) as listed:
        os.fsync(listed)


def open_or_make(path: str, *, is_durable: bool = True) -> int:
    """Open a directory that only the operator can change; make it if it is missing.

    Symlinks on the way to it are followed.

    Args:
        path: the directory.
        is_durable: sync the directories that are made.

    Raises:
        OSError: it cannot be opened or made.
    """
    above, missing = path or ".", ""
    while not os.path.isdir(above):
        above, name = os.path.split(above)
        missing = os.path.join(name, missing)
        above = above or "."
    return open_below(above, missing, make=True, is_durable=is_durable)


class OpenDirectory:
    """A directory that is open as long as somebody has this object.

    Args:
        path: an absolute path; symlinks in it are followed.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, _OPEN_FLAGS)

    def __del__(self) -> None:
        """Close it."""
        if self.descriptor >= 0:
            close(self.descriptor)


def set_mode_and_group(descriptor: int, directory: int, mode: int) -> None:
    """Set the mode and the group of a new file or directory.

    Its group becomes that of the directory, as if that had the set-group-ID bit, if this user
    may change it.

    Args:
        descriptor: the new file or directory.
        directory: descriptor of the directory that it is in.
        mode: its permissions, whatever the umask.

    Raises:
        OSError: the mode cannot be set.
    """
    status = os.fstat(descriptor)
    group = os.fstat(directory).st_gid
    if status.st_gid != group:
        with suppress(OSError):
            os.fchown(descriptor, -1, group)
    # Not if it is right already: chmod clears the set-group-ID bit if the user is not in the group.
    if status.st_mode & 0o777 != mode:
        os.fchmod(descriptor, status.st_mode & stat.S_ISGID | mode)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close the descriptor of a directory when the context ends."""
    try:
        yield descriptor
    finally:
        close(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor that nothing was written through, so that errors do not matter."""
    try:  # noqa: SIM105  # a context manager takes as long as the call, and there are many
        os.close(descriptor)
    except OSError:
        pass
