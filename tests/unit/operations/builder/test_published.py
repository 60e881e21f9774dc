"""What is published of the streams that are built, opened once and only if somebody asks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fastindex.formats.names import ProductName
from fastindex.formats.simplestreams import encode
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundProduct, FoundVersion
from fastindex.operations.builder.published import PublishedStreams
from tests.support.catalogues import KEY, VERSION, container, product, product_file
from tests.support.trees import write_tree

MADE = product_file({KEY: product({VERSION: container()})})
PATH = "images/debian/12/amd64/default"


def found(key: str = KEY, stream: str = "images") -> FoundProduct:
    return FoundProduct(stream, ProductName(*key.split(":")), PATH, ())


def version(name: str = VERSION) -> FoundVersion:
    return FoundVersion(name, f"{PATH}/{name}", ())


def test_the_items_of_a_published_version_are_found(tmp_path: Path) -> None:
    write_tree(tmp_path, {"streams/v1/images.json": encode(MADE)})
    with ExitStack() as stack:
        published = PublishedStreams(Mirror.at(tmp_path), stack)
        items = published.find_items(found(), version())
        assert items == MADE.products[KEY].versions[VERSION].items
        assert published.find_items(found(), version("20240506")) is None
        assert published.find_items(found("debian:13:amd64:default"), version()) is None
        assert published.find_items(found(stream="daily"), version()) is None


@pytest.mark.parametrize("content", [None, b"{", b'{"products":{"%s":5}}' % KEY.encode()])
def test_of_what_cannot_be_read_nothing_is_published(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        write_tree(tmp_path, {"streams/v1/images.json": content})
    with ExitStack() as stack:
        published = PublishedStreams(Mirror.at(tmp_path), stack)
        assert published.find_items(found(), version()) is None


def test_a_file_stays_the_same_until_it_is_closed(tmp_path: Path) -> None:
    path = write_tree(tmp_path, {"streams/v1/images.json": encode(MADE)}) / "streams/v1/images.json"
    with ExitStack() as stack:
        published = PublishedStreams(Mirror.at(tmp_path), stack)
        file = published.find("images")
        assert file is not None
        write_tree(tmp_path, {"other": encode(product_file({}))})
        (tmp_path / "other").replace(path)
        assert published.find("images") is file
        assert published.find_items(found(), version()) is not None
        assert published.find("daily") is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_raw(KEY)
