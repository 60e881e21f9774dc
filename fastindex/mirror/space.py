"""How much room the disks of a mirror have left."""

from __future__ import annotations

import os

from fastindex.mirror.mirror import Mirror

_RESERVE = 100
"""One part in so many of a disk is left free."""


def find_free_bytes(mirror: Mirror) -> int:
    """Return how many bytes the disk has left, but for a reserve; of several disks, the fullest."""
    free: list[int] = []
    for stream in mirror.streams:
        path = mirror.path(stream)
        status = os.statvfs(path if os.path.isdir(path) else mirror.root)
        reserve = status.f_blocks // _RESERVE
        free.append(max(0, status.f_bavail - reserve) * status.f_frsize)
    return min(free)
