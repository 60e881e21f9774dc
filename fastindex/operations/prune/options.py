"""What a caller hands to verify, prune and remove and gets back."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fastindex.errors import ExitCode
from fastindex.events import Finding, Step


class VerifyOptions(Struct, frozen=True, kw_only=True):
    """What ``verify_catalogue`` is to do."""

    root: str = "."
    """The directory that a web server serves."""
    method: Literal["known", "sha256", "quick"] = "known"
    """*known*: BLAKE3 where the caches know it, SHA-256 elsewhere; *sha256*: what clients
    check; *quick*: no bytes, names and sizes only."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    engine: str = "auto"
    """What computes SHA-256: ``auto``, ``hashlib`` or ``lanes``."""
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
    settle_seconds: float = 0
    """The build leaves out versions with files younger than this."""
    jobs: int | None = None
    """Worker processes of the build that publishes without what goes."""
    engine: str = "auto"
    """What computes SHA-256 in that build."""
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
    """What the command line ends with: that of the build, or ``LEFT_OUT`` where something
    that was to be deleted could not be."""
