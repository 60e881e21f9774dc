"""The differences between a draft of the catalogue and what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from fastindex.events import Change
from fastindex.formats.simplestreams import Version

if TYPE_CHECKING:
    from fastindex.catalogue.drafts import Draft  # not needed if nothing has changed


def find_changes(draft: Draft) -> list[Change]:
    """Return how ``draft`` differs from what is published, sorted by product and version.

    A published file that cannot be read counts as empty.
    """
    if draft.is_published:
        return []
    stream = draft.stream
    found: list[Change] = []
    for key in sorted(draft.affected):
        old = draft.read_published(key)
        new = draft.pieces[key].decode() if key in draft.pieces else None
        before = old.versions if old is not None else {}
        after = new.versions if new is not None else {}
        if old is not None and new is not None:
            bare_old = replace(old, versions={})
            if bare_old != replace(new, versions={}):
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
