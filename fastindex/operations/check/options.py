"""The options of a check, and its report. Apart from its run, so that the start is quick."""

from __future__ import annotations

from msgspec import Struct

from fastindex.catalogue.published import Mismatch
from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding
from fastindex.remote.options import RemoteOptions

DEFAULT_EXPIRY_SECONDS = 14 * 86400.0


class CheckOptions(Struct, frozen=True, kw_only=True):
    """What to check."""

    url: str
    """The mirror: what stands before ``/streams/v1/index.json``."""
    filters: tuple[str, ...] = ()
    """Whose files to check; an image is chosen if one of them, or none, is given and holds. The
    catalogue is checked as a whole."""
    sample: int = 0
    """How many images to read, chosen at random."""
    full: bool = False
    """Whether to read all images."""
    expiry_seconds: float = DEFAULT_EXPIRY_SECONDS
    """How long the server's certificate must be valid from now on."""
    max_age_seconds: float | None = None
    """How old the newest version of each product may be; None: as old as it is."""
    upstream: str = ""
    """The mirror that this one follows; empty: it is not compared with any."""
    lag_seconds: float | None = None
    """For how long the upstream may have had a newer version; None: not at all."""
    remote: RemoteOptions = RemoteOptions(user_agent="fastindex")
    """How servers are asked."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.remote.check()
        for url in (self.url, self.upstream):
            top, found, _ = url.partition("/streams/v1")
            if found:
                raise UsageError(f"the URL is what stands before /streams/v1, so {top}")
        if not (isinstance(self.sample, int) and self.sample >= 0):
            raise UsageError("--sample must be an integer of at least 1")
        if self.full and self.sample:
            raise UsageError("--full reads all images; leave out --sample")
        if self.lag_seconds is not None and not self.upstream:
            raise UsageError("--lag does nothing without --upstream; add that, or leave out --lag")
        for option, seconds in (
            ("--expiry", self.expiry_seconds),
            ("--max-age", self.max_age_seconds),
            ("--lag", self.lag_seconds),
        ):
            if seconds is not None and not seconds >= 0:
                raise UsageError(f"{option} must be at least 0 seconds")


class CheckReport(Struct, frozen=True, kw_only=True):
    """What a check found."""

    mismatches: tuple[Mismatch, ...] = ()
    """What clients stumble on, by version."""
    mismatches_left_out: int = 0
    """How many more there are; only so many are kept."""
    findings: tuple[Finding, ...] = ()
    """What works but should be seen to."""
    products: int = 0
    """How many products were checked."""
    versions: int = 0
    """How many versions were checked."""
    files: int = 0
    """How many files the server was asked for."""
    files_read: int = 0
    """How many of them were read and hashed."""
    bytes_read: int = 0
    """How many bytes of them came."""
    reading_seconds: float = 0
    """Wall time spent on that."""
    seconds: float = 0
    """Wall time of the whole run."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        if self.mismatches:
            return ExitCode.DAMAGED
        return ExitCode.LEFT_OUT if self.findings else ExitCode.DONE
