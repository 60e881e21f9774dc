"""How the caller wants files to be hashed; a module of its own, as it is quick to import."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import UsageError
from fastindex.hashing.engine import requested_engine, requested_lanes


class HashingOptions(Struct, frozen=True, kw_only=True):
    """How the caller wants files to be hashed."""

    jobs: int | None = None
    """Worker processes; None: one for each CPU that this process may use."""
    engine: str = "auto"
    """What computes SHA-256: ``auto``, ``hashlib`` or ``lanes``."""
    blake3: bool = True
    """Also compute BLAKE3, with which ``verify`` is faster."""
    cluster: str = ""
    """Where to hash: the address of a dask scheduler or the path of its file; empty: here. Then
    ``jobs`` is for each machine of the cluster; None: as its workers have threads."""

    def check(self) -> None:
        """Check the options.

        Raises:
            UsageError: ``jobs`` is not an integer of at least 1; ``engine`` is unknown or cannot
                run here; the environment names no number of lanes; ``cluster`` cannot name one.
        """
        if self.jobs is not None and not (isinstance(self.jobs, int) and self.jobs >= 1):
            raise UsageError("--jobs must be an integer of at least 1")
        requested_engine(self.engine)
        requested_lanes()
        if not self.cluster:
            return
        from fastindex.formats.clusters import check_cluster

        try:
            check_cluster(self.cluster)
        except ValueError as error:
            raise UsageError(f"--cluster: {error}") from error
