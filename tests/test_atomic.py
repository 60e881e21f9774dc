from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import pytest

from fastindex import atomic
from fastindex.errors import LockHeldError, PublishError
from tests.conftest import COMMAND, Run
from tests.trees import published, version, write_tree


def test_a_file_is_replaced_whole_and_its_directory_made(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    for data in (b"one", b"", b"x" * 3_000_000):
        atomic.replace_file(str(path), data)
        assert path.read_bytes() == data
        assert [child.name for child in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.json"
    atomic.replace_file(str(path), b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        atomic.replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "close"])
def test_an_error_on_a_descriptor_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space") as caught:
        atomic.replace_file(str(tmp_path / "file"), b"new")
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / ".file.tmp")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_no_pid_can_be_written_to_holds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = str(tmp_path / "lock")
    monkeypatch.setattr(os, "pwrite", fail)
    with (
        atomic.lock(path, 0),
        pytest.raises(LockHeldError, match="pid unknown"),
        atomic.lock(path, 0),
    ):
        pass


def test_a_killed_runs_temporary_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").write_bytes(b"half")
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize(
    ("content", "is_held"), [(b"abc", True), (b"abd", False), (b"ab", False), (b"abcd", False)]
)
def test_holds_compares_every_byte(tmp_path: Path, content: bytes, is_held: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert atomic.holds(str(path), b"abc") is is_held
    assert not atomic.holds(str(tmp_path / "none"), b"abc")
    (tmp_path / "link").symlink_to(path)
    assert not atomic.holds(str(tmp_path / "link"), b"abc")


def test_small_files_are_bounded_and_regular(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert atomic.read_small_file(str(path), 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        atomic.read_small_file(str(path), 4)
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            atomic.read_small_file(str(odd), 5)


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "streams/.lock")
    with atomic.lock(path, 0):
        began = time.monotonic()
        with pytest.raises(LockHeldError, match=f"pid {os.getpid()}"), atomic.lock(path, 0.3):
            pass
        assert time.monotonic() - began >= 0.3
    with atomic.lock(path, 0):
        pass
    assert os.path.exists(path)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    with atomic.lock(path, 0):
        child.start()
    try:
        with atomic.lock(path, 5):  # the child may need a moment to start
            pass
    finally:
        child.kill()
        child.join()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "streams").write_bytes(b"")
    lock = atomic.lock(str(tmp_path / "streams/.lock"), 0)
    with pytest.raises(PublishError, match="lock file cannot be made"), lock:
        pass


def test_a_second_run_fails_at_once_or_waits(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    path = str(tmp_path / "streams/.lock")
    with atomic.lock(path, 0):
        result = fastindex(tmp_path)
        assert result.returncode == 75
        assert f"pid {os.getpid()}" in result.stderr
        assert fastindex("--wait", "0.2", tmp_path).returncode == 75
        assert fastindex("--dry-run", tmp_path).returncode == 0
        assert fastindex("--print", tmp_path).returncode == 0
        waiting = subprocess.Popen([COMMAND, "-q", "--wait", tmp_path])
        time.sleep(0.5)
        assert waiting.poll() is None
    assert waiting.wait(10) == 0
    assert len(published(tmp_path)) == 1


def test_runs_started_together_all_succeed_when_they_wait(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    alias = tmp_path.with_name(f"{tmp_path.name}-alias")
    alias.symlink_to(tmp_path)
    runs = [
        subprocess.Popen([COMMAND, "-q", "--wait", root], stderr=subprocess.PIPE)
        for root in (tmp_path, alias) * 3
    ]
    assert [run.wait(30) for run in runs] == [0] * 6
    assert all(run.communicate()[1] == b"" for run in runs)
