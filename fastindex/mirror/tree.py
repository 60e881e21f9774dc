"""What passes between the stages: frozen values, no behaviour.

They are msgspec Structs, not dataclasses: on a mirror of 20,000 versions a warm run
makes 120,000 of them, and a Struct costs a fifth of a frozen dataclass to make
(0.1 µs beside 0.6 µs) and nothing to define, which the start of the program feels.
"""

from __future__ import annotations

from msgspec import Struct

from fastindex.formats.names import FileRole
from fastindex.formats.simplestreams import INCUS_METADATA, LXD_METADATA, CachedItem

FileId = tuple[int, int, int, int]
"""(device, inode, size, mtime_ns): hard links and symlinks to one file share it. With the
stamp, as a new file may have got the inode of one that was removed since it was seen."""


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
        return (self.device, self.inode, self.size_bytes, self.mtime_ns)


class FoundVersion(Struct, frozen=True, gc=False):
    """A version directory with a valid name."""

    name: str
    """The directory's name, which clients sort by and read the date from."""
    path: str
    """Relative to ROOT."""
    files: tuple[FoundFile, ...]
    """Those with a role, by name."""
    broken: tuple[str, ...] = ()
    """ftypes of files that lie there but cannot be used."""
    has_image_yaml: bool = False
    """Whether the builder's ``image.yaml`` lies there."""


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
    """Settings files from the variant directory up to the stream, nearest first, then the
    newest version's ``image.yaml``; relative to ROOT."""

    @property
    def key(self) -> str:
        """The product's key in the catalogue."""
        return f"{self.os}:{self.release}:{self.arch}:{self.variant}"


Found = tuple[FoundProduct, list[FoundVersion]]
"""A product and its versions, oldest first."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the operator's files in the tree say of a product; None: nothing."""

    os: str | None = None
    """The distribution's name, as people write it."""
    release_title: str | None = None
    """The release's name, as people write it."""
    release_codename: str | None = None
    """The release's code name."""
    version: str | None = None
    """The release's number."""
    support_eol: str | None = None
    """The last day of support, ``YYYY-MM-DD``: when clients' images expire."""
    supported: bool | None = None
    """Whether the release is supported."""
    label: str | None = None
    """What clients show behind the description of each version."""
    aliases: tuple[str, ...] | None = None
    """More names; ``{os}``, ``{release}``, ``{variant}``, ``{arch}`` stand for the product's."""
    replace_aliases: bool | None = None
    """Whether ``aliases`` stand instead of the default ones."""
    requirements: dict[str, str] = {}
    """What images ask of an Incus host; strings, as clients want."""
    lxd_requirements: dict[str, str] = {}
    """What images ask of an LXD host; strings, as clients want."""


class Naming(Struct, frozen=True, kw_only=True):
    """What the operator says of names; empty: what the metadata says."""

    os: str = ""
    release: str = ""
    arch: str = ""
    variant: str = ""
    version: str = ""
    """The version's name."""
    from_serial: bool = False
    """Take the builder's serial for the version's name, not the creation date."""


class Place(Struct, frozen=True):
    """Where a version belongs, below the stream directory."""

    os: str
    release: str
    arch: str
    variant: str
    version: str

    @property
    def product_path(self) -> str:
        """OS/RELEASE/ARCH/VARIANT."""
        return f"{self.os}/{self.release}/{self.arch}/{self.variant}"


class Notes(Struct, frozen=True):
    """What earlier runs noted about the tree."""

    withdrawn: frozenset[str]
    """Versions that are to be published no more, none of their images."""
    damaged: dict[str, str]
    """Files (relative to ROOT) with other bytes than when they were hashed → cache key; a
    run keeps it up to date."""


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
        broken = {INCUS_METADATA, LXD_METADATA}.intersection(self.version.broken)
        return {file.role.ftype for file in self.selection.metadata} | broken


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
    copy_to: str = ""
    """A new file that takes the bytes while they are read; empty: none."""

    @property
    def id(self) -> FileId:
        """Its identity among hard links and symlinks."""
        return (self.device, self.inode, self.size_bytes, self.mtime_ns)


class RootTask(Struct, frozen=True):
    """One file to read once, with all metadata that it has a fingerprint with."""

    root: FileRef
    """The root, unified image or delta."""
    metadata: tuple[FileRef, ...] = ()
    """Distinct metadata files; of all versions that link to this root."""
    is_unified: bool = False
    """Whether it is a unified image, whose content tells what type of image it is."""

    @property
    def lanes(self) -> int:
        """How many SHA-256 its root's bytes go to, at most."""
        return 1 + len(self.metadata)


class Hashing(Struct, frozen=True):
    """How a run hashes."""

    jobs: int
    """Worker processes."""
    engine: str = "hashlib"
    """Which engine computes SHA-256."""
    speeds: tuple[float, ...] = (1.0,)
    """How many bytes 1, 2, … SHA-256 at once take in, beside one; it ends with as many as
    files may be read side by side for."""


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
    """The digests of one whole file."""

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
    """Whether its whole version is left out, not only the file."""
    is_shortage: bool = False
    """Whether the system was out of something: no reason to leave anything out."""


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
    combined_type: str = ""
    """``virtual-machine`` for a unified image that is one."""


Outcome = Digested | Failed
