"""File systems of their own: small ones, and ones that keep whole seconds; and the page cache."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import needs


def drop_pages(path: Path) -> None:
    """Drop a file from the page cache, once it is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def file_system_of(size: str, path: Path) -> Iterator[Path]:
    """Mount a file system of ``size`` (as ``1m``) at ``path``; skip the test without the right."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def coarse_file_system(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Mount a file system that keeps whole seconds at ``path``; skip without the right."""
    return _image_file_system(path, 64 << 20, "e2fsprogs", "mke2fs", "-q", "-I", "128")


def xfs_file_system(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Mount an XFS at ``path``; skip without the right."""
    return _image_file_system(path, 320 << 20, "xfsprogs", "mkfs.xfs", "-q")


@contextlib.contextmanager
def _image_file_system(path: Path, size_bytes: int, package: str, *mkfs: str) -> Iterator[Path]:
    path.mkdir()
    image = path.with_name(f"{path.name}.img")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    program = needs(mkfs[0], f"apt-get install {package}")
    subprocess.run([program, *mkfs[1:], image], check=True, capture_output=True)
    mount = ["mount", "-o", "loop", str(image), str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system, or this kernel has none of that kind")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
