"""How a run hashes: with how many workers, which engine, how many files side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from fastindex import engine
from fastindex.atomic import read_small_file
from fastindex.errors import UsageError
from fastindex.interface import Observer
from fastindex.model import FileRef, Finding, Hashing

_MOST_MOUNTS_BYTES = 16 << 20


def check(jobs: int | None, engine_name: str) -> None:
    """Raise UsageError where the options make no sense, or not on this machine."""
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs takes a number from 1 on")
    engine.asked_for(engine_name)


def prepare(
    jobs: int | None, engine_name: str, refs: Iterable[FileRef], observer: Observer
) -> Hashing:
    """Return how to hash, with the engine ready to work.

    Args:
        jobs: as in the options; None: as many as CPUs that this process may use.
        engine_name: as in the options.
        refs: what is to be read. A rotating disk loses more time between files than the
            lanes win: there, each worker reads one file after the other.
        observer: warned where the engine is not to be trusted.
    """
    chosen = engine.engine(engine.asked_for(engine_name))
    if chosen.problem:
        observer.warn(
            Finding(
                "SHA-256 engine",
                f"lanes disagrees with hashlib ({chosen.problem}), which is used instead",
                "report it, with the CPU's name; --engine hashlib keeps it quiet",
            )
        )
    observer.note(f"SHA-256 by {chosen.name}")
    side_by_side = chosen.lanes > 1 and not any(map(is_rotational, {ref.device for ref in refs}))
    speeds = engine.measured_speeds(chosen) if side_by_side else (1.0,)
    return Hashing(jobs or usable_cpus(), chosen.name, speeds)


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_rotational(device: int) -> bool:
    """Return whether the file system on ``device`` (st_dev) is known to lie on rotating disks.

    Follows Documentation/ABI/stable/sysfs-block and proc_pid_mountinfo(5).
    """
    if os.major(device) == 0:  # the file system's own number, as btrfs gives
        device = _mounted_device(device)
    place = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for queue in ("queue", "../queue"):  # a partition's disk
        with suppress(OSError):
            return read_small_file(f"{place}/{queue}/rotational", 64).strip() == b"1"
    return False


def _mounted_device(device: int) -> int:
    """Return the block device below the file system with the number ``device``; or it."""
    name = b"%d:%d" % (os.major(device), os.minor(device))
    with suppress(OSError):
        for line in read_small_file("/proc/self/mountinfo", _MOST_MOUNTS_BYTES).splitlines():
            before, _, after = line.partition(b" - ")
            if before.split()[2] == name:
                return os.stat(after.split()[1]).st_rdev or device
    return device
