from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from fastindex.system import atomic
from tests.support.command import umask


def test_a_file_is_replaced_and_its_directory_made(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    for data in (b"one", b"", b"x" * 3_000_000):
        atomic.replace_file(str(path), data)
        assert path.read_bytes() == data
        assert [child.name for child in path.parent.iterdir()] == ["file.json"]


def test_a_served_file_gets_a_later_second_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    seconds = []
    for data in (b"one", b"two", b"six"):
        atomic.replace_file(str(path), data, is_served=True)
        assert path.read_bytes() == data
        seconds.append(int(path.stat().st_mtime))
    assert len(set(seconds)) == 3
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("ahead_seconds", "is_later"), [(-10, False), (30, True), (3000, True), (86400, False)]
)
def test_a_served_file_gets_a_later_second_unless_the_old_one_is_far_ahead(
    tmp_path: Path, ahead_seconds: int, is_later: bool
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    now = int(time.time())
    os.utime(path, (now + ahead_seconds, now + ahead_seconds))
    atomic.replace_file(str(path), b"new", is_served=True)
    second = int(path.stat().st_mtime)
    if is_later:
        assert second == now + ahead_seconds + 1
    else:
        assert now <= second <= time.time()


def test_another_file_has_the_time_of_its_writing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    os.utime(path, (time.time() + 30, time.time() + 30))
    atomic.replace_file(str(path), b"new")
    assert path.stat().st_mtime <= time.time()


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_failed_write_leaves_only_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.json"
    atomic.replace_file(str(path), b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with umask(0o077), pytest.raises(OSError, match="No space left"):
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
    with umask(0o077), pytest.raises(OSError, match="No space") as caught:
        atomic.replace_file(str(tmp_path / "file"), b"new")
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / ".file.tmp")
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").write_bytes(b"half")
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


def test_two_runs_that_replace_a_file_take_turns(tmp_path: Path) -> None:
    path, temporary = tmp_path / "file.json", tmp_path / ".file.json.tmp"
    directory = os.open(tmp_path, os.O_RDONLY)
    descriptor = atomic._create_locked(directory, temporary.name)
    os.close(directory)
    other = threading.Thread(target=atomic.replace_file, args=(str(path), b"the other's"))
    other.start()
    other.join(0.2)
    os.write(descriptor, b"the first's")
    temporary.rename(path)
    assert path.read_bytes() == b"the first's"
    os.close(descriptor)
    other.join()
    assert path.read_bytes() == b"the other's"
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_symlink_in_place_of_the_temporary_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").symlink_to("nowhere")
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_planted_temporary_file_that_stays_locked_stops_a_run_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_MAX_WAIT_SECONDS", 0.1)
    planted = os.open(tmp_path / ".file.json.tmp", os.O_RDWR | os.O_CREAT)
    fcntl.flock(planted, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        atomic.replace_file(str(tmp_path / "file.json"), b"new")
    os.close(planted)
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_stranger_who_locks_many_temporary_files_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(atomic, "_MAX_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(atomic, "_timeouts", 0)
    monkeypatch.setattr(time, "sleep", waits.append)
    waited: list[bool] = []
    for number in range(2 * atomic._MAX_TIMEOUTS):
        planted = os.open(tmp_path / f".{number}.tmp", os.O_RDWR | os.O_CREAT)
        fcntl.flock(planted, fcntl.LOCK_EX)
        waits.clear()
        with pytest.raises(BlockingIOError):
            atomic.replace_file(str(tmp_path / f"{number}"), b"new")
        waited.append(len(waits) > 1)
        os.close(planted)
    assert waited == [True] * atomic._MAX_TIMEOUTS + [False] * atomic._MAX_TIMEOUTS
    assert os.listdir(tmp_path)
