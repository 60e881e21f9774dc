"""Drafts are checked, then written, the index last; what is equal stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastindex.catalogue.publication import (
    Draft,
    check_decoding,
    draft_product_file,
    publish_drafts,
    read_published_fingerprints,
    read_published_versions,
    review_draft,
)
from fastindex.errors import BrakeError, FastindexError, PublishError, TreeError
from fastindex.formats.simplestreams import Index, IndexEntry, encode
from fastindex.system import atomic
from tests.support.catalogues import KEY, container, digest, product, product_file
from tests.support.trees import stamps, write_tree


def draft_of(output: Path, *versions: str, stream: str = "images") -> Draft:
    made = {KEY: product({name: container(name) for name in versions})} if versions else {}
    return draft_product_file(str(output), product_file(made, stream))


def publish(output: Path, *versions: str, stream: str = "images") -> tuple[str, ...]:
    return publish_drafts(str(output), [draft_of(output, *versions, stream=stream)])


@pytest.mark.parametrize(
    ("published", "new", "withdrawn", "error"),
    [
        ("", "", "", TreeError),
        ("", "a", "", None),
        ("ab", "ac", "", None),  # half of them
        ("abc", "a", "", BrakeError),
        ("abc", "a", "b", None),
        ("abc", "", "", TreeError),
        ("abc", "", "ab", TreeError),
        ("abc", "", "abc", None),
        ("abc", "xyz", "", BrakeError),
        ("abc", "abcd", "", None),
    ],
)
def test_most_of_a_stream_is_not_dropped_by_mistake(
    tmp_path: Path, published: str, new: str, withdrawn: str, error: type[FastindexError] | None
) -> None:
    if published:
        publish(tmp_path, *published)
    draft = draft_of(tmp_path, *new)
    labels = {f"images/debian/12/amd64/default/{name}" for name in withdrawn}
    refusal = review_draft(draft, force=False, withdrawn=labels).refusal
    if error is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert type(refusal.error) is error
        assert "images: " in str(refusal.error)
    assert review_draft(draft, force=True).refusal is None


def test_the_brake_tells_how_many_and_what_to_do(tmp_path: Path) -> None:
    publish(tmp_path, *"abcde")
    refusal = review_draft(draft_of(tmp_path, "a", "b"), force=False).refusal
    assert refusal is not None
    assert "3 of the 5 published versions would be dropped" in str(refusal.error)
    for word in ("--force", "--dry-run", "nothing was published"):
        assert word in str(refusal.error)


def test_an_empty_stream_that_is_published_stays_so(tmp_path: Path) -> None:
    publish_drafts(str(tmp_path), [draft_of(tmp_path)])
    assert review_draft(draft_of(tmp_path), force=False).refusal is None


def test_what_a_client_would_reject_or_misread_is_a_bug_and_not_published(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, "a")
    for data, words in (
        (draft.data.replace(b'"size":1', b'"size":"1"'), "clients would reject it"),
        (draft.data.replace(b'"os":"debian"', b'"os":"ubuntu"'), "something else than what was"),
    ):
        with pytest.raises(PublishError, match=words):
            check_decoding(replace(draft, data=data))


def test_what_is_equal_is_not_written_again(tmp_path: Path) -> None:
    assert publish(tmp_path, "a") == ("streams/v1/images.json", "streams/v1/index.json")
    before = stamps(tmp_path)
    assert publish(tmp_path, "a") == ()
    assert stamps(tmp_path) == before
    assert publish(tmp_path, "a", "b") == ("streams/v1/images.json",)  # of the same products


def index_of(output: Path) -> dict[str, object]:
    index: dict[str, object] = json.loads((output / "streams/v1/index.json").read_bytes())["index"]
    return index


def test_other_streams_stay_in_the_index_while_they_have_a_file(tmp_path: Path) -> None:
    publish(tmp_path, "a", stream="daily")
    publish(tmp_path, "a")
    assert list(index_of(tmp_path)) == ["daily", "images"]
    entry = IndexEntry(path="streams/v1/other.json", products=[])
    moved = IndexEntry(path="elsewhere/daily.json", products=[])
    write_tree(tmp_path, {"streams/v1/other.json": b"", "elsewhere/daily.json": b""})
    entries = {"images": entry, "other": entry, "daily": moved, "gone": entry}
    write_tree(tmp_path, {"streams/v1/index.json": encode(Index(index=entries))})
    publish(tmp_path, "a")
    assert list(index_of(tmp_path)) == ["images", "other"]


def test_a_failure_leaves_the_index_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "a")
    before = (tmp_path / "streams/v1/index.json").read_bytes()
    write_tree(tmp_path, {"streams/v1/daily.json/x": b""})
    written: list[str] = []
    replace_file = atomic.replace_file

    def record(path: str, data: bytes, **options: bool) -> None:
        replace_file(path, data, **options)
        written.append(path)

    monkeypatch.setattr(atomic, "replace_file", record)
    drafts = [draft_of(tmp_path, "a", "b"), draft_of(tmp_path, "a", stream="daily")]
    with pytest.raises(PublishError, match=r"daily\.json: cannot be written \(Is a directory\)"):
        publish_drafts(str(tmp_path), drafts)
    assert written == [f"{tmp_path}/streams/v1/images.json"]
    assert (tmp_path / "streams/v1/index.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"products": {"a": 1}}'])
def test_an_unreadable_product_file_names_nothing(tmp_path: Path, content: bytes | None) -> None:
    publish(tmp_path, "a")
    path = tmp_path / "streams/v1/images.json"
    assert read_published_versions(str(path)) == {(KEY, "a")}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert read_published_versions(str(path)) is None
    assert read_published_fingerprints(str(tmp_path), ["images"]) == {}


def test_fingerprints_are_those_of_all_streams(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    publish(tmp_path, "b", stream="daily")
    owners = read_published_fingerprints(str(tmp_path), ["images", "daily", "missing"])
    assert owners == {
        digest("a+squashfs"): ("images", KEY),
        digest("b+squashfs"): ("daily", KEY),
    }
