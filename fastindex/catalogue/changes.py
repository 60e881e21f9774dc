"""The differences between a draft of the catalogue and what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from fastindex.events import Change
from fastindex.formats.simplestreams import (
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    ProductFile,
    Version,
    decode,
)
from fastindex.system.files import read_small_file

if TYPE_CHECKING:
    from fastindex.catalogue.publication import Draft  # not needed if nothing has changed


def find_changes(draft: Draft) -> list[Change]:
    """Return how ``draft`` differs from what is published, sorted by product and version.

    A published file that cannot be read counts as empty.
    """
    if draft.is_published:
        return []
    stream = draft.document.content_id
    new = draft.document.products
    try:
        old = decode(read_small_file(draft.path, MAX_CATALOGUE_BYTES), ProductFile).products
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
