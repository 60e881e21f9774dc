"""What the system tells of the disk below a file system; nothing is read from it."""

from __future__ import annotations

import os
from contextlib import suppress

from fastindex.system.files import read_small_file

_MOST_MOUNTS_BYTES = 16 << 20


def is_rotational(device: int) -> bool:
    """Return whether the file system on ``device`` (st_dev) is known to lie on rotating disks.

    Follows Documentation/ABI/stable/sysfs-block.
    """
    if os.major(device) == 0:  # the file system's own number, as btrfs gives
        device = _device_below(device)
    place = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for queue in ("queue", "../queue"):  # a partition's disk
        with suppress(OSError):
            return read_small_file(f"{place}/{queue}/rotational", 64).strip() == b"1"
    return False


def file_system(device: int) -> str:
    """Return the type of the file system with the number ``device``; empty: not known."""
    type_, _ = _mount_of(device)
    return type_.decode("ascii", "replace")


def _device_below(device: int) -> int:
    """Return the block device below the file system with the number ``device``; or it."""
    _, source = _mount_of(device)
    with suppress(OSError):
        return os.stat(source).st_rdev or device
    return device


def _mount_of(device: int) -> tuple[bytes, bytes]:
    """Return type and source of the file system with the number ``device``; or nothing.

    Follows proc_pid_mountinfo(5).
    """
    name = b"%d:%d" % (os.major(device), os.minor(device))
    with suppress(OSError):
        for line in read_small_file("/proc/self/mountinfo", _MOST_MOUNTS_BYTES).splitlines():
            before, _, after = line.partition(b" - ")
            if before.split()[2] == name:
                type_, source = after.split()[:2]
                return type_, source
    return b"", b""
