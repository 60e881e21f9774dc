"""What passes between the stages: frozen values, no behaviour.

They are msgspec Structs, not dataclasses: on a mirror of 20,000 versions a warm run
makes 120,000 of them, and a Struct costs a fifth of a frozen dataclass to make
(0.1 µs beside 0.6 µs) and nothing to define, which the start of the program feels.
"""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from fastindex.contract import CachedItem
from fastindex.errors import ExitCode
from fastindex.names import FileRole

FileId = tuple[int, int]
"""(device, inode): hard links and symlinks to one file share it."""


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


class FoundFile(Struct, frozen=True, gc=False):
    """A file that has a role in the catalogue, as its directory entry says."""

    name: str
    """Its name within the version directory."""
    role: FileRole
    """What the name means."""
    size_bytes: int
    """Length, half of its stamp."""
    mtime_ns: int
    """Modification time since the epoch, the other half of its stamp."""
    device: int
    """With ``inode``: which file this is, whatever its name."""
    inode: int
    """With ``device``: which file this is, whatever its name."""

    @property
    def id(self) -> FileId:
        """Its identity among hard links and symlinks."""
        return (self.device, self.inode)


class FoundVersion(Struct, frozen=True, gc=False):
    """A version directory with a valid name."""

    name: str
    """The directory's name, which clients sort by and read the date from."""
    path: str
    """Relative to ROOT."""
    files: tuple[FoundFile, ...]
    """Those with a role, by name."""
    broken: tuple[str, ...] = ()
    """ftypes of metadata files that lie there but cannot be used."""


class FoundProduct(Struct, frozen=True, gc=False):
    """A variant directory."""

    stream: str
    os: str
    release: str
    arch: str
    variant: str
    path: str
    """Relative to ROOT."""
    dotfiles: tuple[str, ...]
    """Settings files from the variant directory up to the stream, nearest first; relative."""

    @property
    def key(self) -> str:
        """The product's key in the catalogue."""
        return f"{self.os}:{self.release}:{self.arch}:{self.variant}"


Found = tuple[FoundProduct, list[FoundVersion]]
"""A product and its versions, oldest first."""


class Requirements(Struct, frozen=True):
    """What images of a product ask of the host; strings to strings, as clients want."""

    incus: dict[str, str]
    """From ``.requirements``."""
    lxd: dict[str, str]
    """From ``.lxd_requirements``."""


class Cached(Struct, frozen=True):
    """An ``.items.json`` as read."""

    items: dict[str, CachedItem]
    """File name → item; empty where the file was absent or unusable."""
    mtime_ns: int
    """When it was written; what the seed tool's digests are judged by."""


class Selection(Struct, frozen=True, gc=False):
    """The files of a version that take part in the catalogue, one an ftype."""

    metadata: tuple[FoundFile, ...]
    """At most one for Incus and one for LXD."""
    roots: tuple[FoundFile, ...]
    """Split roots: each has a fingerprint with each metadata."""
    singles: tuple[FoundFile, ...]
    """Unified images and deltas: only their own digest counts."""

    @property
    def files(self) -> tuple[FoundFile, ...]:
        """All of them."""
        return (*self.metadata, *self.roots, *self.singles)


class PlannedVersion(Struct, frozen=True):
    """A version: what is known of it and what must be read."""

    product: FoundProduct
    """Whose version it is."""
    version: FoundVersion
    """As found."""
    selection: Selection
    """Which of its files count."""
    items: dict[str, CachedItem]
    """What the cache vouches for, by file name."""
    pending: tuple[FoundFile, ...]
    """Roots and singles that must be read."""
    is_adopted: bool
    """Whether digests without a key (the seed tool's) were taken over."""

    @property
    def metadata_ftypes(self) -> set[str]:
        """The kinds of metadata that lie in the version, usable or not."""
        return {file.role.ftype for file in self.selection.metadata}.union(self.version.broken)


class FileRef(Struct, frozen=True, gc=False):
    """A file to read, and what it must still be when it is read."""

    path: str
    """Absolute."""
    size_bytes: int
    """Length when scanned."""
    mtime_ns: int
    """Modification time when scanned."""
    device: int
    """With ``inode``: the very file that was scanned."""
    inode: int
    """With ``device``: the very file that was scanned."""

    @property
    def id(self) -> FileId:
        """Its identity among hard links and symlinks."""
        return (self.device, self.inode)


class RootTask(Struct, frozen=True):
    """One file to read once, with all metadata that it has a fingerprint with."""

    root: FileRef
    """The root, unified image or delta."""
    metadata: tuple[FileRef, ...] = ()
    """Distinct metadata files; of all versions that link to this root."""


class Batch(Struct, frozen=True):
    """What a worker takes at a time: one big file or several small ones."""

    tasks: tuple[RootTask, ...]
    """In order; metadata that they share is read once."""
    size_bytes: int
    """Bytes to read: the progress bar's share."""
    wants_blake3: bool
    """Whether BLAKE3 is computed beside SHA-256."""


class FileDigest(Struct, frozen=True):
    """The digests of one whole file."""

    sha256: str
    """64 hex digits."""
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
    """Whether its whole version is left out, not only the file."""


class Digested(Struct, frozen=True):
    """What one read of a root gave."""

    root: FileDigest
    """The root's own digests."""
    metadata: dict[FileId, FileDigest | Failed]
    """The metadata's digests."""
    fingerprints: dict[FileId, str]
    """Metadata → sha256(metadata ‖ root), 64 hex digits."""
    bytes_read: int
    """Bytes that this task took from the disk, metadata included."""
    files_read: int
    """Files that this task read."""


Outcome = Digested | Failed


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
