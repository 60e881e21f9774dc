"""Product files read product by product: never another result than that of a whole decode."""

from __future__ import annotations

import json
import os
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

from fastindex.catalogue import product_files
from fastindex.catalogue.product_files import PublishedFile
from fastindex.formats.simplestreams import (
    UNDECODABLE,
    Item,
    Product,
    ProductFile,
    Version,
    decode,
    encode,
)
from tests.support.catalogues import KEY, container, product, product_file

Outcome = ProductFile | None

HOSTILE = st.one_of(
    st.text(max_size=4),
    st.text('"\\{}:,[]aé\n\x00', max_size=8),
    st.sampled_from(
        [
            "aliases",
            "versions",
            "null",
            '"aliases"',
            '}},"a:b:c:d":{"aliases":"',
            '":{"aliases":"',
            "}},",
            ":{",
            "\\",
            '\\"',
            "}}\n",
        ]
    ),
)
ITEMS = st.builds(
    Item,
    ftype=HOSTILE,
    path=HOSTILE,
    size=st.integers(-(1 << 63), (1 << 63) - 1),
    combined_type=HOSTILE,
    delta_base=HOSTILE,
)
VERSIONS = st.builds(
    Version, items=st.dictionaries(HOSTILE, ITEMS, max_size=2), label=st.just("") | HOSTILE
)
SETTINGS = st.dictionaries(st.just("aliases") | HOSTILE, HOSTILE, max_size=2)
PRODUCTS = st.builds(
    Product,
    aliases=HOSTILE,
    arch=HOSTILE,
    variant=HOSTILE,
    requirements=SETTINGS,
    lxd_requirements=SETTINGS,
    version=st.just("") | HOSTILE,
    supported=st.booleans(),
    versions=st.dictionaries(st.just("aliases") | HOSTILE, VERSIONS, max_size=3),
)
FILES = st.builds(
    ProductFile, content_id=HOSTILE, products=st.dictionaries(HOSTILE, PRODUCTS, max_size=4)
)
WINDOWS = st.integers(1, 40) | st.just(1 << 20)

TYPED_NULLS: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 1.0, "", [], {}, True, {"aliases": None}, {"aliases": "x"}, {"versions": None}]
)
JSON = st.recursive(
    TYPED_NULLS | HOSTILE,
    lambda deeper: (
        st.lists(deeper, max_size=2)
        | st.dictionaries(
            st.sampled_from(["products", "aliases", "versions", "items", "os", "size", "K", "L"]),
            deeper,
            max_size=3,
        )
    ),
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "products": st.dictionaries(
            HOSTILE, JSON | st.fixed_dictionaries({"aliases": HOSTILE | JSON})
        )
    },
    optional={"content_id": HOSTILE, "format": JSON, "more": JSON},
)


def decode_whole(data: bytes) -> Outcome:
    """Return what ``decode`` says: the file; None if clients reject it."""
    try:
        return decode(data, ProductFile)
    except UNDECODABLE:
        return None


def parse(data: bytes, *keys: str) -> Any:
    """Return the value at ``keys`` in JSON of which no more than its structure is known."""
    value = json.loads(data.decode("utf-8", "replace"))
    for key in keys:
        value = value[key]
    return value


def read(path: Path, data: bytes, window_bytes: int) -> Outcome:
    """Write a product file and read it product by product; None if it is rejected."""
    path.write_bytes(data)
    try:
        with PublishedFile(str(path), window_bytes=window_bytes) as file:
            assert file.digest == xxh3_128(data).digest()
            products = dict(file.products())
            assert list(products) == list(file.keys)
            for key, span in file.spans.items():
                raw = file.read_raw(key)
                assert raw == data[span.offset : span.offset + span.length]
                assert parse(raw) == parse(data, "products", key)
            for key in () if file.spans else file.keys:
                assert decode(file.read_raw(key), Product) == products[key]
            frame = file.frame
    except UNDECODABLE:
        return None
    return ProductFile(
        content_id=frame.content_id,
        datatype=frame.datatype,
        format=frame.format,
        products=products,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "images.json"


def assert_same(path: Path, data: bytes, window_bytes: int) -> None:
    whole, pieces = decode_whole(data), read(path, data, window_bytes)
    assert pieces == whole
    if whole is not None and pieces is not None:
        assert list(pieces.products) == list(whole.products)


@given(FILES, WINDOWS)
def test_what_fastindex_writes_is_told_apart_in_windows(
    path: Path, document: ProductFile, window_bytes: int
) -> None:
    data = encode(document)
    assert read(path, data, window_bytes) == document
    with PublishedFile(str(path), window_bytes=window_bytes) as file:
        assert file.is_compact
        assert list(file.spans) == list(document.products)
        assert file.content_id == document.content_id
        for key, entry in document.products.items():
            assert file.read_raw(key) == msgspec.json.encode(entry)
            assert file.read_product(key) == entry


@given(st.data(), FILES, WINDOWS)
def test_damage_has_the_same_outcome_as_in_a_whole_decode(
    path: Path, data: st.DataObject, document: ProductFile, window_bytes: int
) -> None:
    good = encode(document)
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 3)) | st.just(len(good)))
    spoilt = good[:start] + data.draw(st.binary(max_size=3) | HOSTILE.map(_to_bytes)) + good[end:]
    assert_same(path, spoilt, window_bytes)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(DOCUMENTS, st.sampled_from([None, 0, 2]), st.booleans(), WINDOWS)
