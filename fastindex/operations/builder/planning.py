"""First stage: the tree and its caches → what is known, and what must be read.

Versions that need no reading become catalogue items at once, product by product, so that the
caches of the whole mirror are never in memory together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.assembly import Digests, assemble_items
from fastindex.errors import Code, is_shortage
from fastindex.events import Finding, Observer
from fastindex.formats.checksums import Checksums, parse_checksums
from fastindex.formats.content import HEAD_BYTES, Fault, find_fault
from fastindex.formats.simplestreams import CHECKSUMS_NAME, CachedItem, Item
from fastindex.hashing.reader import ChangedError, describe_failure, read_head
from fastindex.hashing.tasks import Failed, FileRef
from fastindex.mirror import cache
from fastindex.mirror.cache import Cached, accept_item
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state.damage import Damage, DamagedFiles, describe_damage
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.inputs import RebuildInputs
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.published import PublishedVersions
from fastindex.operations.builder.recheck import parse_share
from fastindex.operations.plan import (
    PlannedVersion,
    can_recover,
    check_against_checksums,
    count_reused,
    find_delta_bases,
    find_missing_part,
    plan_version,
    read_again,
    read_damaged_again,
    select,
)
from fastindex.system.files import read_descriptor

_MAX_CHECKSUMS_BYTES = 1 << 16
_parse_checksums = lru_cache(maxsize=64)(parse_checksums)
"""Cached: a stranger can link one file into thousands of versions."""

VersionItems = dict[str, dict[str, Item]]
"""Version name → file name → item, of one product."""


class BuildPlan(Struct):
    """What is known of the tree, and what must be read."""

    products: list[tuple[FoundProduct, VersionItems]]
    """Each product with the items that need no reading."""
    pending: list[PlannedVersion]
    """Versions with something to read."""
    findings: list[Finding]
    """What was left out, and why."""
    settling: Counter[str]
    """Stream → how many of its versions are too young, and left for the next run."""
    files_reused: int = 0
    """Files whose digests the caches vouch for."""
    is_final: bool = True
    """Whether the next run would plan the same: it leaves no version to a later one."""


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
        options: which caches to believe.
        inputs: what is in the tree; its versions are emptied, to free their memory.
        caches: saves caches that are adopted from the seed tool or from the tree.
        observer: told of each version that is too young.
    """
    plan = BuildPlan([], [], [], Counter())
    planner = _Planner(mirror, options, inputs.damaged, inputs.period, plan, observer)
    for product, versions in inputs.scanned.found:
        entries: VersionItems = {}
        plan.products.append((product, entries))
        bases = find_delta_bases(versions)
        for version in versions:
            planned = planner.plan_version(product, version, bases)
            if planned is None:
                continue
            plan.files_reused += count_reused(planned)
            if planned.pending:
                plan.pending.append(planned)
                continue
            if planned.is_worth_saving:
                caches.save(planned, planned.items)
            findings = check_against_checksums(planned, planned.items)
            change = find_change(planned, planned.items)
            findings += [] if change is None else [change]
            plan.findings += findings
            if any(finding.versions_left_out for finding in findings):
                continue
            items = assemble_items(version.path, planned.items, version.metadata_ftypes)
            if isinstance(items, Finding):
                plan.findings.append(items)
            else:
                entries[version.name] = items
        versions.clear()
    if not options.rehash:  # which a person asks for, and which must not unpublish anything
        plan.pending = _bound_work(plan)
    return plan


def find_change(planned: PlannedVersion, items: Digests) -> Finding | None:
    """Return a finding if a version with young files is not what is published of it any more.

    Args:
        planned: the version.
        items: what is known of its files now.
    """
    if planned.published is None:
        return None
    version = planned.version
    if assemble_items(version.path, items, version.metadata_ftypes) == planned.published:
        return None
    return _describe_change(version)


def _describe_change(version: FoundVersion) -> Finding:
    return Finding(
        Code.STILL_CHANGING,
        version.path,
        "is published and being changed: what was published of it no longer holds",
        "publish other bytes as another version; this one is back once it has settled",
        versions_left_out=1,
    )


