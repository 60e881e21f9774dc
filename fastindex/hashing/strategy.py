"""How a run hashes: with how many workers, which engine, how many files side by side."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from fastindex.events import Finding, Observer
from fastindex.hashing.engine import measure_speeds, requested_engine, usable_engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.tasks import FileRef
from fastindex.system.disks import is_rotational
from fastindex.system.processes import count_usable_cpus


class Strategy(Struct, frozen=True):
    """How a run hashes."""

    jobs: int
    """Worker processes."""
    engine: str = "hashlib"
    """Which engine computes SHA-256."""
    speeds: tuple[float, ...] = (1.0,)
    """How many bytes 1, 2, … SHA-256 states at once take in, relative to one; it is as long
    as the number of states for which files may be read side by side."""


def choose_strategy(
    options: HashingOptions, files: Iterable[FileRef], observer: Observer
) -> Strategy:
    """Return how to hash, with the engine ready to work.

    Args:
        options: what the caller wants.
        files: what is to be read. A rotating disk loses more time between files than the
            lanes win: there, each worker reads one file after the other.
        observer: warned where the engine is not to be trusted.

    Raises:
        UsageError: the engine that was asked for cannot be used here.
    """
    chosen = usable_engine(requested_engine(options.engine))
    if chosen.problem:
        observer.warn(
            Finding(
                "SHA-256 engine",
                f"lanes disagrees with hashlib ({chosen.problem}); hashlib is used instead",
                "report it with the CPU's name; --engine hashlib silences this warning",
            )
        )
    observer.log(f"SHA-256 by {chosen.name}")
    devices = {file.stamp.device for file in files}
    side_by_side = chosen.lanes > 1 and not any(map(is_rotational, devices))
    speeds = measure_speeds(chosen) if side_by_side else (1.0,)
    return Strategy(options.jobs or count_usable_cpus(), chosen.name, speeds)
