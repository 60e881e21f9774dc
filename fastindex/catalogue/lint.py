"""Pure: what clients accept in a catalogue, but what surprises people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from fastindex.catalogue.fingerprints import CLIENTS, find_images
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import ARCHITECTURES, version_style
from fastindex.formats.simplestreams import SQUASHFS, VIRTUAL_MACHINE, Item, Product, ProductFile


def find_pitfalls(
    files: Iterable[ProductFile], paths: Mapping[tuple[str, str], str]
) -> list[Finding]:
    """Return a finding for each thing that clients accept but that surprises people.

    Nothing is left out because of it.

    Args:
        files: the product files of all streams.
        paths: (stream, product key) → the product's directory, for the findings.
    """
    findings: list[Finding] = []
    owners: dict[tuple[str, str], str] = {}
    for file in files:
        for key, product in file.products.items():
            findings += _find_in_product(product, paths[file.content_id, key], owners)
    return findings


def _find_in_product(
    product: Product, path: str, owners: dict[tuple[str, str], str]
) -> Iterator[Finding]:
    arch = ARCHITECTURES[product.arch]
    rivals = {
        alias: rival
        for alias in product.aliases.split(",")
        if (rival := owners.setdefault((alias, arch), path)) != path
    }
    if rivals:
        alias = min(rivals, key=len)
        others = f", and {len(rivals) - 1} more" if len(rivals) > 1 else ""
        yield Finding(
            Code.ALIAS_SHARED,
            path,
            f"shares the alias {alias!r} with {rivals[alias]}{others}: clients choose one",
            "rename one of the two products, or give them different aliases",
        )
    styles = {version_style(name): name for name in product.versions}
    if len(styles) > 1:
        yield Finding(
            Code.MIXED_VERSION_NAMES,
            path,
            f"version names of mixed styles ({', '.join(sorted(styles.values()))}): clients "
            "sort them as strings and may take an old version for the newest",
            "rename the versions to one style",
        )
    newest = max(product.versions, default="")
    if newest and _is_ambiguous(product.versions[newest].items):
        yield Finding(
            Code.AMBIGUOUS_IMAGE,
            os.path.join(path, newest),
            "has both a squashfs and a unified image: clients pick one at random",
            "remove one of the two",
        )


def _is_ambiguous(items: Mapping[str, Item]) -> bool:
    """Return whether a client sees two container images that it cannot rank."""
    images = find_images(items)
    machines = {item.ftype for item in items.values() if item.combined_type == VIRTUAL_MACHINE}
    return any(
        {SQUASHFS, unified}
        <= {ftype for _, ftype, fingerprints in images if fingerprints[client]} - machines
        for client, (_, unified) in enumerate(CLIENTS)
    )