def test_other_forms_have_the_same_outcome_as_in_a_whole_decode(
    path: Path, document: Any, indent: int | None, is_compact: bool, window_bytes: int
) -> None:
    text = (
        json.dumps(document, separators=(",", ":"))
        if is_compact
        else json.dumps(document, indent=indent, ensure_ascii=False)
    )
    assert_same(path, _to_bytes(text), window_bytes)


@given(FILES, st.sampled_from([None, 1]), st.booleans(), WINDOWS)
def test_what_others_write_need_not_be_compact_to_be_told_apart(
    path: Path, document: ProductFile, indent: int | None, sort_keys: bool, window_bytes: int
) -> None:
    text = json.dumps(msgspec.to_builtins(document), indent=indent, sort_keys=sort_keys)
    assert_same(path, text.encode(), window_bytes)
    with PublishedFile(str(path), window_bytes=window_bytes) as file:
        assert not file.is_compact
        assert set(file.spans) == set(document.products)


FRAME = '{"content_id":"images","datatype":"image-downloads","format":"products:1.0","products":'


@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        (FRAME + "{}}\n", True),
        (FRAME + "{}}", True),
        (FRAME + "null}\n", True),
        (FRAME + '{"a":null}}\n', True),
        (FRAME + '{"a":5}}\n', False),
        (FRAME + '{"a":{"aliases":"x","os":5}}}\n', False),
        (FRAME + '{"a":{"aliases":"x","os":null}}}\n', True),
        # A null lets the last of two fields win, whatever the first is.
        (FRAME + '{"a":{"aliases":"x","os":5,"os":""},"b":{"aliases":"","os":null}}}\n', True),
        (FRAME + '{"a":{"aliases":"x","os":5,"os":""},"b":{"aliases":"","os":""}}}\n', False),
        (FRAME + '{"a":{"aliases":"x","os":5},"a":{"aliases":"","os":""}}}\n', False),
        (FRAME + '{"a":{"aliases":"x","os":5},"a":{"aliases":"","os":null}}}\n', True),
        (FRAME + '{"a":{"aliases":"x","versions":{}},"a":{"aliases":"y","versions":{}}}}\n', True),
        (FRAME + '{"a":{"aliases":"x","os":5,"v":{}},"a":{"aliases":"y","v":{}}}}\n', False),
        (FRAME + '{"a":{"aliases":"","versions":{}},"\\u0061":{"aliases":"","x":{}}}}\n', True),
        # Products that go on after their versions: what is between them looks like a product.
        (FRAME + '{"a":{"aliases":"x","v":{"y":{}},"requirements":{"aliases":"x"}}}}\n', True),
        (
            FRAME + '{"a":{"aliases":"x","v":{"y":{}},"b":{"aliases":"x"}},"c":{"aliases":""}}}\n',
            True,
        ),
        (FRAME + '{"a":{"aliases":"x"}},"products":{"b":{"aliases":"y"}}}\n', True),
        (FRAME + '{"a":{"aliases":5}},"products":{"b":{"aliases":"y"}}}\n', False),
        (FRAME + '{"a":{"aliases":"x","v":"\udcff"},"b":{"aliases":"","os":null}}}\n', False),
        (FRAME + '{"a":{"aliases":"x","v":"\udcff"},"b":{"aliases":"","os":""}}}\n', True),
        (FRAME + '{"\udcff":{"aliases":"x"}}}\n', False),
        (FRAME + '{"a":{"aliases":"x"}}}\n\n', True),
        (FRAME + '{"a":{"aliases":"x"}}}\n}', False),
        (FRAME + '{"a":{"aliases":"x"}} }\n', True),
        (FRAME + '{"a":{"aliases":"x"},}}\n', False),
        (FRAME + '{"a":{"aliases":"x"}}\n', False),
        (FRAME.replace('"images"', "5") + "{}}\n", False),
        (FRAME.replace('"images"', "null") + "{}}\n", True),
        (FRAME.replace("images", "\\q") + "{}}\n", False),
        (FRAME.replace("images", "x" * 100_000) + '{"a":{"aliases":"x"}}}\n', True),
        ("{}", True),
        ("", False),
        ("null", False),
        ("[]", False),
        ('\ufeff{"products":{}}', False),
    ],
)
@pytest.mark.parametrize("window_bytes", [1, 7, 1 << 20])
def test_odd_files_have_the_same_outcome_as_in_a_whole_decode(
    path: Path, text: str, is_accepted: bool, window_bytes: int
) -> None:
    if len(text) > 10_000 and window_bytes < 100:
        window_bytes = 10_000
    data = text.encode("utf-8", "surrogateescape")
    assert (decode_whole(data) is not None) == is_accepted
    assert_same(path, data, window_bytes)


