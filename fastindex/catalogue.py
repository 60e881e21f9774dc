"""Pure: products and digests → the catalogue; and what is wrong with it for its readers.

One uploader must not hurt the rest: whatever would make a client reject or confuse
images is left out here, with a finding, before anything is published.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import msgspec

from fastindex.contract import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    SQUASHFS,
    VIRTUAL_MACHINE,
    CachedItem,
    Item,
    Product,
    ProductFile,
    Version,
    fingerprint_fields,
    with_both_metadata,
)
from fastindex.model import Finding, FoundFile, FoundProduct, PlannedVersion, Settings
from fastindex.names import ARCHITECTURES, default_aliases, version_style

Digests = dict[str, CachedItem]
"""File name → item, of one version."""

_PLACEHOLDER = re.compile(r"\{(os|release|variant|arch)\}")
_VIEWS = (
    (INCUS_METADATA, "incus_combined.tar.gz"),
    (LXD_METADATA, "lxd_combined.tar.gz"),
)
"""What each client reads: a metadata ftype and a unified ftype. An image that only the
other client sees is none to it."""


def aliases(found: FoundProduct, settings: Settings) -> list[str]:
    """Return all names of a product, the default ones first, each once."""
    names = (
        [] if settings.replace_aliases else default_aliases(found.os, found.release, found.variant)
    )
    names += [
        _PLACEHOLDER.sub(lambda match: str(getattr(found, match[1])), alias)
        for alias in settings.aliases or ()
    ]
    return list(dict.fromkeys(names))


def version_items(plan: PlannedVersion, digests: Digests) -> dict[str, Item] | Finding:
    """Return the items of one version as clients see them, or why there are none.

    Args:
        plan: the version and which of its files count.
        digests: its digested files; those that failed are missing.

    Returns:
        File name → item, sorted; a lone metadata file stands under both names.
    """
    selection, version = plan.selection, plan.version
    metadata = [file for file in selection.metadata if file.name in digests]
    roots = [file for file in selection.roots if file.name in digests]
    items: dict[str, Item] = {}
    has_image = False
    if metadata and roots:
        for file in metadata:
            items[file.name] = _metadata_item(version.path, file, digests[file.name], roots)
        for file in roots:
            items[file.name] = _plain_item(version.path, file, digests[file.name])
        has_image = True
    for file in selection.singles:
        if file.name in digests and (file.role.kind == "unified" or has_image):
            items[file.name] = _plain_item(version.path, file, digests[file.name])
            has_image = True
    if not has_image:
        return Finding(
            version.path,
            "none of its images could be read",
            "see the messages on its files",
            versions_left_out=1,
        )
    return dict(sorted(with_both_metadata(items, plan.metadata_ftypes).items()))


def _plain_item(directory: str, file: FoundFile, digest: CachedItem) -> Item:
    is_vm = file.role.kind == "unified" and digest.combined_type == VIRTUAL_MACHINE
    return Item(
        ftype=file.role.ftype,
        path=f"{directory}/{file.name}",
        size=file.size_bytes,
        sha256=digest.sha256,
        combined_type=VIRTUAL_MACHINE if is_vm else "",
        delta_base=file.role.delta_base,
    )


def _metadata_item(
    directory: str, file: FoundFile, digest: CachedItem, roots: list[FoundFile]
) -> Item:
    fingerprints = {root.role.combined: getattr(digest, root.role.combined) for root in roots}
    return Item(
        ftype=file.role.ftype,
        path=f"{directory}/{file.name}",
        size=file.size_bytes,
        sha256=digest.sha256,
        **fingerprint_fields(fingerprints),
    )


def product(
    found: FoundProduct, settings: Settings, versions: dict[str, dict[str, Item]]
) -> Product:
    """Return a product as clients see it."""
    label = settings.label or ""
    return Product(
        aliases=",".join(aliases(found, settings)),
        arch=found.arch,
        os=settings.os or found.os,
        release=found.release,
        release_title=settings.release_title or found.release,
        variant=found.variant,
        requirements=settings.requirements,
        lxd_requirements=settings.lxd_requirements,
        version=settings.version or "",
        release_codename=settings.release_codename or "",
        support_eol=settings.support_eol or "",
        supported=settings.supported or False,
        versions={
            name: Version(items=items, label=label) for name, items in sorted(versions.items())
        },
    )


def without_conflicts(files: Iterable[ProductFile]) -> tuple[list[ProductFile], list[Finding]]:
    """Leave out what clients could not tell apart, over all streams.

    Clients refuse a fingerprint that two images share. Within a product the newest
    version keeps it, else the first product in order. Deltas whose base is not
    published go too, without a finding.

    Returns:
        The product files, without versions and products that have become empty.
    """
    owners: tuple[dict[str, str], dict[str, str]] = ({}, {})
    findings: list[Finding] = []
    kept_files: list[ProductFile] = []
    for file in files:
        products: dict[str, Product] = {}
        for key, entry in file.products.items():
            versions: dict[str, Version] = {}
            for name, version in reversed(entry.versions.items()):
                items = _without_duplicates(version.items, owners, findings)
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


def _without_duplicates(
    items: dict[str, Item],
    owners: tuple[dict[str, str], dict[str, str]],
    findings: list[Finding],
) -> dict[str, Item]:
    """Return ``items`` without images whose fingerprint another image owns; claim the rest."""
    taken = [
        (name, ftype, owner)
        for name, ftype, fingerprints in images_in(items)
        if (owner := _claim(fingerprints, items[name].path, owners)) is not None
    ]
    if not taken:
        return items
    gone = {name for name, _, _ in taken}
    blank = {COMBINED_FIELD[ftype]: "" for _, ftype, _ in taken if ftype in COMBINED_FIELD}
    if COMBINED_FIELD["root.tar.xz"] in blank:
        blank["combined_sha256"] = ""
    kept = {
        name: msgspec.structs.replace(item, **blank)
        if item.ftype in (INCUS_METADATA, LXD_METADATA)
        else item
        for name, item in items.items()
        if name not in gone
    }
    has_image = bool(images_in(kept))
    for number, (name, _, owner) in enumerate(taken):
        findings.append(
            Finding(
                items[name].path,
                f"the same image (fingerprint) as {owner}: clients could download neither",
                "remove one of the two",
                files_left_out=int(has_image),
                versions_left_out=int(not has_image and number == 0),
            )
        )
    return kept if has_image else {}


def images_in(items: dict[str, Item]) -> list[tuple[str, str, tuple[str, str]]]:
    """Return each image of a version: the root's name, its ftype, its fingerprint by view."""
    of_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = (of_ftype.get(metadata) for metadata, _ in _VIEWS)
    images: list[tuple[str, str, tuple[str, str]]] = []
    for name, item in items.items():
        ftype = item.ftype
        field = COMBINED_FIELD.get(ftype)
        if field is not None:
            fingerprints = (
                getattr(incus, field) if incus is not None else "",
                getattr(lxd, field) if lxd is not None else "",
            )
            images.append((name, ftype, fingerprints))
        elif ftype == _VIEWS[0][1]:
            images.append((name, ftype, (item.sha256, "")))
        elif ftype == _VIEWS[1][1]:
            images.append((name, ftype, ("", item.sha256)))
    return images


