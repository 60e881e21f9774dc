"""A share of the mirror a night, read again; and what was found damaged, remembered.

A disk that fails changes bytes under an unchanged time stamp, which no build would notice.
So each night a share of the versions is read again and held against the caches. A file
that differs is noted (``streams/.damaged.json``) with its stamp, and its version is left
out until the stamp changes or ``--rehash`` accepts what is there.
"""

from __future__ import annotations

import re
import time

from xxhash import xxh3_64_intdigest

from fastindex.errors import UsageError
from fastindex.events import Finding
from fastindex.mirror.cache import stamp_key
from fastindex.mirror.state.notes import Damaged
from fastindex.mirror.tree import FoundVersion, PlannedVersion

_DAY_SECONDS = 24 * 60 * 60

Share = tuple[int, int]
"""(1, 30): a thirtieth each day."""


def parse_share(word: str) -> Share:
    """Read ``1/30``; raises UsageError where that is none."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", word, re.ASCII)
    share = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= share[0] <= share[1]:
        raise UsageError(f"--recheck {word!r}: no share such as 1/30")
    return share


def today() -> int:
    """Return the number of days since the epoch, in UTC."""
    return int(time.time() // _DAY_SECONDS)


def is_due(version_path: str, share: Share, day: int) -> bool:
    """Return whether a version is read again on ``day``.

    It follows from the version's name and the day alone, whatever other runs did: in as
    many consecutive days as the share needs to cover all, each is due exactly once if the
    share's parts divide (1/30, 2/30), else once or, at the turn, twice.
    """
    part, whole = share
    slot = xxh3_64_intdigest(version_path.encode("utf-8", "surrogatepass")) % whole
    return (slot - day * part) % whole < part


def forget_changed(version: FoundVersion, damaged: Damaged, *, is_accepted: bool) -> None:
    """Take files out of ``damaged`` that have another stamp now, or are accepted as they are."""
    if not damaged:
        return
    for file in version.files:
        path = f"{version.path}/{file.name}"
        if is_accepted or damaged.get(path) != stamp_key(file.size_bytes, file.mtime_ns):
            damaged.pop(path, None)


def known_damage(planned: PlannedVersion, damaged: Damaged) -> list[Finding]:
    """Return a finding for each file of a version that is as it was when found damaged."""
    if not damaged:
        return []
    return [
        damage(f"{planned.version.path}/{file.name}")
        for file in planned.selection.files
        if damaged.get(f"{planned.version.path}/{file.name}")
        == stamp_key(file.size_bytes, file.mtime_ns)
    ]


def damage(path: str) -> Finding:
    """Return what is told of a damaged file."""
    return Finding(
        path,
        "damaged: other bytes than when it was hashed, under the same size and time",
        "put the right file back (the disk may be failing), or accept this one with --rehash",
        versions_left_out=1,
    )
