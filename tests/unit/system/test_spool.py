"""What is kept comes back, from memory or from a file that nobody sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.system import spool
from fastindex.system.spool import Spool


def open_files() -> set[str]:
    """Return what this process has open."""
    directory = Path("/proc/self/fd")
    return {os.readlink(entry) for entry in directory.iterdir() if entry.is_symlink()}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a spool keep ten bytes in memory."""
    monkeypatch.setattr(spool, "_MEMORY_BYTES", 10)
    return 10


def test_a_little_needs_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    kept = Spool(str(directory))
    pieces = [b"first", b"", b"second"]
    offsets = [kept.append(piece) for piece in pieces]
    assert offsets == [0, 5, 5]
    found = [kept.read(at, len(piece)) for at, piece in zip(offsets, pieces, strict=True)]
    assert found == pieces
    assert kept.read(3, 4) == b"stse"  # across pieces
    kept.close()


def test_much_goes_to_a_file_without_a_name(tmp_path: Path, small_memory: int) -> None:
    kept = Spool(str(tmp_path))
    kept.append(b"x" * small_memory)
    assert not any(str(tmp_path) in name for name in open_files())
    kept.append(b"y")
    assert any(str(tmp_path) in name for name in open_files())
    assert list(tmp_path.iterdir()) == []
    kept.append(b"z")
    assert kept.read(0, small_memory + 1) == b"x" * small_memory + b"y"
    assert kept.read(small_memory + 1, 1) == b"z"
    kept.close()
    assert not any(str(tmp_path) in name for name in open_files())


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path, small_memory: int) -> None:
    kept = Spool(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        kept.append(b"x" * (small_memory + 1))


@pytest.mark.usefixtures("small_memory")
def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115  # the spool closes it

    def open_full(**_: object) -> object:
        return full

    monkeypatch.setattr("tempfile.TemporaryFile", open_full)
    kept = Spool()
    with pytest.raises(OSError, match="No space left"):
        kept.append(b"x" * 11)
    kept.close()


_PIECES = st.lists(st.binary(max_size=14), max_size=12)


@given(_PIECES, st.data())
def test_any_part_comes_back_wherever_it_is(pieces: list[bytes], data: st.DataObject) -> None:
    """Also across the border between file and memory, and between additions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "_MEMORY_BYTES", 10)
        kept = Spool()
        everything = b""
        for piece in pieces:
            assert kept.append(piece) == len(everything)
            everything += piece
            if data.draw(st.booleans()):
                start = data.draw(st.integers(0, len(everything)))
                size = data.draw(st.integers(0, len(everything) - start))
                assert kept.read(start, size) == everything[start : start + size]
        assert kept.read(0, len(everything)) == everything
        kept.close()
