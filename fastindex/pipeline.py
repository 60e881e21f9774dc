"""The pipeline, top to bottom: scan → plan → digest → catalogue → publish.

There is one hashing path and one publishing path, and everything goes through here.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext

from fastindex import atomic, cache, catalogue, plan, pool, publish, scan
from fastindex.contract import STREAMS_DIRECTORY, Item, Product, ProductFile, unfit_character
from fastindex.errors import FastindexError, UsageError
from fastindex.model import (
    Batch,
    BuildOptions,
    BuildReport,
    Change,
    Digested,
    FileId,
    Finding,
    FoundProduct,
    FoundStream,
    FoundVersion,
    Observer,
    Outcome,
    PlannedVersion,
)
from fastindex.requirements import RequirementsReader


class Silent:
    """An observer that looks away."""

    wants_progress = False

    def hashing_starts(self, total_bytes: int) -> None:
        """Look away."""

    def bytes_done(self, done_bytes: int) -> None:
        """Look away."""

    def hashing_ends(self) -> None:
        """Look away."""

    def note(self, message: str) -> None:
        """Look away."""


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
    root = os.path.abspath(options.root)
    output = os.path.abspath(options.output_dir or root)
    for stream in options.streams:
        scan.require_stream(root, stream)
    with _lock(output, options), _without_garbage_collection():
        streams = [scan.scan_stream(root, stream) for stream in options.streams]
        run = _Run(options, root, observer or Silent(), executor)
        planned = run.plan(streams)
        digests = run.digest([version for _, versions in planned for version in versions])
        documents = run.catalogue(streams, planned, digests)
        drafts = [publish.draft(output, document) for document in documents]
        refusal = _refusal(drafts, options)
        changes: list[Change] = []
        wrote: tuple[str, ...] = ()
        if options.dry_run:
            changes = [change for item in drafts for change in publish.changes(item)]
        else:
            wrote = publish.write(output, drafts)
    return run.report(drafts, refusal, changes, wrote, time.perf_counter() - began)


def _check(options: BuildOptions) -> None:
    if options.jobs is not None and options.jobs < 1:
        raise UsageError("--jobs takes a number from 1 on")
    if options.settle_seconds < 0 or options.wait_seconds < 0:
        raise UsageError("--settle and --wait take seconds from 0 on")
    if not options.streams or len(set(options.streams)) < len(options.streams):
        raise UsageError("--stream: name each stream once")
    for stream in options.streams:
        is_name = stream and "/" not in stream and stream[0] != "." and ":" not in stream
        if not is_name or unfit_character(stream) or stream in ("index", STREAMS_DIRECTORY):
            raise UsageError(f"--stream {stream!r}: no name that a stream directory can have")


def _lock(output: str, options: BuildOptions) -> AbstractContextManager[None]:
    if options.dry_run:
        return nullcontext()
    path = os.path.join(output, STREAMS_DIRECTORY, ".lock")
    return atomic.lock(path, options.wait_seconds)


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


def _refusal(drafts: list[publish.Draft], options: BuildOptions) -> str:
    """Return why nothing may be published, on a dry run; raise it on a real one."""
    try:
        publish.check(drafts, force=options.force)
    except FastindexError as error:
        if not options.dry_run:
            raise
        return str(error)
    return ""


class _Run:
    """One build: its options, and the findings and figures that its stages leave."""

    def __init__(
        self, options: BuildOptions, root: str, observer: Observer, executor: Executor | None
    ) -> None:
        self._options = options
        self._root = root
        self._observer = observer
        self._executor = executor
        self._findings: list[Finding] = []
        self._settling = 0
        self._reused = 0
        self._hashed = 0
        self._bytes_read = 0
        self._hashing_seconds = 0.0
        self._unsaved: list[tuple[str, str]] = []

    def plan(self, streams: list[FoundStream]) -> list[tuple[FoundProduct, list[PlannedVersion]]]:
        """Decide for every version what the cache vouches for and what is to be read."""
        self._findings += [finding for stream in streams for finding in stream.findings]
        planned: list[tuple[FoundProduct, list[PlannedVersion]]] = []
        for stream in streams:
            for product in stream.products:
                versions = [
                    version
                    for found in product.versions
                    if (version := self._plan_version(found, product)) is not None
                ]
                planned.append((product, versions))
        return planned

    def _plan_version(self, found: FoundVersion, product: FoundProduct) -> PlannedVersion | None:
        options = self._options
        if options.settle_seconds and plan.is_settling(
            found, time.time_ns() - round(options.settle_seconds * 1e9)
        ):
            self._settling += 1
            self._observer.note(f"{found.path}: has young files, left for the next run")
            return None
        selection, findings = plan.select(found, product)
        self._findings += findings
        missing = plan.missing_part(found, selection)
        if missing is not None:
            self._findings.append(missing)
            return None
        cached = cache.NO_CACHE
        if not options.rehash:
            cached = cache.load(self._root, options.cache_dir, found.path)
        version = plan.plan_version(found, selection, cached)
        if version.is_adopted and not version.pending:
            self._save(version, version.items)
        return version

    def digest(self, versions: list[PlannedVersion]) -> dict[str, catalogue.Digests]:
        """Read what must be read; return every version's digests by its path."""
        options = self._options
        digests = {version.version.path: version.items for version in versions}
        self._reused = sum(plan.count_reused(version) for version in versions)
        pending = [version for version in versions if version.pending]
        batches = plan.batches(pending, self._root, wants_blake3=options.blake3)
        if not batches:
            return digests
        began = time.perf_counter()
        hashing = _Hashing(pending)
        self._observer.hashing_starts(sum(batch.size_bytes for batch in batches))
        try:
            for batch, outcomes in pool.run(
                batches,
                options.jobs or _usable_cpus(),
                self._executor,
                self._observer.bytes_done if self._observer.wants_progress else None,
            ):
                for version in hashing.completed_by(batch, outcomes):
                    self._finish(version, hashing, digests)
        finally:
            # Interrupted: what was read so far is not to be read again.
            for version in hashing.incomplete():
                self._finish(version, hashing, digests)
            self._observer.hashing_ends()
        self._bytes_read, self._hashed = hashing.bytes_read, hashing.files_read
        self._hashing_seconds = time.perf_counter() - began
        return digests

    def _finish(
        self,
        version: PlannedVersion,
        hashing: _Hashing,
        digests: dict[str, catalogue.Digests],
    ) -> None:
        path = version.version.path
        items, findings = plan.merge(version, hashing.outcomes)
        self._findings += findings
        self._findings += plan.future_stamps(version, items, time.time_ns())
        self._save(version, items)
        is_lost = any(finding.versions_left_out for finding in findings)
        digests[path] = {} if is_lost else items
        self._observer.note(f"{path}: hashed")

    def _save(self, version: PlannedVersion, items: catalogue.Digests) -> None:
        if self._options.dry_run or not items:
            return
        directory = self._options.cache_dir or self._root
        path = cache.cache_path(directory, version.version.path)
        try:
            cache.save(path, items, version.metadata_ftypes)
        except OSError as error:
            self._unsaved.append((path, error.strerror or str(error)))

    def catalogue(
        self,
        streams: list[FoundStream],
        planned: list[tuple[FoundProduct, list[PlannedVersion]]],
        digests: dict[str, catalogue.Digests],
    ) -> list[ProductFile]:
        """Return the product file of each stream, free of conflicts."""
        reader = RequirementsReader(self._root)
        products: dict[str, dict[str, Product]] = {stream.name: {} for stream in streams}
        paths: dict[tuple[str, str], str] = {}
        for found, versions in planned:
            entries: dict[str, dict[str, Item]] = {}
            for version in versions:
                items = catalogue.version_items(version, digests[version.version.path])
                if isinstance(items, Finding):
                    self._findings.append(items)
                else:
                    entries[version.version.name] = items
            if entries:
                requirements = reader.merged(found.dotfiles)
                stream = found.path.partition("/")[0]
                products[stream][found.key] = catalogue.product(found, requirements, entries)
                paths[stream, found.key] = found.path
        documents, conflicts = catalogue.without_conflicts(
            ProductFile(content_id=stream, products=entries) for stream, entries in products.items()
        )
        self._findings += reader.findings
        self._findings += conflicts
        self._findings += catalogue.lint(documents, paths)
        return documents

    def report(
        self,
        drafts: list[publish.Draft],
        refusal: str,
        changes: list[Change],
        wrote: tuple[str, ...],
        seconds: float,
    ) -> BuildReport:
        """Sum the run up."""
        products = [entry for d in drafts for entry in d.document.products.values()]
        if self._unsaved:
            path, reason = self._unsaved[0]
            self._findings.append(
                Finding(
                    path,
                    f"cannot be written ({reason}), nor can {len(self._unsaved) - 1} others; "
                    "their files will be read again by the next run",
                    "give this user the right to write there, or name a --cache-dir",
                )
            )
        return BuildReport(
            products=len(products),
            versions=sum(len(entry.versions) for entry in products),
            files_hashed=self._hashed,
            files_reused=self._reused,
            bytes_read=self._bytes_read,
            hashing_seconds=self._hashing_seconds,
            seconds=seconds,
            versions_settling=self._settling,
            findings=tuple(sorted(self._findings, key=lambda finding: finding.path)),
            changes=tuple(changes),
            refusal=refusal,
            product_files={d.document.content_id: d.data for d in drafts},
            wrote=wrote,
        )


