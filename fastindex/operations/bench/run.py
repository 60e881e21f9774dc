"""Connect the steps: select files, measure memory, measure the disk, advise."""

from __future__ import annotations

import math
import time

from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.hashing import engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.speeds import measure_speeds
from fastindex.hashing.tasks import EngineSetup
from fastindex.operations.bench.advice import advise, build_speeds, disk_speeds
from fastindex.operations.bench.disk import measure_disk
from fastindex.operations.bench.memory import measure_memory, plan
from fastindex.operations.bench.options import BenchOptions, BenchReport
from fastindex.operations.bench.rounds import TimedWorkers
from fastindex.operations.bench.selection import select_files
from fastindex.system.processes import count_usable_cpus

_DISK_FACTOR = 3
"""A number of readers is measured this many times as long as a contender in memory."""

_MAX_RUN_BYTES = 10**21


def measure(options: BenchOptions, *, observer: Observer | None = None) -> BenchReport:
    """Measure this machine and advise on a build.

    Args:
        options: what to measure, and for how long.
        observer: told about each figure, and warned about what cannot be read.

    Returns:
        All figures, and the advice.

    Raises:
        UsageError: an option is invalid, or the engine does not work on this machine.
        TreeError: nothing at the path can be measured.
        FastindexError: a worker cannot be started, died, or ran out of memory.
    """
    observer = observer or Observer()
    started = time.monotonic()
    _check_options(options)
    cpus = count_usable_cpus()
    jobs = options.jobs or cpus
    build_engine = engine.usable_engine(EngineSetup(engine.requested_engine(options.engine))).name
    missing = engine.why_no_lanes() or engine.usable_engine(EngineSetup("lanes")).problem
    wide_from = 0
    if build_engine == "lanes":
        wide_from = measure_speeds(jobs, engine.requested_lanes()).setup.wide_from
    tasks = plan(jobs, build_engine, has_lanes=not missing, wide_from=wide_from)
    selection = None if options.path is None else select_files(options.path, observer)
    disk = None
    with TimedWorkers(observer) as workers:
        hashing = measure_memory(tasks, workers, options.seconds)
        if selection is not None:
            disk = measure_disk(selection, jobs, workers, options.seconds * _DISK_FACTOR)
    return BenchReport(
        cpus=cpus,
        jobs=jobs,
        engine=build_engine,
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
        seconds=time.monotonic() - started,
    )


def _check_options(options: BenchOptions) -> None:
    HashingOptions(jobs=options.jobs, engine=options.engine).check()
    if not 0 < options.seconds < math.inf:
        raise UsageError("--seconds must be greater than 0")
    if not 1 <= options.run_bytes <= _MAX_RUN_BYTES:
        raise UsageError("--gigabytes must be greater than 0 and at most 1e12")
