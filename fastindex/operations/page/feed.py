"""Pure: which versions are the newest, for the Atom feed."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush, heappushpop
from urllib.parse import quote

from msgspec import Struct

from fastindex.operations.page.content import ShownImage, ShownVersion, Summary

MAX_ENTRIES = 100
"""How many versions the feed has."""
_DAY_CHARACTERS = 10


class Entry(Struct, frozen=True):
    """A version in the feed."""

    id: str
    """A URI that is always this version's, and of no other."""
    title: str
    """The product and the version."""
    href: str
    """Where more about it is, relative to the feed."""
    time: str
    """When it was built, as Atom writes it."""
    images: list[ShownImage]
    """Its images."""


class Newest:
    """Keeps the newest versions of all products that it is shown."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[str, str, str, str], str, str, ShownVersion]] = []

    def add(self, product: Summary) -> None:
        """Take a product into account."""
        row, heap = product.row, self._heap
        for version in product.versions:
            order = (_write_time(version.time), product.stream, product.key, version.name)
            if len(heap) == MAX_ENTRIES and order < heap[0][0]:
                break  # its other versions are older
            title = f"{row.os} {row.release} {row.arch} {row.variant}: {version.name}"
            entry = (order, title, row.href, version)
            if len(heap) == MAX_ENTRIES:
                heappushpop(heap, entry)
            else:
                heappush(heap, entry)

    def list_entries(self) -> list[Entry]:
        """Return an entry for each, the newest first."""
        newest: Iterable[tuple[tuple[str, str, str, str], str, str, ShownVersion]]
        newest = sorted(self._heap, key=lambda entry: entry[0], reverse=True)
        return [
            Entry(_make_id(*order[1:]), title, href, order[0], version.images)
            for order, title, href, version in newest
        ]


def _write_time(time: str) -> str:
    return time if len(time) > _DAY_CHARACTERS else f"{time}T00:00:00Z"


def _make_id(stream: str, key: str, version: str) -> str:
    """Return a tag URI (RFC 4151), which needs no address."""
    return f"tag:fastindex,2026:{quote(f'{stream}/{key}/{version}')}"
