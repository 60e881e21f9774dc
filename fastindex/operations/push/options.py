"""The options of a push, and its report."""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.formats.object_stores import Target, parse_target
from fastindex.remote.store_options import StoreOptions

DEFAULT_GRACE_SECONDS = 7200.0


class PushOptions(Struct, frozen=True, kw_only=True):
    """How to push."""

    target: str
    """Where to: ``s3://BUCKET/PREFIX``, or the same with ``gs``, ``az`` or ``file``."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """How long objects outlive the last catalogue in the bucket that named them."""
    wait_seconds: float = 0
    """How long to wait for another run that holds the mirror's lock."""
    force: bool = False
    """Whether most of what is in the bucket may go."""
    dry_run: bool = False
    """Whether to change nothing, and to report the steps."""
    store: StoreOptions = StoreOptions()
    """How the store is talked to."""

    def check(self) -> Target:
        """Check what can be checked without the mirror; return the target.

        Raises:
            UsageError: an option makes no sense.
        """
        self.store.check()
        if not self.grace_seconds >= 0:
            raise UsageError("--grace must be at least 0 seconds")
        try:
            return parse_target(self.target)
        except ValueError as error:
            raise UsageError(f"URL {error}") from error


class PushReport(Struct, frozen=True, kw_only=True):
    """What a push did."""

    target: str
    """Where to."""
    uploaded: tuple[str, ...] = ()
    """The images' files that were put into the bucket."""
    written: tuple[str, ...] = ()
    """The catalogue files, and what accompanies them, that were put there."""
    deleted: tuple[str, ...] = ()
    """What was deleted from the bucket."""
    waiting: int = 0
    """How many objects a later push will delete, once their grace has passed."""
    unchanged: int = 0
    """How many objects were there already."""
    bytes_uploaded: int = 0
    """The size of what was put there."""
    listed: int = 0
    """How many objects the listing had that this tool put there or needs."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What a real run would do; only a dry run reports it."""
    refusal: str = ""
    """Why the catalogue in the bucket stays as it was; empty: it does not."""
    uploading_seconds: float = 0
    """Wall time spent on putting objects there."""
    seconds: float = 0
    """Wall time of the whole run."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        return ExitCode.FAILED if self.refusal else ExitCode.DONE
