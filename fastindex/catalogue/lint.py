"""Pure: what clients accept in a catalogue, but what surprises people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta

from msgspec import Struct

from fastindex.catalogue.fingerprints import find_images
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import ARCHITECTURES, version_style
from fastindex.formats.simplestreams import (
    SQUASHFS,
    UNIFIED_FTYPES,
    VIRTUAL_MACHINE,
    Item,
    Product,
    Version,
)


class Sharer(Struct, frozen=True, gc=False):
    """A published product with its aliases, which others may have, too."""

    path: str
    """Its directory, for the findings."""
    arch: str
    """Its architecture, as the catalogue has it."""
    aliases: tuple[str, ...]
    """The aliases that it is published with."""


def find_shared_aliases(products: Iterable[Sharer], others: Iterable[Sharer]) -> list[Finding]:
    """Return a finding for each product that shares an alias with one before it.

    Args:
        products: the products to look at, in order.
        others: those of other streams, with which they may share aliases, too.
    """
    owners: dict[tuple[str, str], str] = {}
    for other in others:
        _claim_aliases(other, owners)
    findings: list[Finding] = []
    for product in products:
        rivals = _claim_aliases(product, owners)
        if rivals:
            finding = Finding(
                Code.ALIAS_SHARED,
                product.path,
                f"{_describe_rivals(rivals)}: clients choose one",
                "rename one of the products, or give them different aliases",
            )
            findings.append(finding)
    return findings


def _describe_rivals(rivals: Mapping[str, str]) -> str:
    """Return, for people, which aliases others have; ``rivals``: alias → such a product."""
    alias = min(rivals, key=len)
    count = len(set(rivals.values()))
    if len(rivals) == 1:
        return f"shares the alias {alias!r} with {rivals[alias]}"
    if count == 1:
        return f"shares {len(rivals):,} aliases with {rivals[alias]}, such as {alias!r}"
    return (
        f"shares {len(rivals):,} aliases with {count:,} products, such as {alias!r} with "
        f"{rivals[alias]}"
    )


def _claim_aliases(product: Sharer, owners: dict[tuple[str, str], str]) -> dict[str, str]:
    """Return the aliases of ``product`` that others have → such a product; claim the rest."""
    arch = ARCHITECTURES.get(product.arch, product.arch)
    path = product.path
    return {
        alias: rival
        for alias in product.aliases
        if (rival := owners.setdefault((alias, arch), path)) != path
    }


def find_nameless(products: Iterable[Sharer]) -> list[Finding]:
    """Return a finding for each product without an alias."""
    return [
        Finding(
            Code.NO_ALIAS,
            product.path,
            "has no alias: clients find its images by fingerprint only",
            "name other aliases in .product.toml, or set replace_aliases to false",
        )
        for product in products
        if not product.aliases
    ]


def find_pitfalls(product: Product, path: str, today: date) -> Iterator[Finding]:
    """Yield a finding for each thing that clients accept but that surprises people.

    Nothing is left out because of it.

    Args:
        product: the product.
        path: its directory, for the findings.
        today: the date; a version may be dated one day later, as it is somewhere on earth.
    """
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
    if newest[:8] > f"{today + timedelta(days=1):%Y%m%d}":
        yield Finding(
            Code.DATE_IN_FUTURE,
            os.path.join(path, newest),
            "is dated in the future: clients take it for the newest version until then",
            "rename it to the date when it was made",
        )
    machine = max(filter(None, map(_find_unified_machine, product.versions.values())), default="")
    if machine:
        yield Finding(
            Code.MACHINE_AS_CONTAINER,
            machine,
            "a unified image of a virtual machine: Incus before 7.0.1 takes it for a container",
            "publish metadata and disk.qcow2 as two files",
        )
    if newest and _is_ambiguous(product.versions[newest].items):
        yield Finding(
            Code.AMBIGUOUS_IMAGE,
            os.path.join(path, newest),
            "has both a squashfs and a unified image: clients pick one at random",
            "remove one of the two",
        )


def _is_ambiguous(items: Mapping[str, Item]) -> bool:
    """Return whether a client sees two container images that it cannot rank."""
    containers = [
        (ftype, fingerprints)
        for name, ftype, fingerprints in find_images(items)
        if items[name].combined_type != VIRTUAL_MACHINE
    ]
    return any(
        any(ftype == SQUASHFS and seen[client] for ftype, seen in containers)
        and any(ftype in UNIFIED_FTYPES and seen[client] for ftype, seen in containers)
        for client in range(2)
    )


def _find_unified_machine(version: Version) -> str:
    """Return the path of a unified image of a virtual machine, or ""."""
    return next(
        (item.path for item in version.items.values() if item.combined_type == VIRTUAL_MACHINE), ""
    )
