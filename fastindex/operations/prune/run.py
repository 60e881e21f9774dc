"""Prune, remove and restore from end to end, each under the mirror's lock.

1. Choose what to withdraw. ``prune`` publishes what is in the tree first, as only what is
   published counts as a version that stays. ``remove`` takes the catalogue that the operator saw,
   and builds first to know of copies.
2. Record what is withdrawn in ``streams/.withdrawn.json``. An ordinary build publishes the rest.
3. What the published catalogue no longer names gets the time. What has had its time for as long as
   the grace is deleted, and its record with it.

The next run continues one that is killed anywhere: it publishes again without what has no time
yet, and finishes a removal that was started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from fastindex.catalogue.images import list_images
from fastindex.catalogue.published import Mismatch, read_published, read_published_paths
from fastindex.errors import (
    Code,
    ExitCode,
    FastindexError,
    TreeError,
    UsageError,
    translate_system_errors,
)
from fastindex.events import Finding, Observer, Step
from fastindex.formats.names import is_stream_name
from fastindex.formats.simplestreams import ProductFile, product_file_path
from fastindex.mirror import cache, staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import require_streams, scan
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state import outputs, snapshot, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.builder.options import BuildReport
from fastindex.operations.builder.pipeline import build
from fastindex.operations.prune.deletion import Deletion, drop_withdrawn_paths
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.retention import choose_versions_to_withdraw, is_complete
from fastindex.operations.prune.targets import (
    find_copies,
    find_targets,
    find_withdrawn,
    make_withdrawals,
)

Clock = Callable[[], float]
"""Returns the time in seconds since the epoch. Tests pass a later one: they cannot make a file's
change time older."""

_NOTHING_BY_AGE = "no old version was withdrawn or deleted"
"""What ``prune`` does not do while a catalogue cannot be read."""

_MAX_ROUNDS = 8
"""Builds of one ``remove``. One is enough unless somebody uploads copies meanwhile."""


@translate_system_errors()
def prune(
    mirror: Mirror,
    options: PruneOptions,
    *,
    observer: Observer | None = None,
    clock: Clock = time.time,
) -> PruneReport:
    """Publish what is new, withdraw old versions, and delete what was withdrawn long enough ago.

    Args:
        mirror: the mirror.
        options: what stays, and for how long.
        observer: told of progress and findings.
        clock: tells the time.

    Raises:
        UsageError: an option makes no sense.
        TreeError: the tree is published in another output directory, and not in this one; or a
            record of earlier runs cannot be used.
        FastindexError: as ``build``; a later run deletes what was to be deleted.
    """
    options.check()
    observer = observer or Observer()
    require_streams(mirror)
    if outputs.find_others(mirror) and not outputs.has_catalogue(mirror):
        outputs.require_catalogue(mirror)
    if options.build.dry_run:
        return _plan_prune(mirror, options, observer, clock)
    run = _Run(mirror, options, observer, clock, _NOTHING_BY_AGE)
    with mirror.lock(options.build.wait_seconds):
        is_indexed_elsewhere = not outputs.has_catalogue(mirror) and _has_caches(mirror)
        run.start()
        run.build(mirror)
        published = read_published_paths(mirror.output)
        # Of what another catalogue names it would not be known what may go.
        if published is not None and run.can_delete():
            found = withdrawals.drop_withdrawn(run.scan(), run.known)
            new = _choose_old(mirror, options, found, published, clock)
            if new:
                run.withdraw(new)
                run.build(mirror)
        if is_indexed_elsewhere:
            run.warn_of_first_run()
        else:
            run.delete(with_leftovers=True)
    return run.report()


def _choose_old(
    mirror: Mirror, options: PruneOptions, found: list[Found], published: set[str], clock: Clock
) -> Withdrawals:
    today = datetime.fromtimestamp(clock(), UTC).date()
    period = SettlePeriod(mirror, options.build.settle_seconds)
    going = choose_versions_to_withdraw(
        found, published, options.keep, options.keep_days, today, period.is_young
    )
    return {version.path: Withdrawal() for version in going}


def _has_caches(mirror: Mirror) -> bool:
    """Return whether an earlier run has indexed anything in the tree."""
    return any(
        cache.load(mirror, version.path) is not cache.NO_CACHE
        for _, versions in scan(mirror).found
        for version in versions
    )


def _plan_prune(
    mirror: Mirror, options: PruneOptions, observer: Observer, clock: Clock
) -> PruneReport:
    """Return what ``prune`` would do, if all that is complete and settled can be published."""
    known = withdrawals.load(mirror)
    everything = scan(mirror).found
    found = withdrawals.drop_withdrawn(everything, known)
    published = read_published_paths(mirror.output)
    new: Withdrawals = {}
    expected: set[str] | None = None
    if published is not None and Deletion(mirror, options.grace_seconds, clock()).is_possible:
        period = SettlePeriod(mirror, options.build.settle_seconds)
        damaged = DamagedFiles(mirror)
        soon = {
            version.path
            for _, versions in found
            for version in versions
            if is_complete(version)
            and not period.is_young(version)
            and not damaged.find_in(version, version.files)
        }
        new = _choose_old(mirror, options, found, published | soon, clock)
        expected = drop_withdrawn_paths(published | soon, _merge(known, new))
    merged = _merge(known, _stamp(new, clock()))
    deletion = Deletion(
        _add_streams_of(mirror, merged),
        options.grace_seconds,
        clock(),
        expected,
        consequence=_NOTHING_BY_AGE,
    )
    steps = _list_steps(deletion, new, merged)
    steps += [
        Step("delete", path) for path in deletion.find_abandoned(everything) if path not in merged
    ]
    return _report_plan(deletion, steps, observer)


@translate_system_errors()
def remove(
    mirror: Mirror,
    options: PruneOptions,
    names: Iterable[str],
    *,
    observer: Observer | None = None,
    clock: Clock = time.time,
) -> PruneReport:
    """Withdraw images, versions or products, and delete their files once the grace has passed.

    Args:
        mirror: the mirror. Streams that are published count, whether they are its own or not.
        options: how long files outlive the catalogues that name them. Nothing else is deleted than
            what ``names`` name.
        names: fingerprints, their prefixes (4 digits or more) or aliases: of those images all
            copies go. Or paths of versions or products, or unambiguous ends of them.
        observer: told of progress and findings.
        clock: tells the time.

    Raises:
        UsageError: an option makes no sense, or a name fits nothing, or several things.
        TreeError: nothing is published, or a name fits nothing in what of it can be read.
        FastindexError: as ``build``; a later run deletes what was to be deleted.
    """
    options.check()
    observer = observer or Observer()
    mirror.require_root()
    outputs.require_catalogue(mirror)
    files, mismatches = read_published(mirror.output)
    mirror = _choose_streams(mirror, [file.content_id for file in files])
    require_streams(mirror)
    images = list_images(files)
    found = scan(mirror).found
    try:
        targets = find_targets(names, images, found, mirror.root)
    except UsageError as error:
        raise _explain_unread(error, files, mismatches) from None
    known = withdrawals.load(mirror)
    rest = withdrawals.drop_withdrawn(found, known)
    new = find_copies(mirror, rest, targets.fingerprints)
    new = _merge(new, make_withdrawals(targets, images))
    _require_own_streams(mirror, new, [file.content_id for file in files])
    require_streams(_keep_streams_of(mirror, new))
    _require_directories(mirror, new)
    if options.build.dry_run:
        new = _stamp(new, clock())
        merged = _merge(known, new)
        published = read_published_paths(mirror.output)
        expected = None if published is None else drop_withdrawn_paths(published, new)
        deletion = Deletion(mirror, options.grace_seconds, clock(), expected)
        return _report_plan(deletion, _list_steps(deletion, new, merged, new), observer)
    run = _Run(mirror, options, observer, clock)
    with mirror.lock(options.build.wait_seconds):
        run.start()
        if targets.fingerprints:
            # Copies that no cache knows yet would be published in the place of the image.
            run.build(mirror, is_needed=False)
            rest = withdrawals.drop_withdrawn(run.scan(), run.known)
            new = _merge(find_copies(mirror, rest, targets.fingerprints), new)
        for _ in range(_MAX_ROUNDS):
            run.withdraw(new)
            # No other stream: one that cannot be published is no reason not to remove an image.
            run.build(_keep_streams_of(mirror, new))
            # Others may have uploaded copies meanwhile.
            images = list_images(read_published(mirror.output)[0])
            rest = withdrawals.drop_withdrawn(run.scan(), run.known)
            new = find_copies(mirror, rest, targets.fingerprints)
            new = _merge(new, make_withdrawals(replace(targets, versions=frozenset()), images))
            if not new:
                break
        run.delete(with_leftovers=False)
    return run.report()


def _choose_streams(mirror: Mirror, published: Iterable[str]) -> Mirror:
    """Return the mirror with all streams that are there, published or its own.

    A stream whose directory is missing stays published as it is. If all are, ``require_streams``
    says so.
    """
    streams = [
        stream
        for stream in dict.fromkeys((*mirror.streams, *published))
        if is_stream_name(stream) and os.path.isdir(mirror.path(stream))
    ]
    return mirror.with_streams(streams) if streams else mirror


@translate_system_errors()
def restore(
    mirror: Mirror,
    options: PruneOptions,
    versions: Iterable[str],
    *,
    observer: Observer | None = None,
) -> PruneReport:
    """Publish withdrawn versions again, as long as their files are there.

    Args:
        mirror: the mirror.
        options: those of the build that publishes the versions.
        versions: paths of versions, or of products with all their withdrawn versions whose files
            are there; or unambiguous ends of them. A product's key is as good as its path.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense, or a version is not withdrawn.
        TreeError: the files of a version are gone, or nothing is published.
        FastindexError: as ``build``.
    """
    options.check()
    outputs.require_catalogue(mirror)
    wanted = list(versions)
    if options.build.dry_run:
        known = withdrawals.load(mirror)
        names = _find_withdrawn(mirror, wanted, known)
        return PruneReport(steps=tuple(Step("publish", name) for name in names))
    with mirror.lock(options.build.wait_seconds):
        known = withdrawals.load(mirror)
        names = _find_withdrawn(mirror, wanted, known)
        mirror = _add_streams_of(mirror, names)
        require_streams(mirror)
        for name in names:
            known.pop(name, None)
        withdrawals.save(mirror, known)
        built = build(mirror, options.build, observer=observer, is_locked=True)
    return PruneReport(
        restored=tuple(names), findings=built.findings, built=built, exit_code=built.exit_code
    )


def _explain_unread(
    error: UsageError, files: Iterable[ProductFile], mismatches: Iterable[Mismatch]
) -> FastindexError:
    """Return ``error``, or a better one if a part of the catalogue could not be read."""
    read = {product_file_path(file.content_id) for file in files}
    unread = [
        f"  {one.version}: {one.problem}"
        for one in mismatches
        if not one.file and one.version not in read
    ]
    if not unread:
        return error
    told = "\n".join(unread)
    return TreeError(f"{error}\nNot all that is published may be known (see verify):\n{told}")


def _require_own_streams(mirror: Mirror, versions: Iterable[str], published: Iterable[str]) -> None:
    """Check that versions are of streams that have a directory; another tool may name them freely.

    Args:
        mirror: the mirror.
        versions: their paths.
        published: the streams in the catalogue.

    Raises:
        TreeError: one is not.
    """
    foreign = [stream for stream in published if not is_stream_name(stream)]
    for version in versions:
        for stream in foreign:
            path = version.removeprefix(f"{stream}/")
            if path != version and not os.path.lexists(mirror.path(version)):
                raise TreeError(
                    f"{path}: is published in the stream {stream!r}, which is no name of a "
                    "directory, so nothing was withdrawn; remove it with the tool that published it"
                )


def _require_directories(mirror: Mirror, versions: Iterable[str]) -> None:
    """Check that versions are in the tree; those of another tool's flat tree are not.

    Raises:
        TreeError: one is not.
    """
    for version in versions:
        if not os.path.lexists(mirror.path(version)):
            raise TreeError(
                f"{version}: is published, but is no directory in {mirror.root}, so nothing was "
                "withdrawn; mount its disk, or remove it with the tool that published it "
                "(incus-simplestreams remove)"
            )


class _Run:
    """A run of prune or remove under the mirror's lock: what is withdrawn, and what it did."""

    def __init__(
        self,
        mirror: Mirror,
        options: PruneOptions,
        observer: Observer,
        clock: Clock,
        consequence: str = "nothing was deleted",
    ) -> None:
        self.known: Withdrawals = {}
        """What is withdrawn."""
        self._mirror = mirror
        self._options = options
        self._observer = observer
        self._clock = clock
        self._consequence = consequence
        self._new: set[str] = set()
        self._built: tuple[Finding, ...] = ()
        self._report: BuildReport | None = None
        self._code = ExitCode.DONE
        self._deleted: list[str] = []
        self._findings: list[Finding] = []
        self._has_failed = False
        self._named: frozenset[str] = frozenset()

    def start(self) -> None:
        """Load what is withdrawn, with the times by the catalogue that clients have now."""
        self._named = frozenset(read_published_paths(self._mirror.output) or ())
        self.known = self._make_deletion().update_times(withdrawals.load(self._mirror))
        if self.known:
            withdrawals.save(self._mirror, self.known)

    def withdraw(self, new: Withdrawals) -> None:
        """Record that ``new`` is withdrawn as well."""
        new = _stamp(new, self._clock())
        for name in new:
            staging.remove_mark(self._mirror, name)  # no import is to take it for one that stays
        self.known = _merge(self.known, new)
        self._new |= new.keys()
        withdrawals.save(self._mirror, self.known)

    def build(self, mirror: Mirror, *, is_needed: bool = True) -> None:
        """Publish what is in the tree and not withdrawn.

        Args:
            mirror: the mirror, with the streams to publish.
            is_needed: raise if it fails; else the next build tells why.
        """
        held_back = _HeldBack(self._observer)
        try:
            built = build(mirror, self._options.build, observer=held_back, is_locked=True)
        except FastindexError:
            if is_needed:
                held_back.release()  # often the reason
                raise
            return
        # What only the run that does it tells.
        passing = [finding for finding in self._built if finding.code in snapshot.PASSING]
        self._built, self._code = (*passing, *built.findings), built.exit_code
        self._report = built if self._report is None else _join(self._report, built)

    def can_delete(self) -> bool:
        """Return whether it is known what is published, in all outputs."""
        return self._make_deletion().is_possible

    def scan(self) -> list[Found]:
        """Return what is in the tree now; what cannot be read, but could a moment ago, is told."""
        scanned = scan(self._mirror)
        told = {*self._built, *self._findings}
        new = [finding for finding in scanned.findings if finding not in told]
        self._findings += new
        self._has_failed |= any(finding.versions_left_out for finding in new)
        return scanned.found

    def delete(self, *, with_leftovers: bool) -> None:
        """Delete what is due.

        Args:
            with_leftovers: of everything that is withdrawn, and what was abandoned; else only of
                what this run was asked for.
        """
        deletion = self._make_deletion()
        only = None if with_leftovers else self._new
        self._deleted, _ = deletion.delete_withdrawn(only)
        if with_leftovers and deletion.is_possible:
            # Scanned again: an upload may have continued while the build ran.
            self._deleted += deletion.delete_abandoned(self.scan(), self._named)
        self._findings += deletion.findings
        self._has_failed |= deletion.has_failed

    def warn_of_first_run(self) -> None:
        """Tell why nothing is deleted: a catalogue that was not recorded may name it."""
        problem = "was published for the first time, so nothing is deleted yet; later runs will"
        remedy = (
            "this is as it should be, unless the tree is published in another directory, too: then "
            "build it there once more with --output, so that no run deletes what is named there"
        )
        self._findings.append(Finding(Code.OTHER_OUTPUT, self._mirror.output, problem, remedy))

    def report(self) -> PruneReport:
        """Return what was done, and report the findings to the observer."""
        findings = (*self._built, *self._findings)
        for finding in findings:
            self._observer.warn(finding)
        return PruneReport(
            withdrawn=tuple(sorted(self._new)),
            deleted=tuple(self._deleted),
            waiting=tuple(sorted(self.known.keys() - set(self._deleted))),
            findings=findings,
            built=self._report and replace(self._report, findings=self._built),
            exit_code=max(self._code, ExitCode.LEFT_OUT) if self._has_failed else self._code,
        )

    def _make_deletion(self) -> Deletion:
        mirror = _add_streams_of(self._mirror, self.known)
        return Deletion(
            mirror, self._options.grace_seconds, self._clock(), consequence=self._consequence
        )


