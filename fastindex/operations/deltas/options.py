"""The options of deltas, and its report. Apart from its run, so that the start is quick."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.operations.builder.options import BuildOptions, BuildReport

DEFAULT_MAX_RATIO = 60.0
MAX_PER_ROOT = 10
"""More deltas of one root are of use to nobody: each costs as much as the root to make."""


class DeltasOptions(Struct, frozen=True, kw_only=True):
    """How to make deltas."""

    per_root: int = 1
    """From how many of the versions before the newest one."""
    with_machines: bool = False
    """Make deltas of the disks of virtual machines, too, which Incus cannot use."""
    max_ratio: float = DEFAULT_MAX_RATIO
    """A delta that is larger than so many per cent of the root is of no use."""
    jobs: int | None = None
    """How many to make side by side; None: one for each CPU that this process may use."""
    max_memory_bytes: int | None = None
    """How much memory to use in all; None: half of what the machine has. There are fewer jobs where
    it is not enough."""
    build: BuildOptions = BuildOptions()
    """The options of the build that publishes them. Its ``wait_seconds`` says how long to wait for
    another run of the same; its ``dry_run`` holds for the whole run."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.build.check()
        if not (isinstance(self.per_root, int) and 1 <= self.per_root <= MAX_PER_ROOT):
            raise UsageError(f"--from must be an integer from 1 to {MAX_PER_ROOT}")
        if not 0 < self.max_ratio <= 100:  # per cent
            raise UsageError("--max-ratio must be more than 0 and at most 100 per cent")
        if self.jobs is not None and not (isinstance(self.jobs, int) and self.jobs >= 1):
            raise UsageError("--jobs must be an integer of at least 1")
        if self.max_memory_bytes is not None and not self.max_memory_bytes > 0:
            raise UsageError("--max-memory must be more than 0")


class DeltasReport(Struct, frozen=True, kw_only=True):
    """What was done."""

    made: tuple[str, ...] = ()
    """Deltas that are new in the tree, relative to ROOT."""
    existing: int = 0
    """How many were there already."""
    too_large: int = 0
    """How many are of no use, as they are too large; those of earlier runs included."""
    failed: int = 0
    """How many could not be made; each has a finding."""
    bytes_made: int = 0
    """How large the new deltas are."""
    bytes_replaced: int = 0
    """How large the roots are that clients need not fetch because of them."""
    jobs: int = 0
    """How many were made side by side."""
    memory_bytes: int = 0
    """How much memory they took at most, all jobs together; an estimate."""
    making_seconds: float = 0
    """Wall time spent on making them."""
    seconds: float = 0
    """Wall time of the whole run."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What a real run would do; only a dry run reports it."""
    built: BuildReport | None = None
    """What was published; None: there was nothing new to publish."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        built = ExitCode.DONE if self.built is None else self.built.exit_code
        return max(built, ExitCode.LEFT_OUT) if self.failed else built
