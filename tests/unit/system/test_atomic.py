from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from fastindex.system import atomic, files, new_file
from tests.support.command import umask
from tests.support.trees import OLD_NS


def test_a_file_is_replaced_whole_and_its_directory_made(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    for data in (b"one", b"", b"x" * 3_000_000):
        atomic.replace_file(str(path), data)
        assert path.read_bytes() == data
        assert [child.name for child in path.parent.iterdir()] == ["file.json"]


def test_what_is_served_gets_a_later_second_each_time(tmp_path: Path) -> None:
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
def test_a_clock_that_was_set_back_is_caught_up_with_or_given_up(
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


def test_what_is_not_served_has_the_time_of_its_writing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    os.utime(path, (time.time() + 30, time.time() + 30))
    atomic.replace_file(str(path), b"new")
    assert path.stat().st_mtime <= time.time()


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
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


def test_a_killed_runs_temporary_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").write_bytes(b"half")
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


def test_two_that_replace_a_file_take_turns(tmp_path: Path) -> None:
    path, temporary = tmp_path / "file.json", tmp_path / ".file.json.tmp"
    directory = os.open(tmp_path, os.O_RDONLY)
    begun = atomic._create_alone(directory, temporary.name)
    os.close(directory)
    other = threading.Thread(target=atomic.replace_file, args=(str(path), b"the other's"))
    other.start()
    other.join(0.2)
    os.write(begun, b"the first's")
    temporary.rename(path)
    assert path.read_bytes() == b"the first's"
    os.close(begun)
    other.join()
    assert path.read_bytes() == b"the other's"
    assert os.listdir(tmp_path) == ["file.json"]


def test_what_stands_in_a_temporarys_place_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").symlink_to("nowhere")
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize(
    ("content", "is_held"), [(b"abc", True), (b"abd", False), (b"ab", False), (b"abcd", False)]
)
def test_holds_compares_every_byte(tmp_path: Path, content: bytes, is_held: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert files.has_content(str(path), b"abc") is is_held
    assert not files.has_content(str(tmp_path / "none"), b"abc")
    (tmp_path / "link").symlink_to(path)
    assert not files.has_content(str(tmp_path / "link"), b"abc")


def test_small_files_are_bounded_and_regular(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_small_file(str(path), 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        files.read_small_file(str(path), 4)
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_small_file(str(odd), 5)


def test_a_planted_temporary_that_is_held_locked_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_PATIENCE_SECONDS", 0.1)
    planted = os.open(tmp_path / ".file.json.tmp", os.O_RDWR | os.O_CREAT)
    fcntl.flock(planted, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        atomic.replace_file(str(tmp_path / "file.json"), b"new")
    os.close(planted)
    atomic.replace_file(str(tmp_path / "file.json"), b"new")
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.EOPNOTSUPP, "no")])
def test_a_system_without_uncached_writes_gets_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried: list[object] = []

    def refuse(*arguments: object) -> int:
        tried.append(arguments)
        raise error

    monkeypatch.setattr(os, "pwritev", refuse)
    with new_file.NewFile(str(tmp_path / "file")) as file:
        file.write(memoryview(b"one"))
        file.write(memoryview(b" two"))
        file.finish(OLD_NS)
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert (tmp_path / "file").stat().st_mtime_ns == OLD_NS
    assert len(tried) == 1


@pytest.mark.parametrize("call", ["pwritev", "fsync", "utime"])
def test_what_cannot_be_written_of_an_image_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(new_file.UnwritableError) as caught:
        _write_image(tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")
    assert caught.value.errno == errno.ENOSPC


def _write_image(path: Path) -> None:
    with new_file.NewFile(str(path)) as file:
        file.write(memoryview(b"one"))
        file.finish(OLD_NS)
