"""A path → the parts of files that are fit to be read for a measurement.

Nothing is ever written here. Symlinks in the tree are not followed, what is no regular
file is not opened, and only the file system that most of the bytes lie on is looked at, as
a figure of two disks says nothing of either. Holes in files are left out: reading them
asks no disk.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from fastindex.errors import TreeError
from fastindex.events import Finding, Observer
from fastindex.operations.bench.options import Method
from fastindex.system import disks, signals

UNIT_BYTES = 4 << 20
"""Parts are a multiple of this: the biggest buffer, and any disk's block."""

LEAST_BYTES = 64 << 20
"""With less to read, a figure says nothing."""

_PART_BYTES = 64 << 20
_PARTS_A_READER = 4
_MOST_PARTS = 4096
_MOST_FILES = 512
_WALK_SECONDS = 3.0
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")
"""File systems that lie in the page cache; they take O_DIRECT and do nothing about it."""


class File(Struct, frozen=True):
    """A regular file."""

    path: str
    size_bytes: int
    device: int


class Part(Struct, frozen=True, array_like=True):
    """A part of a file, without holes."""

    path: str
    offset: int
    """A multiple of ``UNIT_BYTES``."""
    size_bytes: int
    """A multiple of ``UNIT_BYTES``."""


class Offer(Struct, frozen=True, kw_only=True):
    """What there is to read below a path."""

    parts: tuple[Part, ...]
    """Neighbours are of different files, as far as there are."""
    method: Method
    """How they are to be read."""
    file_system: str
    """The type of their file system; empty: not known."""
    device: int
    """Its st_dev."""
    total_bytes: int | None
    """Bytes of all regular files; None: there are too many to count them all."""


