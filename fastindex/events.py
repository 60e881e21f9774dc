"""What an operation tells while it works, and what it found: values and the observer."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True):
    """Something about the tree that a person should know."""

    path: str
    """What it is about, relative to ROOT."""
    problem: str
    """What is wrong."""
    remedy: str
    """What to do about it."""
    versions_left_out: int = 0
    """How many whole versions are not published because of it (of an unreadable directory: 1)."""
    files_left_out: int = 0
    """How many files are not published because of it, though their version is."""


class Step(Struct, frozen=True):
    """Something that an operation would do; only a dry run tells."""

    verb: str
    """What: mkdir, copy, link, move, write, rename, compare, publish, withdraw, delete."""
    path: str
    """With what."""
    target: str = ""
    """Where to."""
    size_bytes: int = 0
    """How much of it."""


class Observer:
    """Is told how an operation goes; subclass it and override what you want to hear.

    Nothing here does anything. All calls come from the thread that runs the operation.
    """

    wants_progress: bool = False
    """Whether ``bytes_hashed`` is worth calling often."""

    def hashing_started(self, total_bytes: int) -> None:
        """Hear that ``total_bytes`` bytes are about to be read."""

    def bytes_hashed(self, done_bytes: int) -> None:
        """Hear that ``done_bytes`` bytes in all have been read so far."""

    def hashing_finished(self) -> None:
        """Hear that reading is over, whatever the reason."""

    def warn(self, finding: Finding) -> None:
        """Hear what a person should know about the tree; called at the end, however it ends."""

    def log(self, message: str) -> None:
        """Hear a detail that only a curious person wants to know."""
