"""Which versions ``--settle`` leaves for the next run: somebody may still be uploading them.

A file is as young as its modification time says. One in the future was set by whoever brought
the file, and tells nothing; then the time of the inode's last change counts, which nobody
can set.
"""

from __future__ import annotations

import os
import time

from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile, FoundVersion

_FOR_EVER_NS = 1 << 62
"""Older than any file: of ``inf`` seconds there is no integer."""


class SettlePeriod:
    """Tells versions that have not settled yet from others.

    Args:
        mirror: the mirror.
        settle_seconds: how long a file must not have changed; 0: every version has settled.
    """

    def __init__(self, mirror: Mirror, settle_seconds: float) -> None:
        self._mirror = mirror
        self._now_ns = time.time_ns()
        self._age_ns = round(min(settle_seconds * 1e9, _FOR_EVER_NS))

    def is_young(self, version: FoundVersion) -> bool:
        """Return whether a file of ``version`` changed within the period."""
        return bool(self._age_ns) and any(
            self._changed_ns(version, file) > self._now_ns - self._age_ns for file in version.files
        )

    def find_future_files(self, version: FoundVersion) -> list[Finding]:
        """Return a finding for each file that would seem young for longer than the period."""
        return [
            Finding(
                f"{version.path}/{file.name}",
                "was changed in the future, by the clock, so --settle leaves its version out",
                "touch it, and check the clocks",
                versions_left_out=1,
            )
            for file in version.files
            if self._changed_ns(version, file) > self._now_ns + self._age_ns
        ]

    def _changed_ns(self, version: FoundVersion, file: FoundFile) -> int:
        if file.stamp.mtime_ns <= self._now_ns:
            return file.stamp.mtime_ns
        try:
            return os.stat(self._mirror.path(f"{version.path}/{file.name}")).st_ctime_ns
        except OSError:  # somebody is changing it
            return self._now_ns
