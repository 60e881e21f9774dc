"""What a caller hands to the build and gets back: options and a report."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fastindex.errors import ExitCode
from fastindex.events import Finding


class BuildOptions(Struct, frozen=True, kw_only=True):
    """What ``build`` is to do."""

    root: str = "."
    """The directory that a web server serves: the one with ``images/``."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    engine: str = "auto"
    """What computes SHA-256: ``auto``, ``hashlib`` or ``lanes``."""
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
