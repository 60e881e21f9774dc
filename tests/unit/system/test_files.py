from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fastindex.system import files


@pytest.mark.parametrize(
    ("content", "has_it"), [(b"abc", True), (b"abd", False), (b"ab", False), (b"abcd", False)]
)
def test_content_is_compared_to_the_last_byte(tmp_path: Path, content: bytes, has_it: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert files.has_content(str(path), b"abc") is has_it
    assert not files.has_content(str(tmp_path / "none"), b"abc")
    (tmp_path / "link").symlink_to(path)
    assert not files.has_content(str(tmp_path / "link"), b"abc")


def test_small_files_must_be_short_and_regular(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_small_file(str(path), 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        files.read_small_file(str(path), 4)
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_small_file(str(odd), 5)


def test_pieces_are_read_in_order_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PIECE_BYTES", 2)
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert list(files.read_pieces(str(path), 5)) == [b"12", b"34", b"5"]
    pieces = files.read_pieces(str(path), 3)
    assert [next(pieces), next(pieces)] == [b"12", b"34"]
    with pytest.raises(OSError, match="larger than 3 bytes"):
        next(pieces)


def test_a_file_that_was_replaced_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    status = path.stat()
    assert files.read_same_file(str(path), status, 3) == b"old"
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(path)
    with pytest.raises(OSError, match="replaced") as caught:
        files.read_same_file(str(path), status, 3)
    assert str(path) in str(caught.value)
    path.unlink()
    path.symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="symbolic"):
        files.read_same_file(str(path), status, 3)


def test_an_open_file_is_read_within_bounds_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"inside")
    for max_bytes in (6, 5):
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        if max_bytes == 6:
            assert files.read_descriptor(descriptor, max_bytes, "a/file") == b"inside"
        else:
            with pytest.raises(OSError, match="larger than 5 bytes"):
                files.read_descriptor(descriptor, max_bytes, "a/file")
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)


def test_an_error_names_the_path_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, files.name_path_in_errors("/a/b"):
        os.rename(tmp_path / "none", tmp_path / "other")
    assert str(caught.value) == "[Errno 2] No such file or directory: '/a/b'"
    with pytest.raises(OSError, match="Bad file") as caught, files.name_path_in_errors("/a/b"):
        os.fsync(1 << 20)
    assert str(caught.value) == "[Errno 9] Bad file descriptor: '/a/b'"


def test_an_error_of_our_own_keeps_its_words() -> None:
    with pytest.raises(OSError, match="not a regular file") as caught:
        files.read_small_file("/dev/null", 5)
    assert "-> None" not in str(caught.value)


def test_a_file_is_read_past_the_page_cache_or_the_error_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096)
    try:
        with files.open_direct(str(path)) as file:
            assert os.get_blocking(file.fileno()) is False
            assert os.fstat(file.fileno()).st_size == 4096
    except OSError as error:
        assert error.errno == errno.EINVAL  # noqa: PT017  # a file system without O_DIRECT
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        files.open_direct(str(tmp_path / "link"))


def test_a_system_without_direct_reads_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    with pytest.raises(OSError, match="O_DIRECT is not supported") as caught:
        files.open_direct(str(tmp_path))
    assert caught.value.errno == errno.EINVAL


def test_what_is_there_is_told_from_what_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    assert files.exists(str(tmp_path / "file"))
    assert files.exists(str(tmp_path / "link"))
    assert not files.exists(str(tmp_path / "none"))
    assert not files.exists(str(tmp_path / "file/below"))
    with pytest.raises(OSError, match="File name too long"):
        files.exists(str(tmp_path / ("x" * 300)))


def test_an_open_file_that_becomes_shorter_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        windows = files.read_windows(file.fileno(), 4, 100)
        assert next(windows) == b"0123"
        os.truncate(path, 6)
        assert next(windows) == b"45"
        with pytest.raises(OSError, match="became shorter"):
            next(windows)
