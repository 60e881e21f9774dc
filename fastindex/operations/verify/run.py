"""Published catalogue → every mismatch on the disk."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from fastindex.catalogue import assembly, conflicts
from fastindex.catalogue.published import read_published
from fastindex.errors import TreeError
from fastindex.events import Finding, Observer
from fastindex.formats.names import ARCHITECTURES, version_label
from fastindex.formats.simplestreams import ProductFile
from fastindex.hashing import pool
from fastindex.hashing.batches import BATCH_BYTES, grouped
from fastindex.hashing.strategy import check, prepare, refuse_shortage
from fastindex.mirror import cache
from fastindex.mirror.scan import absolute
from fastindex.mirror.tree import Batch, Digested, FileId, FileRef, Hashing, Outcome, RootTask
from fastindex.operations.prune.options import Mismatch, VerifyOptions, VerifyReport
from fastindex.operations.verify.expectations import Digests, Expected, Tree, expect, judge

if TYPE_CHECKING:
    from concurrent.futures import Executor


def verify_catalogue(
    options: VerifyOptions, *, executor: Executor | None = None, observer: Observer | None = None
) -> VerifyReport:
    """Hold all that is published against the disk, and against the contract.

    Args:
        options: what to do.
        executor: where to read instead of a process pool of ``options.jobs`` workers.
        observer: told of progress; None: nobody.

    Returns:
        All mismatches; it never stops at the first.

    Raises:
        UsageError: options that make no sense.
        TreeError: ROOT is not there, or nothing is published.
    """
    began = time.perf_counter()
    check(options.jobs, options.engine)
    root = absolute(options.root)
    if not os.path.isdir(root):
        raise TreeError(f"{root}: ROOT is no directory; name the one that the web server serves")
    files, wrong = read_published(absolute(options.output_dir or root))
    rivals, findings = _among_themselves(files)
    observer = observer or Observer()
    for finding in findings:
        observer.warn(finding)
    expected, at_sight = _on_the_disk(options, root, files)
    reading = _Reading(options, observer)
    if options.method != "quick":
        reading.read(expected, executor)
    return VerifyReport(
        mismatches=tuple(
            sorted({*wrong, *rivals, *at_sight, *reading.judged(expected)}, key=_order)
        ),
        findings=tuple(findings),
        versions=len(expected),
        files=sum(len(version.files) for version in expected),
        bytes_read=reading.bytes_read,
        hashing_seconds=reading.seconds,
        seconds=time.perf_counter() - began,
    )


def _order(mismatch: Mismatch) -> tuple[str, str, str]:
    return (mismatch.version, mismatch.file, mismatch.problem)


def _among_themselves(files: list[ProductFile]) -> tuple[list[Mismatch], list[Finding]]:
    """Return what clients cannot tell apart or do not know, and what people stumble over."""
    wrong = [
        Mismatch(version_label(file.content_id, key, ""), "", f"no client knows {product.arch!r}")
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
    _, taken = conflicts.without_conflicts(known)
    for conflict in taken:
        directory, name = os.path.split(conflict.path)
        wrong.append(Mismatch(directory, name, conflict.problem))
    paths = {
        (file.content_id, key): version_label(file.content_id, key, "")
        for file in known
        for key in file.products
    }
    return wrong, assembly.lint(known, paths)


def _on_the_disk(
    options: VerifyOptions, root: str, files: list[ProductFile]
) -> tuple[list[Expected], list[Mismatch]]:
    """Return what each published version must be, and what is wrong at sight."""
    tree = Tree(root, [file.content_id for file in files])
    all_expected: list[Expected] = []
    wrong: list[Mismatch] = []
    for file in files:
        for key, product in file.products.items():
            for name, version in product.versions.items():
                label = version_label(file.content_id, key, name)
                cached = None
                if options.method == "known":
                    cached = cache.load(root, options.cache_dir, label)
                expected, faults = expect(label, version, tree, cached)
                all_expected.append(expected)
                wrong += faults
    return all_expected, wrong


class _Reading:
    """Reads what must be read, each file once, and keeps what came of it."""

    def __init__(self, options: VerifyOptions, observer: Observer) -> None:
        self.bytes_read = 0
        self.seconds = 0.0
        self._options = options
        self._observer = observer
        self._quick: Digests = {}
        self._full: Digests = {}
        self._fingerprints: dict[tuple[FileId, FileId], str] = {}

    def judged(self, all_expected: Iterable[Expected]) -> list[Mismatch]:
        """Return what is wrong with the files that were read."""
        return [
            mismatch
            for expected in all_expected
            for mismatch in judge(expected, self._quick, self._full, self._fingerprints)
        ]

    def read(self, all_expected: Iterable[Expected], executor: Executor | None) -> None:
        """Read all that ``all_expected`` needs."""
        full, quick = _tasks(all_expected)
        roots = (task.root for task in full)
        how = prepare(self._options.jobs, self._options.engine, roots, self._observer)
        batches = _batches(full, quick, how)
        began = time.perf_counter()
        with closing(pool.observed(batches, how.jobs, executor, self._observer)) as results:
            for batch, outcomes in results:
                refuse_shortage(batch, outcomes)
                digests = self._full if batch.wants_sha256 else self._quick
                for task, outcome in zip(batch.tasks, outcomes, strict=True):
                    self._take(task.root.id, outcome, digests)
        self.seconds = time.perf_counter() - began

    def _take(self, id_: FileId, outcome: Outcome, digests: Digests) -> None:
        if not isinstance(outcome, Digested):
            digests[id_] = outcome
            return
        digests[id_] = outcome.root
        digests |= outcome.metadata
        for metadata, fingerprint in outcome.fingerprints.items():
            self._fingerprints[metadata, id_] = fingerprint
        self.bytes_read += outcome.bytes_read


def _tasks(all_expected: Iterable[Expected]) -> tuple[list[RootTask], list[RootTask]]:
    """Return what is to be read: by SHA-256, and by BLAKE3 what the caches know."""
    quick: dict[FileId, FileRef] = {}
    full: dict[FileId, tuple[FileRef, dict[FileId, FileRef]]] = {}
    covered: set[FileId] = set()
    for expected in all_expected:
        for print_ in expected.fingerprints:
            if not print_.is_vouched_for:
                metadata, root = print_.metadata.ref, print_.root.ref
                full.setdefault(root.id, (root, {}))[1][metadata.id] = metadata
                covered.add(metadata.id)
    for expected in all_expected:
        for file in expected.files:
            if file.blake3:
                quick[file.ref.id] = file.ref
            elif file.ref.id not in covered:
                full.setdefault(file.ref.id, (file.ref, {}))
    return (
        [RootTask(ref, tuple(metadata.values())) for ref, metadata in full.values()],
        [RootTask(ref) for id_, ref in quick.items() if id_ not in full and id_ not in covered],
    )


def _batches(full: list[RootTask], quick: list[RootTask], how: Hashing) -> deque[Batch]:
    batches = [
        *grouped(full, how, wants_blake3=False),
        *_with_threads(grouped(quick, how, wants_blake3=True, wants_sha256=False), how.jobs),
    ]
    return deque(sorted(batches, key=_size, reverse=True))


def _with_threads(batches: deque[Batch], jobs: int) -> list[Batch]:
    """Give a file that would keep one worker busy when all others are done BLAKE3's threads.

    Not small ones: each file has threads of its own, which take time to start and to end.
    """
    total_bytes = sum(map(_size, batches))
    return [
        msgspec.structs.replace(batch, threads=max(1, round(jobs * batch.size_bytes / total_bytes)))
        if batch.size_bytes >= BATCH_BYTES and len(batch.tasks) == 1
        else batch
        for batch in batches
    ]


def _size(batch: Batch) -> int:
    return batch.size_bytes
