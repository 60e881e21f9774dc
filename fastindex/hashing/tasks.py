"""What callers and workers exchange: frozen values.

They are msgspec Structs, not dataclasses. On a mirror of 20,000 versions, a run that hashes
nothing makes 120,000 of them. Making a Struct takes 0.1 µs, a frozen dataclass 0.6 µs; and
defining a dataclass slows down the start of the program.
"""

from __future__ import annotations

from msgspec import Struct

from fastindex.errors import Code
from fastindex.formats.names import FileRole
from fastindex.system.stamps import Stamp


class FileRef(Struct, frozen=True, gc=False):
    """A file to read, and the stamp that it must have when it is read."""

    path: str
    """Its absolute path."""
    stamp: Stamp
    """Its stamp when it was scanned."""
    copy_to: str = ""
    """Absolute path of a new file to copy it to while it is read; empty: none."""
    roles: tuple[FileRole, ...] = ()
    """What its names say that it is. If its first bytes fit none of them, it is not read on."""
    other_paths: tuple[str, ...] = ()
    """More paths of the same file, to read it by if an earlier one fails."""


class RootTask(Struct, frozen=True):
    """A root to read once, and all metadata files that it shares a fingerprint with."""

    root: FileRef
    """The root, unified image or delta."""
    metadata: tuple[FileRef, ...] = ()
    """Distinct metadata files, from all versions that link to this root."""
    is_unified: bool = False
    """Whether it is a unified image, whose content tells the type of the image."""

    @property
    def lanes(self) -> int:
        """The greatest number of SHA-256 states that take in the bytes of its root."""
        return 1 + len(self.metadata)


class EngineSetup(Struct, frozen=True):
    """What computes SHA-256, and how. Measured once, it travels with the batches."""

    name: str = "hashlib"
    """The engine: ``hashlib`` or ``lanes``."""
    wide_from: int = 0
    """From how many busy lanes on the wide kernel is used; 0: never."""
    narrow_lanes: int = 0
    """How many lanes the narrow kernel works on at once at most; 0: as many as it can."""


class Batch(Struct, frozen=True):
    """The work that a worker gets at a time: one big file or several small ones."""

    tasks: tuple[RootTask, ...]
    """The tasks, in order. Metadata that they share is read once."""
    size_bytes: int
    """Bytes to read."""
    wants_blake3: bool
    """Whether to compute BLAKE3."""
    wants_sha256: bool = True
    """Whether to compute SHA-256 and the fingerprints."""
    threads: int = 1
    """Threads that BLAKE3 may use for a file."""
    engine: EngineSetup = EngineSetup()
    """What computes SHA-256."""
    files_at_once: int = 1
    """How many roots to read side by side."""
    speeds: tuple[float, ...] = (1.0,)
    """As in ``Strategy``: how much a worker gains that reads others beside it; (1.0,): nothing."""


class FileDigest(Struct, frozen=True):
    """The digests of one complete file."""

    sha256: str
    """64 hex digits; empty if not asked for."""
    blake3: str
    """64 hex digits; empty if not asked for."""
    key: str
    """Its cache key; empty if the stamp is too young to trust."""
    is_checked: bool = False
    """Whether its first bytes were held against the roles of its reference."""
    head: bytes = b""
    """Its first bytes, if they fit some of those roles but not all; else empty."""


class Failed(Struct, frozen=True):
    """A file that could not be digested: a value, never an exception."""

    code: Code
    """What kind of thing is wrong, for programs."""
    problem: str
    """What is wrong, for people."""
    remedy: str
    """What to do about it."""
    costs_version: bool = False
    """Whether it leaves out its version, not only the file."""
    is_shortage: bool = False
    """Whether the system is out of descriptors or memory: the file may be all right."""
    head: bytes | None = None
    """The first bytes of a file that fit none of its roles; None: it failed for another reason."""
    metadata: dict[Stamp, Failed] = {}
    """The metadata files of a root, if it was not read because all of them failed."""


class Digested(Struct, frozen=True):
    """The result of reading a root."""

    root: FileDigest
    """The digests of the root."""
    metadata: dict[Stamp, FileDigest | Failed]
    """Metadata file → its digests."""
    fingerprints: dict[Stamp, str]
    """Metadata file → sha256(metadata ‖ root), 64 hex digits."""
    bytes_read: int
    """Bytes that were read for this task, metadata included."""
    files_read: int
    """Files that were read for this task."""
    combined_type: str = ""
    """``virtual-machine`` for a unified image that is one."""


Outcome = Digested | Failed
