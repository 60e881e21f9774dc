"""How the caller wants servers to be asked; a module of its own, as it is quick to import."""

from __future__ import annotations

import math
import os

from msgspec import Struct

from fastindex.errors import UsageError

MAX_CONNECTIONS = 64
"""More than any server welcomes."""
MAX_RETRIES = 100
"""A run that retries more often looks as if it hangs."""


class RemoteOptions(Struct, frozen=True, kw_only=True):
    """How the caller wants servers to be asked."""

    user_agent: str
    """How requests name this program."""
    connections: int = 4
    """How many files, or pieces of files, are fetched side by side."""
    ca_file: str = ""
    """PEM file with the certificates that are trusted; empty: the system's."""
    allow_private: bool = False
    """Whether redirects may lead to another host with a private address."""
    limit_bytes_per_second: float = 0
    """How fast all connections together may receive files; 0: no limit."""
    timeout_seconds: float = 30
    """How long a server may be silent, or yield next to nothing."""
    retries: int = 5
    """How often something is tried again while no bytes come."""
    first_delay_seconds: float = 1
    """How long the first retry waits; each further one waits twice as long."""
    min_piece_bytes: int = 4 << 20
    """A file that is not larger is fetched by one connection."""
    max_piece_bytes: int = 16 << 20
    """No request asks for more, unless the server can send whole files only."""

    def check(self) -> None:
        """Check the options.

        Raises:
            UsageError: a number is out of its bounds, the user agent cannot be sent, or ``ca_file``
                is not a readable file.
        """
        if not (isinstance(self.connections, int) and 1 <= self.connections <= MAX_CONNECTIONS):
            raise UsageError(f"--connections must be an integer from 1 to {MAX_CONNECTIONS}")
        if not (isinstance(self.retries, int) and 0 <= self.retries <= MAX_RETRIES):
            raise UsageError(f"retries must be an integer from 0 to {MAX_RETRIES}")
        if not _is_finite(self.limit_bytes_per_second):
            raise UsageError("--limit-rate must be a positive number of bytes")
        if not _is_finite(self.timeout_seconds) or self.timeout_seconds == 0:
            raise UsageError("the timeout must be a positive number of seconds")
        if not _is_finite(self.first_delay_seconds):
            raise UsageError("the first delay must be a number of seconds, not negative")
        if not 1 <= self.min_piece_bytes <= self.max_piece_bytes:
            raise UsageError(
                "the least size of a piece must be positive and not above the greatest"
            )
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent):
            raise UsageError("--user-agent must be printable ASCII characters")
        if self.ca_file and not (os.path.isfile(self.ca_file) and os.access(self.ca_file, os.R_OK)):
            raise UsageError(f"{self.ca_file}: not a readable file; --ca takes a PEM file")


def _is_finite(number: float) -> bool:
    return math.isfinite(number) and number >= 0
