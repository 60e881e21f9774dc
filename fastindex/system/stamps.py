"""What tells one state of a file from another without reading it: size, time and identity.

The only place where a stamp is made. Its blind spot: other bytes under the same size and
modification time are not noticed.
"""

from __future__ import annotations

import os

from msgspec import Struct
from xxhash import xxh3_64_hexdigest

COARSEST_TICK_NS = 2_000_000_000
"""The coarsest time stamps of a file system in use (FAT: 2 s): a younger one may hide a later
write in the same tick."""


class Stamp(Struct, frozen=True, gc=False):
    """Size, modification time and identity of a file at one moment.

    Hard links and symlinks to one file share it. Size and time are part of the identity, as
    a new file may get the inode of one that was removed.
    """

    size_bytes: int
    """Length."""
    mtime_ns: int
    """Modification time since the epoch."""
    device: int
    """With ``inode``: which file it is, whatever its name."""
    inode: int
    """With ``device``: which file it is, whatever its name."""

    @property
    def key(self) -> str:
        """The cache key of size and time: 16 hex digits."""
        return xxh3_64_hexdigest(b"%d %d" % (self.size_bytes, self.mtime_ns))

    def key_if_trusted(self, hashing_began_ns: int) -> str:
        """Return the cache key, or "" where the file is too young to trust its stamp.

        Args:
            hashing_began_ns: the clock just before the first byte was read.
        """
        return self.key if self.mtime_ns + COARSEST_TICK_NS <= hashing_began_ns else ""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file whose status is ``status``."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
