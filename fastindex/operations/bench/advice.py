"""Pure: derive from the figures which ``--jobs`` to use, what limits, how long a run takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastindex.operations.bench.options import Advice, DiskReport, HashFigure, Limit

SUFFICIENT_SHARE = 0.95
"""Fewer jobs suffice if they reach this share of the best speed: figures of one machine
differ by as much from run to run."""

_SIMILAR_SHARE = 0.9
"""CPU and disk are both the limit if the slower one reaches this share of the faster one."""


def build_speeds(figures: Iterable[HashFigure]) -> dict[int, float]:
    """Return jobs → bytes per second that a build hashes."""
    return {
        figure.jobs: figure.bytes_per_second for figure in figures if figure.algorithm == "build"
    }


def disk_speeds(disk: DiskReport | None) -> dict[int, float]:
    """Return readers → bytes per second that the disk delivers; empty: not known."""
    figures = disk.figures if disk is not None else ()
    return {figure.readers: figure.bytes_per_second for figure in figures}


def advise(
    cpu: Mapping[int, float],
    disk: Mapping[int, float],
    cpus: int,
    run_bytes: int,
    total_bytes: int | None = None,
) -> Advice:
    """Return the advice for a build.

    A worker hashes while a thread reads ahead, so a number of jobs is as fast as the slower of the
    two: what they hash, or what the disk delivers.

    Args:
        cpu: jobs → bytes per second that they hash; not empty.
        disk: readers → bytes per second; empty: not known.
        cpus: the number of CPUs. Once each of them has a job, more jobs hash no faster, but
            a disk may deliver more to them.
        run_bytes: the size of the run.
        total_bytes: the size of all files; None: not known.
    """
    max_jobs = max(cpu)
    hashed = dict(cpu)
    if max_jobs >= cpus:
        hashed |= {readers: cpu[max_jobs] for readers in disk if readers > max_jobs}
    # Small trees give few readers something to read; assume that more of them get no more.
    delivered = {jobs: disk.get(jobs, disk[max(disk)]) for jobs in hashed} if disk else {}
    speeds = {jobs: min(speed, delivered.get(jobs, speed)) for jobs, speed in hashed.items()}
    limit = _find_limit(max(hashed.values()), max(delivered.values(), default=0))
    # Leave CPUs idle only if the disk is the limit: if two jobs look no faster than one,
    # other work may have kept a CPU busy during the measurement.
    min_jobs = 1 if limit == "disk" else min(max_jobs, cpus)
    candidates = {jobs: speed for jobs, speed in speeds.items() if jobs >= min_jobs}
    sufficient = SUFFICIENT_SHARE * max(candidates.values())
    jobs = min(jobs for jobs, speed in candidates.items() if speed >= sufficient)
    speed = speeds[jobs]
    return Advice(
        jobs=jobs,
        limit=limit,
        cpu_bytes_per_second=hashed[jobs],
        disk_bytes_per_second=delivered.get(jobs),
        bytes_per_second=speed,
        run_bytes=run_bytes,
        run_seconds=run_bytes / speed,
        all_seconds=None if total_bytes is None else total_bytes / speed,
    )


def _find_limit(cpu: float, disk: float) -> Limit:
    """Compare the best speeds of CPU and disk; a ``disk`` of 0 is not known."""
    if not disk:
        return "unknown"
    if min(cpu, disk) >= _SIMILAR_SHARE * max(cpu, disk):
        return "both"
    return "disk" if disk < cpu else "cpu"
