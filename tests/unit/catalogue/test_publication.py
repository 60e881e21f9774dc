"""Drafts are checked, then written, the index last; what is equal stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastindex.catalogue.drafts import Draft
from fastindex.catalogue.publication import review_draft
from fastindex.errors import BrakeError, FastindexError, PublishError, TreeError
from fastindex.formats.simplestreams import Index, IndexEntry, encode
from tests.support.catalogues import (
    KEY,
    container,
    draft_product_file,
    product,
    product_file,
    publish_drafts,
)
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


def test_a_failure_leaves_the_index_of_before(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    before = (tmp_path / "streams/v1/index.json").read_bytes()
    write_tree(tmp_path, {"streams/v1/daily.json/x": b""})
    drafts = [draft_of(tmp_path, "a", "b"), draft_of(tmp_path, "a", stream="daily")]
    with pytest.raises(PublishError, match=r"daily\.json: cannot be written \(Is a directory\)"):
        publish_drafts(str(tmp_path), drafts)
    first = json.loads((tmp_path / "streams/v1/images.json").read_bytes())
    assert set(first["products"][KEY]["versions"]) == {"a", "b"}
    assert (tmp_path / "streams/v1/index.json").read_bytes() == before
    assert not list((tmp_path / "streams/v1").glob(".*"))


BROKEN = encode(product_file({KEY: product({})})).replace(b'"versions":{}', b'"versions":5')


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"products": {"a": 1}}', BROKEN])
def test_a_product_file_that_cannot_be_read_counts_as_none(
    tmp_path: Path, content: bytes | None
) -> None:
    publish(tmp_path, *"abc")
    path = tmp_path / "streams/v1/images.json"
    assert review_draft(draft_of(tmp_path, "a"), force=False).refusal is not None
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert review_draft(draft_of(tmp_path, "a"), force=False).refusal is None
    refusal = review_draft(draft_of(tmp_path), force=False).refusal
    assert refusal is not None
    assert refusal.is_empty
    assert publish(tmp_path, "a")[0] == "streams/v1/images.json"


def test_the_brake_counts_a_version_whose_items_clients_reject(tmp_path: Path) -> None:
    """It was published, whoever damaged the file."""
    publish(tmp_path, *"abc")
    path = tmp_path / "streams/v1/images.json"
    path.write_bytes(path.read_bytes().replace(b'"size":1', b'"size":"1"'))
    refusal = review_draft(draft_of(tmp_path, "a"), force=False).refusal
    assert refusal is not None
    assert "2 of the 3 published versions would be dropped" in refusal.problem


def test_the_brake_counts_products_that_stay_as_they_are(tmp_path: Path) -> None:
    keys = [f"debian:12:amd64:{variant}" for variant in ("cloud", "default", "desktop")]
    made = {key: product({"1": container(key), "2": container(f"{key}2")}) for key in keys}
    publish_drafts(str(tmp_path), [draft_product_file(str(tmp_path), product_file(made))])
    for count, is_refused in ((1, False), (2, True)):
        left = {key: made[key] for key in keys[count:]}
        draft = draft_product_file(str(tmp_path), product_file(left))
        refusal = review_draft(draft, force=False).refusal
        assert (refusal is not None) is is_refused
        if refusal is not None:
            assert "4 of the 6 published versions would be dropped" in refusal.problem
