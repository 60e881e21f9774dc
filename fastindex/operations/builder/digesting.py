"""Second stage: read what must be read, and keep what was learned even if interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.catalogue.assembly import Digests, assemble_items
from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import CachedItem
from fastindex.hashing.tasks import Outcome
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import CHANGED, Damage, DamagedFiles, describe_damage
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.pending import PendingVersions
from fastindex.operations.builder.planning import BuildPlan, PlannedProduct, find_change
from fastindex.operations.plan import (
    PlannedVersion,
    check_against_checksums,
    find_damaged,
    find_future_stamps,
    list_tasks,
    merge,
    note_damage,
)
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Digested(Struct):
    """What reading took."""

    files_hashed: int = 0
    """Files read."""
    bytes_read: int = 0
    """Bytes read."""
    seconds: float = 0.0
    """Wall time of reading and hashing."""


def digest_pending(
    mirror: Mirror,
    options: BuildOptions,
    plan: BuildPlan,
    damaged: DamagedFiles,
    caches: CacheWriter,
    observer: Observer,
    executor: Executor | None,
    finish: Callable[[PlannedProduct], None],
) -> Digested:
    """Read what ``plan`` says must be read; its waiting products get what comes of it, and leave.

    Args:
        mirror: the mirror.
        options: how to hash.
        plan: what to read; its pending versions are emptied, to free their memory.
        damaged: gets the files that were read again and differ from what is known of them.
        caches: saves what is learned of each version as soon as it is complete.
        observer: told of progress.
        executor: hash in this instead of worker processes; None: in those.
        finish: called with each product, once, when nothing of it is left to be read.

    Raises:
        UsageError: the engine that was asked for cannot be used.
        ResourceError: workers cannot be started, or the system ran out of something.
    """
    keeper = _Keeper(plan.waiting, damaged, caches, observer, finish, is_rehash=options.rehash)
    digested = Digested()
    tasks = list_tasks(mirror, plan.pending)
    if not tasks:
        return digested
    from fastindex.hashing.batches import group_tasks
    from fastindex.hashing.hasher import choose_hasher
    from fastindex.hashing.pool import digest_observed, raise_shortage  # 15 ms
    from fastindex.hashing.strategy import choose_strategy

    began = time.perf_counter()
    pending = PendingVersions(plan.pending)
    plan.pending.clear()
    roots = (task.root for task in tasks)
    strategy = choose_strategy(options.hashing, roots, observer)
    batches = group_tasks(tasks, strategy, wants_blake3=options.hashing.blake3)
    del tasks
    hasher = choose_hasher(options.hashing, executor)
    jobs = 1 if executor is not None else strategy.jobs
    with caches.beside(pending.count, jobs):
        try:
            # Closing ends the workers at once, before anything else is tidied up.
            with closing(digest_observed(batches, strategy.jobs, hasher, observer)) as results:
                for batch, outcomes in results:
                    raise_shortage(batch, outcomes)
                    for version in pending.complete(batch, outcomes):
                        keeper.keep(version, pending.outcomes)
                        pending.release(version)
                    caches.flush()  # the next batch may take an hour
        finally:
            for version in pending.list_started():
                keeper.save(version, pending.outcomes)
            digested.seconds = time.perf_counter() - began
            digested.bytes_read, digested.files_hashed = pending.bytes_read, pending.files_read
    return digested


_MISFITS = (Code.WRONG_CONTENT, Code.TRUNCATED)
_SETTLED_NS = 60_000_000_000
"""Much more than a tick of any clock: whoever wrote a file is done with it."""


def _are_lasting(planned: PlannedVersion, findings: list[Finding]) -> bool:
    """Return whether the next run would find the same: other bytes would have other stamps.

    Otherwise one page of HTML in the tree would make every run look at everything.
    """
    if not findings:
        return True
    youngest_ns = max(file.stamp.mtime_ns for file in planned.selection.files)
    is_old = youngest_ns < time.time_ns() - _SETTLED_NS
    return is_old and all(finding.code in _MISFITS for finding in findings)


def _describe_outcome(findings: Sequence[Finding]) -> str:
    """Return, for people, what becomes of a version about which there are ``findings``."""
    if any(finding.versions_left_out for finding in findings):
        return "left out"
    names = [os.path.basename(finding.path) for finding in findings if finding.files_left_out]
    return f"{', '.join(sorted(names))} left out" if names else "hashed"


class _Keeper:
    """Keeps what is learned of each version: in its cache, and as items of the catalogue."""

    def __init__(
        self,
        products: dict[str, PlannedProduct],
        damaged: DamagedFiles,
        caches: CacheWriter,
        observer: Observer,
        finish: Callable[[PlannedProduct], None],
        *,
        is_rehash: bool,
    ) -> None:
        self._products = products
        self._is_rehash = is_rehash
        self._finish = finish
        self._damaged = damaged
        self._caches = caches
        self._observer = observer

    def keep(self, planned: PlannedVersion, outcomes: Mapping[Stamp, Outcome]) -> None:
        """Save what is known of a version that has been read, and add its items."""
        product, version = self._products[planned.product.path], planned.version
        digests, findings = self.save(planned, outcomes)
        if not any(finding.versions_left_out for finding in findings):
            items = assemble_items(version.path, digests, version.metadata_ftypes)
            if isinstance(items, Finding):
                product.findings.append(items)
                findings = [*findings, items]
            else:
                product.publish(planned, items)
        self._observer.log(f"{version.path}: {_describe_outcome(findings)}")
        product.pending -= 1
        if not product.pending:
            del self._products[planned.product.path]
            self._finish(product)

    def save(
        self, planned: PlannedVersion, outcomes: Mapping[Stamp, Outcome]
    ) -> tuple[dict[str, CachedItem], list[Finding]]:
        """Save what is known of a version so far; return it, and what is wrong with its files."""
        product = self._products[planned.product.path]
        items, findings = merge(planned, outcomes)
        findings += find_future_stamps(planned, items, time.time_ns())
        if not all(item.key for item in items.values()) or not _are_lasting(planned, findings):
            product.is_final = False
        damaged = self._find_damage(planned, items, findings)
        if damaged:
            noted = note_damage(planned, items, damaged)
            if noted != planned.known:
                self._caches.save(planned, noted)
        changed = {n: damage.problem for n, damage in damaged.items() if damage.problem == CHANGED}
        if changed:
            told = {f"{planned.version.path}/{name}" for name in changed}
            findings = [finding for finding in findings if finding.path not in told]
            findings += describe_damage(planned.version.path, changed)
        if not changed:
            findings += check_against_checksums(planned, items)
            change = find_change(planned, items)
            if change is not None:
                # Not into the cache: what it vouches for counts as settled.
                findings.append(change)
                product.is_final = False
            elif self._is_rehash and not items:
                self._caches.forget(planned)  # what it says cannot be read any more
            elif items.keys() >= planned.known.keys() | planned.right.keys():
                self._caches.save(planned, items)
        product.findings += findings
        return items, findings

    def _find_damage(
        self, planned: PlannedVersion, items: Digests, failures: list[Finding]
    ) -> dict[str, Damage]:
        """Compare what was read with what was known of it; record what is damaged.

        Returns:
            What is known of each file with other bytes than it had, and of each that could be
            read before and cannot now, by name. The latter are in ``failures``, too.
        """
        if not planned.known and self._damaged.is_empty:
            return {}  # as for nearly all versions of a first build
        path = planned.version.path
        damaged = find_damaged(planned, items)
        for name in items.keys() - damaged:
            self._damaged.forget(f"{path}/{name}")
        unreadable: dict[str, str] = {}
        for failure in failures:
            name = failure.path.removeprefix(f"{path}/")
            if not planned.find_right_digest(name):
                continue
            if failure.code in _MISFITS:  # its first bytes were right when it was hashed
                damaged.append(name)
            elif failure.code is Code.UNREADABLE:
                unreadable[name] = failure.problem
        problems = dict.fromkeys(damaged, CHANGED) | unreadable
        return {
            file.name: self._damaged.add(
                f"{path}/{file.name}",
                file.stamp.key,
                planned.find_right_digest(file.name),
                problems[file.name],
            )
            for file in planned.selection.files
            if file.name in problems
        }
