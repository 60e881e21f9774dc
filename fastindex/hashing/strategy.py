"""How a run hashes: with how many workers, which engine, how many files side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from fastindex.errors import FastindexError, UsageError
from fastindex.events import Finding, Observer
from fastindex.hashing import engine
from fastindex.mirror.tree import Batch, Digested, Failed, FileRef, Hashing, Outcome
from fastindex.system.disks import is_rotational


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
    observer.log(f"SHA-256 by {chosen.name}")
    side_by_side = chosen.lanes > 1 and not any(map(is_rotational, {ref.device for ref in refs}))
    speeds = engine.measured_speeds(chosen) if side_by_side else (1.0,)
    return Hashing(jobs or usable_cpus(), chosen.name, speeds)


def refuse_shortage(batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """Raise FastindexError where the system, not a file, is to blame for what was not read."""
    for task, outcome in zip(batch.tasks, outcomes, strict=True):
        metadata = outcome.metadata.values() if isinstance(outcome, Digested) else ()
        for failed in (outcome, *metadata):
            if isinstance(failed, Failed) and failed.is_shortage:
                raise FastindexError(f"{task.root.path}: {failed.problem}; {failed.remedy}")


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
