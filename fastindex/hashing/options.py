"""How the caller wants files to be hashed. Apart from the strategy: its import is quick."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import UsageError
from fastindex.hashing.engine import requested_engine


class HashingOptions(Struct, frozen=True, kw_only=True):
    """How the caller wants files to be hashed."""

    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    engine: str = "auto"
    """What computes SHA-256: ``auto``, ``hashlib`` or ``lanes``."""
    blake3: bool = True
    """Compute BLAKE3 too, for later scrubbing."""

    def check(self) -> None:
        """Check that this machine can do it; raises UsageError where it cannot."""
        if self.jobs is not None and not (isinstance(self.jobs, int) and self.jobs >= 1):
            raise UsageError("--jobs must be an integer of at least 1")
        requested_engine(self.engine)