def _claim(
    fingerprints: tuple[str, str], path: str, owners: tuple[dict[str, str], dict[str, str]]
) -> str | None:
    """Return who owns one of ``fingerprints`` already; else make ``path`` their owner."""
    incus, lxd = fingerprints
    incus_owners, lxd_owners = owners
    owner = incus_owners.get(incus) or lxd_owners.get(lxd)
    if owner is not None:
        return owner
    if incus:
        incus_owners[incus] = path
    if lxd:
        lxd_owners[lxd] = path
    return None


def _drop_dead_deltas(versions: dict[str, Version]) -> None:
    """Drop deltas that lead nowhere: no base with a squashfs, or no squashfs beside them."""
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


def lint(files: Iterable[ProductFile], paths: Mapping[tuple[str, str], str]) -> list[Finding]:
    """Find what clients accept but people stumble over; nothing is left out for it.

    Args:
        files: the product files of all streams.
        paths: (stream, product key) → where the product lies, for the findings.
    """
    findings: list[Finding] = []
    claims: dict[tuple[str, str], str] = {}
    for file in files:
        for key, entry in file.products.items():
            path = paths[file.content_id, key]
            for alias in entry.aliases.split(","):
                rival = claims.setdefault((alias, ARCHITECTURES[entry.arch]), path)
                if rival != path:
                    findings.append(
                        Finding(
                            path,
                            f"the alias {alias!r} is claimed by {rival} too: clients choose one",
                            "rename one of the two, or remove it",
                        )
                    )
            styles = {version_style(name): name for name in entry.versions}
            if len(styles) > 1:
                findings.append(
                    Finding(
                        path,
                        f"version names of mixed styles ({', '.join(sorted(styles.values()))}): "
                        "clients sort them as strings and may take an old one for the newest",
                        "rename the versions to one style",
                    )
                )
            newest = max(entry.versions, default="")
            if newest and _is_a_toss_up(entry.versions[newest].items):
                findings.append(
                    Finding(
                        os.path.join(path, newest),
                        "a squashfs and a unified image: clients take now one, now the other",
                        "remove one of the two",
                    )
                )
    return findings


def _is_a_toss_up(items: dict[str, Item]) -> bool:
    """Return whether a client sees two containers that tie in its order."""
    images = images_in(items)
    return any(
        {SQUASHFS, unified}
        <= {ftype for _, ftype, fingerprints in images if fingerprints[view]}
        - {item.ftype for item in items.values() if item.combined_type == VIRTUAL_MACHINE}
        for view, (_, unified) in enumerate(_VIEWS)
    )