MAX_METADATA_OF_ROOT = 256
"""Fingerprints with one root that one run computes. Each takes as long as reading the root, and
hard links to it under thousands of metadata files cost whoever uploads them nothing."""


def _bound_work(plan: BuildPlan) -> list[PlannedVersion]:
    """Return the pending versions without those that would take too long; they become findings."""
    metadata_of: dict[object, set[object]] = {}
    kept: list[PlannedVersion] = []
    for planned in plan.pending:
        metadata = {file.stamp for file in planned.selection.metadata}
        roots = [file.stamp for file in planned.pending if file.role.kind == "root"]
        sets = [metadata_of.setdefault(root, set()) for root in roots]
        if any(len(known | metadata) > MAX_METADATA_OF_ROOT for known in sets):
            problem = (
                f"its root is linked into more than {MAX_METADATA_OF_ROOT} new versions with other "
                "metadata; left for a later run"
            )
            remedy = "run again, or give each version a root of its own"
            plan.is_final = False
            plan.findings.append(
                Finding(
                    Code.TOO_MUCH_WORK, planned.version.path, problem, remedy, versions_left_out=1
                )
            )
            continue
        for known in sets:
            known.update(metadata)
        kept.append(planned)
    return kept


class _Planner:
    """Decides version by version what to do; what is left out becomes a finding of the plan."""

    def __init__(
        self,
        mirror: Mirror,
        options: BuildOptions,
        damaged: DamagedFiles,
        period: SettlePeriod,
        plan: BuildPlan,
        observer: Observer,
    ) -> None:
        self._mirror = mirror
        self._rehash = options.rehash
        self._adopts = options.adopt
        self._damaged = damaged
        self._period = period
        self._plan = plan
        self._observer = observer
        self._published = PublishedVersions(mirror)
        self._share = parse_share(options.recheck, options.recheck_day) if options.recheck else None

    def plan_version(
        self, product: FoundProduct, version: FoundVersion, bases: Set[str]
    ) -> PlannedVersion | None:
        """Return what to do with ``version``; None where it is left out.

        Args:
            product: whose version it is.
            version: as found.
            bases: the versions of the product that deltas may start from.
        """
        is_young = self._period.is_young(version)
        cached = cache.NO_CACHE
        if is_young or not self._rehash:
            cached = cache.load(self._mirror, version.path, adopts=self._adopts)
            version, cached = self._leave_out_misfits(version, cached)
        published = None
        if is_young:
            settled = self._settle(product, version, bases, cached)
            if settled is None:
                return None
            version, published = settled
        if self._rehash:
            cached = cache.NO_CACHE
        selection, findings = select(version, bases)
        self._plan.findings += findings
        missing = find_missing_part(version, selection)
        if missing is not None:
            has_begun = not version.broken and self._period.is_new_directory(version)
            # Soon its directory is no longer new; and what is published now may be no longer then.
            self._plan.is_final &= not has_begun
            if has_begun and self._published.find_items(product, version) is None:
                self._plan.settling[product.stream] += 1  # an upload that has just begun
            else:
                self._plan.findings.append(
                    missing if published is None else _describe_change(version)
                )
            return None
        self._damaged.forget_changed(version, is_accepted=self._rehash)
        checksums = self._read_checksums(version)
        planned = plan_version(product, version, selection, cached, checksums)
        planned = replace(planned, published=published)
        self._damaged.adopt(version, planned.known)
        damaged = self._damaged.find_in(version, selection.files)
        is_due = self._share is not None and self._share.is_due(version.path)
        if damaged:
            return self._plan_damaged(planned, damaged, is_due=is_due)
        return read_again(planned) if is_due and not self._rehash else planned

    def _leave_out_misfits(
        self, version: FoundVersion, cached: Cached
    ) -> tuple[FoundVersion, Cached]:
        """Look at the first bytes of files whose cached items do not say that they were checked.

        The seed tool and earlier releases did not look at them.

        Returns:
            The version without the files that are not what their names say, each of which becomes
            a finding; and the cache, which now says that the others were checked.
        """
        good: dict[str, CachedItem] = {}
        bad: list[FoundFile] = []
        for file in version.files:
            item = accept_item(cached.items.get(file.name), file, cached.mtime_ns)
            if item is None or item.checked:
                continue
            path = f"{version.path}/{file.name}"
            try:
                head = read_head(FileRef(self._mirror.path(path), file.stamp), HEAD_BYTES)
            except ChangedError:
                continue  # whoever reads it again will see
            except OSError as error:
                if is_shortage(error):
                    raise
                fault: Fault | Failed | None = describe_failure(error)
                self._plan.is_final = False
            else:
                fault = find_fault(file.role, head, file.stamp.size_bytes)
            if fault is None:
                good[file.name] = replace(item, checked=True)
                continue
            bad.append(file)
            self._plan.findings.append(
                Finding(fault.code, path, fault.problem, fault.remedy, files_left_out=1)
            )
        if not good and not bad:
            return version, cached
        broken = sorted((*version.broken, *(file.role.ftype for file in bad)))
        files = tuple(file for file in version.files if file not in bad)
        return (
            replace(version, files=files, broken=tuple(broken)),
            replace(cached, items={**cached.items, **good}, is_worth_saving=True),
        )

    def _settle(
        self, product: FoundProduct, version: FoundVersion, bases: Set[str], cached: Cached
    ) -> tuple[FoundVersion, dict[str, Item] | None] | None:
        """Decide what to do with a version that has young files.

        One whose cache vouches for all of it was imported or published as it is: nobody is
        uploading it. Of one that is published and has young files, only what is published may be
        published again, if the files that it consists of are read and are still the same.

        Returns:
            The version, without files that are not published, and what is published of it if
            nothing else may be; None if it is left for the next run.
        """
        selection, _ = select(version, bases)
        is_complete = not version.broken and find_missing_part(version, selection) is None
        is_known = all(
            accept_item(cached.items.get(file.name), file, cached.mtime_ns) is not None
            for file in version.files
        )
        if is_complete and is_known:
            planned = plan_version(product, version, selection, cached)
            if not planned.pending:
                return version, None
        self._plan.is_final = False
        published = self._published.find_items(product, version)
        if published is None:
            self._plan.settling[product.stream] += 1
            self._plan.findings += self._period.find_future_files(version)
            self._observer.log(f"{version.path}: has young files; left for the next run")
            return None
        names = {item.path.rpartition("/")[2] for item in published.values()}
        files = tuple(file for file in version.files if file.name in names)
        self._observer.log(f"{version.path}: has young files; published as it was, or not at all")
        return replace(version, files=files, broken=()), published

    def _plan_damaged(
        self, planned: PlannedVersion, damaged: dict[str, Damage], *, is_due: bool
    ) -> PlannedVersion | None:
        """Return the plan of reading damaged files again, if they may be all right by now.

        A disk that could not read a file may do so later, without any change of the file.
        """
        version = planned.version
        is_due = is_due and can_recover(planned, damaged)
        if is_due or self._damaged.is_worth_reading(version, damaged):
            return read_damaged_again(planned, damaged)
        problems = {name: damage.problem for name, damage in damaged.items()}
        self._plan.findings += describe_damage(version.path, problems)
        return None

    def _read_checksums(self, version: FoundVersion) -> Checksums | None:
        """Return what the ``SHA256SUMS`` of a version says; None if it has none."""
        if version.checksums is None:
            return None
        path = f"{version.path}/{CHECKSUMS_NAME}"
        try:
            descriptor = self._mirror.open_file(path)
            return _parse_checksums(read_descriptor(descriptor, _MAX_CHECKSUMS_BYTES, path))
        except OSError as error:
            if is_shortage(error):
                raise
            return Checksums({}, f"cannot be read ({error.strerror or error})")
