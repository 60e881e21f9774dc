"""The tree of errors: a class is a meaning and an exit code.

A failure of one *file* is never one of these: it is a value (``fastindex.hashing.tasks.Failed``),
so that the rest of the mirror goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum, StrEnum

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ExitCode(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    """Everything in the tree is published."""
    FAILED = 1
    """Failed; nothing was published."""
    USAGE = 2
    """The command line is wrong."""
    LEFT_OUT = 3
    """Published, but something was left out; each is named."""
    DAMAGED = 4
    """``verify`` or ``check`` found damage: something published is missing, changed or wrong."""
    LOCKED = 75
    """Another run holds the lock (EX_TEMPFAIL: try again later)."""
    HUNG_UP = 129
    """Ended by SIGHUP, as when the terminal is closed; nothing half-written."""
    INTERRUPTED = 130
    """Ended by Ctrl-C; nothing half-written."""
    TERMINATED = 143
    """Ended by SIGTERM; nothing half-written."""


_FROM_WORST = (
    *(ExitCode.HUNG_UP, ExitCode.TERMINATED, ExitCode.INTERRUPTED),
    *(ExitCode.FAILED, ExitCode.USAGE, ExitCode.DAMAGED, ExitCode.LOCKED, ExitCode.LEFT_OUT),
    ExitCode.DONE,
)


def find_worst(codes: Iterable[int]) -> ExitCode:
    """Return the exit code of several runs in a row: the worst of theirs; of none: ``DONE``."""
    return min(map(ExitCode, codes), key=_FROM_WORST.index, default=ExitCode.DONE)


class Code(StrEnum):
    """What a finding or a mismatch is about, as a word for programs, which never changes.

    The text of a message may become better; programs count and filter by this.
    """

    ALIAS_SHARED = "alias-shared"
    """Two products claim one alias, and both keep it; clients choose one."""
    ALIAS_TAKEN = "alias-taken"
    """A product claims an alias that belongs to another by the names of its directories."""
    AMBIGUOUS_IMAGE = "ambiguous-image"
    """A version has two images that clients cannot rank."""
    BAD_CATALOGUE = "bad-catalogue"
    """Clients reject or skip a part of the published catalogue."""
    BAD_CHECKSUMS = "bad-checksums"
    """A ``SHA256SUMS`` cannot be understood, contradicts itself or names none of the files."""
    BAD_METADATA = "bad-metadata"
    """The metadata of an image does not say where it belongs."""
    BAD_NAME = "bad-name"
    """A name that cannot be that of a directory, a version or an alias."""
    BAD_RECORD = "bad-record"
    """What earlier runs recorded cannot be used."""
    BAD_SETTINGS = "bad-settings"
    """A settings file, or a value in it, cannot be used."""
    BAD_SOURCE = "bad-source"
    """What was to be imported is missing, or is no image."""
    CACHE_NOT_WRITTEN = "cache-not-written"
    """The digests of a version cannot be saved; the next run reads its files again."""
    CACHED_TOO_LONG = "cached-too-long"
    """A server lets caches keep a catalogue for so long that clients do not see what is new."""
    CERTIFICATE_EXPIRES = "certificate-expires"
    """The certificate of a server expires soon."""
    CHANGED = "changed"
    """A file changed, or went away, while it was read or before it was published."""
    CHECKSUM_MISMATCH = "checksum-mismatch"
    """A file differs from what ``SHA256SUMS`` or the catalogue says."""
    COMPANIONS_REMOVED = "companions-removed"
    """A run removed what accompanied the catalogue, as it was not asked for it."""
    COMPRESSED_FILE = "compressed-file"
    """A server compresses files of images on the way."""
    CONTENT_REPLACED = "content-replaced"
    """A bucket has other bytes under the path of a published file; caches may keep those."""
    DAMAGED = "damaged"
    """The bytes of a file changed, but its size and time did not."""
    DATE_IN_FUTURE = "date-in-future"
    """A version is dated in the future; clients take it for the newest until then."""
    DELTA_FAILED = "delta-failed"
    """A delta cannot be made, or does not give the root that it must give."""
    DIRECTORY_VANISHED = "directory-vanished"
    """Of a directory that had published versions, nothing is published any more."""
    DUPLICATE_IMAGE = "duplicate-image"
    """Two images have one fingerprint; clients could download neither."""
    EMPTY_FILE = "empty-file"
    """An image file without a byte."""
    ENGINE_DISAGREES = "engine-disagrees"
    """A SHA-256 engine computes wrong digests on this CPU."""
    FOREIGN_TREE = "foreign-tree"
    """A stream with the files of another tool, which must be imported."""
    HOOK_FAILED = "hook-failed"
    """A program that the configuration names failed."""
    IGNORED_FILE = "ignored-file"
    """A file beside an image that belongs to no image."""
    INCOMPLETE_VERSION = "incomplete-version"
    """A version lacks metadata or a root."""
    INDEX_OUTDATED = "index-outdated"
    """The index does not name a product of a product file; clients do not mind."""
    INDEX_REBUILT = "index-rebuilt"
    """The index was lost or torn, and is made anew from the product files."""
    INSECURE = "insecure"
    """The certificate of a server is not valid, or it redirects from https to http."""
    LIMIT_EXCEEDED = "limit-exceeded"
    """More aliases or requirements than a product or a stream may have."""
    LINK_LEADS_OUT = "link-leads-out"
    """A symlink that leads to where symlinks may not lead."""
    MISPLACED_FILE = "misplaced-file"
    """Image files at a level of the tree where none belong."""
    MACHINE_DELTAS = "machine-deltas"
    """Deltas of disks are asked for, with which Incus cannot refresh virtual machines."""
    MACHINE_AS_CONTAINER = "machine-as-container"
    """Older clients take a unified image of a virtual machine for a container."""
    MIRROR_BEHIND = "mirror-behind"
    """A mirror lacks a version that its upstream has had for too long."""
    MISSING_FILE = "missing-file"
    """A published file is not on the disk, or not on the server."""
    MIXED_VERSION_NAMES = "mixed-version-names"
    """Clients sort the versions of a product wrongly."""
    NOT_A_DIRECTORY = "not-a-directory"
    """A file where a directory belongs."""
    NOT_A_FILE = "not-a-file"
    """A directory, device, FIFO or socket where a file belongs."""
    NOT_DELETED = "not-deleted"
    """Something that was to be deleted is in use, or cannot be deleted."""
    NOT_MEASURED = "not-measured"
    """A benchmark leaves something out."""
    NOT_PERMITTED = "not-permitted"
    """This user may not read a file or directory."""
    NOT_RESUMABLE = "not-resumable"
    """A server serves a file so that a download that broke off must begin anew."""
    NOT_SERVABLE = "not-servable"
    """The web server may be unable to read a file."""
    NOT_WRITTEN = "not-written"
    """A version or file cannot be written."""
    NOT_PUBLISHED = "not-published"
    """Versions or files that the last run left out."""
    NO_ALIAS = "no-alias"
    """A product has no alias; clients find its images by fingerprint only."""
    OTHER_OUTPUT = "other-output"
    """The tree is published in another output directory than the one of this run."""
    PLAIN_HTTP = "plain-http"
    """A server of https serves the same over plain HTTP."""
    PRODUCT_LOST = "product-lost"
    """A product file lacks a product that the index names."""
    PRODUCT_OLD = "product-old"
    """A product whose newest version is older than it may be."""
    RUN_FAILED = "run-failed"
    """The last run of a command failed."""
    SECOND_FILE = "second-file"
    """A version has two files of one kind; one is published."""
    SIZE_UNKNOWN = "size-unknown"
    """A server does not say how long a file is."""
    SOURCE_KEPT = "source-kept"
    """An imported file stays where it was although it was to be moved."""
    SPARSE_FILE = "sparse-file"
    """A file that consists of holes."""
    STALE_COPY = "stale-copy"
    """A compressed or signed copy of a catalogue file is older than that."""
    STILL_CHANGING = "still-changing"
    """A published version is being changed, and what is published of it no longer holds."""
    STORE_FAILED = "store-failed"
    """An object store did not take a file."""
    STORE_UNGUARDED = "store-unguarded"
    """An object store ignores the conditions that keep two pushes apart."""
    STREAM_REFUSED = "stream-refused"
    """A stream stays as it is published: it cannot be listed, or most of it would go."""
    TIME_IN_FUTURE = "time-in-future"
    """A file that was changed in the future, by the clock."""
    TOO_MUCH_WORK = "too-much-work"
    """Files that would take a run too long; later runs go on with the rest."""
    TRUNCATED = "truncated"
    """A file ends early."""
    UNKNOWN_ARCHITECTURE = "unknown-architecture"
    """Clients do not know the name of the architecture."""
    UNREADABLE = "unreadable"
    """A file or directory cannot be read."""
    UNUSED_FILTER = "unused-filter"
    """A value in a filter that nothing has."""
    UPSTREAM_BEHIND = "upstream-behind"
    """The newest version of an upstream is older than it may be."""
    UPSTREAM_FAILED = "upstream-failed"
    """An upstream does not deliver a file, or not as its catalogue describes it."""
    UPSTREAM_MOVED = "upstream-moved"
    """Most of what an upstream has was pulled from another address before."""
    VERSION_EXISTS = "version-exists"
    """An import would become a version that exists, with other content."""
    VERSION_WITHDRAWN = "version-withdrawn"
    """A withdrawn version has newer files, or an import would become one."""
    WRONG_CONTENT = "wrong-content"
    """A file is not what its name says, judging by its first bytes."""


class FastindexError(Exception):
    """The base of all errors: the run failed. The message says why, and what to do."""

    exit_code = ExitCode.FAILED


class UsageError(FastindexError):
    """An option or an argument makes no sense."""

    exit_code = ExitCode.USAGE


class TreeError(FastindexError):
    """The tree is missing, unreadable, or empty where it should not be."""


class BrakeError(FastindexError):
    """The run would drop most of what is published."""


class PublishError(FastindexError):
    """Metadata could not be written, or failed the check before it is written."""


class ReportError(FastindexError):
    """All was done, but not reported where it was to be."""

    exit_code = ExitCode.LEFT_OUT


class LockHeldError(FastindexError):
    """Another run holds the lock of this output directory."""

    exit_code = ExitCode.LOCKED


class ResourceError(FastindexError):
    """The system ran out of something, or a disk or a directory failed."""


class RefusalError(FastindexError):
    """One upload cannot be accepted; the rest goes on.

    Args:
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    code: Code
    """What kind of thing is wrong; set by each subclass."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


def suggest_remedy(error: OSError) -> str:
    """Return what a person can do about a file or directory that cannot be written or deleted."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "give this user write permission there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there"
    if error.errno == errno.EROFS:
        return "mount it for writing"
    return "check what is there, and the disk"


def is_shortage(error: OSError) -> bool:
    """Return whether the system ran out of something, which is no reason to leave a file out."""
    return error.errno in _SHORTAGES


def is_panic(error: BaseException) -> bool:
    """Return whether a library in Rust came upon what it did not foresee.

    What it raises then is no Exception, and cannot be imported.
    """
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def translate_system_errors() -> Iterator[None]:
    """Raise ResourceError instead of OSError and MemoryError; a context manager and a decorator."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            "out of memory; nothing was half-written; use fewer --jobs, or give it more memory"
        ) from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise ResourceError(
            f"{what}; nothing was half-written; fix that, then run again"
        ) from error
