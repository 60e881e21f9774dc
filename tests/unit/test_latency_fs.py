"""The file system with latency, on which benchmarks find out what waits and what does not."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from latency_fs import CannotMountError, mounted_with_latency

from tests.support.tools import needs

WAIT_MS = 40
CALLS = 64


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Path]:
    """Return ``tmp_path``/tree, seen through a file system with latency."""
    needs("fusermount3", "apt-get install fuse3 libfuse3-dev")
    tree, mount_point = tmp_path / "tree", tmp_path / "slow"
    tree.mkdir()
    mount_point.mkdir()
    try:
        with mounted_with_latency(tree, mount_point, wait_ms=WAIT_MS):
            yield mount_point
    except CannotMountError as error:
        pytest.skip(str(error))
    assert not mount_point.is_mount()


def seconds_of_calls(path: Path, calls: int) -> float:
    """Return how long ``calls`` of ``stat`` take that are made at once."""
    with ThreadPoolExecutor(calls) as pool:
        began = time.perf_counter()
        list(pool.map(os.stat, [path] * calls))
        return time.perf_counter() - began


def test_each_call_waits_and_many_wait_at_once(slow: Path) -> None:
    path = slow / "file"
    path.touch()
    one = seconds_of_calls(path, 1)
    assert one >= WAIT_MS / 1000
    assert seconds_of_calls(path, 1) >= WAIT_MS / 1000  # nothing of it is kept
    assert seconds_of_calls(path, CALLS) < one * CALLS / 4


def test_files_are_what_they_are_beneath(slow: Path) -> None:
    beneath = slow.with_name("tree")
    with (slow / "new").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o640)
        os.utime(file.fileno(), ns=(10**18, 10**18 + 1))
    (slow / "directory").mkdir()
    (slow / "new").rename(slow / "directory/name")
    (slow / "link").symlink_to("directory/name")
    assert (slow / "link").read_bytes() == (beneath / "directory/name").read_bytes() == b"content"
    for path in ("directory/name", "link", "directory"):
        seen, real = (slow / path).lstat(), (beneath / path).lstat()
        assert seen[:2] == real[:2]  # mode, inode
        assert (seen.st_size, seen.st_mtime_ns) == (real.st_size, real.st_mtime_ns)
    (beneath / "directory/name").write_bytes(b"changed beneath")
    assert (slow / "directory/name").read_bytes() == b"changed beneath"
    assert sorted(os.listdir(slow)) == ["directory", "link"]
    (slow / "link").unlink()
    (slow / "directory/name").unlink()
    (slow / "directory").rmdir()
    assert list(beneath.iterdir()) == []


def test_what_cannot_be_mounted_says_why(
    slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(CannotMountError, match=r"mounted: .*/gone: No such file or directory"),
        mounted_with_latency(tmp_path / "gone", tmp_path),
    ):
        pass
    monkeypatch.setenv("CC", "false")
    with (
        pytest.raises(CannotMountError, match=r"cannot be compiled .* apt-get install"),
        mounted_with_latency(tmp_path, slow),
    ):
        pass
