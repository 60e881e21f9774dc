from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fastindex.system import new_file
from tests.support.command import umask
from tests.support.trees import OLD_NS


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
def test_an_error_names_the_new_file(
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


def test_a_new_file_replaces_one_that_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"half of a longer one")
    with umask(0o077):
        _write_image(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_symlink_in_its_place_is_replaced_and_one_on_the_way_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("target")
    _write_image(tmp_path / "file")
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    with pytest.raises(new_file.UnwritableError) as caught:
        _write_image(tmp_path / "link/file")
    assert caught.value.filename == str(tmp_path / "link/file")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert list((tmp_path / "directory").iterdir()) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_one_byte(descriptor: int, pieces: list[memoryview], offset: int, flags: int) -> int:
        return os.pwrite(descriptor, pieces[0][:1], offset)

    monkeypatch.setattr(os, "pwritev", write_one_byte)
    _write_image(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"
