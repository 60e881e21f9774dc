"""How a run hashes: how many workers, which engine, how many files side by side."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.hashing.engine import (
    describe_setup,
    requested_engine,
    requested_lanes,
    usable_engine,
)
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.speeds import measure_speeds
from fastindex.hashing.tasks import EngineSetup, FileRef
from fastindex.system.disks import is_rotational
from fastindex.system.processes import count_usable_cpus


class Strategy(Struct, frozen=True):
    """How a run hashes."""

    jobs: int
    """Number of workers."""
    engine: EngineSetup = EngineSetup()
    """What computes SHA-256."""
    speeds: tuple[float, ...] = (1.0,)
    """Throughput with 1, 2, … SHA-256 states at once, relative to one state. Files that are
    read side by side may have as many states together as there are numbers."""


def choose_strategy(
    options: HashingOptions, files: Iterable[FileRef], observer: Observer
) -> Strategy:
    """Return how to hash, with the engine ready to work.

    Args:
        options: what the caller wants.
        files: the files to read. If one is on a rotating disk, every worker reads one file
            after another: the disk would lose more time between files than the lanes gain.
        observer: warned if the engine computes wrong digests.

    Raises:
        UsageError: the engine that was asked for cannot run here, or the environment asks for
            what is no number of lanes.
    """
    most_lanes = requested_lanes()
    chosen = usable_engine(EngineSetup(requested_engine(options.engine)))
    if chosen.problem:
        observer.warn(
            Finding(
                Code.ENGINE_DISAGREES,
                "SHA-256 engine",
                f"lanes disagrees with hashlib ({chosen.problem}); hashlib is used instead",
                "report this with the name of the CPU; --engine hashlib silences this warning",
            )
        )
    jobs = options.jobs or count_usable_cpus()
    devices = {file.stamp.device for file in files}
    is_worth_measuring = chosen.lanes > 1 and devices and not any(map(is_rotational, devices))
    if is_worth_measuring:
        speeds = measure_speeds(jobs, most_lanes)
        strategy = Strategy(jobs, speeds.setup, speeds.relative)
    else:
        strategy = Strategy(jobs, EngineSetup(chosen.name, narrow_lanes=most_lanes))
    observer.log(f"SHA-256 by {describe_setup(strategy.engine)}")
    return strategy
