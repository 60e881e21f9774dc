"""Which versions wait for which files: a version is done when all its pending files are read."""

from __future__ import annotations

from fastindex.mirror.tree import Batch, Digested, FileId, Outcome, PlannedVersion


class Waiting:
    """Versions, and the outcomes that have come for them so far.

    Args:
        versions: those with something to read.
    """

    def __init__(self, versions: list[PlannedVersion]) -> None:
        self.outcomes: dict[FileId, Outcome] = {}
        self.bytes_read = 0
        self.files_read = 0
        self._files: dict[str, set[FileId]] = {}
        self._versions: dict[str, PlannedVersion] = {}
        self._users: dict[FileId, list[str]] = {}
        for version in versions:
            path = version.version.path
            self._versions[path] = version
            self._files[path] = {file.id for file in version.pending}
            for id_ in self._files[path]:
                self._users.setdefault(id_, []).append(path)

    def completed_by(self, batch: Batch, outcomes: tuple[Outcome, ...]) -> list[PlannedVersion]:
        """Take the outcomes of ``batch``; return the versions that wait for nothing more."""
        completed: list[PlannedVersion] = []
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            self.outcomes[task.root.id] = outcome
            if isinstance(outcome, Digested):
                self.bytes_read += outcome.bytes_read
                self.files_read += outcome.files_read
            for path in self._users[task.root.id]:
                self._files[path].discard(task.root.id)
                if not self._files[path]:
                    completed.append(self._versions.pop(path))
        return completed

    def release(self, version: PlannedVersion) -> None:
        """Forget the outcomes that only ``version`` was waiting for."""
        for id_ in {file.id for file in version.pending}:
            self._users[id_].remove(version.version.path)
            if not self._users[id_]:
                del self._users[id_], self.outcomes[id_]

    def begun(self) -> list[PlannedVersion]:
        """Return the versions of which some files are read and some are not."""
        return [
            version
            for version in self._versions.values()
            if any(file.id in self.outcomes for file in version.pending)
        ]
