"""What hashes the files of a run: worker processes, an executor of the caller, or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from fastindex.hashing.engine import requested_engine

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from fastindex.hashing.options import HashingOptions

    Hasher: TypeAlias = "Executor | Cluster | None"
    """None: worker processes on this machine."""


class Cluster(Struct, frozen=True):
    """Workers on several machines, which see the files by the same paths."""

    name: str
    """The address of the scheduler, or the path of its file."""
    jobs: int | None
    """How many parcels to hash at a time on each machine; None: as its workers offer."""
    engine: str
    """What computes SHA-256, as an option names it."""


def choose_hasher(options: HashingOptions, executor: Executor | None) -> Hasher:
    """Return what is to hash the files of a run.

    Args:
        options: what the caller wants.
        executor: the caller's own; it is used before anything else.
    """
    if executor is not None or not options.cluster:
        return executor
    return Cluster(options.cluster, options.jobs, requested_engine(options.engine))
