"""What a caller hands to the pipeline and gets back: options, an observer, a report."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from fastindex.errors import ExitCode
from fastindex.model import Finding, Naming


class Observer(Protocol):
    """What a run tells while it works. All calls come from the thread that runs it."""

    def hashing_starts(self, total_bytes: int) -> None:
        """Say that ``total_bytes`` bytes are to be read now."""

    def bytes_done(self, done_bytes: int) -> None:
        """Say that ``done_bytes`` bytes in all have been read so far."""

    def hashing_ends(self) -> None:
        """Say that reading is over, whatever the reason."""

    def warn(self, finding: Finding) -> None:
        """Say what a person should know about the tree; at the end, whatever the end."""

    def note(self, message: str) -> None:
        """Say something that only a curious person wants to know."""

    @property
    def wants_progress(self) -> bool:
        """Whether ``bytes_done`` is worth calling often."""


class Silent:
    """An observer that looks away."""

    wants_progress = False

    def hashing_starts(self, total_bytes: int) -> None:
        """Look away."""

    def bytes_done(self, done_bytes: int) -> None:
        """Look away."""

    def hashing_ends(self) -> None:
        """Look away."""

    def warn(self, finding: Finding) -> None:
        """Look away."""

    def note(self, message: str) -> None:
        """Look away."""


class BuildOptions(Struct, frozen=True, kw_only=True):
    """What ``build`` is to do."""

    root: str = "."
    """The directory that a web server serves: the one with ``images/``."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    streams: tuple[str, ...] = ("images",)
    """Stream directories below ``root``, each with a product file of its own."""
    rehash: bool = False
    """Read every file anew, whatever the cache says."""
    recheck: str = ""
    """The share of versions to read again and hold against the cache, as ``1/30``."""
    recheck_day: int | None = None
    """Which day's share, in days since the epoch; None: today's."""
    settle_seconds: float = 0
    """Leave versions with files younger than this for the next run."""
    cache_dir: str | None = None
    """Where ``.items.json`` files go; None: into the tree."""
    output_dir: str | None = None
    """Where ``streams/`` goes; None: into ``root``."""
    blake3: bool = True
    """Compute BLAKE3 too, for later scrubbing."""
    dry_run: bool = False
    """Write nothing at all, take no lock; the report tells what would change."""
    force: bool = False
    """Publish even where more than half of the versions, or all, would go."""
    wait_seconds: float = 0
    """How long to wait for the lock; ``inf``: for ever."""


class Change(Struct, frozen=True):
    """A difference between what is published and what this run found."""

    kind: Literal["added", "removed", "changed"]
    """Which way."""
    stream: str
    """In which product file."""
    product: str
    """The product's key."""
    version: str
    """The version's name; empty where the product's own fields changed."""
    size_bytes: int = 0
    """Of the version's files, as they will be or, removed, as they were published."""


