"""Pure: the items of a version → its images, each with its fingerprint for each client."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    INCUS_UNIFIED,
    LXD_METADATA,
    LXD_UNIFIED,
    UNIFIED_FTYPES,
    Item,
    get_fingerprint,
)

ImageFingerprints = tuple[str, str, tuple[str, str]]
"""The root's name, its ftype, and the image's fingerprints for Incus and for LXD; a fingerprint
is empty if that client does not see the image."""


def find_images(items: Mapping[str, Item]) -> list[ImageFingerprints]:
    """Return the images of a version, in the order of ``items`` (file name → item).

    A unified image that is there for both clients is one image, with the name of its file.
    """
    by_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = by_ftype.get(INCUS_METADATA), by_ftype.get(LXD_METADATA)
    copy = _find_copy(items) if by_ftype.keys() >= UNIFIED_FTYPES else ""
    images: list[ImageFingerprints] = []
    for name, item in items.items():
        ftype = item.ftype
        if ftype in COMBINED_FIELD:
            fingerprints = get_fingerprint(incus, ftype), get_fingerprint(lxd, ftype)
            images.append((name, ftype, fingerprints))
        elif ftype in UNIFIED_FTYPES and name != copy:
            for_incus = item.sha256 if copy or ftype == INCUS_UNIFIED else ""
            for_lxd = item.sha256 if copy or ftype == LXD_UNIFIED else ""
            images.append((name, ftype, (for_incus, for_lxd)))
    return images


def _find_copy(items: Mapping[str, Item]) -> str:
    """Return which of two unified images, one for each client, repeats the other; "" if none."""
    unified = {
        item.ftype: (item.path, item.sha256, name)
        for name, item in items.items()
        if item.ftype in UNIFIED_FTYPES
    }
    if len({(path, sha256) for path, sha256, _ in unified.values()}) != 1:
        return ""
    (path, _, _), *_ = unified.values()
    names = [name for _, _, name in unified.values()]
    return names[0] if names[1] == os.path.basename(path) else names[1]
