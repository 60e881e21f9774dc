"""The options of a status, and its report."""

from __future__ import annotations

import math

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding
from fastindex.mirror.state.runs import ToldFinding


class StatusOptions(Struct, frozen=True, kw_only=True):
    """What is healthy."""

    max_age_seconds: float = math.inf
    """How old the newest version of a product may be, unless its ``.product.toml`` says so."""
    grace_seconds: float = 7200.0
    """How long ``prune`` keeps files after the last catalogue that names them."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        if not (self.max_age_seconds >= 0 and self.grace_seconds >= 0):
            raise UsageError("--max-age and --grace must be at least 0 seconds")


class StreamStatus(Struct, frozen=True):
    """A published stream."""

    name: str
    """Its name."""
    products: int
    """How many products it has."""
    versions: int
    """How many versions they have."""
    size_bytes: int
    """The size of their files."""


class ProductStatus(Struct, frozen=True):
    """A published product."""

    path: str
    """STREAM/OS/RELEASE/ARCH/VARIANT."""
    newest: str
    """The name of its newest version."""
    age_seconds: float
    """How old that is, by its name."""
    max_age_seconds: float | None
    """How old it may be; None: as old as it gets."""

    @property
    def is_old(self) -> bool:
        """Whether it is older than it may be."""
        return self.max_age_seconds is not None and self.age_seconds > self.max_age_seconds


class RunStatus(Struct, frozen=True):
    """The last run of a command."""

    command: str
    """The command."""
    began: str
    """When it began, in UTC: 2026-11-28T05:24:00Z."""
    age_seconds: float
    """How long ago it ended."""
    seconds: float
    """How long it took."""
    exit_code: int
    """How it ended."""
    errors: tuple[str, ...]
    """Why it failed."""
    streams: tuple[str, ...] = ()
    """The streams that it was about."""


class WaitingVersion(Struct, frozen=True):
    """A version that is withdrawn, wholly or in part, and that ``prune`` will delete."""

    path: str
    """The version, relative to ROOT."""
    deleted_after: str
    """When its grace ends, in UTC; empty: a catalogue without it is still to be published."""


class DamagedFile(Struct, frozen=True):
    """A file that is known to be damaged."""

    path: str
    """The file, relative to ROOT."""
    problem: str
    """What is wrong with it."""


class StatusReport(Struct, frozen=True, kw_only=True):
    """How a mirror is."""

    streams: tuple[StreamStatus, ...]
    """What is published."""
    products: tuple[ProductStatus, ...]
    """All published products, those with the oldest images first."""
    runs: tuple[RunStatus, ...]
    """The last run of each command that was run, the newest first."""
    known: tuple[ToldFinding, ...]
    """What the last build, and the last pull, told."""
    waiting: tuple[WaitingVersion, ...]
    """What is withdrawn."""
    damaged: tuple[DamagedFile, ...]
    """What is known to be damaged."""
    leftovers: tuple[str, ...]
    """Hidden directories that killed runs and uploads left; the next ``prune`` deletes them."""
    bytes_free: int
    """How many bytes the disk has left, but for a reserve of 1 %."""
    bytes_per_day: int
    """How many bytes the new versions of the last two weeks took a day."""
    days_left: float | None
    """How long the disk lasts if nothing is deleted; None: nothing has come."""
    findings: tuple[Finding, ...]
    """What makes the mirror unhealthy."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        return ExitCode.LEFT_OUT if self.findings else ExitCode.DONE