class BuildReport(Struct, frozen=True, kw_only=True):
    """What ``build`` did."""

    products: int
    """Products published."""
    versions: int
    """Versions published."""
    files_hashed: int = 0
    """Files read."""
    files_reused: int = 0
    """Files whose digests the cache vouched for."""
    bytes_read: int = 0
    """Bytes of images and metadata read."""
    hashing_seconds: float = 0
    """Wall time spent on reading and hashing."""
    seconds: float
    """Wall time of the whole run."""
    versions_settling: int = 0
    """Versions left for the next run by ``settle_seconds``."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know, by path."""
    changes: tuple[Change, ...] = ()
    """Differences to what is published; only a dry run looks for them."""
    refusal: str = ""
    """On a dry run: why a real one would publish nothing."""
    product_files: dict[str, bytes] = {}
    """Stream → its product file, byte for byte; only a dry run keeps it."""
    wrote: tuple[str, ...] = ()
    """Paths of catalogue files that were written, relative to the output directory."""

    @property
    def versions_left_out(self) -> int:
        """How many versions were left out whole."""
        return sum(finding.versions_left_out for finding in self.findings)

    @property
    def files_left_out(self) -> int:
        """How many files were left out of versions that are published without them."""
        return sum(finding.files_left_out for finding in self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """What the command line ends with."""
        if self.refusal:
            return ExitCode.FAILED
        is_whole = self.versions_left_out == 0 and self.files_left_out == 0
        return ExitCode.DONE if is_whole else ExitCode.LEFT_OUT


class ImportOptions(Struct, frozen=True, kw_only=True):
    """What ``import_images`` is to do."""

    sources: tuple[str, ...]
    """Directories, one image each, and files."""
    root: str
    """The directory that a web server serves: the one with ``images/``."""
    mode: Literal["copy", "move", "link"] = "move"
    """What becomes of the sources; *link*: hard links, or copies where there can be none."""
    naming: Naming = Naming()
    """Names that replace those in the images' metadata."""
    stream: str = "images"
    """The stream directory below ``root``."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    blake3: bool = True
    """Compute BLAKE3 too, for later scrubbing."""
    dry_run: bool = False
    """Change nothing; the report tells each step."""


class Step(Struct, frozen=True):
    """Something that an import would do."""

    verb: str
    """What: mkdir, copy, link, move, write, rename, compare."""
    path: str
    """With what."""
    target: str = ""
    """Where to."""
    size_bytes: int = 0
    """How much of it."""


class ImportReport(Struct, frozen=True, kw_only=True):
    """What ``import_images`` did."""

    imported: tuple[str, ...] = ()
    """Versions that are new in the tree, relative to ROOT."""
    existing: tuple[str, ...] = ()
    """Versions that were there already, with the same content."""
    failed: int = 0
    """How many images were not imported; each has a finding."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What would be done; only a dry run tells."""
    bytes_read: int = 0
    """Bytes of images and metadata read."""
    hashing_seconds: float = 0
    """Wall time spent on reading, hashing and writing."""
    seconds: float = 0
    """Wall time of the whole run."""

    @property
    def exit_code(self) -> ExitCode:
        """What the command line ends with."""
        if not self.failed:
            return ExitCode.DONE
        has_any = self.imported or self.existing or self.steps
        return ExitCode.LEFT_OUT if has_any else ExitCode.FAILED


class VerifyOptions(Struct, frozen=True, kw_only=True):
    """What ``verify_catalogue`` is to do."""

    root: str = "."
    """The directory that a web server serves."""
    method: Literal["known", "sha256", "quick"] = "known"
    """*known*: BLAKE3 where the caches know it, SHA-256 elsewhere; *sha256*: what clients
    check; *quick*: no bytes, names and sizes only."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    cache_dir: str | None = None
    """Where ``.items.json`` files are; None: in the tree."""
    output_dir: str | None = None
    """Where ``streams/`` is; None: in ``root``."""


class Mismatch(Struct, frozen=True):
    """Something that is published and not as it should be."""

    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or the catalogue file."""
    file: str
    """The file's name in the version; empty: the version as published."""
    problem: str
    """What is wrong."""


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What ``verify_catalogue`` found."""

    mismatches: tuple[Mismatch, ...] = ()
    """All that is wrong, by version."""
    findings: tuple[Finding, ...] = ()
    """What clients accept but people stumble over."""
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
        """What the command line ends with."""
        return ExitCode.DAMAGED if self.mismatches else ExitCode.DONE


class PruneOptions(Struct, frozen=True, kw_only=True):
    """What ``prune``, ``remove`` and ``restore`` are to do."""

    root: str = "."
    """The directory that a web server serves."""
    keep: int = 3
    """How many versions of each product stay."""
    keep_days: int = 0
    """Versions dated less than this many days ago stay, too."""
    grace_seconds: float = 7200
    """How long files outlive the last catalogue that named them."""
    streams: tuple[str, ...] = ("images",)
    """Stream directories below ``root``."""
    cache_dir: str | None = None
    """Where ``.items.json`` files are; None: in the tree."""
    output_dir: str | None = None
    """Where ``streams/`` is; None: in ``root``."""
    jobs: int | None = None
    """Worker processes of the build that publishes without what goes."""
    dry_run: bool = False
    """Change nothing; the report tells each step."""
    wait_seconds: float = 0
    """How long to wait for the lock; ``inf``: for ever."""


class PruneReport(Struct, frozen=True, kw_only=True):
    """What ``prune``, ``remove`` or ``restore`` did."""

    withdrawn: tuple[str, ...] = ()
    """What is published no more since this run."""
    deleted: tuple[str, ...] = ()
    """What is gone from the disk."""
    waiting: tuple[str, ...] = ()
    """What is to be deleted by a later run, once its grace has passed."""
    restored: tuple[str, ...] = ()
    """What is published again."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What would be done; only a dry run tells."""
    exit_code: ExitCode = ExitCode.DONE
    """What the command line ends with: that of the build."""
