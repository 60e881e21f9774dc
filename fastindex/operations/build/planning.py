"""First stage: what lies in the tree → what the caches vouch for, and what must be read.

What needs no reading becomes catalogue items at once, product by product, so that memory does
not hold the caches of the whole mirror.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from fastindex.catalogue.assembly import Digests, assemble_items
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import Item
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundProduct, FoundVersion
from fastindex.operations.build.caches import CacheWriter
from fastindex.operations.build.inputs import RebuildInputs
from fastindex.operations.build.options import BuildOptions
from fastindex.operations.build.recheck import parse_share
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
    """What is known after planning."""

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
    """Versions left for the next run, as they are too young."""


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
        inputs: what lies in the tree, emptied on the way to free its memory.
        caches: saves the caches that are adopted.
        observer: told of versions that are left for the next run.
    """
    plan = BuildPlan([], [], {}, [])
    is_due = _due_versions(options)
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
                observer.log(f"{version.path}: has young files, left for the next run")
                continue
            planned = _plan(mirror, options, inputs, is_due, plan, product, version, versions)
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


def _due_versions(options: BuildOptions) -> Callable[[str], bool]:
    """Return what tells whether a version (its path) is to be rechecked today."""
    if not options.recheck:
        return lambda path: False
    return parse_share(options.recheck, options.recheck_day).is_due


def _plan(
    mirror: Mirror,
    options: BuildOptions,
    inputs: RebuildInputs,
    is_due: Callable[[str], bool],
    plan: BuildPlan,
    product: FoundProduct,
    version: FoundVersion,
    siblings: list[FoundVersion],
) -> PlannedVersion | None:
    """Return what to do with a version; None where it is left out, with a finding in ``plan``."""
    selection, findings = select(version, siblings)
    plan.findings += findings
    missing = find_missing_part(version, selection)
    if missing is not None:
        plan.findings.append(missing)
        return None
    inputs.damaged.forget_changed(version, is_accepted=options.rehash)
    if options.rehash:
        return plan_version(product, version, selection, cache.NO_CACHE)
    planned = plan_version(product, version, selection, cache.load(mirror, version.path))
    damage = inputs.damaged.find_in(version, selection.files)
    if damage:
        plan.findings += damage
        return None
    if is_due(version.path):
        plan.rechecked[version.path] = planned.items
        return plan_version(product, version, selection, cache.NO_CACHE)
    return planned
