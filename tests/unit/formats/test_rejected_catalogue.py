"""Of a catalogue that clients reject, the faults are named and the rest is decoded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fastindex.formats.rejected_catalogue import decode_rejected
from fastindex.formats.simplestreams import ProductFile, decode

DIGEST = "0123456789abcdef" * 4
GOOD, OTHER = "debian:12:amd64:default", "debian:13:arm64:cloud"
OLD, NEW = "20240505_05:24", "20240506_05:24"


def document() -> dict[str, Any]:
    """Return a product file of two products with two versions each."""
    item = {"ftype": "squashfs", "path": "images/a", "size": 1, "sha256": DIGEST}
    return {
        "content_id": "images",
        "datatype": "image-downloads",
        "format": "products:1.0",
        "products": {
            key: {
                "aliases": "a",
                "arch": "amd64",
                "os": "Debian",
                "release": "12",
                "release_title": "12",
                "variant": "default",
                "requirements": {},
                "versions": {
                    name: {"items": {"rootfs.squashfs": dict(item)}} for name in (OLD, NEW)
                },
            }
            for key in (GOOD, OTHER)
        },
    }


def rejected(value: object) -> bytes:
    """Encode a catalogue, and see that a client would reject it."""
    data = json.dumps(value).encode()
    with pytest.raises(msgspec.DecodeError):
        decode(data, ProductFile)
    return data


def test_a_wrong_version_is_named_and_all_others_are_decoded() -> None:
    wrong = document()
    wrong["products"][OTHER]["versions"][NEW]["items"]["rootfs.squashfs"]["size"] = "1"
    file, (rejection,) = decode_rejected("images", rejected(wrong))
    assert (rejection.product, rejection.version) == (OTHER, NEW)
    assert "size" in rejection.reason
    assert file is not None
    assert {key: set(product.versions) for key, product in file.products.items()} == {
        GOOD: {OLD, NEW},
        OTHER: {OLD},
    }
    assert file.products[GOOD].os == "Debian"


def test_a_wrong_product_keeps_its_versions_and_its_key_says_what_is_wrong() -> None:
    wrong = document()
    wrong["products"][OTHER]["release"] = 13
    file, (rejection,) = decode_rejected("images", rejected(wrong))
    assert (rejection.product, rejection.version) == (OTHER, "")
    assert "release" in rejection.reason
    assert file is not None
    found = file.products[OTHER]
    assert (found.os, found.release, found.arch, found.variant) == (
        "Debian",
        "13",
        "amd64",
        "default",
    )
    assert set(found.versions) == {OLD, NEW}


def test_a_product_without_readable_versions_is_named_only() -> None:
    wrong = document()
    wrong["products"][OTHER]["versions"] = []
    file, (rejection,) = decode_rejected("images", rejected(wrong))
    assert (rejection.product, rejection.version) == (OTHER, "")
    assert file is not None
    assert set(file.products) == {GOOD}


def test_a_wrong_field_of_the_file_is_named_and_all_products_are_decoded() -> None:
    wrong = document() | {"format": 2}
    file, (rejection,) = decode_rejected("images", rejected(wrong))
    assert (rejection.product, rejection.version) == ("", "")
    assert "format" in rejection.reason
    assert file is not None
    assert set(file.products) == {GOOD, OTHER}
    assert file.content_id == "images"


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 64, b"[]", b"{", b'{"products": []}', b"[" * 100_000],
)
def test_of_other_bytes_nothing_is_decoded(data: bytes) -> None:
    file, rejections = decode_rejected("images", data)
    assert file is None
    assert [(rejection.product, rejection.version) for rejection in rejections] == [("", "")]
    assert rejections[0].reason


def test_every_fault_is_named() -> None:
    wrong = document() | {"content_id": 1}
    wrong["products"][GOOD]["versions"][OLD]["items"] = []
    wrong["products"][GOOD]["versions"][NEW]["label"] = 5
    wrong["products"][OTHER]["aliases"] = ["a"]
    _, rejections = decode_rejected("images", rejected(wrong))
    assert [(rejection.product, rejection.version) for rejection in rejections] == [
        ("", ""),
        (GOOD, OLD),
        (GOOD, NEW),
        (OTHER, ""),
    ]
