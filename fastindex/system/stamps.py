"""Stamps: what tells one state of a file from another without reading it.

No other module makes stamps. They have a blind spot: a change that keeps the size and the
modification time is not noticed.
"""

from __future__ import annotations

import os

from msgspec import Struct
from xxhash import xxh3_64_hexdigest

COARSEST_TICK_NS = 2_000_000_000
"""The coarsest clock tick of the file systems in use (FAT: 2 s). A later write within the same
tick does not change the modification time."""


class Stamp(Struct, frozen=True, gc=False):
    """The size, modification time and identity of a file at one moment.

    Hard links and symlinks to one file have equal stamps. Device and inode alone do not identify
    a file: a new one may get the inode of one that was removed.
    """

    size_bytes: int
    """Its length."""
    mtime_ns: int
    """Modification time, since 1970."""
    device: int
    """The number of its file system (``st_dev``)."""
    inode: int
    """Its number in the file system (``st_ino``)."""

    @property
    def key(self) -> str:
        """The cache key: xxh3_64 of size and modification time, 16 hex digits."""
        return xxh3_64_hexdigest(b"%d %d" % (self.size_bytes, self.mtime_ns))

    def key_if_trusted(self, hashing_began_ns: int) -> str:
        """Return the cache key, or "" if the file is too young to trust its stamp.

        Args:
            hashing_began_ns: the time just before the first byte was read, since 1970.
        """
        return self.key if self.mtime_ns + COARSEST_TICK_NS <= hashing_began_ns else ""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of the file that ``status`` describes."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