class _Hashing:
    """Which versions wait for which files."""

    def __init__(self, versions: list[PlannedVersion]) -> None:
        self.outcomes: dict[FileId, Outcome] = {}
        self.bytes_read = 0
        self.files_read = 0
        self._waiting: dict[str, set[FileId]] = {}
        self._versions: dict[str, PlannedVersion] = {}
        self._users: dict[FileId, list[str]] = {}
        for version in versions:
            path = version.version.path
            self._versions[path] = version
            self._waiting[path] = {file.id for file in version.pending}
            for id_ in self._waiting[path]:
                self._users.setdefault(id_, []).append(path)

    def completed_by(self, batch: Batch, outcomes: tuple[Outcome, ...]) -> list[PlannedVersion]:
        """Take the outcomes of ``batch``; return the versions that wait for nothing more."""
        completed: list[PlannedVersion] = []
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            self.outcomes[task.root.id] = outcome
            if isinstance(outcome, Digested):
                self.bytes_read += outcome.bytes_read
                self.files_read += outcome.files_read
            for path in self._users[task.root.id]:
                self._waiting[path].discard(task.root.id)
                if not self._waiting[path]:
                    completed.append(self._versions.pop(path))
        return completed

    def incomplete(self) -> list[PlannedVersion]:
        """Return the versions of which some files are read and some are not."""
        return [
            version
            for path, version in self._versions.items()
            if len(self._waiting[path]) < len({file.id for file in version.pending})
        ]


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
