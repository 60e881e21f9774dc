"""Reads what must be read to verify versions, each file once, and compares the digests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from fastindex.catalogue.published import Mismatch
from fastindex.events import Observer
from fastindex.hashing.batches import BATCH_BYTES, group_tasks
from fastindex.hashing.hasher import choose_hasher
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.pool import digest_observed, raise_shortage
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import Batch, Digested, FileRef, Outcome, RootTask
from fastindex.operations.verify.expectations import Digests, Expected, compare
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Reading:
    """Reads the files of one group of versions after another. Close it in the end.

    Args:
        options: how files are hashed.
        executor: read and hash in this instead of worker processes.
        observer: told of progress, as of one reading.
        total_bytes: what all groups will read, about; None: there is only one group.
    """

    def __init__(
        self,
        options: HashingOptions,
        executor: Executor | None,
        observer: Observer,
        total_bytes: int | None,
    ) -> None:
        self.bytes_read = 0
        """Bytes of images and metadata read."""
        self.seconds = 0.0
        """Wall time spent on that."""
        self._options = options
        self._hasher = choose_hasher(options, executor)
        self._progress = _Progress(observer, total_bytes)
        self._observer = observer

    def close(self) -> None:
        """Tell the observer that nothing more is read."""
        self._progress.close()

    def find_mismatches(self, group: Sequence[Expected]) -> list[Mismatch]:
        """Read what must be read to check ``group``; return what is wrong with it."""
        results = _Results()
        full, quick = _list_tasks(group)
        strategy = choose_strategy(self._options, (task.root for task in full), self._observer)
        self._observer = Observer()  # that has been told of the strategy
        batches = _make_batches(full, quick, strategy)
        del full, quick
        began = time.perf_counter()
        with closing(
            digest_observed(batches, strategy.jobs, self._hasher, self._progress)
        ) as digested:
            for batch, outcomes in digested:
                raise_shortage(batch, outcomes)
                results.add(batch, outcomes)
        self.seconds += time.perf_counter() - began
        self.bytes_read += results.bytes_read
        return [
            mismatch
            for expected in group
            for mismatch in compare(expected, results.quick, results.full, results.fingerprints)
        ]


class _Results:
    """The digests of a group."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.quick: Digests = {}
        self.full: Digests = {}
        self.fingerprints: dict[tuple[Stamp, Stamp], str] = {}

    def add(self, batch: Batch, outcomes: Iterable[Outcome]) -> None:
        digests = self.full if batch.wants_sha256 else self.quick
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            self._add(task.root.stamp, outcome, digests)

    def _add(self, stamp: Stamp, outcome: Outcome, digests: Digests) -> None:
        if not isinstance(outcome, Digested):
            digests[stamp] = outcome
            return
        digests[stamp] = outcome.root
        digests |= outcome.metadata
        for metadata, fingerprint in outcome.fingerprints.items():
            self.fingerprints[metadata, stamp] = fingerprint
        self.bytes_read += outcome.bytes_read


class _Progress(Observer):
    """Tells of several readings as of one.

    Args:
        observer: is told.
        total_bytes: what will be read, about; None: what the first reading says, as it is alone.
    """

    def __init__(self, observer: Observer, total_bytes: int | None) -> None:
        self.wants_progress = observer.wants_progress
        self._observer = observer
        self._total_bytes = total_bytes
        self._has_begun = False
        self._done_bytes = 0
        self._part_bytes = 0

    def hashing_started(self, total_bytes: int) -> None:
        self._part_bytes = total_bytes
        if not self._has_begun:
            self._has_begun = True
            if self._total_bytes is None:
                self._total_bytes = total_bytes
            self._observer.hashing_started(self._total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        # Metadata that belongs to several roots may be read several times.
        done_bytes += self._done_bytes
        self._observer.bytes_hashed(min(done_bytes, self._total_bytes or done_bytes))

    def hashing_finished(self) -> None:
        self._done_bytes += self._part_bytes

    def note(self, message: str) -> None:
        self._observer.note(message)

    def log(self, message: str) -> None:
        self._observer.log(message)

    def close(self) -> None:
        if self._has_begun:
            self._observer.hashing_finished()


def _list_tasks(all_expected: Iterable[Expected]) -> tuple[list[RootTask], list[RootTask]]:
    """Return what to hash by SHA-256, and what by BLAKE3, as the caches have that."""
    quick: dict[Stamp, FileRef] = {}
    full: dict[Stamp, tuple[FileRef, dict[Stamp, FileRef]]] = {}
    covered: set[Stamp] = set()
    for expected in all_expected:
        for print_ in expected.fingerprints:
            if not print_.is_vouched_for:
                metadata, root = print_.metadata.ref, print_.root.ref
                full.setdefault(root.stamp, (root, {}))[1][metadata.stamp] = metadata
                covered.add(metadata.stamp)
    for expected in all_expected:
        for file in expected.files:
            if file.blake3:
                quick[file.ref.stamp] = file.ref
            elif file.ref.stamp not in covered:
                full.setdefault(file.ref.stamp, (file.ref, {}))
    return (
        [RootTask(ref, tuple(metadata.values())) for ref, metadata in full.values()],
        [
            RootTask(ref)
            for stamp, ref in quick.items()
            if stamp not in full and stamp not in covered
        ],
    )


def _make_batches(full: list[RootTask], quick: list[RootTask], strategy: Strategy) -> deque[Batch]:
    batches = [
        *group_tasks(full, strategy, wants_blake3=False),
        *_add_threads(
            group_tasks(quick, strategy, wants_blake3=True, wants_sha256=False), strategy.jobs
        ),
    ]
    return deque(sorted(batches, key=_get_size, reverse=True))


def _add_threads(batches: deque[Batch], jobs: int) -> list[Batch]:
    """Let BLAKE3 use threads for a file that would keep one worker busy after all others.

    Not for small files: each has threads of its own, which take time to start and to end.
    """
    total_bytes = sum(map(_get_size, batches))
    return [
        msgspec.structs.replace(batch, threads=max(1, round(jobs * batch.size_bytes / total_bytes)))
        if batch.size_bytes >= BATCH_BYTES and len(batch.tasks) == 1
        else batch
        for batch in batches
    ]


def _get_size(batch: Batch) -> int:
    return batch.size_bytes
