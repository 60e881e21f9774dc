"""The differences between a draft of the catalogue and what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from fastindex.events import Change
from fastindex.formats.simplestreams import Version

if TYPE_CHECKING:
    from fastindex.catalogue.drafts import Draft  # not needed if nothing has changed


Kind = Literal["added", "removed", "changed"]
_NOTHING = Version(items={})


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
                found.append(_describe("added", stream, key, name, after[name], _NOTHING))
            elif name not in after:
                found.append(_describe("removed", stream, key, name, before[name], _NOTHING))
            elif before[name] != after[name]:
                found.append(_describe("changed", stream, key, name, after[name], before[name]))
    return found


def _describe(
    kind: Kind, stream: str, key: str, name: str, version: Version, other: Version
) -> Change:
    """Return the change of a version.

    Args:
        kind: what happens to it.
        stream: its stream.
        key: the key of its product.
        name: its name.
        version: what it has after the change; if it is removed, before.
        other: what it has on the other side of the change.
    """
    sizes = {item.path: item.size for item in version.items.values()}
    same = {item.path for file, item in version.items.items() if other.items.get(file) == item}
    gone = {item.path for item in other.items.values()}
    files = tuple(sorted((sizes.keys() | gone) - same))
    return Change(kind, stream, key, name, sum(sizes.values()), files)
