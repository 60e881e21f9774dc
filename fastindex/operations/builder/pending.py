"""Which versions are complete, now that certain files have been read."""

from __future__ import annotations

from fastindex.hashing.tasks import Batch, Digested, Outcome
from fastindex.operations.plan import PlannedVersion
from fastindex.system.stamps import Stamp


class PendingVersions:
    """Versions with something to read, and the outcomes that have come for them so far.

    Args:
        versions: those with something to read.
    """

    def __init__(self, versions: list[PlannedVersion]) -> None:
        self.outcomes: dict[Stamp, Outcome] = {}
        self.bytes_read = 0
        self.files_read = 0
        self._files: dict[str, set[Stamp]] = {}
        self._versions: dict[str, PlannedVersion] = {}
        self._users: dict[Stamp, list[str]] = {}
        for version in versions:
            path = version.version.path
            self._versions[path] = version
            self._files[path] = {file.stamp for file in version.pending}
            for stamp in self._files[path]:
                self._users.setdefault(stamp, []).append(path)

    @property
    def count(self) -> int:
        """How many versions still need something."""
        return len(self._versions)

    def complete(self, batch: Batch, outcomes: tuple[Outcome, ...]) -> list[PlannedVersion]:
        """Take the outcomes of ``batch``; return the versions that need nothing more."""
        completed: list[PlannedVersion] = []
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            stamp = task.root.stamp
            self.outcomes[stamp] = outcome
            if isinstance(outcome, Digested):
                self.bytes_read += outcome.bytes_read
                self.files_read += outcome.files_read
            for path in self._users[stamp]:
                missing = self._files[path]
                missing.discard(stamp)
                if not missing:
                    completed.append(self._versions.pop(path))
        return completed

    def release(self, version: PlannedVersion) -> None:
        """Forget the outcomes that only ``version`` needed."""
        for stamp in {file.stamp for file in version.pending}:
            users = self._users[stamp]
            users.remove(version.version.path)
            if not users:
                del self._users[stamp], self.outcomes[stamp]

    def list_started(self) -> list[PlannedVersion]:
        """Return the versions of which some files have been read and some have not."""
        return [
            version
            for version in self._versions.values()
            if any(file.stamp in self.outcomes for file in version.pending)
        ]
