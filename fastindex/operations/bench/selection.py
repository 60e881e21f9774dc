"""Select the files below a path that are read for the measurement.

Symlinks below the path are not followed, only regular files are opened, and of several file
systems only the one with the most bytes is measured: a figure of two disks describes
neither. A file is read up to its first hole, since reading a hole needs no disk.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import itemgetter

from msgspec import Struct, structs

from fastindex.errors import Code, TreeError
from fastindex.events import Finding, Observer
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench.options import Method
from fastindex.system import disks, signals
from fastindex.system.files import drop_pages, is_uncached, open_buffered, open_direct

MIN_BYTES = 64 << 20
"""A figure of less is meaningless."""

MIN_FILE_BYTES = 4 << 20
"""Opening smaller files takes longer than reading them."""

_MAX_FILES = 1024
_MAX_SEARCH_SECONDS = 3.0
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")
"""File systems without a disk; they accept O_DIRECT and ignore it."""


class File(Struct, frozen=True, array_like=True):
    """A regular file."""

    path: str
    size_bytes: int
    """How much of it is read: a multiple of the buffer."""
    device: int
    """Its st_dev."""


class Selection(Struct, frozen=True):
    """What to read below a path."""

    path: str
    """The path as given in the options."""
    files: tuple[File, ...]
    """The files to read."""
    file_system: str
    """The type of their file system; empty: not known."""
    total_bytes: int | None
    """The size of all regular files below the path; None: too many files to count."""
    method: Method
    """How to read the files past the page cache."""


def select_files(path: str, observer: Observer) -> Selection | None:
    """Find the largest files at ``path``.

    Args:
        path: a regular file or a directory, or a symlink to one.
        observer: warned about what is not measured.

    Returns:
        The selection; None: the files cannot be read past the page cache.

    Raises:
        TreeError: ``path`` cannot be read, or there is too little to measure.
    """
    found, is_complete = _find_files(path, observer)
    device = _choose_device(path, found, observer)
    file_system = disks.find_file_system_type(device)
    large = [file for file in found if file.device == device and file.size_bytes >= MIN_FILE_BYTES]
    large.sort(key=lambda file: file.size_bytes, reverse=True)
    if file_system in _IN_MEMORY:
        _warn_not_measured(path, file_system, observer)
        return None
    method = _choose_method(large)
    files = [_cut_at_hole(file, method, observer) for file in large[:_MAX_FILES]]
    files = [file for file in files if file.size_bytes >= MIN_FILE_BYTES]
    selected_bytes = sum(file.size_bytes for file in files)
    if selected_bytes < MIN_BYTES:
        raise TreeError(
            f"{path}: not enough data to measure the disk: {selected_bytes >> 20} MiB in "
            f"regular files of at least {MIN_FILE_BYTES >> 20} MiB, up to their first hole; "
            f"{MIN_BYTES >> 20} MiB are needed. Symlinks are not followed: name their target"
        )
    if method == "dropped":
        files = [file for file in files if _can_be_dropped(file)]
        if sum(file.size_bytes for file in files) < MIN_BYTES:
            _warn_not_measured(path, file_system, observer)
            return None
    total_bytes = sum(file.size_bytes for file in found) if is_complete else None
    return Selection(path, tuple(files), file_system, total_bytes, method)


def _find_files(path: str, observer: Observer) -> tuple[list[File], bool]:
    """Return the regular files at ``path``, and whether the search found all of them."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        reason = getattr(error, "strerror", None) or error
        raise TreeError(f"{path}: cannot be read ({reason})") from error
    if stat.S_ISREG(status.st_mode):
        return [File(os.path.realpath(path), status.st_size, status.st_dev)], True
    if not stat.S_ISDIR(status.st_mode):
        raise TreeError(f"{path}: not a regular file or directory")
    files: dict[tuple[int, int], File] = {}  # a file with several hard links counts once
    directories = [path]
    deadline = time.monotonic() + _MAX_SEARCH_SECONDS
    while directories:
        signals.check()
        if time.monotonic() > deadline:
            return list(files.values()), False
        directory = directories.pop()
        try:
            with os.scandir(directory) as listing:
                entries = list(listing)
        except OSError as error:
            _warn_unreadable(directory, error, observer)
            continue
        for entry in entries:
            with suppress(OSError):  # it was removed meanwhile
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    directories.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    file = File(entry.path, status.st_size, status.st_dev)
                    files.setdefault((status.st_dev, status.st_ino), file)
    return list(files.values()), True


def _choose_device(path: str, files: Iterable[File], observer: Observer) -> int:
    """Return the st_dev with the most bytes; warn if there are others."""
    sizes: Counter[int] = Counter()
    for file in files:
        sizes[file.device] += file.size_bytes
    device, size_bytes = max(sizes.items(), key=itemgetter(1), default=(0, 0))
    if others := sizes.total() - size_bytes:
        problem = f"{others / 1e9:.1f} GB are on other file systems, which are not measured"
        observer.warn(
            Finding(
                Code.NOT_MEASURED, path, problem, "to measure one of them, name a directory on it"
            )
        )
    return device


def _choose_method(files: Sequence[File]) -> Method:
    """Return how to read the files; the first one that may be read tells."""
    for file in files:
        try:
            open_direct(file.path).close()
        except OSError as error:
            if error.errno == errno.EINVAL:
                return "dropped"
        else:
            break
    return "direct"


def _cut_at_hole(file: File, method: Method, observer: Observer) -> File:
    """Return ``file`` with the size up to its first hole; 0: it cannot be read."""
    signals.check()
    open_file = open_direct if method == "direct" else open_buffered
    data_bytes = 0
    try:
        with open_file(file.path) as stream:
            data_bytes = stream.seek(0, os.SEEK_HOLE)
    except OSError as error:
        _warn_unreadable(file.path, error, observer)
    return structs.replace(file, size_bytes=data_bytes // BUFFER_BYTES * BUFFER_BYTES)


def _can_be_dropped(file: File) -> bool:
    """Return whether both ends of ``file`` are known to be gone once they are dropped.

    The end of what was just written is the last to reach the disk, and stays until then.
    """
    signals.check()
    with suppress(OSError), open_buffered(file.path) as stream:
        for offset in (0, file.size_bytes - 1):
            drop_pages(stream, offset)
            if not is_uncached(stream.fileno(), offset):
                return False
        return True
    return False


def _warn_not_measured(path: str, file_system: str, observer: Observer) -> None:
    words = file_system or "its file system"
    problem = f"{words} cannot be read past the page cache, so the disk is not measured"
    remedy = "name a directory on a disk, with files that were not written just now"
    observer.warn(Finding(Code.NOT_MEASURED, path, problem, remedy))


def _warn_unreadable(path: str, error: OSError, observer: Observer) -> None:
    problem = f"cannot be read ({error.strerror}); the rest is measured without it"
    remedy = "give this user read permission to measure it, too"
    observer.warn(Finding(Code.NOT_MEASURED, path, problem, remedy))
