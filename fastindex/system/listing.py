"""Directories and the status of the files in them, many in one call, as packed records.

The extension (``_listing``) does it without the GIL, so that threads list side by side. Where it
is missing, Python returns the same bytes. Hidden names are passed over, but for settings files.
"""

from __future__ import annotations

import os
import resource
import stat
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from fastindex.errors import is_shortage
from fastindex.system import directories
from fastindex.system.stamps import COARSEST_TICK_NS, Stamp

SPARSE_BYTES = 64 << 20
"""From this size on, a file of which less than a ``MIN_DENSITY``-th takes space on the disk is
sparse."""
MIN_DENSITY = 64
NO_DESCRIPTOR = -1
"""The descriptor to list absolute paths."""

_SETTINGS_NAMES = (b".lxd_requirements", b".product.toml", b".requirements")
_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_BLOCK_BYTES = 512
_SECOND_NS = 1_000_000_000
_LONG_NS = 20_000_000
"""After this time, what is left of the paths is left to another call."""
_HEADER = struct.Struct("<BBqqIxx")
_IDENTITY = struct.Struct("<QQ")
_COMPANION_NAMES = (b"image.yaml", b"SHA256SUMS")
_SETTINGS = struct.Struct("<QQQ")
_UNKNOWN = (0, 0)
# Kinds of records; others are those of find -type.
FILE = ord("f")
DIRECTORY = ord("d")
LINK = ord("l")
UNKNOWN = ord("?")
LISTED = ord("D")
"""A directory whose entries follow."""

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: ord("p"),
    stat.S_IFSOCK: ord("s"),
    stat.S_IFCHR: ord("c"),
    stat.S_IFBLK: ord("b"),
}


class Shape(IntEnum):
    """What kind of directory is listed."""

    LEVEL = 0
    """Above the versions: of its files, only those with settings are inspected."""
    PRODUCT = 1
    """The same, and each of its directories, which are VERSIONs."""
    VERSION = 2
    """Each of its files is inspected; it has no settings."""


# Marks of a file. Plain numbers: there are millions.
IS_READABLE = 1
"""Others than its owner may read it."""
IS_SPARSE = 2
"""It consists of holes."""
HAS_FAILED = 4
"""It cannot be inspected; its size is the number of the error."""

# Traits of a path: what is true of anything that was listed for it.
IS_ODD = 1
"""There is a symlink, an error, or something else than a file or a directory."""
IS_YOUNG = 2
"""A settings file may change once more without a change of its times."""


Records = tuple[bytes, bytes, bytes, bytes, int]
"""What is in a path: headers, names, identities, settings, and traits.

There is a record for each directory, followed by one for each of its entries, sorted by the bytes
of their names. With PRODUCT, the directories in it come after it in the same way.

- *headers*: 24 bytes a record: the kind, marks, three numbers. The kind is ``D`` of a directory
  that is listed, with the number of an error (0: none), how many entries follow, and 0. That of
  an entry is as in ``find -type``; ``?`` if it cannot be told. The numbers of a regular file that
  is inspected are its size, and its modification time in seconds and nanoseconds; of any other
  they are 0.
- *names*: one a record, each with a null byte at its end. That of a ``D`` is empty.
- *identities*: 16 bytes a record: device and inode of a regular file that is inspected, else 0.
- *settings*: 24 bytes a regular file that is read for what it says: change time in nanoseconds
  modulo 2^64, inode, device.
"""


Row = tuple[tuple[int, int, int, int, int], tuple[int, int], str]
"""A record: (kind, marks, three numbers), (device, inode), name; as ``Records`` has them."""

_Result = tuple[list[Records], int, int, int, int, int]


class Listed(NamedTuple):
    """What a call listed, and what it took."""

    records: list[Records]
    """Of each path. Fewer than paths: it was told to stop, or took long already."""
    calls: int
    """How many system calls it made, roughly."""
    waits: int
    """How often they waited for something else than a CPU: for a disk, or a server."""
    nanoseconds: int
    """How long they took."""
    directories: int
    """How many directories it listed."""
    files: int
    """How many files it inspected."""


