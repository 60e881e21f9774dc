"""The options of a build, and its report."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.companions import Makers
from fastindex.errors import Code, ExitCode, UsageError
from fastindex.events import Change, Finding
from fastindex.hashing.options import HashingOptions
from fastindex.operations.builder.recheck import RecheckShare, parse_share


class BuildOptions(Struct, frozen=True, kw_only=True):
    """How to build."""

    hashing: HashingOptions = HashingOptions()
    """How files are hashed."""
    rehash: bool = False
    """Read every file again, whatever the caches say."""
    recheck: str = ""
    """The share of versions to read again and compare with the caches, such as ``1/30``."""
    recheck_day: int | None = None
    """Which day's share, in days since the epoch; None: today's."""
    adopt: bool = False
    """Where the mirror has a cache directory, believe the caches in the tree for versions that it
    does not know yet."""
    settle_seconds: float = 0
    """Leave versions with files younger than this for the next run."""
    dry_run: bool = False
    """Write nothing and take no lock; the report says what would change."""
    list_changes: bool = False
    """Compare with what is published, and report what changes; a dry run always does."""
    force: bool = False
    """Publish even if more than half of a stream's versions, or all, would go."""
    wait_seconds: float = 0
    """How long to wait for another run to end; ``inf``: for ever."""
    makers: Makers = Makers()
    """Of what is to accompany the catalogue; what earlier runs made besides is removed."""
    scanners: int | None = None
    """Threads that list directories; None: one for each job, and more where calls wait for a disk
    or a server."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.hashing.check()
        self.find_share()
        if self.scanners is not None and not (
            isinstance(self.scanners, int) and self.scanners >= 1
        ):
            raise UsageError("--scanners must be an integer of at least 1")
        if not (self.settle_seconds >= 0 and self.wait_seconds >= 0):
            raise UsageError("--settle and --wait must be at least 0 seconds")

    def find_share(self) -> RecheckShare | None:
        """Return which versions ``recheck`` says to read again; None: it is not asked for.

        Raises:
            UsageError: it is not a share.
        """
        return parse_share(self.recheck, self.recheck_day) if self.recheck else None


class BuildReport(Struct, frozen=True, kw_only=True):
    """What a build did."""

    products: int
    """Products published."""
    versions: int
    """Versions published."""
    files_hashed: int = 0
    """Files read."""
    files_reused: int = 0
    """Files that were not read, because a cache vouched for their digests."""
    bytes_read: int = 0
    """Bytes of images and metadata read."""
    hashing_seconds: float = 0
    """Wall time spent on reading and hashing."""
    is_unchanged: bool = False
    """Whether all is as the last run left it, so that there was nothing to do."""
    seconds: float
    """Wall time of the whole run."""
    scanning_seconds: float = 0
    """Wall time spent on looking at the tree, and on planning what to read."""
    publishing_seconds: float = 0
    """Wall time spent on assembling and writing the catalogue."""
    versions_settling: int = 0
    """Versions that ``settle_seconds`` left for the next run."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know about the tree, by path."""
    changes: tuple[Change, ...] = ()
    """Differences from what was published; only a dry run, or ``list_changes``, looks for them."""
    refusal: str = ""
    """Why a real run would publish nothing; only a dry run says so, any other raises."""
    product_files: dict[str, bytes] = {}
    """Stream → its product file, byte for byte; only a dry run keeps them."""
    would_write: tuple[str, ...] = ()
    """Paths of catalogue files that a real run would write, relative to the output directory;
    only a dry run looks for them."""
    wrote: tuple[str, ...] = ()
    """Paths of catalogue files that were written, relative to the output directory."""

    @property
    def versions_left_out(self) -> int:
        """How many versions were left out."""
        return sum(finding.versions_left_out for finding in self.findings)

    @property
    def files_left_out(self) -> int:
        """How many files were left out, although their versions are published."""
        return sum(finding.files_left_out for finding in self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        if self.refusal:
            return ExitCode.FAILED
        is_complete = self.versions_left_out == 0 and self.files_left_out == 0
        is_complete &= all(finding.code is not Code.BAD_RECORD for finding in self.findings)
        return ExitCode.DONE if is_complete else ExitCode.LEFT_OUT


def join_reports(first: BuildReport, last: BuildReport) -> BuildReport:
    """Return the report of two builds in a row: what both read, and what the last published."""
    return replace(
        last,
        files_hashed=first.files_hashed + last.files_hashed,
        files_reused=first.files_reused,
        bytes_read=first.bytes_read + last.bytes_read,
        hashing_seconds=first.hashing_seconds + last.hashing_seconds,
        scanning_seconds=first.scanning_seconds + last.scanning_seconds,
        publishing_seconds=first.publishing_seconds + last.publishing_seconds,
        changes=first.changes + last.changes,
        wrote=tuple(dict.fromkeys((*first.wrote, *last.wrote))),
        seconds=first.seconds + last.seconds,
    )
