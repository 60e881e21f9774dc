"""Files on a disk that are large enough for it to be measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fastindex.operations.bench.selection import MIN_BYTES
from fastindex.system import disks
from fastindex.system.files import open_direct
from fastindex.system.listing import MIN_DENSITY
from tests.support.trees import OLD_NS


@contextmanager
def directory_on_disk() -> Iterator[Path]:
    """Make a directory whose files can be read past the page cache; skip if there is none.

    /tmp is often in memory. It is removed in the end: pytest keeps its own for a while.
    """
    for parent in (tempfile.gettempdir(), "/var/tmp"):
        with tempfile.TemporaryDirectory(prefix="fastindex-test-", dir=parent) as directory:
            if _is_on_disk(Path(directory)):
                yield Path(directory)
                return
    pytest.skip("neither TMPDIR nor /var/tmp supports O_DIRECT")


def _is_on_disk(directory: Path) -> bool:
    probe = directory / "probe"
    probe.touch()
    with suppress(OSError):
        open_direct(str(probe)).close()
        return disks.find_file_system_type(directory.stat().st_dev) != "tmpfs"
    return False


def write_filled(path: Path, size_bytes: int) -> Path:
    """Write a file without holes, in whole MiB, to the disk; return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(bytes(range(256)) * 4096)
        file.flush()
        os.fsync(file.fileno())  # else its pages cannot be dropped
    return path


def stretch(path: Path, size_bytes: int) -> None:
    """Make a file long and keep its start; it takes as little of the disk as an image's may."""
    with path.open("r+b") as file:
        file.truncate(size_bytes)
        os.posix_fallocate(file.fileno(), 0, size_bytes // MIN_DENSITY + 4096)
    os.utime(path, ns=(OLD_NS, OLD_NS))


@contextmanager
def large_files() -> Iterator[Path]:
    """Make a directory with just enough to measure, and with what must not be read."""
    with directory_on_disk() as directory:
        root = directory / "images"
        for number in range(4):
            write_filled(root / f"{number}" / "rootfs.squashfs", MIN_BYTES // 4)
        (root / "0" / "incus.tar.xz").write_bytes(b"small")
        os.mkfifo(root / "fifo")
        (root / "hard-link").hardlink_to(root / "0" / "rootfs.squashfs")
        outside = write_filled(directory / "outside" / "disk.qcow2", 8 << 20)
        (root / "file-link").symlink_to(outside)
        (root / "directory-link").symlink_to(outside.parent)
        yield root
