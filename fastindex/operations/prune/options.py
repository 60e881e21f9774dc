"""What a caller hands to prune, remove and restore, and gets back."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.operations.build.options import BuildOptions

DEFAULT_KEEP = 3
DEFAULT_GRACE_SECONDS = 7200.0


class PruneOptions(Struct, frozen=True, kw_only=True):
    """How to prune, remove or restore."""

    keep: int = DEFAULT_KEEP
    """How many versions of each product stay."""
    keep_days: int = 0
    """Versions dated less than this many days ago stay, too."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """How long files outlive the last catalogue that named them."""
    build: BuildOptions = BuildOptions()
    """How the build that publishes the rest works; how long all of it waits for the lock, and
    whether nothing is to be changed."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.build.check()
        if not (isinstance(self.keep, int) and self.keep >= 1):
            raise UsageError("--keep must be an integer of at least 1")
        if not (isinstance(self.keep_days, int) and self.keep_days >= 0):
            raise UsageError("--keep-days must be an integer of at least 0")
        if not self.grace_seconds >= 0:
            raise UsageError("--grace must be at least 0 seconds")


class PruneReport(Struct, frozen=True, kw_only=True):
    """What prune, remove or restore did."""

    withdrawn: tuple[str, ...] = ()
    """What is published no more since this run."""
    deleted: tuple[str, ...] = ()
    """What is gone from the disk."""
    waiting: tuple[str, ...] = ()
    """What a later run will delete, once its grace has passed."""
    restored: tuple[str, ...] = ()
    """What is published again."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What would be done; only a dry run tells."""
    exit_code: ExitCode = ExitCode.DONE
    """What the command line ends with: that of the build, or ``LEFT_OUT`` where something
    that was to be deleted could not be."""
