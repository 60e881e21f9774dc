"""How fast this machine hashes and its disk delivers, and what follows for a build.

First what is in memory, each contender alone and in as many processes as jobs; then,
where a path is named, the disk; then the advice from all of it. Nothing is written.
"""

from __future__ import annotations

import math
import time

from msgspec import structs

from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.hashing import engine
from fastindex.hashing.strategy import HashingOptions
from fastindex.operations.bench.advice import advise, build_speeds, disk_speeds
from fastindex.operations.bench.disk import BUFFER_SIZES, SLOWER, measure_disk, reader_counts
from fastindex.operations.bench.memory import Planned, plan, prepare
from fastindex.operations.bench.options import BenchOptions, BenchReport, DiskReport, HashFigure
from fastindex.operations.bench.parts import Offer, offer
from fastindex.operations.bench.rounds import Crew
from fastindex.system.processes import count_usable_cpus


def measure(options: BenchOptions, *, observer: Observer | None = None) -> BenchReport:
    """Measure this machine.

    Args:
        options: what to measure, and for how long.
        observer: told of each figure, and warned of what cannot be read.

    Returns:
        All figures, and the advice.

    Raises:
        UsageError: an option makes no sense.
        TreeError: nothing at the path can be measured.
        FastindexError: workers cannot be started, or one died.
    """
    observer = observer or Observer()
    began = time.monotonic()
    _check(options)
    cpus = count_usable_cpus()
    jobs = options.jobs or cpus
    chosen = engine.usable_engine(engine.requested_engine(options.engine))
    missing = engine.why_no_lanes() or engine.usable_engine("lanes").problem
    planned = plan(jobs, chosen.name, has_lanes=not missing)
    offered: Offer | None = None
    if options.path is not None:
        offered = offer(options.path, reader_counts(jobs)[-1], observer)
    disk: DiskReport | None = None
    with Crew() as crew:
        hashing = _measure_memory(crew, planned, options.seconds, observer)
        if options.path is not None and offered is not None:
            disk = measure_disk(
                options.path, offered, crew, jobs, options.seconds * SLOWER, observer
            )
    return BenchReport(
        cpus=cpus,
        jobs=jobs,
        engine=chosen.name,
        missing_for_lanes=missing,
        hashing=hashing,
        disk=disk,
        advice=advise(
            build_speeds(hashing),
            disk_speeds(disk),
            cpus,
            options.run_bytes,
            None if disk is None else disk.total_bytes,
        ),
        seconds=time.monotonic() - began,
    )


def expected_seconds(options: BenchOptions) -> float:
    """Return about how long ``measure`` takes, beside looking for files."""
    jobs = options.jobs or count_usable_cpus()
    measurements = len(plan(jobs, "", has_lanes=not engine.why_no_lanes()))
    if options.path is not None:
        measurements += len(reader_counts(jobs)) * len(BUFFER_SIZES) * SLOWER
    return measurements * options.seconds


def _check(options: BenchOptions) -> None:
    HashingOptions(jobs=options.jobs, engine=options.engine).check()
    if not 0 < options.seconds < math.inf:
        raise UsageError("--seconds takes a time greater than 0")
    if options.run_bytes < 1:
        raise UsageError("--gigabytes takes a number greater than 0")


def _measure_memory(
    crew: Crew, planned: list[Planned], seconds: float, observer: Observer
) -> tuple[HashFigure, ...]:
    figures: list[HashFigure] = []
    for task, jobs in planned:
        measured = crew.measure(prepare, [task] * jobs, seconds)
        figures.append(
            HashFigure(
                **structs.asdict(task), jobs=jobs, bytes_per_second=measured.bytes_per_second
            )
        )
        observer.log(
            f"{task.algorithm} {task.engine}: {task.lanes} lanes, {task.threads} threads, "
            f"{task.buffer_bytes >> 10} KiB, {jobs} processes: "
            f"{measured.bytes_per_second / 1e9:.2f} GB/s"
        )
    return tuple(figures)
