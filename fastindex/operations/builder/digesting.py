"""Second stage: read what must be read, and keep what was learned even if interrupted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.catalogue.assembly import Digests, assemble_items
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import CachedItem
from fastindex.hashing.tasks import Outcome
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import DamagedFiles, describe_damage
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.pending import PendingVersions
from fastindex.operations.builder.planning import BuildPlan, VersionItems
from fastindex.operations.plan import PlannedVersion, find_future_stamps, list_tasks, merge
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from concurrent.futures import Executor


class DigestedVersions(Struct):
    """What came of reading."""

    items: dict[str, VersionItems]
    """Path of a product → the items of its versions that were read."""
    findings: list[Finding]
    """What was left out, and why."""
    files_hashed: int = 0
    """Files read."""
    bytes_read: int = 0
    """Bytes read."""
    seconds: float = 0.0
    """Wall time of reading and hashing."""
    is_final: bool = True
    """Whether the next run would find the same: nothing failed or was too young to trust."""


def digest_pending(
    mirror: Mirror,
    options: BuildOptions,
    plan: BuildPlan,
    damaged: DamagedFiles,
    caches: CacheWriter,
    observer: Observer,
    executor: Executor | None,
) -> DigestedVersions:
    """Read what ``plan`` says must be read.

    Args:
        mirror: the mirror.
        options: how to hash.
        plan: what to read; its pending versions are emptied, to free their memory.
        damaged: gets the files that were read again and differ from what their caches say.
        caches: saves what is learned of each version as soon as it is complete.
        observer: told of progress.
        executor: hash in this instead of worker processes; None: in those.

    Raises:
        UsageError: the engine that was asked for cannot be used.
        ResourceError: workers cannot be started, or the system ran out of something.
    """
    keeper = _Keeper(plan.rechecked, damaged, caches, observer)
    digested = keeper.digested
    tasks = list_tasks(mirror, plan.pending)
    if not tasks:
        return digested
    from fastindex.hashing.batches import group_tasks
    from fastindex.hashing.pool import digest_observed, raise_shortage  # 15 ms
    from fastindex.hashing.strategy import choose_strategy

    began = time.perf_counter()
    pending = PendingVersions(plan.pending)
    plan.pending.clear()
    roots = (task.root for task in tasks)
    strategy = choose_strategy(options.hashing, roots, observer)
    batches = group_tasks(tasks, strategy, wants_blake3=options.hashing.blake3)
    del tasks
    try:
        # Closing ends the workers at once, before anything else is tidied up.
        with closing(digest_observed(batches, strategy.jobs, executor, observer)) as results:
            for batch, outcomes in results:
                raise_shortage(batch, outcomes)
                for version in pending.complete(batch, outcomes):
                    keeper.keep(version, pending.outcomes)
                    pending.release(version)
    finally:
        for version in pending.list_started():
            keeper.save(version, pending.outcomes)
        digested.seconds = time.perf_counter() - began
        digested.bytes_read, digested.files_hashed = pending.bytes_read, pending.files_read
    return digested


class _Keeper:
    """Keeps what is learned of each version: in its cache, and as items of the catalogue."""

    def __init__(
        self,
        rechecked: dict[str, Digests],
        damaged: DamagedFiles,
        caches: CacheWriter,
        observer: Observer,
    ) -> None:
        self.digested = DigestedVersions({}, [])
        self._rechecked = rechecked
        self._damaged = damaged
        self._caches = caches
        self._observer = observer

    def keep(self, planned: PlannedVersion, outcomes: Mapping[Stamp, Outcome]) -> None:
        """Save what is known of a version that has been read, and add its items."""
        digests = self.save(planned, outcomes)
        if digests is None:
            return
        version = planned.version
        items = assemble_items(version.path, digests, version.metadata_ftypes)
        if isinstance(items, Finding):
            self.digested.findings.append(items)
        else:
            versions = self.digested.items.setdefault(planned.product.path, {})
            versions[version.name] = items

    def save(
        self, planned: PlannedVersion, outcomes: Mapping[Stamp, Outcome]
    ) -> dict[str, CachedItem] | None:
        """Save what is known of a version so far; return it, or None where it is left out."""
        items, findings = merge(planned, outcomes)
        self.digested.findings += findings
        self.digested.findings += find_future_stamps(planned, items, time.time_ns())
        if findings or not all(item.key for item in items.values()):
            self.digested.is_final = False
        known = self._rechecked.pop(planned.version.path, {})
        damage = self._find_damage(planned, known, items)
        if damage:
            self.digested.findings += damage
            return None  # the cache keeps the digests of the right bytes
        if items.keys() >= known.keys():
            self._caches.save(planned, items)
        self._observer.log(f"{planned.version.path}: hashed")
        return None if any(finding.versions_left_out for finding in findings) else items

    def _find_damage(
        self, planned: PlannedVersion, known: Digests, items: Digests
    ) -> list[Finding]:
        """Compare a version that was read again with what its cache says."""
        damaged = [
            name
            for name, item in items.items()
            if name in known and known[name].sha256 != item.sha256
        ]
        path = planned.version.path
        for name in damaged:
            self._damaged.add(f"{path}/{name}", known[name].key or "")
        return describe_damage(path, damaged)
