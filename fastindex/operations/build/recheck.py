"""A share of the mirror that is read again each night and compared with the caches.

A failing disk changes bytes under an unchanged time stamp, which no build would notice. A file
that differs is recorded (``streams/.damaged.json``), and its version is left out.
"""

from __future__ import annotations

import re
import time

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from fastindex.errors import UsageError

_DAY_SECONDS = 24 * 60 * 60


class RecheckShare(Struct, frozen=True):
    """Which versions are due on one day."""

    part: int
    """With ``total``: the share a day, as 1 of 30."""
    total: int
    """In how many slots the versions are divided."""
    day: int
    """Days since the epoch, in UTC."""

    def is_due(self, version_path: str) -> bool:
        """Return whether a version is read again on this day.

        It follows from the version's name and the day alone, whatever other runs did: in as
        many consecutive days as the share needs to cover all, each is due exactly once if
        the part divides the total (1/30, 2/30), else once or, at the turn, twice.
        """
        slot = xxh3_64_intdigest(version_path.encode("utf-8", "surrogatepass")) % self.total
        return (slot - self.day * self.part) % self.total < self.part


def parse_share(word: str, day: int | None = None) -> RecheckShare:
    """Read a share.

    Args:
        word: as ``1/30``.
        day: days since the epoch; None: today.

    Raises:
        UsageError: ``word`` is not a share.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", word, re.ASCII)
    part, total = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= total:
        raise UsageError(f"--recheck {word!r}: must be a share such as 1/30")
    return RecheckShare(part, total, int(time.time() // _DAY_SECONDS) if day is None else day)
