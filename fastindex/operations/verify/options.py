"""The options of a verification, and its report."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fastindex.catalogue.published import Mismatch
from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding
from fastindex.hashing.options import HashingOptions

Method = Literal["known", "sha256", "quick"]
"""*known*: BLAKE3 where the caches have it, SHA-256 elsewhere; *sha256*: what clients check;
*quick*: names and sizes only, no bytes are read."""


class VerifyOptions(Struct, frozen=True, kw_only=True):
    """How to verify."""

    method: Method = "known"
    """What to compute."""
    hashing: HashingOptions = HashingOptions()
    """How files are hashed."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.hashing.check()
        if self.method not in ("known", "sha256", "quick"):
            raise UsageError(f"method must be known, sha256 or quick, not {self.method!r}")


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What a verification found."""

    mismatches: tuple[Mismatch, ...] = ()
    """Everything that is wrong, by version."""
    findings: tuple[Finding, ...] = ()
    """What clients accept but people stumble on."""
    versions: int = 0
    """Versions published."""
    files: int = 0
    """Files published."""
    bytes_read: int = 0
    """Bytes of images and metadata read."""
    hashing_seconds: float = 0
    """Wall time spent on reading and hashing."""
    seconds: float = 0
    """Wall time of the whole run."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        return ExitCode.DAMAGED if self.mismatches else ExitCode.DONE
