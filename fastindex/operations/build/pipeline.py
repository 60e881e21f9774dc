"""The pipeline's front door: options → lock → scan → nothing to do, or the rest of it.

There is one hashing path and one publishing path, and everything goes through here.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from fastindex.errors import UsageError
from fastindex.events import Finding, Observer
from fastindex.formats.names import is_stream_name
from fastindex.hashing.strategy import check
from fastindex.mirror import scan
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import Settling
from fastindex.mirror.state import notes, snapshot, withdrawals
from fastindex.mirror.tree import Found, Notes
from fastindex.operations.build.options import BuildOptions, BuildReport

if TYPE_CHECKING:
    from concurrent.futures import Executor


def build(
    options: BuildOptions, *, executor: Executor | None = None, observer: Observer | None = None
) -> BuildReport:
    """Index a mirror: hash what is new, write the catalogue that clients read.

    Args:
        options: what to do.
        executor: where to hash instead of a process pool of ``options.jobs`` workers; any
            ``concurrent.futures.Executor``. It is not shut down.
        observer: told of progress; None: nobody.

    Returns:
        What was done, with a finding for everything that was left out.

    Raises:
        UsageError: options that make no sense.
        TreeError: a stream directory is missing, or has become empty.
        BrakeError: more than half of the published versions would go.
        LockHeldError: another run holds the lock.
        PublishError: the catalogue could not be written.
    """
    began = time.perf_counter()
    _check(options)
    root = scan.absolute(options.root)
    output = scan.absolute(options.output_dir or root)
    for stream in options.streams:
        scan.require_stream(root, stream)
    observer = observer or Observer()
    with _lock(output, options), _without_garbage_collection():
        found, findings = _scan(root, options.streams)
        withdrawn = withdrawals.load(output)
        found = withdrawals.left(found, withdrawn)
        damaged = notes.load_damaged(output)
        settings = SettingsReader(root)
        state = snapshot.state_of(options.streams, found, findings, settings, damaged)
        settling = Settling(root, options.settle_seconds)
        last = _unchanged_since(output, options, found, state, settling)
        if last is not None:
            for finding in last.findings:
                observer.warn(finding)
            return _nothing_done(last, time.perf_counter() - began)
        # Only now, because a run with nothing to do starts the quicker without it.
        from fastindex.operations.build.rebuild import Rebuild

        noted = Notes(withdrawals.whole(withdrawn), damaged)
        rebuild = Rebuild(options, root, output, observer, settings, findings, noted, settling)
        report, is_final = rebuild.run(found, executor, began)
        if is_final and not options.dry_run:
            _remember(output, options, state, report)
    return report


def _check(options: BuildOptions) -> None:
    check(options.jobs, options.engine)
    if options.settle_seconds < 0 or options.wait_seconds < 0:
        raise UsageError("--settle and --wait take seconds from 0 on")
    if not options.streams or len(set(options.streams)) < len(options.streams):
        raise UsageError("--stream: name each stream once")
    if options.recheck:
        from fastindex.operations.build.recheck import parse_share  # where it is asked for

        parse_share(options.recheck)
    for stream in options.streams:
        if not is_stream_name(stream):
            raise UsageError(f"--stream {stream!r}: no name that a stream directory can have")


def _lock(output: str, options: BuildOptions) -> AbstractContextManager[None]:
    if options.dry_run:
        return nullcontext()
    return notes.lock(output, options.wait_seconds)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Spare the collector: 100,000s of values are made here, none of them in a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _scan(root: str, streams: tuple[str, ...]) -> tuple[list[Found], list[Finding]]:
    found: list[Found] = []
    findings: list[Finding] = []
    for stream in streams:
        walk = scan.Scan(root, stream)
        found += walk.products()
        findings += walk.findings
    return found, findings


def _snapshot_path(output: str) -> str:
    return notes.path_of(output, ".snapshot.json")


def _unchanged_since(
    output: str, options: BuildOptions, found: list[Found], state: str, settling: Settling
) -> snapshot.Snapshot | None:
    """Return what the last run remembered, if this one would only do the same again."""
    if options.dry_run or options.rehash or options.recheck:
        return None
    last = snapshot.load(_snapshot_path(output))
    if last is None or last.state != state:
        return None
    if any(settling.is_young(version) for _, versions in found for version in versions):
        return None
    is_published = last.published == snapshot.published_digest(output, options.streams)
    return last if is_published else None


def _nothing_done(last: snapshot.Snapshot, seconds: float) -> BuildReport:
    """Return the report of a run that found what the last one found."""
    return BuildReport(
        products=last.products,
        versions=last.versions,
        files_reused=last.files,
        seconds=seconds,
        findings=tuple(last.findings),
    )


def _remember(output: str, options: BuildOptions, state: str, report: BuildReport) -> None:
    """Let the next run see whether anything has changed since this one."""
    last = snapshot.Snapshot(
        state=state,
        published=snapshot.published_digest(output, options.streams),
        products=report.products,
        versions=report.versions,
        files=report.files_hashed + report.files_reused,
        findings=list(report.findings),
    )
    # It saves seconds; a run is none the worse without. A finding about a name that is
    # no UTF-8 has no JSON form.
    with suppress(OSError, UnicodeEncodeError):
        snapshot.save(_snapshot_path(output), last)
