"""Which versions are too young for ``--settle``: somebody may still be uploading them.

A file is as young as its modification time says. One that lies ahead was set by whoever
brought the file, and tells nothing; then the time of the last change of the inode counts,
which nobody can set.
"""

from __future__ import annotations

import os
import time

from fastindex.events import Finding
from fastindex.mirror.tree import FoundFile, FoundVersion


class Settling:
    """Tells versions that are too young from others.

    Args:
        root: absolute path of ROOT.
        settle_seconds: how long a file must have been left alone; 0: all are old enough.
    """

    def __init__(self, root: str, settle_seconds: float) -> None:
        self._root = root
        self._now_ns = time.time_ns()
        self._age_ns = round(settle_seconds * 1e9)

    def is_young(self, version: FoundVersion) -> bool:
        """Return whether a file of ``version`` is too young."""
        return bool(self._age_ns) and any(
            self._changed_ns(version, file) > self._now_ns - self._age_ns for file in version.files
        )

    def ahead(self, version: FoundVersion) -> list[Finding]:
        """Return a finding for each file that seems young for longer than it should."""
        return [
            Finding(
                f"{version.path}/{file.name}",
                "changed in the future, by the clock, so --settle leaves its version out",
                "touch it, and check the clocks",
                versions_left_out=1,
            )
            for file in version.files
            if self._changed_ns(version, file) > self._now_ns + self._age_ns
        ]

    def _changed_ns(self, version: FoundVersion, file: FoundFile) -> int:
        if file.mtime_ns <= self._now_ns:
            return file.mtime_ns
        try:
            return os.stat(f"{self._root}/{version.path}/{file.name}").st_ctime_ns
        except OSError:  # somebody is at it
            return self._now_ns
