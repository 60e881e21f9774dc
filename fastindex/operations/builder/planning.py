"""First stage: the tree and its caches → what is known, and what must be read.

Versions that need no reading become catalogue items at once, product by product, so that the
caches of the whole mirror are never in memory together.
"""

from __future__ import annotations

from array import array
from collections import Counter
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
from fastindex.mirror.state.damage import Damage, describe_damage
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.inputs import BuildInputs, ExaminedProduct
from fastindex.operations.builder.lasting import note_states
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.published import PublishedStreams
from fastindex.operations.builder.recheck import RecheckShare
from fastindex.operations.plan import (
    DeltaBases,
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
from fastindex.system.stamps import Stamp

_MAX_CHECKSUMS_BYTES = 1 << 16
_parse_checksums = lru_cache(maxsize=64)(parse_checksums)
"""Cached: a stranger can link one file into thousands of versions."""

VersionItems = dict[str, dict[str, Item]]
"""Version name → file name → item, of one product."""


class PlannedProduct(Struct):
    """A product with what is known of it, and what becomes of it while its files are read."""

    examined: ExaminedProduct
    """The product; its versions are emptied, to free their memory."""
    is_present: bool
    """Whether it has versions."""
    image_yamls: frozenset[str]
    """The names of its versions that have an ``image.yaml``."""
    items: VersionItems
    """The items of the versions that need no more reading."""
    findings: list[Finding]
    """What was left out, and why, besides what the scan tells."""
    pending: int = 0
    """How many of its versions must be read first."""
    files_reused: int = 0
    """Files whose digests the caches vouch for."""
    is_final: bool = True
    """Whether the next run would find the same: nothing failed or was too young to trust."""
    states: dict[str, array[int]] = {}
    """Version name → what its files were like when it was found (see ``lasting``)."""

    def publish(self, one: PlannedVersion, items: dict[str, Item]) -> None:
        """Take a version of which all is known.

        Args:
            one: the version.
            items: file name → item, of what is to be published of it.
        """
        self.items[one.version.name] = items
        self.states[one.version.name] = note_states(one.version.files)

    @property
    def product(self) -> FoundProduct:
        """The product directory."""
        return self.examined.scanned.product


class BuildPlan(Struct):
    """What must be read."""

    pending: list[PlannedVersion]
    """Versions with something to read."""
    waiting: dict[str, PlannedProduct]
    """Path of a product → the product, if it has such versions."""
    settling: Counter[str]
    """Stream → how many of its versions are too young, and left for the next run."""


class Planner:
    """Decides product by product what must be read, and what is known without.

    Args:
        mirror: the mirror.
        options: which caches to believe.
        inputs: what the build starts from.
        caches: saves caches that are adopted from the seed tool or from the tree.
        published: finds what is published of versions that are too young.
        observer: told of each version that is too young.
    """

    def __init__(
        self,
        mirror: Mirror,
        options: BuildOptions,
        inputs: BuildInputs,
        caches: CacheWriter,
        published: PublishedStreams,
        observer: Observer,
    ) -> None:
        self.plan = BuildPlan([], {}, Counter())
        self._mirror = mirror
        self._options = options
        self._inputs = inputs
        self._caches = caches
        self._published = published
        self._observer = observer
        self._share = options.find_share()

    def plan_product(self, examined: ExaminedProduct) -> PlannedProduct | None:
        """Return a product of which all is known; None if it waits for some of it to be read."""
        versions = examined.scanned.versions or []
        names = {version.name for version in versions if version.image_yaml is not None}
        planned = PlannedProduct(examined, bool(versions), frozenset(names), {}, [])
        planner = _VersionPlanner(
            self._mirror,
            self._options,
            self._inputs,
            self._published,
            self._observer,
            self._share,
            self.plan.settling,
            planned,
        )
        bases = find_delta_bases(versions)
        for version in versions:
            one = planner.plan_version(version, bases)
            if one is None:
                continue
            planned.files_reused += count_reused(one)
            if one.pending:
                self.plan.pending.append(one)
                planned.pending += 1
            else:
                self._take(planned, one)
        versions.clear()
        if planned.pending:
            self.plan.waiting[planned.product.path] = planned
        return None if planned.pending else planned

    def _take(self, planned: PlannedProduct, one: PlannedVersion) -> None:
        """Add a version that needs no reading."""
        version = one.version
        if one.is_worth_saving:
            self._caches.save(one, one.items)
        findings = check_against_checksums(one, one.items)
        change = find_change(one, one.items)
        findings += [] if change is None else [change]
        planned.findings += findings
        if any(finding.versions_left_out for finding in findings):
            return
        items = assemble_items(version.path, one.items, version.metadata_ftypes)
        if isinstance(items, Finding):
            planned.findings.append(items)
        else:
            planned.publish(one, items)

    def finish(self) -> BuildPlan:
        """Return what must be read, without what would take too long."""
        if not self._options.rehash:  # which a person asks for, and must not unpublish anything
            _bound_work(self.plan)
        return self.plan


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


def _bound_work(plan: BuildPlan) -> None:
    """Leave out the pending versions that would take too long; they become findings."""
    metadata_of: dict[Stamp, frozenset[Stamp]] = {}
    nothing: frozenset[Stamp] = frozenset()
    kept: list[PlannedVersion] = []
    for planned in plan.pending:
        metadata = [file.stamp for file in planned.selection.metadata]
        needed = {
            file.stamp: metadata_of.get(file.stamp, nothing).union(metadata)
            for file in planned.pending
            if file.role.kind == "root"
        }
        if max(map(len, needed.values()), default=0) > MAX_METADATA_OF_ROOT:
            problem = (
                f"its root is linked into more than {MAX_METADATA_OF_ROOT} new versions with other "
                "metadata; left for a later run"
            )
            remedy = "run again, or give each version a root of its own"
            product = plan.waiting[planned.product.path]
            product.pending -= 1
            product.is_final = False
            product.findings.append(
                Finding(
                    Code.TOO_MUCH_WORK, planned.version.path, problem, remedy, versions_left_out=1
                )
            )
            continue
        metadata_of |= needed
        kept.append(planned)
    plan.pending = kept


class _VersionPlanner:
    """Decides version by version of a product; what is left out becomes a finding of it."""

    def __init__(
        self,
        mirror: Mirror,
        options: BuildOptions,
        inputs: BuildInputs,
        published: PublishedStreams,
        observer: Observer,
        share: RecheckShare | None,
        settling: Counter[str],
        planned: PlannedProduct,
    ) -> None:
        self._mirror = mirror
        self._rehash = options.rehash
        self._adopts = options.adopt
        self._damaged = inputs.damaged
        self._delta_rules = inputs.delta_rules
        self._period = inputs.period
        self._planned = planned
        self._product = planned.product
        self._settling = settling
        self._observer = observer
        self._published = published
        self._share = share

    def plan_version(self, version: FoundVersion, bases: DeltaBases) -> PlannedVersion | None:
        """Return what to do with ``version``; None where it is left out.

        Args:
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
            settled = self._settle(version, bases, cached)
            if settled is None:
                return None
            version, published = settled
        if self._rehash:
            cached = cache.NO_CACHE
        selection, findings = select(version, bases, self._delta_rules)
        self._planned.findings += findings
        missing = find_missing_part(version, selection)
        if missing is not None:
            has_begun = not version.broken and self._period.is_new_directory(version.path)
            # Soon its directory is no longer new; and what is published now may be no longer then.
            self._planned.is_final &= not has_begun
            if has_begun and self._published.find_items(self._product, version) is None:
                self._settling[self._product.stream] += 1  # an upload that has just begun
            else:
                self._planned.findings.append(
                    missing if published is None else _describe_change(version)
                )
            return None
        self._damaged.forget_changed(version, is_accepted=self._rehash)
        checksums = self._read_checksums(version)
        planned = plan_version(self._product, version, selection, cached, checksums, published)
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
        if not cached.items:
            return version, cached
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
                self._planned.is_final = False
            else:
                fault = find_fault(file.role, head, file.stamp.size_bytes)
            if fault is None:
                good[file.name] = replace(item, checked=True)
                continue
            bad.append(file)
            self._planned.findings.append(
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
        self, version: FoundVersion, bases: DeltaBases, cached: Cached
    ) -> tuple[FoundVersion, dict[str, Item] | None] | None:
        """Decide what to do with a version that has young files.

        One whose cache vouches for all of it was imported or published as it is: nobody is
        uploading it. Of one that is published and has young files, only what is published may be
        published again, if the files that it consists of are read and are still the same.

        Returns:
            The version, without files that are not published, and what is published of it if
            nothing else may be; None if it is left for the next run.
        """
        selection, _ = select(version, bases, self._delta_rules)
        is_complete = not version.broken and find_missing_part(version, selection) is None
        is_known = all(
            accept_item(cached.items.get(file.name), file, cached.mtime_ns) is not None
            for file in version.files
        )
        if is_complete and is_known:
            planned = plan_version(self._product, version, selection, cached)
            if not planned.pending:
                return version, None
        self._planned.is_final = False
        published = self._published.find_items(self._product, version)
        if published is None:
            self._settling[self._product.stream] += 1
            self._planned.findings += self._period.find_future_files(version)
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
        self._planned.findings += describe_damage(version.path, problems)
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
            self._planned.is_final = False
            return Checksums({}, f"cannot be read ({error.strerror or error})")
