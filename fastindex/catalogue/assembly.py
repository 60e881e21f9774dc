"""Pure: products and digests → the catalogue as clients see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import INCUS_REQUIREMENT_KEYS, LXD_REQUIREMENT_KEYS, ProductName
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    UNIFIED_FTYPES,
    VIRTUAL_MACHINE,
    CachedItem,
    Item,
    Product,
    Version,
    fingerprint_fields,
    with_both_clients,
)

Digests = Mapping[str, CachedItem]
"""File name → item, of one version; with the ftypes and paths to publish."""

MAX_REQUIREMENTS = 16
"""The number of requirements of one product for one client. Clients know six."""
MAX_REQUIREMENTS_CHARACTERS = 2048
"""The length of their keys and values."""


def assemble_items(
    path: str, digests: Digests, metadata_ftypes: Set[str]
) -> dict[str, Item] | Finding:
    """Return the items of one version as clients see them.

    Args:
        path: the version, relative to ROOT.
        digests: those of its files that count and could be read.
        metadata_ftypes: the ftypes of all metadata files and unified images in the version,
            usable or not.

    Returns:
        File name → item, sorted; a lone metadata file or unified image is there under both
        clients' names. A finding if the version has no image that could be read.
    """
    metadata = [item for item in digests.items() if item[1].ftype in (INCUS_METADATA, LXD_METADATA)]
    roots = [item for item in digests.items() if item[1].ftype in COMBINED_FIELD]
    items: dict[str, Item] = {}
    if metadata and roots:
        fields = [COMBINED_FIELD[root.ftype] for _, root in roots]
        for name, digest in metadata:
            fingerprints = {field: getattr(digest, field) for field in fields}
            items[name] = _plain_item(digest, **fingerprint_fields(fingerprints))
        for name, digest in roots:
            items[name] = _plain_item(digest)
    for name, digest in digests.items():
        if digest.ftype in UNIFIED_FTYPES:
            is_machine = digest.combined_type == VIRTUAL_MACHINE
            combined_type = VIRTUAL_MACHINE if is_machine else ""
            items[name] = _plain_item(digest, combined_type=combined_type)
    if not items:
        return Finding(
            Code.INCOMPLETE_VERSION,
            path,
            "none of its images could be read",
            "fix its files; each has a message of its own",
            versions_left_out=1,
        )
    for name, digest in digests.items():
        if digest.delta_base:
            items[name] = _plain_item(digest)
    return dict(sorted(with_both_clients(items, metadata_ftypes).items()))


def _plain_item(digest: CachedItem, **fields: str) -> Item:
    return Item(
        ftype=digest.ftype,
        path=digest.path,
        size=digest.size,
        sha256=digest.sha256,
        delta_base=digest.delta_base,
        **fields,
    )


def bound_requirements(path: str, settings: Settings) -> tuple[Settings, list[Finding]]:
    """Leave out requirements that are too many or too long in all, unknown ones first.

    Args:
        path: the product's directory, for the finding.
        settings: what the settings files say about it.

    Returns:
        The settings, and a finding if some are left out.
    """
    incus = _bound(settings.requirements, INCUS_REQUIREMENT_KEYS)
    lxd = _bound(settings.lxd_requirements, LXD_REQUIREMENT_KEYS)
    left_out = len(settings.requirements) + len(settings.lxd_requirements) - len(incus) - len(lxd)
    if not left_out:
        return settings, []
    finding = Finding(
        Code.LIMIT_EXCEEDED,
        path,
        f"{left_out} of its requirements left out: a product has at most {MAX_REQUIREMENTS}, and "
        f"{MAX_REQUIREMENTS_CHARACTERS:,} characters in all",
        f"use only {', '.join(sorted(INCUS_REQUIREMENT_KEYS))}",
    )
    return replace(settings, requirements=incus, lxd_requirements=lxd), [finding]


def _bound(requirements: dict[str, str], known: Set[str]) -> dict[str, str]:
    room = MAX_REQUIREMENTS_CHARACTERS
    kept: set[str] = set()
    for key in sorted(requirements, key=lambda key: (key not in known, key))[:MAX_REQUIREMENTS]:
        room -= len(key) + len(requirements[key])
        if room < 0:
            break
        kept.add(key)
    return {key: value for key, value in requirements.items() if key in kept}


def assemble_product(
    name: ProductName,
    settings: Settings,
    aliases: Iterable[str],
    versions: Mapping[str, dict[str, Item]],
) -> Product:
    """Return a product as clients see it.

    Args:
        name: its OS, release, architecture and variant.
        settings: what the settings files say about it.
        aliases: its aliases.
        versions: version name → file name → item.
    """
    label = settings.label or ""
    return Product(
        aliases=",".join(aliases),
        arch=name.arch,
        os=settings.os or name.os,
        release=name.release,
        release_title=settings.release_title or name.release,
        variant=name.variant,
        requirements=settings.requirements,
        lxd_requirements=settings.lxd_requirements,
        version=settings.version or "",
        release_codename=settings.release_codename or "",
        support_eol=settings.support_eol or "",
        supported=settings.supported or False,
        versions={
            version: Version(items=items, label=label)
            for version, items in sorted(versions.items())
        },
    )
