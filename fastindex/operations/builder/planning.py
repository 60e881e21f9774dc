"""First stage: the tree and its caches → what is known, and what must be read.

Versions that need no reading become catalogue items at once, product by product, so that the
caches of the whole mirror are never in memory together.
"""

from __future__ import annotations

from msgspec import Struct

from fastindex.catalogue.assembly import Digests, assemble_items
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import Item
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.tree import FoundProduct, FoundVersion
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.inputs import RebuildInputs
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.recheck import parse_share
from fastindex.operations.plan import (
    PlannedVersion,
    count_reused,
    find_missing_part,
    plan_version,
    select,
)

VersionItems = dict[str, dict[str, Item]]
"""Version name → file name → item, of one product."""


class BuildPlan(Struct):
    """What is known of the tree, and what must be read."""

    products: list[tuple[FoundProduct, VersionItems]]
    """Each product with the items that need no reading."""
    pending: list[PlannedVersion]
    """Versions with something to read."""
    rechecked: dict[str, Digests]
    """Path of a version that is read again → what its cache says."""
    findings: list[Finding]
    """What was left out, and why."""
    files_reused: int = 0
    """Files whose digests the caches vouch for."""
    versions_settling: int = 0
    """Versions that are too young, and left for the next run."""


def plan_build(
    mirror: Mirror,
    options: BuildOptions,
    inputs: RebuildInputs,
    caches: CacheWriter,
    observer: Observer,
) -> BuildPlan:
    """Return what is known of the tree, and what must be read.

    Args:
        mirror: the mirror.
        options: how to build.
        inputs: what is in the tree; its products are emptied on the way, to free memory.
        caches: saves caches that are adopted from the seed tool or from the tree.
        observer: told of versions that are left for the next run.
    """
    plan = BuildPlan([], [], {}, [])
    planner = _Planner(mirror, options, inputs.damaged, plan)
    found = inputs.scanned.found
    found.reverse()
    while found:
        product, versions = found.pop()
        entries: VersionItems = {}
        plan.products.append((product, entries))
        for version in versions:
            if inputs.period.is_young(version):
                plan.versions_settling += 1
                plan.findings += inputs.period.find_future_files(version)
                observer.log(f"{version.path}: has young files; left for the next run")
                continue
            planned = planner.plan_version(product, version, versions)
            if planned is None:
                continue
            plan.files_reused += count_reused(planned)
            if planned.pending:
                plan.pending.append(planned)
                continue
            if planned.is_worth_saving:
                caches.save(planned, planned.items)
            items = assemble_items(version.path, planned.items, version.metadata_ftypes)
            if isinstance(items, Finding):
                plan.findings.append(items)
            else:
                entries[version.name] = items
    return plan


class _Planner:
    """Decides version by version what to do; what is left out becomes a finding of the plan."""

    def __init__(
        self, mirror: Mirror, options: BuildOptions, damaged: DamagedFiles, plan: BuildPlan
    ) -> None:
        self._mirror = mirror
        self._rehash = options.rehash
        self._damaged = damaged
        self._plan = plan
        self._share = parse_share(options.recheck, options.recheck_day) if options.recheck else None

    def plan_version(
        self, product: FoundProduct, version: FoundVersion, siblings: list[FoundVersion]
    ) -> PlannedVersion | None:
        """Return what to do with ``version``; None where it is left out.

        Args:
            product: whose version it is.
            version: as found.
            siblings: all versions of the product, from which deltas may start.
        """
        selection, findings = select(version, siblings)
        self._plan.findings += findings
        missing = find_missing_part(version, selection)
        if missing is not None:
            self._plan.findings.append(missing)
            return None
        self._damaged.forget_changed(version, is_accepted=self._rehash)
        if self._rehash:
            return plan_version(product, version, selection, cache.NO_CACHE)
        cached = cache.load(self._mirror, version.path)
        planned = plan_version(product, version, selection, cached)
        damage = self._damaged.find_in(version, selection.files)
        if damage:
            self._plan.findings += damage
            return None
        if self._share is not None and self._share.is_due(version.path):
            self._plan.rechecked[version.path] = planned.items
            return plan_version(product, version, selection, cache.NO_CACHE)
        return planned
