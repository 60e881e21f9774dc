"""Writes the caches of a build as digests come in, and remembers what could not be written."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import CachedItem
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.operations.plan import PlannedVersion
from fastindex.system.processes import DiedError, Worker, Workers, can_have_children

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


_MAX_CHUNKS = 16
"""How many chunks wait for that process, at most: they are in memory, and lost with this one."""
_MIN_VERSIONS = 512
"""With fewer versions to read, starting a process takes longer than it saves."""

Encoded = tuple[str, bytes]
"""A version, relative to ROOT, and the content of its cache."""


class CacheWriter:
    """Saves the caches of versions, and remembers those that could not be written.

    Args:
        mirror: the mirror.
        is_dry_run: write nothing.
    """

    def __init__(self, mirror: Mirror, *, is_dry_run: bool) -> None:
        self._mirror = mirror
        self._is_dry_run = is_dry_run
        self._failures: list[tuple[str, str]] = []  # version and reason
        self._waiting: list[Encoded] = []
        self._helper: _Helper | None = None

    @property
    def failed_products(self) -> set[str]:
        """The products with a version whose cache could not be written, as paths."""
        return {path.rpartition("/")[0] for path, _ in self._failures}

    @contextmanager
    def beside(self, versions: int, jobs: int) -> Iterator[None]:
        """Let another process write the caches while the context lasts, if that is quicker.

        When it ends, even by an exception, all of them are written.

        Args:
            versions: how many versions are to be read.
            jobs: how many processes read them.

        Raises:
            ResourceError: the process cannot be started.
        """
        is_alone = threading.active_count() == 1 and can_have_children()
        if self._is_dry_run or jobs < 2 or versions < _MIN_VERSIONS or not is_alone:
            yield
            return
        with Workers(_write_chunks) as workers:
            self._helper = _Helper(workers, self._mirror)
            try:
                yield
            finally:
                self.flush()
                self._note(self._helper.finish())
                self._helper = None

    def save(self, planned: PlannedVersion, items: dict[str, CachedItem]) -> None:
        """Save what is known of a version now, or, beside this process, with the next ``flush``.

        A failure becomes a finding.
        """
        if items:
            self._save(planned, items)

    def forget(self, planned: PlannedVersion) -> None:
        """Save that nothing is known of a version, so that the next run reads it; as ``save``."""
        self._save(planned, {})

    def _save(self, planned: PlannedVersion, items: dict[str, CachedItem]) -> None:
        if self._is_dry_run:
            return
        data = cache.encode_cache(items, planned.version.metadata_ftypes)
        self._waiting.append((planned.version.path, data))
        if self._helper is None:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be saved, or have it written."""
        if not self._waiting:
            return
        chunk, self._waiting = self._waiting, []
        helper = self._helper
        self._note(cache.save_all(self._mirror, chunk) if helper is None else helper.write(chunk))

    def _note(self, failures: list[tuple[str, str]]) -> None:
        self._failures += failures

    def describe_failures(self) -> list[Finding]:
        """Return one finding about all caches that could not be written, if there are any."""
        if not self._failures:
            return []
        version, reason = self._failures[0]
        path = self._mirror.cache_path(version)
        others = len(self._failures) - 1
        more = f", nor can {others} other cache{'s' if others > 1 else ''}" if others else ""
        return [
            Finding(
                Code.CACHE_NOT_WRITTEN,
                path,
                f"cannot be written ({reason}){more}; later runs may read those files again",
                "give this user the right to write there, or choose a --cache-dir",
            )
        ]


class _Helper:
    """A process that writes caches. If it dies, this one writes what it has not written.

    Args:
        workers: starts the process, and ends it.
        mirror: the mirror.
    """

    def __init__(self, workers: Workers, mirror: Mirror) -> None:
        self._workers = workers
        self._mirror = mirror
        self._worker: Worker | None = workers.start(mirror)
        self._unanswered: deque[list[Encoded]] = deque()

    def write(self, chunk: list[Encoded]) -> list[tuple[str, str]]:
        """Have ``chunk`` written; return the failures known by now, as ``cache.save_all``."""
        failures: list[tuple[str, str]] = []
        while (worker := self._worker) is not None and self._is_answer_due(worker):
            failures += self._receive(worker)
        if worker is None:
            return failures + cache.save_all(self._mirror, chunk)
        self._unanswered.append(chunk)
        worker.send(chunk)
        return failures

    def _is_answer_due(self, worker: Worker) -> bool:
        waiting = len(self._unanswered)
        return waiting >= _MAX_CHUNKS or (waiting > 0 and worker.pipe.poll())

    def finish(self) -> list[tuple[str, str]]:
        """Wait until all is written; return the failures."""
        failures: list[tuple[str, str]] = []
        while self._unanswered and self._worker is not None:
            failures += self._receive(self._worker)
        return failures

    def _receive(self, worker: Worker) -> list[tuple[str, str]]:
        """Return the failures of the oldest chunk, or of all if the process died."""
        try:
            failures: list[tuple[str, str]] = self._workers.receive(worker)
            self._unanswered.popleft()
        except (DiedError, MemoryError):
            self._worker = None
            failures = []
            while self._unanswered:
                failures += cache.save_all(self._mirror, self._unanswered.popleft())
        return failures


def _write_chunks(pipe: Connection, mirror: Mirror) -> None:
    """Run as a worker: receive chunks and write them."""
    while (chunk := pipe.recv()) is not None:
        pipe.send(cache.save_all(mirror, chunk))
