"""What the workers of a cluster are asked, and what their answers mean.

Nothing that a worker says is believed that can be looked at here: that it sees the same files, and
that a file fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from fastindex.formats import clusters
from fastindex.formats.clusters import (
    DigestMessage,
    FailureMessage,
    FileMessage,
    Introduction,
    OutcomeMessage,
    ParcelMessage,
    RootFailureMessage,
    SightMessage,
    TaskMessage,
)
from fastindex.formats.errors import FormatError
from fastindex.hashing import cluster_worker
from fastindex.hashing.digest import digest_batch
from fastindex.hashing.tasks import (
    Batch,
    Digested,
    Failed,
    FileDigest,
    FileRef,
    Outcome,
    RootTask,
)
from fastindex.system.stamps import Stamp


def find_difference(introduction: Introduction, samples: Sequence[FileRef]) -> str:
    """Return why a worker cannot be used, and what to do about it; empty: it can.

    Args:
        introduction: what it says of itself.
        samples: the files that it was asked about.
    """
    own = cluster_worker.describe_self()
    for what, theirs, ours in (
        ("fastindex", introduction.version, own.version),
        ("Python", introduction.python, own.python),
    ):
        if theirs != ours:
            return f"has {what} {theirs}, not {ours} as here; install the same there"
    if introduction.problem:
        return f"fails ({introduction.problem}); see its log"
    if introduction.engine_problem:
        return introduction.engine_problem
    if len(introduction.sights) != len(samples):
        return "does not say what it sees; install fastindex there as here"
    for ref, sight in zip(samples, introduction.sights, strict=True):
        seen = _describe_sight(ref.stamp, sight)
        if seen and not _describe_sight(ref.stamp, cluster_worker.look_at(ref.path)):
            return (
                f"does not see the files that are here: {ref.path}: {seen}; mount the same file "
                "system at the same path there"
            )
    return ""


def _describe_sight(stamp: Stamp, sight: SightMessage) -> str:
    """Return how what somebody sees of a file differs from its stamp; empty: not at all.

    Device numbers differ between machines. The time of the last change of the inode is no part of
    a stamp: a new hard link or owner changes it, and no byte.
    """
    if sight.problem:
        return sight.problem
    for what, theirs, ours in (
        ("size", sight.size_bytes, stamp.size_bytes),
        ("inode", sight.inode, stamp.inode),
        ("modification time", sight.mtime_ns, stamp.mtime_ns),
    ):
        if theirs != ours:
            return f"another file ({what} {theirs}, here {ours})"
    return ""


def make_parcel(
    batch: Batch, process: str, engine: str, name: str = "", tell_seconds: float = 0.0
) -> bytes:
    """Return a batch as a worker gets it.

    Args:
        batch: what to hash.
        process: the process of the worker that was examined.
        engine: what computes SHA-256, as an option names it.
        name: what its progress is told by; empty: it is not.
        tell_seconds: how often.
    """
    return clusters.encode(
        ParcelMessage(
            process,
            tuple(
                TaskMessage(
                    _make_file(task.root), tuple(map(_make_file, task.metadata)), task.is_unified
                )
                for task in batch.tasks
            ),
            batch.wants_blake3,
            batch.wants_sha256,
            engine,
            name,
            tell_seconds,
        )
    )


def _make_file(ref: FileRef) -> FileMessage:
    stamp = ref.stamp
    paths = tuple(map(os.fsencode, (ref.path, *ref.other_paths)))
    return FileMessage(paths, stamp.size_bytes, stamp.mtime_ns, stamp.inode, ref.roles)


def read_outcomes(
    batch: Batch, messages: Sequence[OutcomeMessage | RootFailureMessage], began_ns: int
) -> tuple[Outcome, ...]:
    """Return the outcomes of a batch, in the order of its tasks.

    Args:
        batch: what was to be hashed.
        messages: what a worker says of it.
        began_ns: a time before its hashing began, by the clock of this machine, since 1970. By
            that a file is too young to trust its stamp or not, whatever the worker's clock says.

    Raises:
        FormatError: something is missing, or there is too much.
    """
    if len(messages) != len(batch.tasks):
        raise FormatError(f"{len(messages)} outcomes for {len(batch.tasks)} files")
    reader = _Reader(batch, began_ns)
    return tuple(
        reader.read(task, message) for task, message in zip(batch.tasks, messages, strict=True)
    )


def has_failure(outcome: Outcome) -> bool:
    """Return whether a file of a task could not be digested."""
    return isinstance(outcome, Failed) or any(
        isinstance(part, Failed) for part in outcome.metadata.values()
    )


class OnlyThereError(Exception):
    """What a worker cannot digest is all right here; the message is for people."""


def check_failures(
    batch: Batch, outcomes: Sequence[Outcome], advance: Callable[[int], None]
) -> tuple[Outcome, ...]:
    """Read here what a worker says cannot be digested.

    Args:
        batch: what was to be hashed.
        outcomes: what the worker says of its tasks.
        advance: called with the length of each piece that is read; it may raise.

    Returns:
        The outcomes, with the failures as they are here.

    Raises:
        OnlyThereError: a file can be digested here.
    """

    def fail_here(task: RootTask, there: Failed) -> Failed:
        alone = msgspec.structs.replace(
            batch, tasks=(task,), size_bytes=task.root.stamp.size_bytes, files_at_once=1
        )
        (here,) = digest_batch(alone, advance)
        if not isinstance(here, Failed):
            raise OnlyThereError(
                f"it says that {task.root.path} {there.problem}, but here it can be read; look at "
                "what it mounts"
            )
        return here

    checked: list[Outcome] = []
    for task, outcome in zip(batch.tasks, outcomes, strict=True):
        if isinstance(outcome, Failed):
            checked.append(fail_here(task, outcome))
            continue
        metadata = {
            stamp: fail_here(RootTask(ref), part) if isinstance(part, Failed) else part
            for ref in task.metadata
            for stamp, part in [(ref.stamp, outcome.metadata[ref.stamp])]
        }
        checked.append(msgspec.structs.replace(outcome, metadata=metadata))
    return tuple(checked)


class _Reader:
    """Makes outcomes of what a worker says."""

    def __init__(self, batch: Batch, began_ns: int) -> None:
        self._sha256_bytes = 32 if batch.wants_sha256 else 0
        self._blake3_bytes = 32 if batch.wants_blake3 else 0
        self._began_ns = began_ns

    def read(self, task: RootTask, message: OutcomeMessage | RootFailureMessage) -> Outcome:
        """Return the outcome of ``task``; raises FormatError."""
        stamps = [ref.stamp for ref in task.metadata]
        if isinstance(message, RootFailureMessage):
            if message.metadata and len(message.metadata) != len(stamps):
                raise FormatError("failures of other metadata than was asked for")
            failed = map(_read_failure, message.metadata)
            return _read_failure(message, dict(zip(stamps, failed, strict=False)))
        if not len(stamps) == len(message.metadata) == len(message.fingerprints):
            raise FormatError("digests of other metadata than was asked for")
        metadata = {
            ref.stamp: self._read_part(ref, part)
            for ref, part in zip(task.metadata, message.metadata, strict=True)
        }
        fingerprints = {
            stamp: self._read_digest(fingerprint, 32)
            for stamp, fingerprint in zip(stamps, message.fingerprints, strict=True)
            if isinstance(metadata[stamp], FileDigest)
        }
        files = {ref.stamp: ref.stamp.size_bytes for ref in (task.root, *task.metadata)}
        if message.bytes_read > sum(files.values()) or message.files_read > 1 + len(stamps):
            raise FormatError("more was read than was asked for")
        root = self._read_part(task.root, message.root)
        if isinstance(root, Failed):
            raise FormatError("a failure for a digest")
        return Digested(
            root,
            metadata,
            fingerprints,
            message.bytes_read,
            message.files_read,
            message.combined_type,
        )

    def _read_part(self, ref: FileRef, part: DigestMessage | FailureMessage) -> FileDigest | Failed:
        if isinstance(part, FailureMessage):
            return _read_failure(part)
        return FileDigest(
            self._read_digest(part.sha256, self._sha256_bytes),
            self._read_digest(part.blake3, self._blake3_bytes),
            ref.stamp.key_if_trusted(self._began_ns),
            part.is_checked and bool(ref.roles),
            part.head,
        )

    @staticmethod
    def _read_digest(digest: bytes, length: int) -> str:
        if len(digest) != length:
            raise FormatError(f"a digest of {len(digest)} bytes, not {length}")
        return digest.hex()


def _read_failure(message: FailureMessage, metadata: dict[Stamp, Failed] | None = None) -> Failed:
    return Failed(
        message.code,
        message.problem,
        message.remedy,
        message.costs_version,
        message.is_shortage,
        message.head,
        metadata or {},
    )
