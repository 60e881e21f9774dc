"""Pure: the items of a version → its images, each with its fingerprint for each client."""

from __future__ import annotations

from collections.abc import Mapping

from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    INCUS_UNIFIED,
    LXD_METADATA,
    LXD_UNIFIED,
    Item,
)

CLIENTS = ((INCUS_METADATA, INCUS_UNIFIED), (LXD_METADATA, LXD_UNIFIED))
"""(ftype of metadata, ftype of unified images) that Incus reads, and that LXD reads."""

ImageFingerprints = tuple[str, str, tuple[str, str]]
"""The root's name, its ftype, and the image's fingerprints for Incus and for LXD; a fingerprint
is empty if that client does not see the image."""


def find_images(items: Mapping[str, Item]) -> list[ImageFingerprints]:
    """Return the images of a version, in the order of ``items`` (file name → item)."""
    by_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = (by_ftype.get(metadata) for metadata, _ in CLIENTS)
    images: list[ImageFingerprints] = []
    for name, item in items.items():
        ftype = item.ftype
        field = COMBINED_FIELD.get(ftype)
        if field is not None:
            fingerprints = (
                getattr(incus, field) if incus is not None else "",
                getattr(lxd, field) if lxd is not None else "",
            )
            images.append((name, ftype, fingerprints))
        elif ftype == INCUS_UNIFIED:
            images.append((name, ftype, (item.sha256, "")))
        elif ftype == LXD_UNIFIED:
            images.append((name, ftype, ("", item.sha256)))
    return images
