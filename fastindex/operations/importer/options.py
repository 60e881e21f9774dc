"""What a caller hands to the import and gets back. Apart from the build's: its start is quick."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fastindex.errors import ExitCode
from fastindex.events import Finding, Step
from fastindex.mirror.tree import Naming


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
    cache_dir: str | None = None
    """Where ``.items.json`` files go; None: into the tree."""
    output_dir: str | None = None
    """Where ``streams/`` is, with what is withdrawn; None: in ``root``."""
    jobs: int | None = None
    """Worker processes; None: as many as CPUs that this process may use."""
    engine: str = "auto"
    """What computes SHA-256: ``auto``, ``hashlib`` or ``lanes``."""
    blake3: bool = True
    """Compute BLAKE3 too, for later scrubbing."""
    dry_run: bool = False
    """Change nothing; the report tells each step."""


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
