"""Deltas from end to end: what is published → what is wanted → made, checked, put in place → build.

Making a delta takes minutes, and no build waits for it: that needs only a lock of its own. A delta
is put into its version, as soon as it is made, under the mirror's lock, so that nothing is put into
what a prune is about to delete. In the end an ordinary build publishes them. What a killed run has
put in place is not made again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext

from msgspec import Struct

from fastindex.catalogue.published import open_catalogue
from fastindex.errors import Code, ResourceError, suggest_remedy, translate_system_errors
from fastindex.events import Finding, HeldBackFindings, Observer, Step, count, report_findings
from fastindex.formats.names import classify, find_root_ftype
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import require_streams
from fastindex.mirror.state import deltas, outputs, withdrawals
from fastindex.mirror.state.deltas import DeltaRecord, DeltaRules, Refusal
from fastindex.mirror.state.withdrawals import Withdrawals
from fastindex.operations.builder.options import BuildReport
from fastindex.operations.builder.pipeline import build
from fastindex.operations.deltas.choosing import (
    WantedDelta,
    choose_deltas,
    count_jobs,
    estimate_memory,
    group_by_version,
)
from fastindex.operations.deltas.making import (
    MadeVersion,
    MakingOptions,
    Outcome,
    clear_leftover,
)
from fastindex.operations.deltas.options import DeltasOptions, DeltasReport
from fastindex.system import locks, signals
from fastindex.system.processes import count_usable_cpus

_LOCK = ".deltas.lock"
_PROGRAM = "xdelta3"


class _Plan(Struct):
    """What is to be done."""

    wanted: list[WantedDelta]
    """What is to be made."""
    refused: dict[str, Refusal]
    """What earlier runs found too large."""
    existing: int = 0
    """How many deltas are there."""
    is_unpublished: bool = False
    """Whether one of these is not published yet."""


@translate_system_errors()
def make_deltas(
    mirror: Mirror, options: DeltasOptions, *, observer: Observer | None = None
) -> DeltasReport:
    """Make deltas to the newest published versions, and publish them.

    Args:
        mirror: the mirror.
        options: which deltas, and how.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense.
        TreeError: nothing is published, or a record of earlier runs cannot be used.
        ResourceError: xdelta3 is not installed; or the system ran out of something.
        LockHeldError: another run of the same holds its lock.
        FastindexError: as ``build``. What was made is there, and the next build publishes it.
    """
    options.check()
    mirror.require_root()
    outputs.require_catalogue(mirror)
    require_streams(mirror)
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ResourceError(
            f"deltas need {_PROGRAM}, which is not installed (Debian: apt-get install {_PROGRAM}); "
            "nothing was changed"
        )
    is_dry = options.build.dry_run
    wait_seconds = options.build.wait_seconds
    with nullcontext() if is_dry else locks.lock(mirror.state_path(_LOCK), wait_seconds):
        return _Run(mirror, options, program, observer or Observer()).run()


class _Run:
    """One run."""

    def __init__(
        self, mirror: Mirror, options: DeltasOptions, program: str, observer: Observer
    ) -> None:
        self._began = time.perf_counter()
        self._mirror = mirror
        self._options = options
        self._program = program
        self._observer = observer
        self._rules = DeltaRules(options.per_root, options.with_machines)
        self._record = deltas.load(mirror)
        self._findings: list[Finding] = []
        self._made: list[Outcome] = []
        self._refused: dict[str, Refusal] = {}
        self._failed = 0
        self._is_unwanted = False

    def run(self) -> DeltasReport:
        """Do all of it."""
        options = self._options
        plan = self._make_plan()
        self._refused = plan.refused
        if options.with_machines:
            problem = "deltas of disks are published, with which Incus cannot refresh machines"
            remedy = "do without --vm, unless all clients are known to get along with them"
            self._findings.append(Finding(Code.MACHINE_DELTAS, "disk.qcow2", problem, remedy))
        memory = options.max_memory_bytes or _count_memory() // 2
        wanted = [one for one in plan.wanted if self._fits(one, memory)]
        jobs, memory = count_jobs(wanted, options.jobs or count_usable_cpus(), memory)
        if options.build.dry_run:
            steps = tuple(_list_steps(wanted))
            return self._report(plan, jobs, memory, 0, None, steps)
        if wanted:
            self._observer.log(
                f"{jobs:,} {'job' if jobs == 1 else 'jobs'} side by side, with "
                f"{memory / 1e6:,.0f} MB of memory at most"
            )
        began = time.perf_counter()
        self._make(group_by_version(wanted), jobs)
        seconds = time.perf_counter() - began
        return self._report(plan, jobs, memory, seconds, self._publish(plan), ())

    def _make_plan(self) -> _Plan:
        """Return what is published and lacks a delta."""
        others = {
            path: refusal
            for path, refusal in self._record.refusals.items()
            if path.partition("/")[0] not in self._mirror.streams
        }
        plan = _Plan([], others)
        known = withdrawals.load(self._mirror)
        with open_catalogue(self._mirror.output) as published:
            for stream, _, product in published.products():
                if stream in self._mirror.streams:
                    for wanted in choose_deltas(stream, product, self._rules):
                        self._add(plan, wanted, known)
        return plan

    def _add(self, plan: _Plan, wanted: WantedDelta, known: Withdrawals) -> None:
        if not self._options.build.dry_run:
            clear_leftover(self._mirror, wanted.version)
        refusal = self._record.refusals.get(wanted.path)
        if wanted.is_published:
            plan.existing += 1
        elif _has_delta(self._mirror, wanted):
            plan.existing += 1
            plan.is_unpublished = True
        elif not _is_possible(self._mirror, wanted, known):
            self._observer.log(f"{wanted.version}: gets no delta: it is a symlink, or withdrawn")
        elif refusal is not None and self._is_refused(wanted, refusal):
            plan.refused[wanted.path] = refusal
        else:
            plan.wanted.append(wanted)

    def _is_refused(self, wanted: WantedDelta, refusal: Refusal) -> bool:
        """Return whether a delta between these very roots was found too large before."""
        of_same = (wanted.base.sha256, wanted.target.sha256)
        return (
            of_same == (refusal.base_sha256, refusal.sha256)
            and self._options.max_ratio <= refusal.max_ratio
        )

    def _fits(self, wanted: WantedDelta, memory_bytes: int) -> bool:
        needed = estimate_memory(wanted.base)
        if needed <= memory_bytes:
            return True
        self._fail(
            Finding(
                Code.DELTA_FAILED,
                wanted.path,
                f"takes {needed / 1e6:,.0f} MB of memory to make, and there are "
                f"{memory_bytes / 1e6:,.0f} MB for it",
                "give it more with --max-memory, or make the image smaller",
            )
        )
        return False

    def _fail(self, finding: Finding) -> None:
        self._failed += 1
        self._findings.append(finding)

    def _make(self, groups: Sequence[Sequence[WantedDelta]], jobs: int) -> None:
        """Make the deltas of all versions, and put those of each in place when it is done."""
        making = MakingOptions(self._program, self._options.max_ratio, lambda: self._is_unwanted)
        versions = [MadeVersion(self._mirror, group, making) for group in groups]
        made = (
            _make_side_by_side(versions, jobs, self._give_up)
            if jobs > 1
            else map(MadeVersion.make, versions)
        )
        total = len(versions)
        try:
            for version in count(self._observer, "making deltas", "version", total, made):
                self._take(version)
        finally:
            self._give_up()
            if isinstance(made, Generator):
                made.close()
            for version in versions:
                version.close()

    def _give_up(self) -> None:
        """End what is being made: nobody wants it any more."""
        self._is_unwanted = True

    def _take(self, version: MadeVersion) -> None:
        """Put the deltas of a version in place, and note what became of the others."""
        for outcome in version.outcomes:
            wanted = outcome.wanted
            if outcome.kind == "too large":
                self._refused[wanted.path] = Refusal(
                    wanted.base.sha256, wanted.target.sha256, self._options.max_ratio
                )
            elif outcome.finding is not None:
                self._fail(outcome.finding)
        made = [outcome for outcome in version.outcomes if outcome.kind == "made"]
        if made:
            # Whoever holds it may take minutes. What was made is worth to wait for.
            with self._mirror.lock(float("inf")):
                self._put_in_place(version, made)
        version.close()

    def _put_in_place(self, version: MadeVersion, made: Sequence[Outcome]) -> None:
        """Put deltas into their version, unless it is withdrawn or deleted by now."""
        known = withdrawals.load(self._mirror)
        if not all(_is_possible(self._mirror, one.wanted, known) for one in made):
            self._observer.log(f"{made[0].wanted.version}: was withdrawn or deleted meanwhile")
            return
        try:
            version.publish()
        except OSError as error:
            path, reason = made[0].wanted.version, error.strerror or error
            problem = f"its delta cannot be put in place ({reason})"
            self._fail(Finding(Code.NOT_WRITTEN, path, problem, suggest_remedy(error)))
        else:
            self._made += made

    def _publish(self, plan: _Plan) -> BuildReport | None:
        """Record what is wanted and what is too large; publish what is new."""
        record = DeltaRecord(self._rules, dict(sorted(self._refused.items())))
        has_other_rules = record.rules != self._record.rules
        is_due = bool(self._made) or plan.is_unpublished or has_other_rules
        if record == self._record and not is_due:
            return None
        with self._mirror.lock(float("inf")):
            if record != self._record:
                deltas.save(self._mirror, record)
            if not is_due:
                return None
            held_back = HeldBackFindings(self._observer)
            try:
                options = self._options.build
                built = build(self._mirror, options, observer=held_back, is_locked=True)
            except BaseException:
                held_back.release()
                raise
            self._findings += built.findings
            return built

    def _report(
        self,
        plan: _Plan,
        jobs: int,
        memory: int,
        seconds: float,
        built: BuildReport | None,
        steps: tuple[Step, ...],
    ) -> DeltasReport:
        return DeltasReport(
            made=tuple(sorted(one.wanted.path for one in self._made)),
            existing=plan.existing,
            too_large=len(self._refused),
            failed=self._failed,
            bytes_made=sum(one.size_bytes for one in self._made),
            bytes_replaced=sum(one.wanted.target.size_bytes for one in self._made),
            jobs=jobs,
            memory_bytes=memory,
            making_seconds=round(seconds, 3),
            seconds=round(time.perf_counter() - self._began, 3),
            findings=report_findings(self._observer, self._findings),
            steps=steps,
            built=built,
        )


def _make_side_by_side(
    versions: Iterable[MadeVersion], jobs: int, give_up: Callable[[], None]
) -> Generator[MadeVersion, None, None]:
    """Yield each version when its deltas are made.

    Args:
        versions: the versions, in the order in which to begin.
        jobs: how many threads wait for one xdelta3 each.
        give_up: ends what is being made.

    Raises:
        ResourceError: the system starts no thread.
        Interrupted: a signal arrived.
    """
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    pool = ThreadPoolExecutor(jobs, "fastindex-deltas")
    try:
        running = {pool.submit(one.make) for one in versions}
        while running:
            ended, running = wait(running, signals.CHECK_SECONDS, FIRST_COMPLETED)
            signals.check()
            for future in ended:
                yield future.result()
    except RuntimeError as error:
        raise ResourceError(
            f"cannot start a thread ({error}); use fewer --jobs, or raise the limits"
        ) from error
    finally:
        give_up()
        pool.shutdown(cancel_futures=True)


def _is_possible(mirror: Mirror, wanted: WantedDelta, known: Withdrawals) -> bool:
    """Return whether a delta can be put into its version, and its base is still to be had."""
    needed = (f"{wanted.version}/{wanted.name}", wanted.base.path)
    is_withdrawn = any(withdrawals.covers(known, path) for path in needed)
    path = mirror.path(wanted.version)
    return not is_withdrawn and os.path.isdir(path) and not os.path.islink(path)


def _has_delta(mirror: Mirror, wanted: WantedDelta) -> bool:
    """Return whether there is such a delta on the disk, under whatever name."""
    try:
        names = os.listdir(mirror.path(wanted.version))
    except OSError:
        return False
    base = os.path.basename(wanted.base_version)
    return any(
        role.delta_base == base and find_root_ftype(role.ftype) == wanted.ftype
        for role in map(classify, names)
        if role is not None
    )


def _count_memory() -> int:
    """Return how many bytes of memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _list_steps(wanted: Iterable[WantedDelta]) -> Iterator[Step]:
    for group in group_by_version(wanted):
        for one in group:
            yield Step("encode", one.target.path, one.path, one.target.size_bytes)