def offer(path: str, readers: int, observer: Observer) -> Offer:
    """Return what there is to read at ``path``.

    Args:
        path: a regular file or a directory; it may be a symlink to one.
        readers: how many processes are to find enough parts, where that can be.
        observer: warned of what cannot be read.

    Raises:
        TreeError: there is nothing there that could be measured; it tells why.
    """
    files, is_whole = _files(path, observer)
    devices: dict[int, int] = {}
    for file in files:
        devices[file.device] = devices.get(file.device, 0) + file.size_bytes
    device = max(devices, key=devices.__getitem__, default=0)
    if len(devices) > 1:
        apart = sum(devices.values()) - devices[device]
        observer.warn(
            Finding(
                path,
                f"{apart / 1e9:.1f} GB of it lie on other file systems, which are not measured",
                "name one of those to measure it",
            )
        )
    chosen = sorted(
        (file for file in files if file.device == device and file.size_bytes >= UNIT_BYTES),
        key=lambda file: file.size_bytes,
        reverse=True,
    )[:_MOST_FILES]
    there_bytes = sum(file.size_bytes for file in chosen)
    wanted = max(1, readers * _PARTS_A_READER)
    part_bytes = min(_PART_BYTES, max(UNIT_BYTES, _whole_units(there_bytes // wanted)))
    file_system = disks.file_system(device)
    method: Method = "cached" if file_system in _IN_MEMORY else _method(chosen)
    parts = _parts(chosen, part_bytes, method, observer)
    if method == "dropped" and _size(parts) < LEAST_BYTES:
        method = "cached"  # what was just written cannot be dropped
        parts = _parts(chosen, part_bytes, method, observer)
    if _size(parts) < LEAST_BYTES:
        raise TreeError(
            f"{path}: there is too little to read: {_size(parts) >> 20} MiB in regular files of "
            f"{UNIT_BYTES >> 20} MiB and more, without their holes; {LEAST_BYTES >> 20} MiB are "
            "needed. Symlinks are not followed: name the place itself"
        )
    return Offer(
        parts=tuple(parts),
        method=method,
        file_system=file_system,
        device=device,
        total_bytes=sum(file.size_bytes for file in files) if is_whole else None,
    )


def flags_of(method: Method) -> int:
    """Return what a file is opened with: never to write, and never to wait for a FIFO."""
    safe = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    return safe | os.O_DIRECT if method == "direct" else safe


@contextmanager
def opened(path: str, method: Method) -> Iterator[int]:
    """Open a regular file to read it; raises OSError, also where it is none."""
    descriptor = os.open(path, flags_of(method))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        yield descriptor
    finally:
        os.close(descriptor)


def _files(path: str, observer: Observer) -> tuple[list[File], bool]:
    """Return the regular files at ``path``, and whether these are all there are."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise TreeError(f"{path}: cannot be read ({error.strerror})") from error
    if stat.S_ISREG(status.st_mode):
        return [File(os.path.realpath(path), status.st_size, status.st_dev)], True
    if not stat.S_ISDIR(status.st_mode):
        raise TreeError(f"{path}: is neither a regular file nor a directory")
    files: list[File] = []
    seen: set[tuple[int, int]] = set()
    waiting = [path]
    until = time.monotonic() + _WALK_SECONDS
    while waiting:
        signals.check()
        if time.monotonic() > until:
            return files, False
        directory = waiting.pop()
        try:
            with os.scandir(directory) as listing:
                entries = list(listing)
        except OSError as error:
            observer.warn(_unreadable(directory, error))
            continue
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for entry in entries:
            with suppress(OSError):  # it went meanwhile
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    files.append(File(entry.path, found.st_size, found.st_dev))
    return files, True


def _unreadable(path: str, error: OSError) -> Finding:
    return Finding(path, f"cannot be read ({error.strerror})", "it is not measured; the rest is")


def _whole_units(size_bytes: int) -> int:
    return size_bytes // UNIT_BYTES * UNIT_BYTES


def _size(parts: Sequence[Part]) -> int:
    return sum(part.size_bytes for part in parts)


def _method(files: Sequence[File]) -> Method:
    """Return the best way to keep the page cache out, tried on the first file that opens."""
    for file in files:
        if hasattr(os, "O_DIRECT"):
            with suppress(OSError), opened(file.path, "direct") as descriptor:
                os.preadv(descriptor, [mmap.mmap(-1, UNIT_BYTES)], 0)
                return "direct"
        with suppress(OSError), opened(file.path, "dropped") as descriptor:
            return "dropped" if is_dropped(descriptor, 0, UNIT_BYTES) else "cached"
    return "cached"


def is_dropped(descriptor: int, offset: int, size_bytes: int) -> bool:
    """Drop a range from the page cache; return whether its beginning is known to be out.

    Pages that are not yet written to the disk stay.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    os.posix_fadvise(descriptor, offset, size_bytes, os.POSIX_FADV_DONTNEED)
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # this file system cannot tell
        return False
    return False


def _parts(
    files: Sequence[File], part_bytes: int, method: Method, observer: Observer
) -> list[Part]:
    """Return parts of ``files``: the first one of each, then the second ones, and so on."""
    rows: list[list[Part]] = []
    count = 0
    for file in files:
        signals.check()
        try:
            with opened(file.path, method) as descriptor:
                row = _parts_of(descriptor, file, part_bytes, method)
        except FileNotFoundError:
            continue
        except OSError as error:
            observer.warn(_unreadable(file.path, error))
            continue
        rows.append(row)
        count += len(row)
        if count >= _MOST_PARTS:
            break
    deepest = max(map(len, rows), default=0)
    return [row[depth] for depth in range(deepest) for row in rows if depth < len(row)]


def _parts_of(descriptor: int, file: File, part_bytes: int, method: Method) -> list[Part]:
    parts: list[Part] = []
    end = _whole_units(file.size_bytes)
    for offset in range(0, end, part_bytes):
        size_bytes = min(part_bytes, end - offset)
        if _has_hole(descriptor, offset, size_bytes):
            continue
        if method == "dropped" and not is_dropped(descriptor, offset, size_bytes):
            continue
        parts.append(Part(file.path, offset, size_bytes))
        if len(parts) >= _MOST_PARTS:
            break
    return parts


def _has_hole(descriptor: int, offset: int, size_bytes: int) -> bool:
    if not hasattr(os, "SEEK_HOLE"):
        return False
    return os.lseek(descriptor, offset, os.SEEK_HOLE) < offset + size_bytes
