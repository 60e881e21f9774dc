"""Whenever a run is killed, no two published files have one fingerprint."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.catalogue.conflicts import resolve_conflicts
from fastindex.catalogue.ordering import order_files
from fastindex.formats.simplestreams import ProductFile
from tests.support.catalogues import container, item, product, product_file, version
from tests.support.trees import sha256

Layout = Mapping[str, str]
"""Stream → the images in it, a letter each."""


def make(stream: str, images: str) -> ProductFile:
    products = {
        f"{word}:1:amd64:default": product({"20240505": container(word, path=f"{stream}/{word}")})
        for word in images
    }
    return product_file(products, stream)


def write(old: Layout, new: Layout) -> list[dict[str, ProductFile]]:
    """Return what is published after each step, and see that it never has duplicates."""
    published = {stream: make(stream, images) for stream, images in old.items()}
    changes = [(published.get(stream), make(stream, images)) for stream, images in new.items()]
    states = []
    for step in order_files(changes):
        published = published | {step.content_id: step}
        assert resolve_conflicts(list(published.values()))[1] == []
        states.append(published)
    assert states[-1] == published | {file.content_id: file for _, file in changes}
    return states


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        ({"a": "x", "b": "y"}, {"a": "xz", "b": "y"}, 2),
        ({"a": "x", "b": "y"}, {"a": "xy", "b": ""}, 2),  # from b to a
        ({"a": "x", "b": "y"}, {"a": "", "b": "xy"}, 2),
        ({"a": "x"}, {"a": "", "b": "x"}, 2),  # b is new
        ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}, 3),
        ({"a": "xk", "b": "y"}, {"a": "yk", "b": "x"}, 3),
        ({"a": "x", "b": "y", "c": "z"}, {"a": "y", "b": "z", "c": "x"}, 4),
        ({"a": "x", "b": "y", "c": "z"}, {"a": "z", "b": "x", "c": "y"}, 4),
        ({"a": "x", "b": "y", "c": "z"}, {"a": "yz", "b": "x", "c": ""}, 4),
    ],
)
def test_a_stream_that_loses_an_image_comes_first(old: Layout, new: Layout, steps: int) -> None:
    assert len(write(old, new)) == steps


def test_what_stays_is_published_all_the_time() -> None:
    for state in write({"a": "xk", "b": "yl"}, {"a": "yk", "b": "xl"}):
        assert "k:1:amd64:default" in state["a"].products
        assert "l:1:amd64:default" in state["b"].products


@given(st.data())
def test_never_are_there_two_of_one(data: st.DataObject) -> None:
    images, streams = "abcdef", "xyz"

    def place() -> Layout:
        where = {image: data.draw(st.sampled_from([*streams, ""])) for image in images}
        return {stream: "".join(i for i in images if where[i] == stream) for stream in streams}

    states = write(place(), place())
    assert len(states) <= 2 * len(streams)


def test_files_that_conflict_anyhow_are_written_all_the_same() -> None:
    assert len(order_files([(make("a", "x"), make("a", "x")), (None, make("b", "x"))])) == 2
    both = [(make(s, "x"), make(s, "xy")) for s in "ab"]
    assert [step.content_id for step in order_files(both)][-2:] == ["a", "b"]


def test_equal_digests_for_different_clients_are_no_conflict() -> None:
    """One client never sees the other's images."""
    one = version(item("incus_combined.tar.gz", "same"), path="a")
    other = version(item("lxd_combined.tar.gz", "same"), path="b")
    assert sha256(b"same") in {i.sha256 for i in one.items.values()}
    key = "d:1:amd64:default"
    old = [product_file({key: product({"20240505": v})}, s) for s, v in (("a", one), ("b", other))]
    new = [product_file({key: product({"20240505": v})}, s) for s, v in (("a", other), ("b", one))]
    assert len(order_files(list(zip(old, new, strict=True)))) == 3
