"""The verification from end to end: published catalogue → every mismatch on the disk."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from fastindex.catalogue.conflicts import resolve_conflicts
from fastindex.catalogue.lint import find_pitfalls
from fastindex.catalogue.published import Mismatch, read_catalogue
from fastindex.errors import Code, translate_system_errors
from fastindex.events import Finding, Observer
from fastindex.formats.names import ARCHITECTURES, is_stream_name, version_label
from fastindex.formats.simplestreams import ProductFile
from fastindex.hashing.batches import BATCH_BYTES, group_tasks
from fastindex.hashing.pool import digest_observed, raise_shortage
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import Batch, Digested, FileRef, Outcome, RootTask
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.operations.verify.expectations import Digests, Expected, Tree, check_version, compare
from fastindex.operations.verify.options import VerifyOptions, VerifyReport
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from concurrent.futures import Executor


@translate_system_errors()
def verify(
    mirror: Mirror,
    options: VerifyOptions,
    *,
    executor: Executor | None = None,
    observer: Observer | None = None,
) -> VerifyReport:
    """Check all that is published against the disk, and against what clients accept.

    Args:
        mirror: the mirror; the published index says which streams there are.
        options: how to verify.
        executor: read and hash in this instead of worker processes.
        observer: told of progress and findings.

    Returns:
        Every mismatch: the check does not stop at the first.

    Raises:
        UsageError: an option makes no sense.
        TreeError: ROOT is missing, or nothing is published.
        ResourceError: the system ran out of something, or a disk or a directory failed.
    """
    began = time.perf_counter()
    options.check()
    mirror.require_root()
    published = read_catalogue(mirror.output)
    files = published.files
    unclear, pitfalls = _check_catalogue(files)
    findings = [*published.findings, *pitfalls]
    observer = observer or Observer()
    for finding in findings:
        observer.warn(finding)
    expected, wrong_already = _check_disk(mirror, options, files)
    reading = _Reading(options, observer)
    if options.method != "quick":
        reading.read(expected, executor)
    mismatches = {
        *published.mismatches,
        *unclear,
        *wrong_already,
        *reading.find_mismatches(expected),
    }
    return VerifyReport(
        mismatches=tuple(sorted(mismatches, key=_get_sort_key)),
        findings=tuple(findings),
        versions=len(expected),
        files=sum(len(version.files) for version in expected),
        bytes_read=reading.bytes_read,
        hashing_seconds=reading.seconds,
        seconds=time.perf_counter() - began,
    )


def _get_sort_key(mismatch: Mismatch) -> tuple[str, str, str]:
    return (mismatch.version, mismatch.file, mismatch.problem)


def _check_catalogue(files: list[ProductFile]) -> tuple[list[Mismatch], list[Finding]]:
    """Return what clients cannot tell apart or do not know, and what people stumble on."""
    wrong = [
        Mismatch(
            Code.UNKNOWN_ARCHITECTURE,
            version_label(file.content_id, key, ""),
            "",
            f"clients do not know the architecture {product.arch!r}",
        )
        for file in files
        for key, product in file.products.items()
        if product.arch not in ARCHITECTURES
    ]
    known = [
        msgspec.structs.replace(
            file,
            products={
                key: product
                for key, product in file.products.items()
                if product.arch in ARCHITECTURES
            },
        )
        for file in files
    ]
    _, duplicates = resolve_conflicts(known)
    for conflict in duplicates:
        directory, name = os.path.split(conflict.path)
        wrong.append(Mismatch(conflict.code, directory, name, conflict.problem))
    paths = {
        (file.content_id, key): version_label(file.content_id, key, "")
        for file in known
        for key in file.products
    }
    return wrong, find_pitfalls(known, paths, datetime.now(UTC).date())


def _check_disk(
    mirror: Mirror, options: VerifyOptions, files: list[ProductFile]
) -> tuple[list[Expected], list[Mismatch]]:
    """Return what each published version must look like, and what is wrong already."""
    streams = [file.content_id for file in files if is_stream_name(file.content_id)]
    tree = Tree(mirror.with_streams(list(dict.fromkeys(streams)) or mirror.streams))
    all_expected: list[Expected] = []
    wrong: list[Mismatch] = []
    for file in files:
        for key, product in file.products.items():
            for name, version in product.versions.items():
                label = version_label(file.content_id, key, name)
                cached = None
                if options.method == "known":
                    cached = cache.load(mirror, label)
                expected, faults = check_version(label, version, tree, cached)
                all_expected.append(expected)
                wrong += faults
    return all_expected, wrong


class _Reading:
    """Reads what must be read, each file once, and keeps the digests."""

    def __init__(self, options: VerifyOptions, observer: Observer) -> None:
        self.bytes_read = 0
        self.seconds = 0.0
        self._options = options
        self._observer = observer
        self._quick: Digests = {}
        self._full: Digests = {}
        self._fingerprints: dict[tuple[Stamp, Stamp], str] = {}

    def find_mismatches(self, all_expected: Iterable[Expected]) -> list[Mismatch]:
        """Return what is wrong with the files that were read."""
        return [
            mismatch
            for expected in all_expected
            for mismatch in compare(expected, self._quick, self._full, self._fingerprints)
        ]

    def read(self, all_expected: Iterable[Expected], executor: Executor | None) -> None:
        """Read what must be read to check ``all_expected``."""
        full, quick = _list_tasks(all_expected)
        roots = (task.root for task in full)
        strategy = choose_strategy(self._options.hashing, roots, self._observer)
        batches = _make_batches(full, quick, strategy)
        began = time.perf_counter()
        with closing(digest_observed(batches, strategy.jobs, executor, self._observer)) as results:
            for batch, outcomes in results:
                raise_shortage(batch, outcomes)
                digests = self._full if batch.wants_sha256 else self._quick
                for task, outcome in zip(batch.tasks, outcomes, strict=True):
                    self._add(task.root.stamp, outcome, digests)
        self.seconds = time.perf_counter() - began

    def _add(self, stamp: Stamp, outcome: Outcome, digests: Digests) -> None:
        if not isinstance(outcome, Digested):
            digests[stamp] = outcome
            return
        digests[stamp] = outcome.root
        digests |= outcome.metadata
        for metadata, fingerprint in outcome.fingerprints.items():
            self._fingerprints[metadata, stamp] = fingerprint
        self.bytes_read += outcome.bytes_read


def _list_tasks(all_expected: Iterable[Expected]) -> tuple[list[RootTask], list[RootTask]]:
    """Return what to hash by SHA-256, and what by BLAKE3, as the caches have that."""
    quick: dict[Stamp, FileRef] = {}
    full: dict[Stamp, tuple[FileRef, dict[Stamp, FileRef]]] = {}
    covered: set[Stamp] = set()
    for expected in all_expected:
        for print_ in expected.fingerprints:
            if not print_.is_vouched_for:
                metadata, root = print_.metadata.ref, print_.root.ref
                full.setdefault(root.stamp, (root, {}))[1][metadata.stamp] = metadata
                covered.add(metadata.stamp)
    for expected in all_expected:
        for file in expected.files:
            if file.blake3:
                quick[file.ref.stamp] = file.ref
            elif file.ref.stamp not in covered:
                full.setdefault(file.ref.stamp, (file.ref, {}))
    return (
        [RootTask(ref, tuple(metadata.values())) for ref, metadata in full.values()],
        [
            RootTask(ref)
            for stamp, ref in quick.items()
            if stamp not in full and stamp not in covered
        ],
    )


def _make_batches(full: list[RootTask], quick: list[RootTask], strategy: Strategy) -> deque[Batch]:
    batches = [
        *group_tasks(full, strategy, wants_blake3=False),
        *_add_threads(
            group_tasks(quick, strategy, wants_blake3=True, wants_sha256=False), strategy.jobs
        ),
    ]
    return deque(sorted(batches, key=_get_size, reverse=True))


def _add_threads(batches: deque[Batch], jobs: int) -> list[Batch]:
    """Let BLAKE3 use threads for a file that would keep one worker busy after all others.

    Not for small files: each has threads of its own, which take time to start and to end.
    """
    total_bytes = sum(map(_get_size, batches))
    return [
        msgspec.structs.replace(batch, threads=max(1, round(jobs * batch.size_bytes / total_bytes)))
        if batch.size_bytes >= BATCH_BYTES and len(batch.tasks) == 1
        else batch
        for batch in batches
    ]


def _get_size(batch: Batch) -> int:
    return batch.size_bytes
