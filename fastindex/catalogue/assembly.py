"""Pure: products and digests → the catalogue; and what is wrong with it for its readers.

One uploader must not hurt the rest: whatever would make a client reject or confuse
images is left out here, with a finding, before anything is published.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from fastindex.events import Finding
from fastindex.formats.names import ARCHITECTURES, default_aliases, version_style
from fastindex.formats.simplestreams import (
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
from fastindex.mirror.tree import FoundFile, FoundProduct, PlannedVersion, Settings

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
            rivals = {
                alias: rival
                for alias in entry.aliases.split(",")
                if (rival := claims.setdefault((alias, ARCHITECTURES[entry.arch]), path)) != path
            }
            if rivals:
                alias = min(rivals, key=len)
                others = f", and {len(rivals) - 1} more are taken" if len(rivals) > 1 else ""
                findings.append(
                    Finding(
                        path,
                        f"the alias {alias!r} is claimed by {rivals[alias]} too{others}: "
                        "clients choose one",
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
