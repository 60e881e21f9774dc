"""The build from end to end: lock → scan → nothing to do, or plan → digest → assemble → publish.

Every catalogue is made here: there is one path for hashing, and one for publishing.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastindex.errors import translate_system_errors
from fastindex.events import Observer
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import Scanned, collect, scan, split_streams
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state import outputs, snapshot, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.snapshot import Snapshot
from fastindex.operations.builder.options import BuildOptions, BuildReport

if TYPE_CHECKING:
    from concurrent.futures import Executor


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
    if options.recheck:
        from fastindex.operations.builder.recheck import parse_share  # rarely asked for

        parse_share(options.recheck)
    mirror, unlisted = split_streams(mirror)
    observer = observer or Observer()
    needs_lock = not (options.dry_run or is_locked)
    with mirror.lock(options.wait_seconds) if needs_lock else nullcontext():
        if not options.dry_run:
            mirror = mirror.claim_cache_dir()
            outputs.record(mirror)
        withdrawn = withdrawals.load(mirror)
        damaged = DamagedFiles(mirror)
        scanned = collect(scan(mirror))
        scanned.findings += unlisted
        scanned.findings += outputs.find_publication_faults(mirror)
        scanned.findings += withdrawals.find_newer_files(mirror, scanned.found, withdrawn)
        scanned.found = withdrawals.drop_withdrawn(scanned.found, withdrawn)
        settings = SettingsReader(mirror)
        period = SettlePeriod(mirror, options.settle_seconds)
        state = snapshot.digest_state(mirror, scanned.found, scanned.findings, settings, damaged)
        last = _find_unchanged(mirror, options, scanned, period, state)
        if last is not None:
            for finding in last.findings:
                observer.warn(finding)
            return _report_unchanged(last, time.perf_counter() - began)
        # Imported here, so that a run with nothing to do starts faster.
        from fastindex.operations.builder.inputs import RebuildInputs
        from fastindex.operations.builder.rebuild import rebuild

        going = withdrawals.list_withdrawn_versions(withdrawn)
        inputs = RebuildInputs(scanned, settings, period, damaged, going)
        report, is_final = rebuild(mirror, options, inputs, observer, executor, began)
        if is_final and not options.dry_run:
            _save_snapshot(mirror, state, report)
    return report


def _find_unchanged(
    mirror: Mirror, options: BuildOptions, scanned: Scanned, period: SettlePeriod, state: str
) -> Snapshot | None:
    """Return what the last run saw, if this one would only do the same again."""
    if options.dry_run or options.rehash or options.recheck:
        return None
    last = snapshot.load(mirror)
    if last is None or last.state != state:
        return None
    if any(period.is_young(version) for _, versions in scanned.found for version in versions):
        return None
    return last if last.published == snapshot.digest_published(mirror) else None


def _report_unchanged(last: Snapshot, seconds: float) -> BuildReport:
    """Return the report of a run that found what the last one found."""
    return BuildReport(
        products=last.products,
        versions=last.versions,
        files_reused=last.files,
        seconds=seconds,
        findings=tuple(last.findings),
    )


def _save_snapshot(mirror: Mirror, state: str, report: BuildReport) -> None:
    """Save what the next run needs to see whether anything has changed since this one."""
    last = Snapshot(
        state=state,
        published=snapshot.digest_published(mirror),
        products=report.products,
        versions=report.versions,
        files=report.files_hashed + report.files_reused,
        findings=Snapshot.select_lasting(report.findings),
    )
    snapshot.save(mirror, last)
