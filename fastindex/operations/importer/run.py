"""The import from end to end: sources → plans → jobs → versions in the tree.

Each byte is read once. What is copied is hashed on the way, by the same workers that hash for a
build, and the digests go into the version's ``.items.json``, so that the next build reads nothing.
What is moved or linked within a file system is hard-linked first. A moved source is removed only
after its version is in the tree.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

from fastindex.catalogue.published import read_published_directories
from fastindex.errors import Code, PublishError, UsageError, translate_system_errors
from fastindex.events import Finding, Observer, Step
from fastindex.hashing.batches import batch_together
from fastindex.hashing.hasher import choose_hasher
from fastindex.hashing.pool import digest_observed
from fastindex.hashing.strategy import choose_strategy
from fastindex.hashing.tasks import Digested, Outcome
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import refuse_flat_trees
from fastindex.mirror.state import withdrawals
from fastindex.operations.importer.job import ImportJob, fail_to_write, start_job
from fastindex.operations.importer.options import ImportOptions, ImportReport
from fastindex.operations.importer.plan import ImportPlan, list_steps, plan_import
from fastindex.operations.importer.settings import find_bad_alias, plan_changes
from fastindex.operations.importer.sources import find_sources
from fastindex.system import signals
from fastindex.system.files import max_descriptors
from fastindex.system.stamps import COARSEST_TICK_NS

if TYPE_CHECKING:
    from concurrent.futures import Executor

_MAX_JOBS_AT_ONCE = 128
_DESCRIPTORS_A_JOB = 8
"""A job holds three: of its lock and of two directories. The rest is for the workers."""


@translate_system_errors()
def import_images(
    mirror: Mirror,
    options: ImportOptions,
    *,
    executor: Executor | None = None,
    observer: Observer | None = None,
) -> ImportReport:
    """Put images that builders made into a mirror's tree.

    Args:
        mirror: the mirror; the images go into its only stream.
        options: what to import, and how.
        executor: read and hash in this instead of worker processes.
        observer: told of progress and findings.

    Returns:
        What was done; an image that could not be imported is a finding and a count.

    Raises:
        UsageError: an option makes no sense, the mirror has several streams, or there are
            aliases for several products.
        TreeError: ROOT is missing or a stream directory, the stream is the flat tree of another
            tool, or the record of what is withdrawn cannot be used.
        ResourceError: the system ran out of something, or a disk or a directory failed.
    """
    began = time.perf_counter()
    options.check()
    bad_alias = find_bad_alias(options.aliases) if options.aliases else ""
    if bad_alias:
        raise UsageError(f"--alias: {bad_alias}")
    if len(mirror.streams) != 1:
        raise UsageError("an import goes into one stream; give one --stream only")
    mirror.require_root()
    refuse_flat_trees(mirror)
    if not options.dry_run:
        mirror = mirror.claim_cache_dir()
    run = _Import(mirror, options, observer or Observer())
    with closing(staging.Scratch()) as scratch:
        plans = run.plan(scratch)
        if options.dry_run:
            return run.report(began, run.list_steps(plans))
        _wait_until_stamps_are_trusted(plans)
        plans = run.forget_withdrawn(plans)
        at_once = min(_MAX_JOBS_AT_ONCE, max(1, max_descriptors() // _DESCRIPTORS_A_JOB))
        for start in range(0, len(plans), at_once):
            run.execute(plans[start : start + at_once], executor)
        return run.report(began)


def _wait_until_stamps_are_trusted(plans: Iterable[ImportPlan]) -> None:
    """Wait until two seconds have passed since the last write to a source.

    The digest of a younger file cannot be cached, so the next build would read it again.
    """
    youngest_ns = max(
        (file.stamp.mtime_ns for plan in plans for file in plan.planned.version.files), default=0
    )
    remaining_ns = youngest_ns + COARSEST_TICK_NS - time.time_ns()
    if 0 < remaining_ns <= COARSEST_TICK_NS:
        time.sleep(remaining_ns / 1e9)
        signals.check()


class _Import:
    """One run: what it has found and done so far."""

    def __init__(self, mirror: Mirror, options: ImportOptions, observer: Observer) -> None:
        self._mirror = mirror
        self._options = options
        self._observer = observer
        self._findings: list[Finding] = []
        self._imported: list[str] = []
        self._existing: list[str] = []
        self._failed = 0
        self._bytes_read = 0
        self._hashing_seconds = 0.0

    def report(self, began: float, steps: tuple[Step, ...] = ()) -> ImportReport:
        """Return what was done, and report the findings to the observer."""
        for finding in self._findings:
            self._observer.warn(finding)
        return ImportReport(
            imported=tuple(self._imported),
            existing=tuple(self._existing),
            failed=self._failed,
            findings=tuple(self._findings),
            steps=steps,
            bytes_read=self._bytes_read,
            hashing_seconds=self._hashing_seconds,
            seconds=time.perf_counter() - began,
        )

    def plan(self, scratch: staging.Scratch) -> list[ImportPlan]:
        """Examine all sources; return the plans for those that can be imported.

        Args:
            scratch: for the metadata of images that come without.

        Raises:
            UsageError: there are aliases for several products.
        """
        plans: dict[str, ImportPlan] = {}
        owners: dict[str, ImportPlan] = {}
        (stream,) = self._mirror.streams
        withdrawn = withdrawals.load(self._mirror)
        sources = find_sources(self._mirror, self._options, scratch, self._observer)
        self._findings += sources.findings
        for failure in sources.failures:
            self._fail(failure)
        for image in sources.images:
            plan = plan_import(image, stream, self._options.naming)
            if isinstance(plan, Finding):
                self._fail(plan)
                continue
            exists = self._exists(plan)
            if plan.missing is not None and not exists:
                self._fail(plan.missing)
                continue
            path = plan.version_path
            if exists and path in withdrawn:
                problem = f"{path} exists but is withdrawn: its files will be deleted"
                remedy = "publish it again with prune --undo, or choose another --version-name"
                self._fail(Finding(Code.VERSION_WITHDRAWN, plan.label, problem, remedy, 1))
                continue
            rival = plans.setdefault(path, plan)
            if rival is not plan:
                problem = f"would become the same version as {rival.label}: {path}"
                remedy = "put their files into one directory, or choose a --version-name"
                self._fail(Finding(Code.VERSION_EXISTS, plan.label, problem, remedy, 1))
                continue
            for part in plan.parts.values():
                other = owners.setdefault(part.path, plan)
                if other is not plan:
                    problem = f"{part.path} belongs to {other.label}, too"
                    remedy = "name each file once"
                    self._fail(Finding(Code.BAD_SOURCE, plan.label, problem, remedy, 1))
                    del plans[path]
                    break
            else:
                self._findings += plan.warnings
        products = {plan.planned.product.path for plan in plans.values()}
        if self._options.aliases and len(products) > 1:
            named = ", ".join(sorted(products))
            raise UsageError(f"--alias is for one product, but the sources are of {named}")
        return list(plans.values())

    def forget_withdrawn(self, plans: list[ImportPlan]) -> list[ImportPlan]:
        """Forget that versions are withdrawn: otherwise the next prune would delete them.

        Returns:
            The plans that can be carried out: all, unless the record cannot be written.
        """
        withdrawn = withdrawals.load(self._mirror)
        versions = {plan.version_path for plan in plans} & withdrawn.keys()
        if not versions:
            return plans
        try:
            with self._mirror.lock(float("inf")):
                known = withdrawals.load(self._mirror)
                kept = {name: known[name] for name in known.keys() - versions}
                withdrawals.save(self._mirror, kept)
                return plans
        except PublishError as error:
            for plan in plans:
                if plan.version_path in versions:
                    problem = f"is withdrawn, and the record of that cannot be written: {error}"
                    remedy = "make it writable, then import again"
                    self._fail(Finding(Code.VERSION_WITHDRAWN, plan.label, problem, remedy, 1))
            return [plan for plan in plans if plan.version_path not in versions]

    def list_steps(self, plans: list[ImportPlan]) -> tuple[Step, ...]:
        """Return the steps of all ``plans``."""
        steps: list[Step] = []
        for plan in plans:
            exists = self._exists(plan)
            steps += list_steps(plan, self._mirror, self._options.mode, exists=exists)
            changes = plan_changes(self._mirror, plan, self._options.aliases)
            steps += changes.list_steps(self._mirror)
            self._findings += changes.findings
        return tuple(steps)

    def _is_published(self, version_path: str) -> bool:
        return version_path in self._published_versions

    @cached_property
    def _published_versions(self) -> set[str]:
        return read_published_directories(self._mirror.output) or set()

    def _exists(self, plan: ImportPlan) -> bool:
        return os.path.lexists(self._mirror.path(plan.version_path))

    def _fail(self, finding: Finding) -> None:
        self._failed += 1
        self._findings.append(finding)

    def execute(self, plans: list[ImportPlan], executor: Executor | None) -> None:
        """Import each of ``plans``, several at a time."""
        with ExitStack() as stack:
            owners: dict[str, _Running] = {}
            jobs: list[ImportJob] = []
            for plan in plans:
                job = start_job(plan, self._mirror, self._options, self._is_published)
                if isinstance(job, Finding):
                    self._fail(job)
                    continue
                stack.callback(job.close)
                if not job.tasks:
                    self._finish(job, {})
                    continue
                running = _Running(job)
                owners |= {task.root.path: running for task in job.tasks}
                jobs.append(job)
            self._read(jobs, owners, executor)

    def _read(
        self, jobs: list[ImportJob], owners: dict[str, _Running], executor: Executor | None
    ) -> None:
        began = time.perf_counter()
        hashing = self._options.hashing
        roots = (task.root for job in jobs for task in job.tasks)
        strategy = choose_strategy(hashing, roots, self._observer)
        # One batch for each image: its metadata is read, and copied, once.
        batches = [batch_together(job.tasks, strategy, wants_blake3=hashing.blake3) for job in jobs]
        batches.sort(key=lambda batch: batch.size_bytes, reverse=True)
        hasher = choose_hasher(hashing, executor)
        results = digest_observed(deque(batches), strategy.jobs, hasher, self._observer)
        with closing(results):
            for batch, outcomes in results:
                for task, outcome in zip(batch.tasks, outcomes, strict=True):
                    if isinstance(outcome, Digested):
                        self._bytes_read += outcome.bytes_read
                    running = owners[task.root.path]
                    if running.add(task.root.path, outcome):
                        self._finish(running.job, running.outcomes)
        self._hashing_seconds += time.perf_counter() - began

    def _finish(self, job: ImportJob, outcomes: dict[str, Outcome]) -> None:
        try:
            failure = job.finish(outcomes)
        except OSError as error:
            failure = fail_to_write(job.plan, error)
        except staging.StagingError as error:
            failure = Finding(error.code, job.plan.label, error.problem, error.remedy, 1)
        job.close()
        self._findings += job.warnings
        if failure is not None:
            self._fail(failure)
            return
        (self._imported if job.is_new else self._existing).append(job.plan.version_path)
        self._observer.log(f"{job.plan.version_path}: imported from {job.plan.label}")


class _Running:
    """A job, with the outcomes of its tasks so far."""

    def __init__(self, job: ImportJob) -> None:
        self.job = job
        self.outcomes: dict[str, Outcome] = {}

    def add(self, path: str, outcome: Outcome) -> bool:
        """Add one outcome; return whether it was the last."""
        self.outcomes[path] = outcome
        return len(self.outcomes) == len(self.job.tasks)
