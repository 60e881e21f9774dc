"""Directories in the tree, opened so that no symlink leads a write or a deletion astray.

Uploaders own parts of the tree and may swap a directory for a symlink at any moment. What
is written or deleted there goes through a descriptor of its directory, which is opened
name by name from a trusted one down and follows nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MODE = 0o755
_OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PASSED = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""On the way down: O_PATH needs no right to list."""
_LINK_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP, errno.EMLINK)
"""How systems say that what is no directory would have to be followed."""


class LeadsOutError(OSError):
    """A path leads out of the mirror."""

    def __init__(self, path: str) -> None:
        super().__init__(None, "leads out of the mirror", path)


def bounds_of(root: str, *streams: str) -> tuple[str, ...]:
    """Return what real paths inside ROOT begin with; a stream may be the operator's symlink."""
    tops = (root, *(os.path.join(root, stream) for stream in streams))
    return tuple(os.path.join(os.path.realpath(top), "") for top in tops)


def is_inside(path: str, bounds: tuple[str, ...]) -> bool:
    """Return whether ``path`` lies inside ``bounds``, wherever symlinks lead."""
    return os.path.join(real_path(path), "").startswith(bounds)


def real_path(path: str) -> str:
    """Return where ``path`` leads; "" where that is over more links than anything follows."""
    try:
        return os.path.realpath(path)
    except RecursionError:
        return ""


@contextmanager
def inside(path: str, bounds: tuple[str, ...]) -> Iterator[int]:
    """Hold a directory that must lie inside ``bounds``; symlinks may lead there.

    Args:
        path: absolute path of a directory.
        bounds: as ``bounds_of`` returns them.

    Raises:
        LeadsOutError: it lies elsewhere.
        OSError: it cannot be opened, or a symlink has come in its way meanwhile.
    """
    bound = next((bound for bound in bounds if path.startswith(bound)), None)
    try:
        descriptor = -1 if bound is None else open_below(bound, path[len(bound) :])
    except OSError as error:
        if error.errno not in _LINK_IN_THE_WAY:
            raise
        descriptor = -1  # it may lead elsewhere inside
    if descriptor < 0:
        real = real_path(path)
        bound = next((bound for bound in bounds if f"{real}/".startswith(bound)), None)
        if bound is None or not real:
            raise LeadsOutError(path)
        descriptor = open_below(bound, real[len(bound) :])
    with held(descriptor):
        yield descriptor


def open_file_inside(path: str, bounds: tuple[str, ...]) -> int:
    """Open a file for reading that must lie inside ``bounds``; symlinks may lead there.

    Raises:
        LeadsOutError: it lies elsewhere.
        OSError: it cannot be opened, or a symlink has come in its way meanwhile.
    """
    directory, name = os.path.split(real_path(path))
    if not directory:
        raise LeadsOutError(path)
    with inside(directory, bounds) as above:
        return open_file(name, above)


def open_file(path: str, directory: int | None = None) -> int:
    """Open what should be a file for reading: follows no symlink, and no FIFO holds it up."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=directory)


def open_below(top: str, path: str, *, make: bool = False, is_durable: bool = True) -> int:
    """Open the directory ``path`` in the directory ``top``, following no symlink in ``path``.

    Args:
        top: a trusted directory; symlinks on the way to it are its owner's.
        path: relative to it.
        make: make what is missing, for all to read whatever the umask.
        is_durable: sync what is made.

    Raises:
        OSError: it cannot be opened or made; a symlink, or something else, is in the way.
    """
    names = [name for name in path.split("/") if name]
    if ".." in names:
        raise LeadsOutError(path)
    descriptor = os.open(top, _PASSED if names else _OPENED)
    for number, name in enumerate(names, 1):
        flags = _OPENED if number == len(names) else _PASSED
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
    """Open the directory ``name`` in the directory ``above``; as ``open_below`` does."""
    return _open_in(above, name, _OPENED, make=make, is_durable=True)


def _open_in(above: int, name: str, flags: int, *, make: bool, is_durable: bool) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another process was quicker
        os.mkdir(name, _MODE, dir_fd=above)
    descriptor = os.open(name, _OPENED | os.O_NOFOLLOW, dir_fd=above)
    try:
        set_mode_and_group(descriptor, above, _MODE)
        if is_durable:
            _sync(above)
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def _sync(directory: int) -> None:
    # Through another descriptor: this one may be for passing through only.
    with held(os.open(".", _OPENED, dir_fd=directory)) as listed:
        os.fsync(listed)


def make(path: str, *, is_durable: bool = True) -> int:
    """Open a directory of the operator's, whose symlinks are followed; make what is missing."""
    above, missing = path or ".", ""
    while not os.path.isdir(above):
        above, name = os.path.split(above)
        missing = os.path.join(name, missing)
        above = above or "."
    return open_below(above, missing, make=True, is_durable=is_durable)


def set_mode_and_group(descriptor: int, directory: int, mode: int) -> None:
    """Give what was just made in ``directory`` its mode, whatever the umask, and its group.

    The group is the directory's, as with a set-group-ID bit, where this user may give it.
    """
    status = os.fstat(descriptor)
    group = os.fstat(directory).st_gid
    if status.st_gid != group:
        with suppress(OSError):
            os.fchown(descriptor, -1, group)
    # Not where it is right: for one who is not in the group the bit would be lost.
    if status.st_mode & 0o777 != mode:
        os.fchmod(descriptor, status.st_mode & stat.S_ISGID | mode)


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """Close ``descriptor``, a directory's, when the context ends."""
    try:
        yield descriptor
    finally:
        close(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor that nothing was written through: no error of it can matter."""
    with suppress(OSError):
        os.close(descriptor)
