"""The options of prune, remove and restore, and their report."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.operations.builder.options import BuildOptions, BuildReport

DEFAULT_KEEP = 3
DEFAULT_GRACE_SECONDS = 7200.0


class PruneOptions(Struct, frozen=True, kw_only=True):
    """How to prune, remove or restore."""

    keep: int = DEFAULT_KEEP
    """How many published versions of each product to keep, at least 1."""
    keep_days: int = 0
    """Also keep versions dated less than this many days ago."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """How long files outlive the last catalogue that named them."""
    build: BuildOptions = BuildOptions()
    """The options of the build that publishes the rest. Its ``wait_seconds`` and ``dry_run`` hold
    for the whole run."""

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
    """What this run withdrew from the catalogue."""
    deleted: tuple[str, ...] = ()
    """What this run deleted from the disk: versions, files, and deltas that started from them."""
    bytes_freed: int = 0
    """How large the versions and files were that were deleted after their grace."""
    waiting: tuple[str, ...] = ()
    """What a later run will delete, once the grace has passed."""
    restored: tuple[str, ...] = ()
    """What this run published again."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What a real run would do; only a dry run reports it."""
    built: BuildReport | None = None
    """What was published, by all builds of the run together; None: a dry run, which builds
    nothing."""
    exit_code: ExitCode = ExitCode.DONE
    """The exit code of the command: that of the build, or ``LEFT_OUT`` if something could not be
    deleted."""
