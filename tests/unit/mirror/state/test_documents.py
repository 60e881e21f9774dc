"""Documents that runs leave for the next ones: absent, good, or a reason to stop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastindex.errors import PublishError, TreeError
from fastindex.mirror.state import documents


def test_what_is_saved_is_loaded_and_bytes_follow_from_content(tmp_path: Path) -> None:
    path = tmp_path / "streams/.x.json"
    documents.save(str(path), {"b": "2", "a": "1"})
    assert path.read_bytes() == b'{"a":"1","b":"2"}\n'
    assert documents.load(str(path), dict[str, str], "") == {"a": "1", "b": "2"}


def test_an_absent_document_is_empty(tmp_path: Path) -> None:
    assert documents.load(str(tmp_path / "x"), dict[str, str], "") == {}
    assert documents.load(str(tmp_path / "x/y"), list[int], "") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\0" * 100, "malformed"),
        (b'{"a": 1}', "Expected `str`"),
        (b'["a"]', "Expected `object`"),
        (b'{"\xff": "a"}', "UTF-8"),
    ],
)
def test_a_document_that_cannot_be_used_stops_the_run(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(TreeError) as caught:
        documents.load(str(path), dict[str, str], "fix it so")
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert str(caught.value).endswith("); fix it so")
    assert reason.lower() in str(caught.value).lower()  # the library's words


@pytest.mark.parametrize("obstacle", ["directory", "FIFO", "large"])
def test_neither_does_it_wait_or_read_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    path = tmp_path / "x.json"
    match obstacle:
        case "directory":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case "large":
            monkeypatch.setattr(documents, "_MAX_BYTES", 10)
            path.write_bytes(b'{"a": "0123456789"}')
    with pytest.raises(TreeError, match=r"x\.json: cannot be read \((not a reg|larger than 10)"):
        documents.load(str(path), dict[str, str], "")


def test_a_failed_write_says_where_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(PublishError, match=r"x\.json: cannot be written \(Is a directory\)"):
        documents.save(str(path), {})
    assert (path / "kept").exists()
