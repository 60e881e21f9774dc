"""File systems of their own: small ones, and ones that keep whole seconds."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import needs


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


@contextlib.contextmanager
def coarse_file_system(path: Path) -> Iterator[Path]:
    """Mount a file system that keeps whole seconds at ``path``; skip without the right."""
    path.mkdir()
    image = path.with_name(f"{path.name}.img")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    mke2fs = needs("mke2fs", "apt-get install e2fsprogs")
    subprocess.run([mke2fs, "-q", "-I", "128", image], check=True, capture_output=True)
    mount = ["mount", "-o", "loop", str(image), str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
