"""Pure: the order in which product files are written, so that a run may end between any two.

An image may move from one stream to another. If the stream that gets it were written first, two
published files would have its fingerprint until the other is written, or for ever if the run is
killed, and clients could download it from neither.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from msgspec.structs import replace

from fastindex.catalogue.conflicts import drop_dead_deltas
from fastindex.catalogue.fingerprints import find_images
from fastindex.formats.simplestreams import Product, ProductFile, Version

_Fingerprint = tuple[int, str]
"""The number of the client that sees it, and the fingerprint."""


def order_files(changes: Sequence[tuple[ProductFile | None, ProductFile]]) -> list[ProductFile]:
    """Return the product files to write, one after the other.

    At no time two of them have the same fingerprint, if neither the old ones have nor the new
    ones. Where streams exchange images, one of them is written twice: first without what it
    gets.

    Args:
        changes: for each stream what is published, or None, and what is to be.
    """
    held = [_list_fingerprints(old) if old is not None else frozenset() for old, _ in changes]
    wanted = [_list_fingerprints(new) for _, new in changes]
    waiting = list(range(len(changes)))
    steps: list[ProductFile] = []
    reduced: set[int] = set()
    while waiting:
        held_by_others = {
            number: frozenset().union(*(held[other] for other in waiting if other != number))
            for number in waiting
        }
        ready = [number for number in waiting if not wanted[number] & held_by_others[number]]
        stuck = [number for number in waiting if number not in reduced]
        if not ready and stuck:
            interim = _without(changes[stuck[0]][1], held_by_others[stuck[0]])
            held[stuck[0]] = _list_fingerprints(interim)
            reduced.add(stuck[0])
            steps.append(interim)
            continue
        number = (ready or waiting)[0]
        waiting.remove(number)
        steps.append(changes[number][1])
    return steps


def _list_fingerprints(file: ProductFile) -> Set[_Fingerprint]:
    return frozenset(
        fingerprint
        for product in file.products.values()
        for version in product.versions.values()
        for fingerprint in _list_version_fingerprints(version)
    )


def _list_version_fingerprints(version: Version) -> list[_Fingerprint]:
    return [
        (client, fingerprint)
        for _, _, fingerprints in find_images(version.items)
        for client, fingerprint in enumerate(fingerprints)
        if fingerprint
    ]


def _without(file: ProductFile, taken: Set[_Fingerprint]) -> ProductFile:
    """Return ``file`` without the versions that have one of the fingerprints ``taken``."""
    products: dict[str, Product] = {}
    for key, product in file.products.items():
        versions = {
            name: version
            for name, version in product.versions.items()
            if taken.isdisjoint(_list_version_fingerprints(version))
        }
        if len(versions) == len(product.versions):
            products[key] = product
        elif versions:
            products[key] = replace(product, versions=drop_dead_deltas(versions))
    return replace(file, products=products)
