"""The options of an import, and its report. Apart from its run, so that the start is quick."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.formats.image_metadata import Naming
from fastindex.hashing.options import HashingOptions

Mode = Literal["copy", "move", "link"]
"""What to do with the sources; *link*: hard-link where the file system allows it, else copy."""


class ImportOptions(Struct, frozen=True, kw_only=True):
    """What to import, and how. The images go into the mirror's only stream."""

    sources: tuple[str, ...]
    """Directories, one image each, or files."""
    mode: Mode = "move"
    """What to do with the sources."""
    naming: Naming = Naming()
    """Names that replace those in the images' metadata."""
    hashing: HashingOptions = HashingOptions()
    """How files are hashed."""
    is_recursive: bool = False
    """Whether to look for images in the directories below a source, too."""
    aliases: tuple[str, ...] = ()
    """What the product is to be called, too."""
    dry_run: bool = False
    """Change nothing, and read no image through; the report says each step."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.hashing.check()
        if not self.sources:
            raise UsageError("name at least one SOURCE, then ROOT")
        if self.mode not in ("copy", "move", "link"):
            raise UsageError(f"mode must be copy, move or link, not {self.mode!r}")


class ImportReport(Struct, frozen=True, kw_only=True):
    """What an import did."""

    imported: tuple[str, ...] = ()
    """Versions that are new in the tree, relative to ROOT."""
    existing: tuple[str, ...] = ()
    """Versions that existed already, with the same content."""
    failed: int = 0
    """How many images were not imported; each has a finding."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What a real run would do; only a dry run reports it."""
    bytes_read: int = 0
    """Bytes of images and metadata read."""
    hashing_seconds: float = 0
    """Wall time spent on reading, hashing and writing."""
    seconds: float = 0
    """Wall time of the whole run."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        if not self.failed:
            return ExitCode.DONE
        has_any = self.imported or self.existing or self.steps
        return ExitCode.LEFT_OUT if has_any else ExitCode.FAILED
