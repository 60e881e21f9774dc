"""How a draft of the catalogue differs from what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from fastindex.formats.simplestreams import (
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    ProductFile,
    Version,
    decode,
)
from fastindex.system.files import read_small_file

if TYPE_CHECKING:
    from fastindex.catalogue.publication import Draft  # which a run with nothing to do never needs


class Change(Struct, frozen=True):
    """A difference between what is published and what this run found."""

    kind: Literal["added", "removed", "changed"]
    """Which way."""
    stream: str
    """In which product file."""
    product: str
    """The product's key."""
    version: str
    """The version's name; empty where the product's own fields changed."""
    size_bytes: int = 0
    """Of the version's files, as they will be or, removed, as they were published."""


def find_changes(item: Draft) -> list[Change]:
    """Return how ``item`` differs from what is published, by product and version."""
    if item.is_published:
        return []
    stream = item.document.content_id
    new = item.document.products
    try:
        old = decode(read_small_file(item.path, MAX_CATALOGUE_BYTES), ProductFile).products
    except (OSError, *UNDECODABLE):
        old = {}
    found: list[Change] = []
    for key in sorted({*old, *new}):
        before = old[key].versions if key in old else {}
        after = new[key].versions if key in new else {}
        if key in old and key in new:
            bare_old = replace(old[key], versions={})
            if bare_old != replace(new[key], versions={}):
                found.append(Change("changed", stream, key, ""))
        for name in sorted({*before, *after}):
            if name not in before:
                found.append(Change("added", stream, key, name, _count_bytes(after[name])))
            elif name not in after:
                found.append(Change("removed", stream, key, name, _count_bytes(before[name])))
            elif before[name] != after[name]:
                found.append(Change("changed", stream, key, name, _count_bytes(after[name])))
    return found


def _count_bytes(version: Version) -> int:
    return sum({item.path: item.size for item in version.items.values()}.values())