def test_an_error_tells_what_that_of_a_whole_decode_tells(path: Path) -> None:
    data = encode(product_file({KEY: product({"20240505": container()})}))
    spoilt = data.replace(b'"debian"', b"5")
    with pytest.raises(msgspec.ValidationError) as whole:
        decode(spoilt, ProductFile)
    path.write_bytes(spoilt)
    with PublishedFile(str(path)) as file, pytest.raises(msgspec.ValidationError) as piece:
        file.check()
    assert str(piece.value) == str(whole.value)


def test_a_null_is_found_wherever_windows_meet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FRAME + '{"a":{"aliases":"x","os":null}}}\n'
    for window_bytes in range(1, 6):
        monkeypatch.setattr(product_files, "WINDOW_BYTES", window_bytes)
        assert_same(path, text.encode(), 10)


def test_another_file_may_be_renamed_over_an_open_one(path: Path) -> None:
    first = product_file({KEY: product({"20240505": container()})})
    path.write_bytes(encode(first))
    with PublishedFile(str(path)) as file:
        other = path.with_name("other")
        other.write_bytes(b"{}")
        other.rename(path)
        assert dict(file.products()) == first.products


def test_a_file_that_becomes_shorter_is_an_error(path: Path) -> None:
    path.write_bytes(encode(product_file({KEY: product({"20240505": container()})})))
    with PublishedFile(str(path)) as file:
        os.truncate(path, 200)
        with pytest.raises(OSError, match="became shorter while it was read"):
            file.check()


def test_what_is_no_regular_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        PublishedFile(str(tmp_path / "fifo"))
    with pytest.raises(FileNotFoundError) as missing:
        PublishedFile(str(tmp_path / "none"))
    assert missing.value.filename == str(tmp_path / "none")


def test_a_file_that_is_too_large_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(product_file({}))
    path.write_bytes(data)
    monkeypatch.setattr(product_files, "MAX_CATALOGUE_BYTES", len(data))
    PublishedFile(str(path), window_bytes=10).close()
    monkeypatch.setattr(product_files, "MAX_CATALOGUE_BYTES", len(data) - 1)
    with pytest.raises(OSError, match=f"larger than {len(data) - 1} bytes"):
        PublishedFile(str(path), window_bytes=10)


def test_a_closed_file_leaves_no_descriptor(path: Path) -> None:
    path.write_bytes(b"[]")
    before = os.listdir("/dev/fd")
    with pytest.raises(msgspec.ValidationError):
        PublishedFile(str(path))
    path.write_bytes(b"{}")
    PublishedFile(str(path)).close()
    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize("is_accepted", [True, False])
def test_memory_holds_one_product_and_one_window(path: Path, is_accepted: bool) -> None:
    entry = product({f"2024{number:04}": container() for number in range(10)})
    data = encode(product_file({f"{KEY}{number}": entry for number in range(500)}))
    if not is_accepted:
        end = data.rindex(b'"debian"')
        data = data[:end] + b"5" + data[end + len('"debian"') :]
    path.write_bytes(data)
    assert len(data) > 3_000_000
    del data
    tracemalloc.start()
    try:
        with PublishedFile(str(path), window_bytes=1 << 16) as file:
            with nullcontext() if is_accepted else pytest.raises(msgspec.ValidationError):
                file.check()
            assert len(file.keys) == 500
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < (700_000 if is_accepted else 3_000_000)  # null is looked for in windows
