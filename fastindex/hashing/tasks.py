"""What passes between those who want digests, the workers, and back: frozen values.

They are msgspec Structs, not dataclasses: on a mirror of 20,000 versions a warm run makes
120,000 of them, and a Struct costs a fifth of a frozen dataclass to make (0.1 µs beside
0.6 µs) and nothing to define, which the start of the program feels.
"""

from __future__ import annotations

from msgspec import Struct

from fastindex.system.stamps import Stamp


class FileRef(Struct, frozen=True, gc=False):
    """A file to read, and what it must still be when it is read."""

    path: str
    """Absolute."""
    stamp: Stamp
    """As scanned."""
    copy_to: str = ""
    """A new file that takes the bytes while they are read; empty: none."""


class RootTask(Struct, frozen=True):
    """One file to read once, with all metadata that it has a fingerprint with."""

    root: FileRef
    """The root, unified image or delta."""
    metadata: tuple[FileRef, ...] = ()
    """Distinct metadata files, of all versions that link to this root."""
    is_unified: bool = False
    """Whether it is a unified image, whose content tells what type of image it is."""

    @property
    def lanes(self) -> int:
        """How many SHA-256 states its root's bytes go to, at most."""
        return 1 + len(self.metadata)


class Batch(Struct, frozen=True):
    """What a worker takes at a time: one big file or several small ones."""

    tasks: tuple[RootTask, ...]
    """In order; metadata that they share is read once."""
    size_bytes: int
    """Bytes to read: the progress bar's share."""
    wants_blake3: bool
    """Whether BLAKE3 is computed."""
    wants_sha256: bool = True
    """Whether SHA-256 is computed, and the fingerprints."""
    threads: int = 1
    """Threads that BLAKE3 may use on a file."""
    engine: str = "hashlib"
    """Which engine computes SHA-256."""
    files_at_once: int = 1
    """How many of its files are read side by side."""


class FileDigest(Struct, frozen=True):
    """The digests of one complete file."""

    sha256: str
    """64 hex digits, or empty where not asked for."""
    blake3: str
    """64 hex digits, or empty where not asked for."""
    key: str
    """Its cache key; empty where the stamp is too young to trust."""


class Failed(Struct, frozen=True):
    """A file that could not be digested: a value, never an exception."""

    problem: str
    """Why, for people."""
    remedy: str
    """What to do about it."""
    costs_version: bool = False
    """Whether its version is left out as a whole, not only the file."""
    is_shortage: bool = False
    """Whether the system was out of something: no reason to leave anything out."""


class Digested(Struct, frozen=True):
    """What one read of a root gave."""

    root: FileDigest
    """The root's own digests."""
    metadata: dict[Stamp, FileDigest | Failed]
    """The metadata's digests."""
    fingerprints: dict[Stamp, str]
    """Metadata → sha256(metadata ‖ root), 64 hex digits."""
    bytes_read: int
    """Bytes that this task took from the disk, metadata included."""
    files_read: int
    """Files that this task read."""
    combined_type: str = ""
    """``virtual-machine`` for a unified image that is one."""


Outcome = Digested | Failed
