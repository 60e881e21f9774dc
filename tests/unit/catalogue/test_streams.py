"""What is published of other streams, also if the index is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from fastindex.catalogue.publication import plan_writes
from fastindex.catalogue.streams import OtherStreams, read_other_streams
from fastindex.errors import Code
from fastindex.formats.simplestreams import Index, decode, encode
from tests.support.catalogues import (
    KEY,
    container,
    draft_product_file,
    product,
    product_file,
    publish_drafts,
)
from tests.support.trees import write_tree

INDEX = "streams/v1/index.json"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output directory with three streams of one version each."""
    publish(tmp_path, "daily", "images", "weekly")
    return tmp_path


def publish(output: Path, *streams: str) -> None:
    documents = [
        product_file({KEY: product({"20240505": container(name, path=name)})}, name)
        for name in streams
    ]
    drafts = [draft_product_file(str(output), document) for document in documents]
    publish_drafts(str(output), drafts)


def names(output: Path) -> list[str]:
    return list(decode((output / INDEX).read_bytes(), Index).index)


def streams_of(found: OtherStreams) -> list[str]:
    return [other.stream for other in found.streams]


def test_the_others_are_those_of_the_index(output: Path) -> None:
    found = read_other_streams(str(output), ["images"])
    assert streams_of(found) == list(found.entries) == ["daily", "weekly"]
    assert found.findings == ()


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * 50, b'{"format":"index:1', b"{}", b'{"index":{}}', b"[]"]
)
def test_a_lost_or_torn_index_is_made_anew(output: Path, content: bytes | None) -> None:
    before = (output / INDEX).read_bytes()
    (output / INDEX).unlink()
    if content is not None:
        write_tree(output, {INDEX: content})
    # Neither a catalogue of this name, nor one at all.
    other = encode(product_file({KEY: product({"20240505": container("o")})}, "weekly"))
    strangers = {"streams/v1/copy.json": other, "streams/v1/torn.json": other[:50]}
    strangers |= {"streams/v1/notes.json": b"[1]", "streams/v1/.hidden.json": other}
    write_tree(output, strangers)
    found = read_other_streams(str(output), ["images"])
    assert streams_of(found) == ["daily", "weekly"]
    (finding,) = found.findings
    assert (finding.code, finding.path) == (Code.INDEX_REBUILT, INDEX)
    assert "(other streams: daily, weekly)" in finding.problem
    assert not finding.versions_left_out
    publish(output, "images")
    assert (output / INDEX).read_bytes() == before
    assert read_other_streams(str(output), ["images"]).findings == ()


def test_where_nothing_is_published_nothing_is_lost(tmp_path: Path) -> None:
    found = read_other_streams(str(tmp_path), ["images"])
    assert (found.entries, found.streams, found.findings) == ({}, (), ())


@pytest.mark.parametrize(
    "content",
    [b"{", encode(product_file({KEY: product({"20240505": container()})})).replace(b":1", b":[]")],
)
def test_a_broken_product_file_of_another_stream_is_told_of_and_stays(
    output: Path, content: bytes
) -> None:
    write_tree(output, {"streams/v1/daily.json": content})
    found = read_other_streams(str(output), ["images"])
    assert streams_of(found) == ["weekly"]
    (finding,) = found.findings
    assert (finding.code, finding.path) == (Code.BAD_CATALOGUE, "streams/v1/daily.json")
    assert "--stream daily" in finding.remedy
    publish(output, "images")
    assert names(output) == ["daily", "images", "weekly"]


def test_products_that_another_stream_lost_are_told_of_and_stay_in_the_index(output: Path) -> None:
    """Else a build of this stream would hide that the other is damaged."""
    write_tree(output, {"streams/v1/daily.json": encode(product_file({}, "daily"))})
    for _ in range(2):
        found = read_other_streams(str(output), ["images"])
        (finding,) = found.findings
        assert (finding.code, finding.path) == (Code.PRODUCT_LOST, "streams/v1/daily.json")
        assert finding.problem == f"lacks the product {KEY}, which the index names"
        assert finding.remedy == "run fastindex --stream daily to write it anew"
        publish(output, "images")
        entry = decode((output / INDEX).read_bytes(), Index).index["daily"]
        assert entry.products == [KEY]


def test_products_that_another_stream_has_get_into_the_index(output: Path) -> None:
    """As a run leaves them that is killed before it writes the index."""
    more = product_file({key: product({}) for key in ("a:b:c:d", KEY)}, "daily")
    write_tree(output, {"streams/v1/daily.json": encode(more)})
    assert read_other_streams(str(output), ["images"]).findings == ()
    publish(output, "images")
    assert decode((output / INDEX).read_bytes(), Index).index["daily"].products == ["a:b:c:d", KEY]


def test_a_stream_is_what_the_index_calls_it(output: Path) -> None:
    path = output / "streams/v1/daily.json"
    path.write_bytes(path.read_bytes().replace(b'"content_id":"daily"', b'"content_id":"x"'))
    found = read_other_streams(str(output), ["images"])
    assert streams_of(found) == ["daily", "weekly"]


def test_a_stream_that_fills_up_is_not_skipped_for_a_moment(output: Path) -> None:
    """An index that names nothing of it would hide what its product file has already."""
    empty = draft_product_file(str(output), product_file({}, "daily"))
    publish_drafts(str(output), [empty])
    full = product_file({KEY: product({"20240505": container("new", path="daily")})}, "daily")
    writes = plan_writes(str(output), [draft_product_file(str(output), full)])
    assert [write.path for write in writes] == [INDEX, "streams/v1/daily.json", INDEX]
    first, _, last = (json.loads(b"".join(write.chunks)) for write in writes)
    assert sorted(first["index"]) == ["images", "weekly"]
    assert sorted(last["index"]) == ["daily", "images", "weekly"]


def test_the_index_never_names_a_product_that_its_file_lacks(output: Path) -> None:
    """So that one which does is damaged, and not that of a run that was killed."""
    versions = {name: product({"20240505": container(name, path=name)}) for name in ("a", "b", "c")}
    one, two, three = (f"debian:{release}:amd64:default" for release in (1, 2, 3))
    old = product_file({one: versions["a"], two: versions["b"]}, "daily")
    publish_drafts(str(output), [draft_product_file(str(output), old)])
    new = product_file({two: versions["b"], three: versions["c"]}, "daily")
    writes = plan_writes(str(output), [draft_product_file(str(output), new)])
    assert [write.path for write in writes] == [INDEX, "streams/v1/daily.json", INDEX]
    first, _, last = (json.loads(b"".join(write.chunks)) for write in writes)
    assert [index["index"]["daily"]["products"] for index in (first, last)] == [[two], [two, three]]
    assert first["index"]["images"] == last["index"]["images"]


def test_a_stream_that_loses_all_of_its_products_is_not_hidden_before(output: Path) -> None:
    empty = draft_product_file(str(output), product_file({}, "daily"))
    writes = plan_writes(str(output), [empty])
    assert [write.path for write in writes] == ["streams/v1/daily.json", INDEX]


def test_a_stream_stays_if_it_cannot_be_told_whether_its_file_is_there(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.lstat

    def fail(path: str) -> os.stat_result:
        if path.endswith("daily.json"):
            raise OSError(errno.EIO, "Input/output error", path)
        return status(path)

    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(OSError, match=r"Input/output error.*daily\.json"):
        read_other_streams(str(output), ["images"])
