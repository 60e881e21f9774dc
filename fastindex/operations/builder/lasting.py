"""Whether files are still as they were found, hours of reading ago.

What is noted of each file is one number, so that a first build of a large mirror stays small.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.simplestreams import Version
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.system.stamps import stamp_of


def note_states(files: Iterable[FoundFile]) -> array[int]:
    """Return a number for each file: it follows from the name and the stamp."""
    return array("q", [hash((file.name, file.stamp)) for file in files])


def find_changed(
    mirror: Mirror, versions: Mapping[str, Version], states: Mapping[str, array[int]]
) -> Iterator[Finding]:
    """Yield a finding, with the path of a file, for each version that is not as it was.

    Args:
        mirror: the mirror.
        versions: what is to be published of a product.
        states: version name → what was noted of its files.

    Raises:
        OSError: the system is out of something.
    """
    for name, version in versions.items():
        files = {item.path.rpartition("/")[2]: item.path for item in version.items.values()}
        changed = [
            file_path
            for file_name, file_path in sorted(files.items())
            if _find_state(mirror, file_name, file_path) not in states[name]
        ]
        if changed:
            yield Finding(
                Code.CHANGED,
                changed[0],
                "changed, or was removed, after it was read",
                "run again after the upload (--settle leaves files alone that changed recently)",
                versions_left_out=1,
            )


def _find_state(mirror: Mirror, name: str, path: str) -> int | None:
    """Return what would be noted of a file now; None if it cannot be found."""
    try:
        status = os.stat(mirror.path(path))
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    return hash((name, stamp_of(status)))
