"""A share of the mirror is read again each night and compared with the caches.

A failing disk changes bytes but no time stamp, so no ordinary build would notice. A file that
differs is recorded in ``streams/.damaged.json``, and its version is left out.
"""

from __future__ import annotations

import time

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from fastindex.errors import UsageError
from fastindex.formats import quantities

_DAY_SECONDS = 24 * 60 * 60


class RecheckShare(Struct, frozen=True):
    """Which versions are due on one day."""

    part: int
    """How many of the slots are due each day: the 1 of 1/30."""
    total: int
    """How many slots the versions are divided into: the 30 of 1/30."""
    day: int
    """Days since the epoch, in UTC."""

    def is_due(self, version_path: str) -> bool:
        """Return whether a version is read again on this day.

        The answer depends on the version's path and the day alone, whatever other runs did. In as
        many consecutive days as the share needs to cover all versions, each version is due
        exactly once if the part divides the total (1/30, 2/30); otherwise once or twice.
        """
        slot = xxh3_64_intdigest(version_path.encode("utf-8", "surrogatepass")) % self.total
        return (slot - self.day * self.part) % self.total < self.part


def parse_share(word: str, day: int | None = None) -> RecheckShare:
    """Parse a share.

    Args:
        word: such as ``1/30``.
        day: days since the epoch; None: today.

    Raises:
        UsageError: ``word`` is not a share.
    """
    try:
        part, total = quantities.parse_share(word)
    except ValueError as error:
        raise UsageError(f"--recheck {word!r}: {error}") from error
    return RecheckShare(part, total, int(time.time() // _DAY_SECONDS) if day is None else day)
