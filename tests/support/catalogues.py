"""Catalogues as values: items, products and product files, with digests made of words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from fastindex.catalogue.companions import Makers
from fastindex.catalogue.drafts import Draft, PieceWriter, open_published
from fastindex.catalogue.publication import plan_writes
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    Item,
    Product,
    ProductFile,
    Version,
    product_file_path,
)
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.publishing import publish
from fastindex.system.spool import Spool
from tests.support.trees import sha256

VERSION = "20240505"
KEY = "debian:12:amd64:default"


def digest(word: str) -> str:
    return sha256(word.encode())


def item(ftype: str, word: str = "", *, size: int = 1, **fields: str) -> Item:
    """Return an item of a file that is named as its ftype; its content is ``word``."""
    return Item(ftype=ftype, path=f"p/{ftype}", size=size, sha256=digest(word or ftype), **fields)


def metadata(ftype: str, *roots: str, size: int = 1, word: str = "") -> Item:
    """Return a metadata item with a fingerprint for each ftype of ``roots``."""
    fields = {COMBINED_FIELD[root]: digest(f"{word or ftype}+{root}") for root in roots}
    return item(ftype, size=size, **fields)


def version(*items: Item, label: str = "", path: str = "p") -> Version:
    moved = {one.ftype: replace(one, path=f"{path}/{one.ftype}") for one in items}
    return Version(items=moved, label=label)


def product(versions: Mapping[str, Version], *, aliases: str = "a", arch: str = "amd64") -> Product:
    return Product(
        aliases=aliases,
        arch=arch,
        os="debian",
        release="12",
        release_title="12",
        variant="default",
        requirements={},
        versions=dict(versions),
    )


def product_file(products: Mapping[str, Product], stream: str = "images") -> ProductFile:
    return ProductFile(content_id=stream, products=dict(products))


def container(word: str = "", *, path: str = "p") -> Version:
    """Return a version of a squashfs that both clients see."""
    both = (metadata(ftype, "squashfs", word=word) for ftype in ("incus.tar.xz", "lxd.tar.xz"))
    return version(*both, item("squashfs", word), path=path)


def draft_product_file(output: str, document: ProductFile) -> Draft:
    """Encode and check a whole product file, and compare it with the published one.

    Args:
        output: the directory with ``streams/``.
        document: the product file.

    Raises:
        PublishError: clients would not read what was meant.
    """
    stream = document.content_id
    published = open_published(os.path.join(output, product_file_path(stream)))
    writer = PieceWriter(Spool())
    pieces = {
        key: writer.write(stream, key, product, published)
        for key, product in document.products.items()
    }
    return Draft.make(output, stream, pieces, published)


def publish_drafts(output: str, drafts: Sequence[Draft]) -> tuple[str, ...]:
    """Write the catalogue files that differ from what is published; return their paths."""
    return publish(Mirror.at(output), plan_writes(output, drafts), Makers(), 0).wrote