def list_directories(
    paths: Sequence[bytes], shape: Shape, stop: bytearray, at: int = NO_DESCRIPTOR
) -> Listed:
    """List directories, each with one ``openat`` and ``close``, and one ``fstatat`` a file.

    Args:
        paths: absolute paths; a symlink at the end of one is followed.
        shape: what they are.
        stop: its first byte is set by another thread to stop.
        at: descriptor of a directory. Then the paths are names in it, and no symlinks, and an
            empty one is this very directory, which stays open.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    return Listed(*_list_directories(at, paths, shape, stop))


def join_records(many: Iterable[Records]) -> Records:
    """Return the records of paths in a row as if they were of one."""
    headers, names, identities, settings, traits = zip(*many, strict=True)
    joined = (b"".join(parts) for parts in (headers, names, identities, settings))
    all_traits = 0
    for one in traits:
        all_traits |= one
    return (*joined, all_traits)  # type: ignore[return-value]


def record_failure(error_number: int) -> Records:
    """Return the records of a directory that cannot be opened."""
    return _HEADER.pack(LISTED, 0, error_number, 0, 0), b"\0", _IDENTITY.pack(0, 0), b"", IS_ODD


def unpack(
    records: Records,
) -> Iterable[Row]:
    """Return an iterator over records."""
    headers, names, identities, _, _ = records
    return zip(
        _HEADER.iter_unpack(headers),
        _IDENTITY.iter_unpack(identities),
        os.fsdecode(names).split("\0"),
        strict=False,  # after the last name, there is a null byte and nothing more
    )


def make_stamp(row: Row) -> Stamp:
    """Return the stamp of a regular file that was inspected."""
    (_, _, size_bytes, seconds, nanoseconds), (device, inode), _ = row
    return Stamp(size_bytes, seconds * _SECOND_NS + nanoseconds, device, inode)


def find_directories(records: Records) -> list[bytes]:
    """Return the names of the directories in a directory that was listed, sorted."""
    headers, names, _, _, _ = records
    kinds = headers[:: _HEADER.size]
    entries = zip(kinds, names.split(b"\0"), strict=False)
    return [name for kind, name in entries if kind == DIRECTORY and name[:1] != b"."]


def find_settings(records: Records) -> list[str]:
    """Return the names of the settings files in a path without an odd one, sorted."""
    _, names, _, settings, _ = records
    if not settings:
        return []
    return [os.fsdecode(name) for name in names.split(b"\0") if name[:1] == b"."]


def find_kind_and_marks(status: os.stat_result) -> tuple[int, int]:
    """Return the kind and the marks of a file as a record has them."""
    size = status.st_size
    allocated = status.st_blocks * _BLOCK_BYTES * MIN_DENSITY
    marks = IS_READABLE if status.st_mode & _READABLE_BY_OTHERS else 0
    marks |= IS_SPARSE if size >= SPARSE_BYTES and allocated < size else 0
    return _KINDS.get(stat.S_IFMT(status.st_mode), UNKNOWN), marks


class _PythonListing:
    """``_listing`` in Python."""

    def __init__(self, shape: int) -> None:
        self.calls = self.directories = self.files = 0
        self._shape = shape
        self._records: list[tuple[int, int, int, int, int]] = []
        self._names: list[bytes] = []
        self._identities: list[tuple[int, int]] = []
        self._settings: list[bytes] = []
        self._traits = 0

    def list_path(self, at: int, path: bytes) -> Records:
        """Return the records of one path."""
        self._records, self._names, self._identities = [], [], []
        self._settings, self._traits = [], 0
        if at >= 0 and not path:
            self._list(at, is_version=self._shape == Shape.VERSION)
        else:
            self._open_and_list(path, at, is_version=self._shape == Shape.VERSION, is_top=True)
        return (
            b"".join(_HEADER.pack(*record) for record in self._records),
            b"".join(name + b"\0" for name in self._names),
            b"".join(_IDENTITY.pack(*identity) for identity in self._identities),
            b"".join(self._settings),
            self._traits,
        )

    def _open_and_list(self, path: bytes, at: int, *, is_version: bool, is_top: bool) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
        if at >= 0:
            flags |= os.O_NOFOLLOW
        self.calls += 1
        try:
            descriptor = os.open(path, flags, dir_fd=at if at >= 0 else None)
        except OSError as error:
            self._append(LISTED, 0, self._use(error), 0, b"")
            return
        with directories.closing(descriptor):
            names = self._list(descriptor, is_version=is_version)
            if is_top and self._shape == Shape.PRODUCT:
                for name in names:
                    self._open_and_list(name, descriptor, is_version=True, is_top=False)
        self.calls += 1

    def _list(self, descriptor: int, *, is_version: bool) -> list[bytes]:
        """Append the records of an open directory; return the directories in it."""
        error_number = 0
        entries: list[tuple[bytes, os.DirEntry[str]]] = []
        self.calls += 2
        self.directories += 1
        try:
            with os.scandir(descriptor) as listing:
                for entry in listing:
                    name = os.fsencode(entry.name)
                    if name[:1] != b"." or (not is_version and name in _SETTINGS_NAMES):
                        entries.append((name, entry))
        except OSError as error:
            error_number = self._use(error)
        entries.sort(key=_by_name)
        self._append(LISTED, 0, error_number, len(entries), b"")
        below = [
            name
            for name, entry in entries
            if self._append_entry(name, entry, is_version=is_version) == DIRECTORY
        ]
        return [name for name in below if name[:1] != b"."]

    def _append_entry(self, name: bytes, entry: os.DirEntry[str], *, is_version: bool) -> int:
        """Append the record of an entry; return its kind."""
        kind = _find_kind(entry)
        is_settings = name[:1] == b"."
        if kind != UNKNOWN and not (kind == FILE and (is_version or is_settings)):
            return self._append_plain(kind, name, is_settings=is_settings)
        is_read = is_settings or name in _COMPANION_NAMES
        began_ns = time.time_ns() if is_read else 0
        self.calls += 1
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._append(kind, HAS_FAILED, self._use(error), 0, name)
            return kind
        kind, marks = find_kind_and_marks(status)
        self.files += kind == FILE
        if kind != FILE or not (is_version or is_settings):
            return self._append_plain(kind, name, is_settings=is_settings)
        identity = (status.st_dev, status.st_ino)
        seconds, nanoseconds = divmod(status.st_mtime_ns, _SECOND_NS)
        self._append(kind, marks, status.st_size, seconds, name, identity, nanoseconds)
        if is_read:
            if status.st_ctime_ns + COARSEST_TICK_NS > began_ns:
                self._traits |= IS_YOUNG
            changed_ns = status.st_ctime_ns % (1 << 64)
            changed = _SETTINGS.pack(changed_ns, status.st_ino, status.st_dev)
            self._settings.append(changed)
        return kind

    def _append_plain(self, kind: int, name: bytes, *, is_settings: bool) -> int:
        if kind != FILE and (kind != DIRECTORY or is_settings):
            self._traits |= IS_ODD
        self._append(kind, 0, 0, 0, name)
        return kind

    def _append(
        self,
        kind: int,
        marks: int,
        first: int,
        second: int,
        name: bytes,
        identity: tuple[int, int] = _UNKNOWN,
        nanoseconds: int = 0,
    ) -> None:
        self._records.append((kind, marks, first, second, nanoseconds))
        self._names.append(name)
        self._identities.append(identity)

    def _use(self, error: OSError) -> int:
        """Return the number of an error that is recorded; raise any other."""
        if is_shortage(error):
            raise error
        self._traits |= IS_ODD
        return error.errno or 0


def _by_name(entry: tuple[bytes, os.DirEntry[str]]) -> bytes:
    return entry[0]


def _find_kind(entry: os.DirEntry[str]) -> int:
    """Return the kind of an entry as far as its directory tells it."""
    try:
        if entry.is_symlink():
            return LINK
        if entry.is_dir(follow_symlinks=False):
            return DIRECTORY
        if entry.is_file(follow_symlinks=False):
            return FILE
    except OSError:
        pass
    return UNKNOWN


def _count_waits() -> int:
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def list_in_python(at: int, paths: Sequence[bytes], what: int, stop: bytearray) -> _Result:
    """Do what the extension does."""
    began_ns = time.perf_counter_ns()
    waits = -_count_waits()
    listing = _PythonListing(what)
    records: list[Records] = []
    for path in paths:
        if stop[0] or (records and time.perf_counter_ns() - began_ns > _LONG_NS):
            break
        records.append(listing.list_path(at, path))
    took_ns = time.perf_counter_ns() - began_ns
    waits += _count_waits()
    return records, listing.calls, waits, took_ns, listing.directories, listing.files


_list_directories: Callable[[int, Sequence[bytes], int, bytearray], _Result] = list_in_python
with suppress(ImportError):
    from fastindex.system import _listing

    _list_directories = _listing.list_directories
IS_QUICK = _list_directories is not list_in_python
"""Whether the extension is there."""
