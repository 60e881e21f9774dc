"""Which versions ``--settle`` leaves for the next run: somebody may still be uploading them.

The age of a file follows from its modification time. A time in the future was set by whoever
made the file, and says nothing. Then the inode's change time counts, which nobody can set.
"""

from __future__ import annotations

import os
import time

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile, FoundVersion

_FOR_EVER_NS = 1 << 62
"""Older than any file: of ``inf`` seconds there is no integer."""


class SettlePeriod:
    """Tells which versions have files that are younger than ``--settle``.

    Args:
        mirror: the mirror.
        settle_seconds: the age that every file of a version must have; 0: any age will do.
    """

    def __init__(self, mirror: Mirror, settle_seconds: float) -> None:
        self._mirror = mirror
        self._now_ns = time.time_ns()
        self._min_age_ns = round(min(settle_seconds * 1e9, _FOR_EVER_NS))

    def is_young(self, version: FoundVersion) -> bool:
        """Return whether a file of ``version`` changed within the period."""
        youngest_ns = self._now_ns - self._min_age_ns
        return bool(self._min_age_ns) and any(
            self._find_change_ns(version, file) > youngest_ns for file in version.files
        )

    def is_new_directory(self, version_path: str) -> bool:
        """Return whether the directory of a version was changed within the period.

        Args:
            version_path: the version, relative to ROOT.
        """
        try:
            changed_ns = os.stat(self._mirror.path(version_path)).st_mtime_ns
        except OSError:  # somebody is changing it
            return True
        return bool(self._min_age_ns) and changed_ns > self._now_ns - self._min_age_ns

    def find_future_files(self, version: FoundVersion) -> list[Finding]:
        """Return a finding for each file that would stay young for longer than the period."""
        return [
            Finding(
                Code.TIME_IN_FUTURE,
                f"{version.path}/{file.name}",
                "changed in the future according to the clock; --settle leaves its version out",
                "touch it, and check the clocks",
                versions_left_out=1,
            )
            for file in version.files
            if self._find_change_ns(version, file) > self._now_ns + self._min_age_ns
        ]

    def _find_change_ns(self, version: FoundVersion, file: FoundFile) -> int:
        if file.stamp.mtime_ns <= self._now_ns:
            return file.stamp.mtime_ns
        try:
            return os.stat(self._mirror.path(f"{version.path}/{file.name}")).st_ctime_ns
        except OSError:  # somebody is changing it
            return self._now_ns
