"""Pure: remove from a catalogue what clients could not tell apart.

These are images with the same fingerprint and products with the same alias. An uploader must
not be able to choose which of them stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from fastindex.catalogue.fingerprints import find_images
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import default_aliases
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    SQUASHFS,
    Item,
    Product,
    ProductFile,
    Version,
)

_Owners = tuple[dict[str, str], dict[str, str]]
"""Fingerprint → path of the image that keeps it; one for Incus, one for LXD."""

PublishedOwners = Mapping[str, tuple[str, str]]
"""Fingerprint → stream and key of the product that is published with it."""


def resolve_conflicts(
    files: Sequence[ProductFile], published_owners: PublishedOwners = MappingProxyType({})
) -> tuple[list[ProductFile], list[Finding]]:
    """Leave out images that clients could not tell apart, over all streams.

    Clients refuse to download an image if another one has the same fingerprint. Within a
    product the newest version keeps the fingerprint. Among products it is the one that is
    published with it, so that nobody can take an image down by uploading a copy; if none is,
    it is the first in order. Deltas whose base is not published are left out without a
    finding.

    Args:
        files: the product files of all streams.
        published_owners: which product is published with which fingerprint.

    Returns:
        The product files, without versions and products that have become empty, and a finding
        for each image left out.
    """
    owners = _find_published_owners(files, published_owners)
    findings: list[Finding] = []
    kept_files: list[ProductFile] = []
    for file in files:
        products: dict[str, Product] = {}
        for key, entry in file.products.items():
            versions: dict[str, Version] = {}
            for name, version in reversed(entry.versions.items()):
                items = _remove_duplicates(version.items, owners, findings)
                if items is version.items:
                    versions[name] = version
                elif items:
                    versions[name] = msgspec.structs.replace(version, items=items)
            _drop_dead_deltas(versions)
            if versions:
                in_order = dict(reversed(versions.items()))
                products[key] = msgspec.structs.replace(entry, versions=in_order)
        kept_files.append(msgspec.structs.replace(file, products=products))
    return kept_files, findings


def _remove_duplicates(
    items: dict[str, Item],
    owners: _Owners,
    findings: list[Finding],
) -> dict[str, Item]:
    """Return ``items`` without images whose fingerprint another image owns; claim the rest."""
    duplicates = [
        (name, ftype, owner)
        for name, ftype, fingerprints in find_images(items)
        if (owner := _claim(fingerprints, items[name].path, owners)) is not None
    ]
    if not duplicates:
        return items
    dropped = {name for name, _, _ in duplicates}
    blank = {COMBINED_FIELD[ftype]: "" for _, ftype, _ in duplicates if ftype in COMBINED_FIELD}
    if COMBINED_FIELD["root.tar.xz"] in blank:
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
            for version in reversed(entry.versions.values()):
                for name, _, fingerprints in find_images(version.items):
                    for owned, fingerprint in zip(owners, fingerprints, strict=True):
                        if published_owners.get(fingerprint) == (file.content_id, key):
                            owned.setdefault(fingerprint, version.items[name].path)
    return owners


def list_fingerprints(file: ProductFile) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (fingerprint, (stream, product key)) of each image that a client sees."""
    for key, entry in file.products.items():
        for version in entry.versions.values():
            for _, _, fingerprints in find_images(version.items):
                for fingerprint in filter(None, fingerprints):
                    yield fingerprint, (file.content_id, key)


def _claim(fingerprints: tuple[str, str], path: str, owners: _Owners) -> str | None:
    """Make ``path`` the owner of ``fingerprints``; if another owns one, only return its path."""
    claims = [(owned, claim) for owned, claim in zip(owners, fingerprints, strict=True) if claim]
    for owned, claim in claims:
        if owned.get(claim, path) != path:
            return owned[claim]
    for owned, claim in claims:
        owned[claim] = path
    return None


def _drop_dead_deltas(versions: dict[str, Version]) -> None:
    """Drop deltas that clients cannot use: the base or their own version has no squashfs."""
    with_delta = [
        (name, key, item.delta_base)
        for name, version in versions.items()
        for key, item in version.items.items()
        if item.delta_base
    ]
    for name, key, base in with_delta:
        if not all(_has_squashfs(versions.get(end)) for end in (name, base)):
            version = versions[name]
            items = {other: item for other, item in version.items.items() if other != key}
            versions[name] = msgspec.structs.replace(version, items=items)


def _has_squashfs(version: Version | None) -> bool:
    return version is not None and any(i.ftype == SQUASHFS for i in version.items.values())


def remove_borrowed_aliases(
    files: Sequence[ProductFile], paths: Mapping[tuple[str, str], str]
) -> tuple[list[ProductFile], list[Finding]]:
    """Leave out aliases that belong to another product by the names of its directories.

    Otherwise an uploader could offer an image under the name of any other.

    Args:
        files: the product files of all streams.
        paths: (stream, product key) → the product's directory, for the findings.

    Returns:
        The product files, and a finding for each alias left out.
    """
    owners: dict[str, str] = {}
    for file in files:
        for key, entry in file.products.items():
            for alias in set(entry.aliases.split(",")) & _directory_aliases(key):
                # Clients also accept ALIAS/ARCH.
                for form in (alias, f"{alias}/{entry.arch}"):
                    owners.setdefault(form, paths[file.content_id, key])
    findings: list[Finding] = []
    kept_files: list[ProductFile] = []
    for file in files:
        products: dict[str, Product] = {}
        for key, entry in file.products.items():
            names = entry.aliases.split(",")
            borrowed = {
                alias: owner
                for alias in set(names) - _directory_aliases(key)
                for form in (alias, f"{alias}/{entry.arch}")
                if (owner := owners.get(form)) is not None and not _is_own_form(form, key, entry)
            }
            for alias, owner in sorted(borrowed.items()):
                problem = f"the alias {alias!r} belongs to {owner}; left out"
                remedy = "choose another alias"
                findings.append(
                    Finding(Code.ALIAS_TAKEN, paths[file.content_id, key], problem, remedy)
                )
            if borrowed:
                kept = ",".join(alias for alias in names if alias not in borrowed)
                products[key] = msgspec.structs.replace(entry, aliases=kept)
            else:
                products[key] = entry
        kept_files.append(msgspec.structs.replace(file, products=products))
    return kept_files, findings


def _directory_aliases(key: str) -> set[str]:
    os_name, release, _, variant = key.split(":")
    return set(default_aliases(os_name, release, variant))


def _is_own_form(form: str, key: str, entry: Product) -> bool:
    """Return whether ``form`` is a default alias of the product, with or without its arch."""
    return form.removesuffix(f"/{entry.arch}") in _directory_aliases(key)
