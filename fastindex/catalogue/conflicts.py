"""Pure: remove from a catalogue the images that clients could not tell apart.

These have the same fingerprint. An uploader must not be able to choose which of them stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from fastindex.catalogue.contested import list_image_fingerprints
from fastindex.catalogue.fingerprints import find_images
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import find_root_ftype
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    ROOT_TARBALL,
    UNIFIED_FTYPES,
    Item,
    Product,
    ProductFile,
    Version,
)

_Place = tuple[str, str, str, str]
"""Stream, product key, version and file name of an image."""

_Owners = tuple[dict[str, tuple[_Place, str]], dict[str, tuple[_Place, str]]]
"""Fingerprint → place and path of the image that keeps it; one for Incus, one for LXD."""

PublishedOwners = Mapping[str, tuple[str, str]]
"""Fingerprint → stream and key of the product that is published with it."""


def resolve_conflicts(
    files: Sequence[ProductFile], published_owners: PublishedOwners = MappingProxyType({})
) -> tuple[list[ProductFile], list[Finding]]:
    """Leave out images that clients could not tell apart, over all streams.

    Clients refuse to download an image if another one has the same fingerprint. Within a
    product the newest version keeps the fingerprint. Among products it is the one that is
    published with it, so that nobody can take an image down by uploading a copy; if none is,
    it is the first in order. Deltas of a product that loses an image, and whose base is then
    not published, are left out without a finding.

    Args:
        files: the product files of all streams.
        published_owners: which product is published with which fingerprint.

    Returns:
        The product files, without versions and products that have become empty, and a finding
        for each image left out. A file that loses nothing is the same object as before.
    """
    owners = _find_published_owners(files, published_owners)
    findings: list[Finding] = []
    kept_files: list[ProductFile] = []
    for file in files:
        products: dict[str, Product] = {}
        for key, entry in file.products.items():
            kept = _resolve_in_product(file.content_id, key, entry, owners, findings)
            if kept is not None:
                products[key] = kept
        is_whole = len(products) == len(file.products) and all(
            products[key] is entry for key, entry in file.products.items()
        )
        kept_files.append(file if is_whole else msgspec.structs.replace(file, products=products))
    return kept_files, findings


def _resolve_in_product(
    stream: str, key: str, entry: Product, owners: _Owners, findings: list[Finding]
) -> Product | None:
    """Return a product without duplicates, None if it has become empty."""
    versions: dict[str, Version] = {}
    is_whole = True
    for name, version in sorted(entry.versions.items(), reverse=True):
        items = _remove_duplicates((stream, key, name), version.items, owners, findings)
        if items is version.items:
            versions[name] = version
            continue
        is_whole = False
        if items:
            versions[name] = msgspec.structs.replace(version, items=items)
    if is_whole:
        return entry
    in_order = {name: versions[name] for name in entry.versions if name in versions}
    return msgspec.structs.replace(entry, versions=drop_dead_deltas(in_order)) if in_order else None


def _remove_duplicates(
    place: tuple[str, str, str],
    items: dict[str, Item],
    owners: _Owners,
    findings: list[Finding],
) -> dict[str, Item]:
    """Return ``items`` without images whose fingerprint another image owns; claim the rest."""
    duplicates = [
        (name, ftype, owner)
        for name, ftype, fingerprints in find_images(items)
        if (owner := _claim(fingerprints, (*place, name), items[name].path, owners)) is not None
    ]
    if not duplicates:
        return items
    unified = {items[name].path for name, ftype, _ in duplicates if ftype in UNIFIED_FTYPES}
    dropped = {name for name, _, _ in duplicates}
    dropped |= {
        name
        for name, item in items.items()
        if item.ftype in UNIFIED_FTYPES and item.path in unified
    }
    blank = {COMBINED_FIELD[ftype]: "" for _, ftype, _ in duplicates if ftype in COMBINED_FIELD}
    if COMBINED_FIELD[ROOT_TARBALL] in blank:
        blank["combined_sha256"] = ""
    kept = {
        name: msgspec.structs.replace(item, **blank)
        if item.ftype in (INCUS_METADATA, LXD_METADATA)
        else item
        for name, item in items.items()
        if name not in dropped
    }
    has_image = bool(find_images(kept))
    for number, (name, _, owner) in enumerate(duplicates):
        findings.append(
            Finding(
                Code.DUPLICATE_IMAGE,
                items[name].path,
                f"the same image (fingerprint) as {owner}: clients could not download either",
                "remove one of the two",
                files_left_out=int(has_image),
                versions_left_out=int(not has_image and number == 0),
            )
        )
    return kept if has_image else {}


def _find_published_owners(
    files: Sequence[ProductFile], published_owners: PublishedOwners
) -> _Owners:
    """Return the images in ``files`` that are published with their fingerprint already."""
    owners: _Owners = ({}, {})
    if not published_owners:
        return owners
    for file in files:
        for key, entry in file.products.items():
            for newest, version in sorted(entry.versions.items(), reverse=True):
                for name, _, fingerprints in find_images(version.items):
                    place = (file.content_id, key, newest, name)
                    for owned, fingerprint in zip(owners, fingerprints, strict=True):
                        if published_owners.get(fingerprint) == (file.content_id, key):
                            owned.setdefault(fingerprint, (place, version.items[name].path))
    return owners


def list_fingerprints(file: ProductFile) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (fingerprint, (stream, product key)) of each image that a client sees."""
    for key, entry in file.products.items():
        for fingerprint in list_image_fingerprints(entry.versions):
            yield fingerprint, (file.content_id, key)


def _claim(fingerprints: tuple[str, str], place: _Place, path: str, owners: _Owners) -> str | None:
    """Make an image the owner of ``fingerprints``; if another owns one, only return its path."""
    claims = [(owned, claim) for owned, claim in zip(owners, fingerprints, strict=True) if claim]
    for owned, claim in claims:
        owner = owned.get(claim)
        if owner is not None and owner[0] != place:
            return owner[1]
    for owned, claim in claims:
        owned[claim] = (place, path)
    return None


def drop_dead_deltas(versions: dict[str, Version]) -> dict[str, Version]:
    """Drop deltas that clients cannot use: the base or their own version lacks the root."""
    versions = dict(versions)
    with_delta = [
        (name, key, item.delta_base, find_root_ftype(item.ftype))
        for name, version in versions.items()
        for key, item in version.items.items()
        if item.delta_base
    ]
    for name, key, base, root in with_delta:
        if not all(_has_root(versions.get(end), root) for end in (name, base)):
            version = versions[name]
            items = {other: item for other, item in version.items.items() if other != key}
            versions[name] = msgspec.structs.replace(version, items=items)
    return versions


def _has_root(version: Version | None, ftype: str) -> bool:
    return version is not None and any(i.ftype == ftype for i in version.items.values())
