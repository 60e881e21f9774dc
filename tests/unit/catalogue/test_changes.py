"""How a draft differs from what is published."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fastindex.catalogue.changes import find_changes
from fastindex.events import Change
from fastindex.formats.simplestreams import Product, encode
from tests.support.catalogues import (
    KEY,
    container,
    draft_product_file,
    item,
    metadata,
    product,
    product_file,
    version,
)
from tests.support.trees import write_tree

OLD = product({"1": container(), "2": container("two")})
OTHER = "debian:13:amd64:default"


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ({KEY: OLD}, []),
        ({KEY: product({"1": container()})}, [("removed", KEY, "2", 3)]),
        (
            {KEY: product({"1": container(), "2": container("two"), "3": container()})},
            [("added", KEY, "3", 3)],
        ),
        (
            {KEY: product({"1": container("new"), "2": container("two")})},
            [("changed", KEY, "1", 3)],
        ),
        (
            {KEY: product({"1": container(), "2": container("two")}, aliases="b")},
            [("changed", KEY, "", 0)],
        ),
        ({}, [("removed", KEY, "1", 3), ("removed", KEY, "2", 3)]),
        (
            {KEY: OLD, OTHER: product({"1": container()}, aliases="c")},
            [("added", OTHER, "1", 3)],
        ),
    ],
)
def test_each_version_that_differs_is_told(
    tmp_path: Path, products: dict[str, Product], expected: list[tuple[str, str, str, int]]
) -> None:
    published = encode(product_file({KEY: OLD}))
    write_tree(tmp_path, {"streams/v1/images.json": published})
    draft = draft_product_file(str(tmp_path), product_file(products))
    assert draft.is_published is (not expected)
    told = [(c.kind, c.product, c.version, c.size_bytes) for c in find_changes(draft)]
    assert told == expected


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"products": 5}'])
def test_to_an_unreadable_catalogue_all_is_added(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        write_tree(tmp_path, {"streams/v1/images.json": content})
    draft = draft_product_file(str(tmp_path), product_file({KEY: OLD}))
    files = ("p/incus.tar.xz", "p/lxd.tar.xz", "p/squashfs")
    assert find_changes(draft) == [
        Change("added", "images", KEY, "1", 3, files),
        Change("added", "images", KEY, "2", 3, files),
    ]


def test_the_files_of_a_change_are_those_that_clients_find_changed(tmp_path: Path) -> None:
    metadata_item, root_item = metadata("incus.tar.xz", "squashfs"), item("squashfs")
    published = encode(product_file({KEY: product({"1": version(metadata_item, root_item)})}))
    write_tree(tmp_path, {"streams/v1/images.json": published})
    other = msgspec.structs.replace(root_item, size=5)
    new = product({"1": version(metadata_item, other)})
    (change,) = find_changes(draft_product_file(str(tmp_path), product_file({KEY: new})))
    assert (change.kind, change.files) == ("changed", (root_item.path,))
    (gone,) = find_changes(draft_product_file(str(tmp_path), product_file({})))
    assert (gone.kind, gone.files) == ("removed", (metadata_item.path, root_item.path))


def test_a_file_under_two_names_counts_once(tmp_path: Path) -> None:
    made = version(metadata("incus.tar.xz", "squashfs", size=10), item("squashfs", size=100))
    lone = made.items["incus.tar.xz"]
    made.items["lxd.tar.xz"] = msgspec.structs.replace(lone, ftype="lxd.tar.xz")
    draft = draft_product_file(str(tmp_path), product_file({KEY: product({"1": made})}))
    assert [change.size_bytes for change in find_changes(draft)] == [110]
