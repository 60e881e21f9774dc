"""Pure: the items of a version → its images, each with the fingerprint that a client sees."""

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
"""What each client reads, Incus first: a metadata ftype and a unified ftype. An image that
only the other client sees does not exist for it."""

ImageFingerprints = tuple[str, str, tuple[str, str]]
"""The root's name, its ftype, and the image's fingerprint for each client; empty: not seen."""


def find_images(items: Mapping[str, Item]) -> list[ImageFingerprints]:
    """Return each image of a version whose items are ``items``."""
    of_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = (of_ftype.get(metadata) for metadata, _ in CLIENTS)
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
