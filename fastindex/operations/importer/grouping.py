"""Which files belong to one image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from msgspec import Struct

from fastindex.formats.recognition import BadFile, Part

_SUFFIX = re.compile(
    r"\.(tar|xz|gz|bz2|zst|lzma|lz4|tgz|txz|squashfs|qcow2|img|root|vcdiff)$"
    r"|(^|[-._])(incus|lxd|incus_combined|lxd_combined|metadata|meta|rootfs|root|disk(1|-kvm)?|uefi1)$"
)
"""What builders add to the name of an image to name its files."""


class Group(Struct, frozen=True):
    """The files of one image."""

    parts: tuple[Part, ...]
    """Those that can be used."""
    faults: tuple[BadFile, ...] = ()
    """Those that cannot."""

    @property
    def has_root(self) -> bool:
        """Whether a root, or a unified image, is among them."""
        return any(part.role.kind in ("root", "unified") for part in self.parts)

    @property
    def has_metadata(self) -> bool:
        """Whether one of them has a ``metadata.yaml``."""
        return any(part.metadata_yaml is not None for part in self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether they are all that an image needs."""
        return self.has_root and self.has_metadata and not self.faults


def group_files(parts: Sequence[Part], faults: Sequence[BadFile] = ()) -> list[Group]:
    """Group the files of each image.

    Args:
        parts: image files that were found together.
        faults: files among them that cannot be used.

    Returns:
        One group of all files; or one for each name, without what builders add to it (``meta-``,
        ``.incus.tar.xz``, ``-lxd.tar.xz``), if that makes several whole images, or one where all
        together would have two files of one kind.
    """
    parts_of: dict[str, list[Part]] = {}
    faults_of: dict[str, list[BadFile]] = {}
    for part in parts:
        stem = "" if part.role.kind == "delta" else strip_name(os.path.basename(part.found_at))
        parts_of.setdefault(stem, []).append(part)
    for fault in faults:
        faults_of.setdefault(strip_name(os.path.basename(fault.path)), []).append(fault)
    groups = [
        Group(tuple(parts_of.get(stem, ())), tuple(faults_of.get(stem, ())))
        for stem in dict.fromkeys((*parts_of, *faults_of))
    ]
    whole_count = sum(group.is_whole for group in groups)
    if whole_count > 1 or (whole_count and find_rivals(parts)):
        return groups
    return [Group(tuple(parts), tuple(faults))]


def find_rivals(parts: Sequence[Part]) -> tuple[Part, Part] | None:
    """Return two files that would be the same file of an image, or None."""
    seen: dict[tuple[str, str], Part] = {}
    for part in parts:
        other = seen.setdefault((part.role.ftype, part.role.delta_base), part)
        if other is not part:
            return other, part
    return None


def strip_name(name: str) -> str:
    """Return the name of the image that a file called ``name`` belongs to."""
    name = name.removeprefix("meta-")
    while _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    return name
