"""Which files of a directory belong to one image."""

from __future__ import annotations

import os
import re

from fastindex.formats.recognition import Part

_SUFFIX = re.compile(r"\.(tar|xz|gz|bz2|zst|squashfs|qcow2|img|root|vcdiff)$")


def group_parts(parts: list[Part]) -> list[list[Part]]:
    """Group the files of each image.

    Args:
        parts: the image files of one directory.

    Returns:
        One group of all files, unless two would be the same file of the image and grouping by
        name, without the prefix ``meta-`` and suffixes, makes complete images.
    """
    if not find_rivals(parts):
        return [parts]
    of_stem: dict[str, list[Part]] = {}
    for part in parts:
        of_stem.setdefault(_strip_name(os.path.basename(part.path)), []).append(part)
    groups = list(of_stem.values())
    return groups if all(_is_image(files) for files in groups) else [parts]


def _is_image(parts: list[Part]) -> bool:
    has_root = any(part.role.kind in ("root", "unified") for part in parts)
    return has_root and any(part.metadata_yaml is not None for part in parts)


def find_rivals(parts: list[Part]) -> tuple[Part, Part] | None:
    """Return two files that would be the same file of an image, or None."""
    seen: dict[str, Part] = {}
    for part in parts:
        other = seen.setdefault(part.role.delta_base or part.role.ftype, part)
        if other is not part:
            return other, part
    return None


def _strip_name(name: str) -> str:
    name = name.removeprefix("meta-")
    while _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    return name
