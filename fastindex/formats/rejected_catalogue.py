"""What can still be read of a product file that clients reject.

Clients reject all of it for one value of a wrong type. Here each product and version with such a
value is named, and the rest is decoded, so that it can be compared with the files on disk.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
from msgspec import Struct

from fastindex.formats.simplestreams import (
    UNDECODABLE,
    Product,
    ProductFile,
    ProductFrame,
    Version,
    decode,
)


class Rejection(Struct, frozen=True):
    """Why clients reject a product file."""

    reason: str
    """What is wrong, in the decoder's words."""
    product: str = ""
    """The key of the product that is wrong; empty if the fault is in the file outside products."""
    version: str = ""
    """The name of the version that is wrong; empty if the fault is outside versions."""


_Fields = dict[str, msgspec.Raw]


class _RawFile(Struct, frozen=True):
    products: dict[str, msgspec.Raw] = {}


class _RawProduct(Struct, frozen=True):
    versions: dict[str, msgspec.Raw] = {}


def decode_rejected(stream: str, data: bytes) -> tuple[ProductFile | None, list[Rejection]]:
    """Decode the sound parts of a product file that ``decode`` rejects.

    Args:
        stream: the stream whose product file it is.
        data: its bytes.

    Returns:
        The file with the products and versions that decode, None if not even its products can
        be told apart; and every reason why clients reject the file.
    """
    rejections: list[Rejection] = []
    try:
        decode(data, ProductFrame)
    except UNDECODABLE as error:
        rejections.append(Rejection(str(error)))
    try:
        raw = decode(data, _RawFile)
    except UNDECODABLE as error:
        return None, rejections or [Rejection(str(error))]
    products: dict[str, Product] = {}
    for key, piece in raw.products.items():
        product, wrong = decode_rejected_product(key, piece)
        rejections += wrong
        if product is not None:
            products[key] = product
    return ProductFile(content_id=stream, products=products), rejections


def decode_rejected_product(
    key: str, piece: bytes | msgspec.Raw
) -> tuple[Product | None, list[Rejection]]:
    """Decode the sound parts of a product in a file that ``decode`` rejects.

    Args:
        key: its key.
        piece: its JSON.

    Returns:
        The product with the versions that decode, None if not even its versions can be told apart;
        and every reason in it why clients reject the file.
    """
    try:
        return decode(piece, Product), []
    except UNDECODABLE as error:
        versions, wrong = _decode_versions(key, piece)
        product = None if versions is None else _bare_product(key, piece, versions)
        return product, wrong or [Rejection(str(error), key)]


def _decode_versions(
    key: str, product: bytes | msgspec.Raw
) -> tuple[dict[str, Version] | None, list[Rejection]]:
    """Return the versions of a product that decode, and a rejection for each of the others."""
    try:
        raw = decode(product, _RawProduct)
    except UNDECODABLE:
        return None, []
    versions: dict[str, Version] = {}
    wrong: list[Rejection] = []
    for name, version in raw.versions.items():
        try:
            versions[name] = decode(version, Version)
        except UNDECODABLE as error:
            wrong.append(Rejection(str(error), key, name))
    return versions, wrong


def _bare_product(key: str, product: bytes | msgspec.Raw, versions: dict[str, Version]) -> Product:
    """Return a product with those of its names that decode; the key says the others."""
    fields: _Fields = {}
    with suppress(*UNDECODABLE):
        fields = decode(product, _Fields)
    names = ("os", "release", "arch", "variant")
    words = dict(zip(names, [*key.split(":"), "", "", "", ""], strict=False))
    for name in names:
        with suppress(*UNDECODABLE):
            words[name] = decode(fields[name], str) if name in fields else ""
    os_name, release, arch, variant = (words[name] for name in names)
    return Product(os=os_name, release=release, arch=arch, variant=variant, versions=versions)
