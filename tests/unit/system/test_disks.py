from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastindex.system import disks

MOUNTINFO = b"""\
30 1 0:25 / /srv rw,noatime shared:1 - btrfs /dev/null rw,space_cache
31 1 0:26 / /with\\040space rw - tmpfs tmpfs rw

30 1
a b 0:27
a b 0:28 / /cut rw - ext4
a b 0:29 / /none rw
- - - -
32 1 0:30 / /last rw - fuse.sshfs host:/a\\040b rw
"""


@pytest.fixture
def _mountinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str, max_bytes: int) -> bytes:
        assert len(MOUNTINFO) < max_bytes
        assert path == "/proc/self/mountinfo"
        return MOUNTINFO

    monkeypatch.setattr(disks, "read_small_file", read)


@pytest.mark.usefixtures("_mountinfo")
@pytest.mark.parametrize(
    ("minor", "file_system"),
    [
        (25, "btrfs"),
        (26, "tmpfs"),
        (27, ""),  # its line is malformed
        (28, ""),
        (29, ""),
        (30, "fuse.sshfs"),  # behind malformed lines
        (99, ""),
    ],
)
def test_malformed_lines_of_mountinfo_are_skipped(minor: int, file_system: str) -> None:
    assert disks.find_file_system_type(os.makedev(0, minor)) == file_system
    assert disks._find_block_device(os.makedev(0, 25)) == os.stat("/dev/null").st_rdev
    assert disks._find_block_device(os.makedev(0, minor)) in {
        os.makedev(0, minor),
        os.stat("/dev/null").st_rdev,
    }


def test_without_mountinfo_the_file_system_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str, max_bytes: int) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(disks, "read_small_file", read)
    assert disks.find_file_system_type(os.makedev(0, 25)) == ""
    assert not disks.is_rotational(os.makedev(0, 25))


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="has no proc")
def test_the_file_system_of_proc_is_proc() -> None:
    assert disks.find_file_system_type(os.stat("/proc").st_dev) == "proc"
