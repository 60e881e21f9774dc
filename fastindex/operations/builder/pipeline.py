"""The build from end to end: lock → scan → nothing to do, or plan → digest → assemble → publish.

Every catalogue is made here: there is one path for hashing, and one for publishing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fastindex.errors import translate_system_errors
from fastindex.events import Finding, Observer, count, report_findings
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import ScanStatistics, scan, split_streams
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state import companions, deltas, known, outputs, snapshot, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.known import KnownStreams
from fastindex.mirror.state.snapshot import PublishedDigests, Snapshot
from fastindex.operations.builder.inputs import (
    BuildInputs,
    ExaminedProduct,
    Examiner,
    StaleStateError,
)
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.system.processes import count_usable_cpus

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from fastindex.operations.builder.rebuild import Rebuild


@translate_system_errors()
def build(
    mirror: Mirror,
    options: BuildOptions,
    *,
    executor: Executor | None = None,
    observer: Observer | None = None,
    is_locked: bool = False,
) -> BuildReport:
    """Index a mirror: hash what is new, and write the catalogue that clients read.

    Args:
        mirror: the mirror.
        options: how to build.
        executor: hash in this instead of worker processes; it is not shut down.
        observer: told of progress and findings.
        is_locked: whether the caller holds the mirror's lock already.

    Returns:
        What was done, with a finding for everything that was left out.

    Raises:
        UsageError: an option makes no sense.
        TreeError: a stream directory is missing or has become empty, or a file that an earlier
            run left in ``streams/`` cannot be used.
        BrakeError: more than half of a stream's published versions would go.
        LockHeldError: another run holds the lock.
        PublishError: the lock or the catalogue cannot be written.
        ResourceError: the system ran out of something, or a disk or a directory failed.
    """
    began = time.perf_counter()
    options.check()
    mirror, unlisted = split_streams(mirror)
    observer = observer or Observer()
    needs_lock = not (options.dry_run or is_locked)
    with mirror.lock(options.wait_seconds) if needs_lock else nullcontext():
        if not options.dry_run:
            mirror = mirror.claim_cache_dir()
            outputs.record(mirror)
            if options.rehash:
                known.forget(mirror)  # even if this run does not get to its end
        context = snapshot.digest_context(mirror)
        digests = snapshot.digest_published(mirror)
        streams = digests.streams if not options.rehash else {}
        inputs = BuildInputs(
            SettingsReader(mirror),
            SettlePeriod(mirror, options.settle_seconds),
            DamagedFiles(mirror),
            withdrawals.load(mirror),
            context,
            known.load(mirror, context, streams),
            digests.everything,
            deltas.load(mirror).rules,
        )
        unlisted += outputs.find_publication_faults(mirror)
        try:
            return _build(mirror, options, inputs, digests, unlisted, observer, executor, began)
        except StaleStateError:
            inputs = replace(inputs, settings=SettingsReader(mirror), known=KnownStreams({}, {}))
            return _build(mirror, options, inputs, digests, unlisted, observer, executor, began)


def _build(
    mirror: Mirror,
    options: BuildOptions,
    inputs: BuildInputs,
    digests: PublishedDigests,
    findings: list[Finding],
    observer: Observer,
    executor: Executor | None,
    began: float,
) -> BuildReport:
    """Scan, and publish if anything has changed."""
    examiner = Examiner(mirror, options, inputs)
    jobs = options.hashing.jobs or count_usable_cpus()
    scanning = scan(mirror, known=examiner.listings, jobs=jobs, scanners=options.scanners)
    kept: list[ExaminedProduct] = []
    rebuild: Rebuild | None = None
    total = sum(len(stream.products) for stream in inputs.known.streams.values())
    with (
        ExitStack() as stack,
        closing(iter(scanning)) as found,
        closing(count(observer, "scanning", "product", total, found)) as products,
    ):
        for scanned in products:
            examined = examiner.examine(scanned)
            if rebuild is None and examined.known is not None:
                kept.append(examined)
                continue
            if rebuild is None:
                rebuild = _start_rebuild(mirror, options, inputs, observer, stack, kept)
            rebuild.take(examined)
        _log_scan(observer, scanning.statistics)
        findings = [*findings, *scanning.findings]
        if rebuild is None:
            last = _find_unchanged(mirror, options, inputs, digests, kept)
            if last is not None:
                _note_listings(mirror, inputs.known, last, kept)
                accompanied = _accompany(mirror, options, digests)
                return _report_unchanged(inputs, last, kept, findings, observer, began, accompanied)
            rebuild = _start_rebuild(mirror, options, inputs, observer, stack, kept)
        return rebuild.finish(findings, executor, began)


def _log_scan(observer: Observer, scanned: ScanStatistics) -> None:
    rate = scanned.files / scanned.seconds if scanned.seconds else 0
    threads = "1 thread" if scanned.scanners == 1 else f"{scanned.scanners} threads"
    observer.log(
        f"scanned {scanned.directories:,} directories and {scanned.files:,} files in "
        f"{scanned.seconds:.2f} s with {threads}: {rate:,.0f} files a second"
    )


def _start_rebuild(
    mirror: Mirror,
    options: BuildOptions,
    inputs: BuildInputs,
    observer: Observer,
    stack: ExitStack,
    kept: list[ExaminedProduct],
) -> Rebuild:
    """Return a rebuild that has taken the products found so far, all as they were."""
    # Imported here, so that a run with nothing to do starts faster.
    from fastindex.operations.builder.rebuild import Rebuild

    rebuild = Rebuild(mirror, options, inputs, observer, stack)
    for examined in kept:
        rebuild.take(examined)
    return rebuild


def _find_unchanged(
    mirror: Mirror,
    options: BuildOptions,
    inputs: BuildInputs,
    digests: PublishedDigests,
    kept: list[ExaminedProduct],
) -> Snapshot | None:
    """Return what the last run saw, if all products are as they were, and so is the catalogue."""
    if options.dry_run or options.rehash or options.recheck:
        return None
    streams = inputs.known.streams
    if len(streams) < len(mirror.streams):
        return None
    if len(kept) < sum(len(stream.products) for stream in streams.values()):
        return None
    last = snapshot.load(mirror)
    known_digest = snapshot.digest_known(mirror, inputs.known.checksums.values())
    if last is None or last.known != known_digest:
        return None
    return last if last.published == digests.everything != "" else None


def _note_listings(
    mirror: Mirror, known_streams: KnownStreams, last: Snapshot, kept: list[ExaminedProduct]
) -> None:
    """Save the listings of products that had others before, so that the next run is quicker.

    A change of owners or of hard links changes listings, and nothing else.
    """
    listings = {
        examined.scanned.product.path: examined.scanned.listing
        for examined in kept
        if examined.known is not None and examined.known.listing != examined.scanned.listing
    }
    if listings:
        checksums = known.save_listings(mirror, known_streams, listings)
        if all(checksums):
            digest = snapshot.digest_known(mirror, checksums)
            snapshot.save(mirror, replace(last, known=digest))


def _accompany(
    mirror: Mirror, options: BuildOptions, digests: PublishedDigests
) -> tuple[tuple[str, ...], Iterable[Finding]]:
    """Make what is to accompany a catalogue that stays as it is.

    Returns:
        The paths that were written, and what people should know of copies of the catalogue.
    """
    known_companions = companions.load(mirror)
    fingerprints = options.makers.fingerprints
    if companions.is_current(mirror, known_companions, fingerprints, digests.everything):
        return (), companions.find_stale(mirror)
    from fastindex.operations.builder.publishing import publish

    done = publish(mirror, (), options.makers, time.time(), before=digests.everything)
    return done.wrote, done.findings


def _report_unchanged(
    inputs: BuildInputs,
    last: Snapshot,
    kept: list[ExaminedProduct],
    findings: list[Finding],
    observer: Observer,
    began: float,
    accompanied: tuple[tuple[str, ...], Iterable[Finding]],
) -> BuildReport:
    """Return the report of a run that found what the last one found."""
    products = [examined.known for examined in kept if examined.known is not None]
    found = [*findings, *last.findings]
    wrote, more = accompanied
    found += more
    found += [finding for examined in kept for finding in examined.scanned.findings]
    found += [finding for product in products for finding in product.findings]
    paths = {path for examined in kept for path in examined.scanned.product.dotfiles}
    for stream in inputs.known.streams.values():
        for path, some in stream.settings.items():
            found += some if path in paths else []
    ordered = report_findings(observer, found)
    seconds = time.perf_counter() - began
    return BuildReport(
        is_unchanged=True,
        wrote=wrote,
        products=sum(product.versions > 0 for product in products),
        versions=sum(product.versions for product in products),
        files_reused=sum(product.files for product in products),
        seconds=seconds,
        scanning_seconds=seconds,
        findings=ordered,
    )
