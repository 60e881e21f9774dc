"""Builders' output → version directories: found, planned, read once, published whole.

Each byte is read once: what is copied is hashed on the way by the same workers that hash
for a build, and the digests go into the version's ``.items.json``, so that the next build
reads nothing. What is moved or linked within a file system is hard-linked first; a moved
source is removed only once its version stands in the tree.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

from fastindex.errors import TreeError, UsageError
from fastindex.events import Finding, Observer, Step
from fastindex.formats.names import is_stream_name
from fastindex.formats.recognition import Part, group, parse_checksums, recognise
from fastindex.formats.simplestreams import CHECKSUMS_NAME, IMAGE_YAML_NAME
from fastindex.hashing import pool
from fastindex.hashing.batches import together
from fastindex.hashing.strategy import check, prepare
from fastindex.mirror import removal
from fastindex.mirror.cache import TICK_NS
from fastindex.mirror.scan import absolute
from fastindex.mirror.staging import status_of_file
from fastindex.mirror.state import notes, withdrawals
from fastindex.mirror.tree import Digested, Outcome
from fastindex.operations.importer.job import ImportJob, begin
from fastindex.operations.importer.options import ImportOptions, ImportReport
from fastindex.operations.importer.plan import Extra, Image, ImportPlan, plan_import, steps
from fastindex.system import signals
from fastindex.system.atomic import read_small_file

if TYPE_CHECKING:
    from concurrent.futures import Executor

_MOST_CHECKSUMS_BYTES = 1 << 20
_AT_A_TIME = 128
"""Imports begun together: each holds a lock, and so a file descriptor."""


def import_images(
    options: ImportOptions,
    *,
    executor: Executor | None = None,
    observer: Observer | None = None,
) -> ImportReport:
    """Put images that builders made into a mirror's tree.

    Args:
        options: what to do.
        executor: where to read instead of a process pool of ``options.jobs`` workers.
        observer: told of progress; None: nobody.

    Returns:
        What was done; an image that could not be imported is a finding and a count.

    Raises:
        UsageError: options that make no sense.
        TreeError: ROOT is not there, or its note of what is withdrawn cannot be used.
    """
    began = time.perf_counter()
    root = _checked(options)
    run = _Import(options, root, observer or Observer())
    plans = run.plan()
    if options.dry_run:
        return run.report(began, run.steps(plans))
    _wait_until_settled(plans)
    _forget_withdrawn(run.output, {plan.version_path for plan in plans})
    for start in range(0, len(plans), _AT_A_TIME):
        run.carry_out(plans[start : start + _AT_A_TIME], executor)
    return run.report(began)


def _checked(options: ImportOptions) -> str:
    """Return the absolute path of ROOT."""
    check(options.jobs, options.engine)
    if not is_stream_name(options.stream):
        raise UsageError(f"--stream {options.stream!r}: no name that a stream directory can have")
    if not options.sources:
        raise UsageError("name at least one SOURCE, and ROOT")
    root = absolute(options.root)
    if not os.path.isdir(root):
        raise TreeError(
            f"{root}: ROOT is no directory; name the one that the web server serves, or make it"
        )
    return root


def _places_in(root: str) -> tuple[str, ...]:
    """Return what real paths in the mirror begin with: ROOT, and where links in it lead.

    Any directory in ROOT may be a stream that is published, by this name or another, into
    whatever output; and a stream may be a link to another disk.
    """
    tops = [root]
    with suppress(OSError), os.scandir(root) as entries:
        tops += [entry.path for entry in entries if entry.is_symlink() and entry.is_dir()]
    return tuple(os.path.join(os.path.realpath(top), "") for top in tops)


def _wait_until_settled(plans: Iterable[ImportPlan]) -> None:
    """Let two seconds pass since the last write to a source.

    The digest of a file that is younger could not be kept, and the next build would read
    it again.
    """
    youngest_ns = max(
        (file.mtime_ns for plan in plans for file in plan.planned.version.files), default=0
    )
    left_ns = youngest_ns + TICK_NS - time.time_ns()
    if 0 < left_ns <= TICK_NS:
        time.sleep(left_ns / 1e9)
        signals.check()


def _forget_withdrawn(output: str, versions: set[str]) -> None:
    """Let go of notes that would withdraw, and delete, ``versions`` as soon as they are there."""
    if not versions & withdrawals.load(output).keys():
        return
    with notes.lock(output, float("inf")):
        known = withdrawals.load(output)
        withdrawals.save(output, {name: known[name] for name in known.keys() - versions})


class _Import:
    """One run: what has been found, planned and done so far."""

    def __init__(self, options: ImportOptions, root: str, observer: Observer) -> None:
        self._options = options
        self._root = root
        self.output = absolute(options.output_dir or root)
        self._mirror = _places_in(root)
        self._observer = observer
        self._cache_dir = absolute(options.cache_dir) if options.cache_dir else None
        self._findings: list[Finding] = []
        self._imported: list[str] = []
        self._existing: list[str] = []
        self._failed = 0
        self._bytes_read = 0
        self._hashing_seconds = 0.0

    def report(self, began: float, planned: tuple[Step, ...] = ()) -> ImportReport:
        """Return what was done, and tell the findings."""
        for finding in self._findings:
            self._observer.warn(finding)
        return ImportReport(
            imported=tuple(self._imported),
            existing=tuple(self._existing),
            failed=self._failed,
            findings=tuple(self._findings),
            steps=planned,
            bytes_read=self._bytes_read,
            hashing_seconds=self._hashing_seconds,
            seconds=time.perf_counter() - began,
        )

    def plan(self) -> list[ImportPlan]:
        """Look at all sources; return what is to become of those that can be imported."""
        plans: dict[str, ImportPlan] = {}
        withdrawn = withdrawals.load(self.output)
        for image in self._images():
            plan = plan_import(image, self._options.stream, self._options.naming)
            if isinstance(plan, Finding):
                self._fail(plan)
                continue
            if plan.missing is not None and not self._exists(plan):
                self._fail(plan.missing)
                continue
            if self._exists(plan) and (
                plan.version_path in withdrawn or self._is_marked_withdrawn(plan)
            ):
                self._fail(
                    Finding(
                        plan.label,
                        f"{plan.version_path} is there, but withdrawn: its files will be deleted",
                        "take it back with prune --undo, or use --version-name",
                    )
                )
                continue
            rival = plans.setdefault(plan.version_path, plan)
            if rival is not plan:
                self._fail(
                    Finding(
                        plan.label,
                        f"would be the same version as {rival.label}: {plan.version_path}",
                        "put their files into one directory, or use --version-name",
                    )
                )
        return list(plans.values())

    def steps(self, plans: list[ImportPlan]) -> tuple[Step, ...]:
        """Return what carrying out ``plans`` means."""
        return tuple(
            step
            for plan in plans
            for step in steps(plan, self._root, self._options.mode, exists=self._exists(plan))
        )

    def _exists(self, plan: ImportPlan) -> bool:
        return os.path.lexists(os.path.join(self._root, plan.version_path))

    def _is_marked_withdrawn(self, plan: ImportPlan) -> bool:
        """Return whether a prune withdrew the version, whatever its ``--output``."""
        return os.path.lexists(os.path.join(self._root, plan.version_path, removal.WITHDRAWN_MARK))

    def _fail(self, finding: Finding) -> None:
        self._failed += 1
        self._findings.append(finding)

    def _images(self) -> list[Image]:
        """Return the images in all sources."""
        images: list[Image] = []
        of_directory: dict[str, list[str]] = {}
        for source in dict.fromkeys(map(absolute, self._options.sources)):
            if self._options.mode == "move" and self._is_in_the_mirror(source):
                problem = "is in the mirror already, where nothing that is published may vanish"
                self._fail(Finding(source, problem, "use --copy or --link"))
            elif os.path.isdir(source):
                try:
                    names = sorted(os.listdir(source))
                except OSError as error:
                    problem = f"cannot be listed ({error.strerror})"
                    self._fail(Finding(source, problem, "give this user the right to list it"))
                    continue
                paths = [os.path.join(source, name) for name in names if name[0] != "."]
                images += self._images_of(source, source, paths)
            elif os.path.lexists(source):
                of_directory.setdefault(os.path.dirname(source), []).append(source)
            else:
                self._fail(Finding(source, "is not there", "name a directory or a file that is"))
        for directory, paths in of_directory.items():
            images += self._images_of(paths[0], directory, paths)
        return images

    def _is_in_the_mirror(self, source: str) -> bool:
        return os.path.join(os.path.realpath(source), "").startswith(self._mirror)

    def _images_of(self, label: str, directory: str, paths: list[str]) -> list[Image]:
        """Return the images among ``paths``, files of ``directory``."""
        parts: list[Part] = []
        for path in paths:
            if os.path.isdir(path):
                self._observer.log(f"{path}: a directory, left where it is")
                continue
            found = recognise(path)
            if isinstance(found, Part):
                parts.append(found)
            elif found.is_alien:
                self._findings.append(
                    Finding(
                        path, f"{found.what}; left where it is", "remove it, if it is of no use"
                    )
                )
            else:
                self._observer.log(f"{path}: {found.what}, left where it is")
        if not parts:
            self._fail(Finding(label, "no file of an image", "name what a builder made"))
            return []
        checksums = self._checksums(os.path.join(directory, CHECKSUMS_NAME))
        extra = os.path.join(directory, IMAGE_YAML_NAME)
        status = status_of_file(extra) if extra in paths else None
        extras = (Extra(extra, status),) if status is not None else ()
        groups = group(parts)
        return [
            Image(label if len(groups) == 1 else files[0].path, files, checksums, extras)
            for files in groups
        ]

    def _checksums(self, path: str) -> dict[str, str]:
        try:
            if os.path.islink(path):  # of whatever file; what was handed in is to be read only
                raise OSError("a symlink")
            return parse_checksums(read_small_file(path, _MOST_CHECKSUMS_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            problem = f"cannot be used ({error}); the files beside it are not held against it"
            self._findings.append(Finding(path, problem, "mend or remove it"))
            return {}

    def carry_out(self, plans: list[ImportPlan], executor: Executor | None) -> None:
        """Import each of ``plans``, several at a time."""
        with ExitStack() as stack:
            owners: dict[str, _Running] = {}
            jobs: list[ImportJob] = []
            for plan in plans:
                job = begin(plan, self._root, self._options.mode, self._cache_dir)
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
        options = self._options
        roots = (task.root for job in jobs for task in job.tasks)
        how = prepare(options.jobs, options.engine, roots, self._observer)
        # One an image: its metadata is read, and copied, once.
        batches = [together(job.tasks, how, wants_blake3=options.blake3) for job in jobs]
        batches.sort(key=lambda batch: batch.size_bytes, reverse=True)
        results = pool.observed(deque(batches), how.jobs, executor, self._observer)
        with closing(results):
            for batch, outcomes in results:
                for task, outcome in zip(batch.tasks, outcomes, strict=True):
                    if isinstance(outcome, Digested):
                        self._bytes_read += outcome.bytes_read
                    running = owners[task.root.path]
                    if running.take(task.root.path, outcome):
                        self._finish(running.job, running.outcomes)
        self._hashing_seconds += time.perf_counter() - began

    def _finish(self, job: ImportJob, outcomes: dict[str, Outcome]) -> None:
        failed = job.finish(outcomes)
        job.close()
        self._findings += job.warnings
        if failed is not None:
            self._fail(failed)
            return
        (self._imported if job.is_new else self._existing).append(job.plan.version_path)
        self._observer.log(f"{job.plan.version_path}: imported from {job.plan.label}")


class _Running:
    """A job, and what has come of its tasks so far."""

    def __init__(self, job: ImportJob) -> None:
        self.job = job
        self.outcomes: dict[str, Outcome] = {}

    def take(self, path: str, outcome: Outcome) -> bool:
        """Take one outcome; return whether it was the last."""
        self.outcomes[path] = outcome
        return len(self.outcomes) == len(self.job.tasks)