def _join(first: BuildReport, last: BuildReport) -> BuildReport:
    """Return the report of two builds in a row: what both read, and what the last published."""
    return replace(
        last,
        files_hashed=first.files_hashed + last.files_hashed,
        files_reused=first.files_reused,
        bytes_read=first.bytes_read + last.bytes_read,
        hashing_seconds=first.hashing_seconds + last.hashing_seconds,
        seconds=first.seconds + last.seconds,
    )


class _HeldBack(Observer):
    """Passes progress on, and keeps findings: the next build of a run finds most of them again."""

    def __init__(self, observer: Observer) -> None:
        self.wants_progress = observer.wants_progress
        self._observer = observer
        self._findings: list[Finding] = []

    def hashing_started(self, total_bytes: int) -> None:
        self._observer.hashing_started(total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        self._observer.bytes_hashed(done_bytes)

    def hashing_finished(self) -> None:
        self._observer.hashing_finished()

    def warn(self, finding: Finding) -> None:
        self._findings.append(finding)

    def log(self, message: str) -> None:
        self._observer.log(message)

    def release(self) -> None:
        """Report the findings."""
        for finding in self._findings:
            self._observer.warn(finding)


def _add_streams_of(mirror: Mirror, versions: Iterable[str]) -> Mirror:
    """Return the mirror with the streams of ``versions`` added: a stream may be a symlink."""
    streams = dict.fromkeys(mirror.streams)
    streams |= dict.fromkeys(version.partition("/")[0] for version in versions)
    return mirror.with_streams([stream for stream in streams if is_stream_name(stream)])


def _keep_streams_of(mirror: Mirror, versions: Iterable[str]) -> Mirror:
    """Return the mirror with the streams of ``versions`` and no others, if there are any."""
    streams = sorted({version.partition("/")[0] for version in versions})
    return mirror.with_streams(streams) if streams else mirror


def _find_withdrawn(mirror: Mirror, words: Iterable[str], known: Withdrawals) -> list[str]:
    """Return the withdrawn versions that ``words`` name, and whose files are there."""
    names: dict[str, None] = {}
    for word in words:
        hits = find_withdrawn(word, known, mirror.root)
        there = [name for name in hits if os.path.isdir(mirror.path(name))]
        if not there:
            raise TreeError(f"{hits[-1]}: the files of this version are gone; import it again")
        names |= dict.fromkeys(there)
    return list(names)


def _list_steps(
    deletion: Deletion,
    new: Withdrawals,
    merged: Withdrawals,
    only: Collection[str] | None = None,
) -> list[Step]:
    """Return the steps of a real run.

    Args:
        deletion: decides what would be deleted.
        new: what would be withdrawn.
        merged: what would be withdrawn then, in all.
        only: which of that the run deals with, as it was named; None: everything.
    """
    steps = [
        Step("withdraw", f"{name}/{file}" if file else name)
        for name, withdrawal in sorted(new.items())
        for file in withdrawal.files or ("",)
    ]
    plan = deletion.plan(deletion.update_times(merged), only)
    return steps + [
        Step("delete" if name in plan.due else "delete later", name)
        for name in sorted(merged if only is None else only)
    ]


def _report_plan(deletion: Deletion, steps: list[Step], observer: Observer) -> PruneReport:
    for finding in deletion.findings:
        observer.warn(finding)
    code = ExitCode.LEFT_OUT if deletion.has_failed else ExitCode.DONE
    return PruneReport(steps=tuple(steps), findings=tuple(deletion.findings), exit_code=code)


def _stamp(new: Withdrawals, now: float) -> Withdrawals:
    """Return ``new`` as it is withdrawn now."""
    return {name: replace(withdrawal, withdrawn_at=now) for name, withdrawal in new.items()}


def _merge(known: Withdrawals, new: Withdrawals) -> Withdrawals:
    """Return both; a version that is withdrawn both in part and entirely is withdrawn entirely."""
    merged = dict(known)
    for name, withdrawal in new.items():
        old = known.get(name)
        if old is None:
            merged[name] = withdrawal
        elif old.files:
            files = tuple(sorted({*old.files, *withdrawal.files})) if withdrawal.files else ()
            merged[name] = replace(withdrawal, files=files)
        elif withdrawal.is_asked_for:
            merged[name] = replace(old, is_asked_for=True, withdrawn_at=withdrawal.withdrawn_at)
    return merged
