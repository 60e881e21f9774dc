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
from collections.abc import Callable, Collection, Iterable, Set
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

from msgspec.structs import replace

from fastindex.catalogue.images import Image, list_images
from fastindex.catalogue.published import (
    Mismatch,
    open_catalogue,
    read_published_paths,
)
from fastindex.errors import (
    Code,
    ExitCode,
    FastindexError,
    TreeError,
    UsageError,
    translate_system_errors,
)
from fastindex.events import Observer, Step
from fastindex.formats.names import is_stream_name
from fastindex.formats.simplestreams import product_file_path
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import collect, require_streams, scan
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state import outputs, pulled, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.builder.pipeline import build
from fastindex.operations.prune.deletion import Deletion, drop_withdrawn_paths
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.retention import choose_versions_to_withdraw, is_complete
from fastindex.operations.prune.session import Clock, Session, add_streams_of
from fastindex.operations.prune.targets import (
    find_copies,
    find_targets,
    find_withdrawn,
    make_withdrawals,
)

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
    with mirror.lock(options.build.wait_seconds), ExitStack() as stack:
        session = Session(mirror, options, observer, clock, stack, _NOTHING_BY_AGE)
        is_indexed_elsewhere = not outputs.has_catalogue(mirror) and _has_caches(mirror)
        session.start()
        session.build(mirror)
        found = withdrawals.drop_withdrawn(session.scan_unsettled(), session.known)
        if any(versions for _, versions in found) or not session.is_alone:
            published = session.read_published_paths()
            # Of what another catalogue names it would not be known what may go.
            if published is not None and session.can_delete():
                new = _choose_old(mirror, options, found, published, clock)
                if new:
                    session.withdraw(new)
                    session.build(mirror)
        if is_indexed_elsewhere:
            session.warn_of_first_run()
        else:
            session.delete(with_leftovers=True)
    return session.report()


def _choose_old(
    mirror: Mirror, options: PruneOptions, found: list[Found], published: Set[str], clock: Clock
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
        for _, versions in collect(scan(mirror)).found
        for version in versions
    )


def _plan_prune(
    mirror: Mirror, options: PruneOptions, observer: Observer, clock: Clock
) -> PruneReport:
    """Return what ``prune`` would do, if all that is complete and settled can be published."""
    known = withdrawals.load(mirror)
    everything = collect(scan(mirror)).found
    found = withdrawals.drop_withdrawn(everything, known)
    published = read_published_paths(mirror.output)
    new: Withdrawals = {}
    read_own: Callable[[], set[str]] | None = None
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
        gone = withdrawals.merge(known, new)
        read_own = partial(drop_withdrawn_paths, published | soon, gone)
    merged = withdrawals.merge(known, withdrawals.stamp(new, clock()))
    deletion = Deletion(
        add_streams_of(mirror, merged),
        options.grace_seconds,
        clock(),
        read_own,
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
    with open_catalogue(mirror.output) as published:
        streams, mismatches = [file.stream for file in published.files], published.mismatches
        mirror = _choose_streams(mirror, streams)
        require_streams(mirror)
        images = list(list_images(published.sorted_products()))
    found = collect(scan(mirror)).found
    try:
        targets = find_targets(names, images, found, mirror.root)
    except UsageError as error:
        raise _explain_unread(error, streams, mismatches) from None
    known = withdrawals.load(mirror)
    rest = withdrawals.drop_withdrawn(found, known)
    new = find_copies(mirror, rest, targets.fingerprints)
    new = withdrawals.merge(new, make_withdrawals(targets, images))
    _require_own_streams(mirror, new, streams)
    require_streams(_keep_streams_of(mirror, new))
    _require_directories(mirror, new)
    if options.build.dry_run:
        new = withdrawals.stamp(new, clock())
        merged = withdrawals.merge(known, new)
        paths = read_published_paths(mirror.output)
        read_own = None if paths is None else partial(drop_withdrawn_paths, paths, new)
        deletion = Deletion(mirror, options.grace_seconds, clock(), read_own)
        return _report_plan(deletion, _list_steps(deletion, new, merged, new), observer)
    with mirror.lock(options.build.wait_seconds), ExitStack() as stack:
        session = Session(mirror, options, observer, clock, stack)
        session.start()
        if targets.fingerprints:
            # Copies that no cache knows yet would be published in the place of the image.
            session.build(mirror, is_needed=False)
            rest = withdrawals.drop_withdrawn(session.scan(), session.known)
            new = withdrawals.merge(find_copies(mirror, rest, targets.fingerprints), new)
        for _ in range(_MAX_ROUNDS):
            session.withdraw(new)
            # No other stream: one that cannot be published is no reason not to remove an image.
            session.build(_keep_streams_of(mirror, new))
            # Others may have uploaded copies meanwhile.
            images = _list_published_images(mirror)
            rest = withdrawals.drop_withdrawn(session.scan(), session.known)
            new = find_copies(mirror, rest, targets.fingerprints)
            new = withdrawals.merge(
                new, make_withdrawals(replace(targets, versions=frozenset()), images)
            )
            if not new:
                break
        session.delete(with_leftovers=False)
    return session.report()


def _list_published_images(mirror: Mirror) -> list[Image]:
    with open_catalogue(mirror.output) as published:
        return list(list_images(published.sorted_products()))


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
        mirror = add_streams_of(mirror, names)
        require_streams(mirror)
        for name in names:
            known.pop(name, None)
        pulled.note_removed(mirror, names, is_removed=False)
        withdrawals.save(mirror, known)
        built = build(mirror, options.build, observer=observer, is_locked=True)
    return PruneReport(
        restored=tuple(names), findings=built.findings, built=built, exit_code=built.exit_code
    )


def _explain_unread(
    error: UsageError, streams: Iterable[str], mismatches: Iterable[Mismatch]
) -> FastindexError:
    """Return ``error``, or a better one if a part of the catalogue could not be read."""
    read = set(map(product_file_path, streams))
    unread = [
        f"  {one.version}: {one.problem}"
        for one in mismatches
        if not one.file and (one.version not in read or one.code is Code.PRODUCT_LOST)
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
    steps += [
        Step("delete" if name in plan.due else "delete later", name)
        for name in sorted(merged if only is None else only)
    ]
    return steps + [Step("delete", path) for name in plan.due for path in plan.deltas.get(name, ())]


def _report_plan(deletion: Deletion, steps: list[Step], observer: Observer) -> PruneReport:
    for finding in deletion.findings:
        observer.warn(finding)
    code = ExitCode.LEFT_OUT if deletion.has_failed else ExitCode.DONE
    return PruneReport(steps=tuple(steps), findings=tuple(deletion.findings), exit_code=code)
