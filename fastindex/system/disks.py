"""What the kernel says about the disk below a file system. The disk itself is not read."""

from __future__ import annotations

import os
from contextlib import suppress

from fastindex.system.files import read_small_file

_MAX_MOUNTINFO_BYTES = 16 << 20


def is_rotational(device: int) -> bool:
    """Return whether a file system is known to lie on a rotating disk.

    Source: Documentation/ABI/stable/sysfs-block of Linux.

    Args:
        device: the number of the file system (``st_dev`` of any file in it).
    """
    if os.major(device) == 0:  # not a block device's number: btrfs makes up its own
        device = _find_block_device(device)
    sysfs = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for queue in ("queue", "../queue"):  # of the disk; of the disk of a partition
        with suppress(OSError):
            return read_small_file(f"{sysfs}/{queue}/rotational", 64).strip() == b"1"
    return False


def find_file_system_type(device: int) -> str:
    """Return the type of a file system, such as ``ext4``; empty if it is unknown.

    Args:
        device: the number of the file system (``st_dev`` of any file in it).
    """
    type_, _ = _find_mount(device)
    return type_.decode("ascii", "replace")


def _find_block_device(device: int) -> int:
    """Return the number of the block device below a file system, or ``device`` if unknown."""
    _, source = _find_mount(device)
    with suppress(OSError):
        return os.stat(source).st_rdev or device
    return device


def _find_mount(device: int) -> tuple[bytes, bytes]:
    """Return the type and the source of a mounted file system; both are empty if unknown.

    Source: proc_pid_mountinfo(5). Malformed lines are skipped.
    """
    number = b"%d:%d" % (os.major(device), os.minor(device))
    with suppress(OSError):
        for line in read_small_file("/proc/self/mountinfo", _MAX_MOUNTINFO_BYTES).splitlines():
            before, _, after = line.partition(b" - ")
            mount = before.split()
            file_system = after.split()
            if len(mount) > 2 and mount[2] == number and len(file_system) > 1:
                return file_system[0], file_system[1]
    return b"", b""
