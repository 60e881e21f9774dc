"""Whether files are still as they were found, hours of reading ago.

What is noted of each file is one number, so that a first build of a large mirror stays small.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.simplestreams import Version
from fastindex.hashing.reader import AFTER_UPLOAD
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.system.stamps import Stamp, stamp_of


def note_states(files: Iterable[FoundFile]) -> array[int]:
    """Return a number for each file: it follows from the name and the stamp."""
    return array("q", [_number(file.name, file.stamp) for file in files])


def _number(name: str, stamp: Stamp) -> int:
    return hash((name, stamp))


def find_changed(
    mirror: Mirror, versions: Mapping[str, Version], states: Mapping[str, array[int]]
) -> dict[str, Finding]:
    """Return version name → a finding, for each version that is not as it was.

    Args:
        mirror: the mirror.
        versions: what is to be published of a product.
        states: version name → what was noted of its files.

    Raises:
        OSError: the system is out of something.
    """
    changed: dict[str, Finding] = {}
    for name, version in versions.items():
        for path in sorted({item.path for item in version.items.values()}):
            if _find_state(mirror, path) not in states[name]:
                problem = "changed, or was removed, after it was read"
                changed[name] = Finding(
                    Code.CHANGED, path, problem, AFTER_UPLOAD, versions_left_out=1
                )
                break
    return changed


def _find_state(mirror: Mirror, path: str) -> int | None:
    """Return what would be noted of a file now; None if it cannot be found."""
    try:
        status = os.stat(mirror.path(path))
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    return _number(os.path.basename(path), stamp_of(status))
