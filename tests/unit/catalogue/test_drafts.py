"""Drafts: which bytes a product file gets, and where they come from."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastindex.catalogue.drafts import (
    Draft,
    Kept,
    Made,
    Piece,
    PieceWriter,
    open_published,
    read_published,
)
from fastindex.catalogue.product_files import PublishedFile
from fastindex.errors import PublishError
from fastindex.formats.simplestreams import (
    CachedItem,
    Item,
    Product,
    ProductFile,
    Version,
    decode,
    encode,
)
from fastindex.system.spool import Spool
from tests.support.catalogues import (
    KEY,
    container,
    digest,
    draft_product_file,
    product,
    product_file,
)
from tests.support.trees import write_tree

OTHER = "debian:13:amd64:default"
THIRD = "debian:14:amd64:default"
IMAGES = "streams/v1/images.json"
ONE, TWO = product({"1": container("one")}), product({"1": container("two")})


def published(output: Path, content: bytes) -> PublishedFile:
    write_tree(output, {IMAGES: content})
    return PublishedFile(str(output / IMAGES))


def content_of(draft: Draft) -> bytes:
    return b"".join(draft.read_chunks())


@pytest.mark.parametrize(
    ("products", "is_published", "affected"),
    [
        ({KEY: ONE, OTHER: TWO}, True, ()),
        ({OTHER: TWO, KEY: ONE}, False, ()),  # another order is other bytes
        ({KEY: ONE}, False, (OTHER,)),
        ({KEY: ONE, OTHER: ONE}, False, (OTHER,)),
        ({KEY: ONE, OTHER: TWO, THIRD: ONE}, False, (THIRD,)),
        ({THIRD: ONE}, False, (THIRD, KEY, OTHER)),
        ({}, False, (KEY, OTHER)),
    ],
)
def test_a_draft_knows_what_differs_from_what_is_published(
    tmp_path: Path, products: dict[str, Product], is_published: bool, affected: tuple[str, ...]
) -> None:
    write_tree(tmp_path, {IMAGES: encode(product_file({KEY: ONE, OTHER: TWO}))})
    draft = draft_product_file(str(tmp_path), product_file(products))
    assert draft.is_published is is_published
    assert draft.affected == affected
    assert content_of(draft) == encode(product_file(products))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data.removesuffix(b"\n"),
        lambda data: data.replace(b'"content_id":"images"', b'"content_id":"daily"'),
        lambda data: data.replace(b'"image-downloads"', b'"image-ids"'),
        lambda data: data.replace(b'"products:1.0"', b'"products:2.0"'),
        lambda data: data.replace(b'"content_id":"images",', b""),
        lambda data: data.replace(b'{"content_id"', b'{ "content_id"'),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: json.dumps(json.loads(data), indent=1).encode(),
        lambda data: data.replace(b'"size":1', b'"size": 1'),
        lambda data: data.replace(b'"requirements":{}', b'"requirements":null'),
        lambda data: data.replace(b'"products":{', b'"products":{"' + KEY.encode() + b'":{},'),
        lambda data: data.replace(b'"products"', b'"unknown":1,"products"'),
        lambda data: data.replace(b'"products"', b'"updated":"today","products"'),
    ],
)
def test_a_file_with_the_same_products_in_other_bytes_is_written_again(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    made = product_file({KEY: replace(ONE, requirements={})})
    data = change(encode(made))
    is_equal = data == encode(made)
    with published(tmp_path, data) as file:
        assert decode(data, ProductFile).products == made.products
        draft = draft_product_file(str(tmp_path), made)
        assert draft.is_published is is_equal
        assert content_of(draft) == encode(made)
        writer = PieceWriter(Spool())
        kept = {KEY: writer.write("images", KEY, made.products[KEY], file)}
        assert Draft.make(str(tmp_path), "images", kept, file).is_published is is_equal


def test_nothing_is_published_where_there_is_no_file(tmp_path: Path) -> None:
    for content in (None, b"", b"{", b"[]"):
        if content is not None:
            write_tree(tmp_path, {IMAGES: content})
        for products in ({}, {KEY: ONE}):
            draft = draft_product_file(str(tmp_path), product_file(products))
            assert (draft.is_published, draft.affected) == (False, tuple(products))
            assert draft.read_published(KEY) is None


def test_an_empty_stream_that_is_published_is_published(tmp_path: Path) -> None:
    write_tree(tmp_path, {IMAGES: encode(product_file({}))})
    assert draft_product_file(str(tmp_path), product_file({})).is_published


def test_equal_bytes_are_taken_from_the_published_file(tmp_path: Path) -> None:
    with published(tmp_path, encode(product_file({KEY: ONE, OTHER: TWO}))) as file:
        spool = Spool()
        writer = PieceWriter(spool)
        same, new, gone = (
            writer.write("images", key, one, file)
            for key, one in ((KEY, ONE), (OTHER, ONE), (THIRD, ONE))
        )
        assert same == Kept(file, KEY)
        assert isinstance(new, Made)
        assert isinstance(gone, Made)
        assert isinstance(writer.write("images", KEY, ONE, None), Made)
        for piece in (same, new, gone):
            assert piece.decode() == ONE
            assert piece.read() == file.read_raw(KEY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "1"}, "clients would reject it"),
        ({"sha256": "a" * 65}, "clients would reject it"),
        ({"path": b"p"}, "something else than what was written"),
    ],
)
def test_what_a_client_would_reject_or_misread_is_a_bug_and_not_published(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    item = {"ftype": "squashfs", "path": "p", "size": 1, "sha256": digest("x"), **change}
    wrong = product({"1": Version(items={"squashfs": Item(**item)})})  # type: ignore[arg-type]
    with pytest.raises(PublishError, match=f"images.json: {KEY}: not published, .*{words}"):
        PieceWriter(Spool()).write("images", KEY, wrong, None)
    with pytest.raises(PublishError, match="please report this bug"):
        draft_product_file(str(tmp_path), product_file({KEY: wrong}))


def test_a_field_that_only_caches_have_is_not_published() -> None:
    cached = CachedItem(ftype="squashfs", path="p", size=1, sha256=digest("x"), key="0" * 16)
    wrong = product({"1": Version(items={"squashfs": cached})})
    with pytest.raises(PublishError, match="something else than what was written"):
        PieceWriter(Spool()).write("images", KEY, wrong, None)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"products": {"a": 1}}', b'{"a":"\xff"}'])
def test_a_file_that_clients_reject_has_no_products(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        write_tree(tmp_path, {IMAGES: content})
    file = open_published(str(tmp_path / IMAGES))
    assert file is None or read_published(file, "a") is None


def test_a_product_that_is_not_published_is_none(tmp_path: Path) -> None:
    with published(tmp_path, encode(product_file({KEY: ONE}))) as file:
        assert read_published(file, KEY) == ONE
        assert read_published(file, OTHER) is None


_WORDS = st.text(
    st.sampled_from('ab"\\/\n\0é\u2028\U0001f4a9{}[],:') | st.characters(codec="utf-8"), max_size=6
)
_ITEMS = st.builds(
    Item,
    ftype=_WORDS,
    path=_WORDS,
    size=st.integers(-(1 << 63), (1 << 63) - 1),
    sha256=st.sampled_from(("", digest("a"))),
    delta_base=_WORDS,
)
_VERSIONS = st.builds(
    Version, items=st.dictionaries(_WORDS, _ITEMS, max_size=2), label=_WORDS | st.just("")
)
_PRODUCTS = st.builds(
    Product,
    aliases=_WORDS,
    arch=_WORDS,
    os=_WORDS,
    requirements=st.dictionaries(_WORDS, _WORDS, max_size=2),
    supported=st.booleans(),
    versions=st.dictionaries(_WORDS, _VERSIONS, max_size=2),
)
_FILES = st.dictionaries(_WORDS, _PRODUCTS, max_size=4)


@given(_FILES, _FILES, _WORDS, st.data())
def test_the_chunks_are_the_file_that_is_meant(
    tmp_path_factory: pytest.TempPathFactory,
    old: dict[str, Product],
    new: dict[str, Product],
    stream: str,
    data: st.DataObject,
) -> None:
    """Whatever is kept of the published file, and whatever is new."""
    for key in data.draw(st.sets(st.sampled_from(sorted(old)))) if old else ():
        new[key] = old[key]
    output = tmp_path_factory.mktemp("output", numbered=True)
    (output / "file").write_bytes(encode(product_file(old, stream)))
    with PublishedFile(str(output / "file")) as file:
        writer = PieceWriter(Spool())
        pieces: dict[str, Piece] = {
            key: writer.write(stream, key, one, file) for key, one in new.items()
        }
        assert {key for key, piece in pieces.items() if isinstance(piece, Kept)} == {
            key for key in new if new[key] == old.get(key)
        }
        draft = Draft.make(str(output), stream, pieces, file)
        expected = encode(product_file(new, stream))
        assert content_of(draft) == expected
        assert draft.is_published is (expected == encode(product_file(old, stream)))
        assert set(draft.affected) == {key for key in (*old, *new) if old.get(key) != new.get(key)}
        assert {key: pieces[key].decode() for key in pieces} == new


def test_a_large_file_comes_in_chunks(tmp_path: Path) -> None:
    large = product({"1": container(), "2": Version(label="x" * 700_000)})
    made = product_file({KEY: large, OTHER: large, THIRD: large})
    chunks = list(draft_product_file(str(tmp_path), made).read_chunks())
    assert len(chunks) == 2
    assert b"".join(chunks) == encode(made)


@pytest.mark.parametrize(("code", "is_raised"), [(errno.EMFILE, True), (errno.ENOENT, False)])
def test_a_shortage_is_not_taken_for_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_raised: bool
) -> None:
    """All that is published would look new, and nothing of it lost."""

    def fail(*arguments: object, **options: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(code)) if is_raised else nullcontext():
        assert open_published(str(tmp_path / "images.json")) is None
