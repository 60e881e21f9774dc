"""How an object store is talked to; a module of its own, as it is quick to import."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import UsageError

MAX_CONNECTIONS = 64
"""More than any store welcomes."""


class StoreOptions(Struct, frozen=True, kw_only=True):
    """How a store is talked to."""

    connections: int = 8
    """How many objects, or parts of them, are put side by side."""
    endpoint: str = ""
    """The URL of a server that is compatible with S3; empty: as the environment says."""
    allow_http: bool = False
    """Whether the server may be asked without TLS although it is on another machine."""
    timeout_seconds: float = 300
    """How long one request may take."""
    retries: int = 5
    """How often a request is tried again."""

    def check(self) -> None:
        """Check the options; raises UsageError."""
        if not (isinstance(self.connections, int) and 1 <= self.connections <= MAX_CONNECTIONS):
            raise UsageError(f"--connections must be an integer from 1 to {MAX_CONNECTIONS}")
        if not self.timeout_seconds > 0 or self.retries < 0:
            raise UsageError("the timeout must be positive, and the retries not negative")
