"""Pure: figures → which ``--jobs``, what limits, how long a run takes."""

from __future__ import annotations

from collections.abc import Mapping

from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench.options import Advice, DiskReport, HashFigure, Limit

ENOUGH = 0.95
"""Fewer jobs are enough where they get this share of the best speed: figures of one
machine move by as much from run to run."""

_ALIKE = 0.9
"""Two speeds limit both where the smaller one is at least this share of the other."""


def build_speeds(figures: tuple[HashFigure, ...]) -> dict[int, float]:
    """Return jobs → bytes a second that a build hashes with a buffer of its size."""
    return {
        figure.jobs: figure.bytes_per_second
        for figure in figures
        if figure.algorithm == "build" and figure.buffer_bytes == BUFFER_BYTES
    }


def disk_speeds(disk: DiskReport | None) -> dict[int, float]:
    """Return readers → bytes a second in pieces as a build reads; empty: not known."""
    if disk is None or disk.method == "cached":
        return {}
    return {
        figure.readers: figure.bytes_per_second
        for figure in disk.figures
        if figure.buffer_bytes == BUFFER_BYTES
    }


def advise(
    cpu: Mapping[int, float],
    disk: Mapping[int, float],
    cpus: int,
    run_bytes: int,
    total_bytes: int | None = None,
) -> Advice:
    """Return the advice for a build.

    A worker reads a piece, then hashes it, while the kernel reads ahead: so many jobs get
    what they can hash or what the disk delivers to so many readers, whichever is less.

    Args:
        cpu: jobs → bytes a second that they hash; not empty.
        disk: readers → bytes a second, for each of those jobs up to the most readers that
            were measured; empty: not known.
        cpus: how many CPUs there are. Where all were measured, more jobs hash no faster,
            but a disk may deliver more to them.
        run_bytes: what the run reads.
        total_bytes: what there is to read in all; None: not known.
    """
    most = max(cpu)
    hashed = dict(cpu)
    if most >= cpus:
        hashed |= {readers: cpu[most] for readers in disk if readers > most}
    # More readers than could be measured are taken to get no more than those did.
    delivered = {jobs: disk.get(jobs, disk[max(disk)]) for jobs in hashed} if disk else {}
    speeds = {jobs: min(speed, delivered.get(jobs, speed)) for jobs, speed in hashed.items()}
    limit = _limit(max(hashed.values()), max(delivered.values(), default=0))
    # Only where the disk limits, CPUs may be idle: two that seem to do no more than one
    # may have had neighbours while they were measured.
    least = 1 if limit == "disk" else min(most, cpus)
    best = max(speed for jobs, speed in speeds.items() if jobs >= least)
    jobs = min(jobs for jobs, speed in speeds.items() if jobs >= least and speed >= ENOUGH * best)
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


def _limit(cpu: float, disk: float) -> Limit:
    """Return what limits, of the best that each can do; a ``disk`` of 0 is not known."""
    if not disk:
        return "unknown"
    if min(cpu, disk) >= _ALIKE * max(cpu, disk):
        return "both"
    return "disk" if disk < cpu else "cpu"
