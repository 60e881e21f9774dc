"""The verification from end to end: published catalogue → every mismatch on the disk.

A catalogue of a million versions does not fit into memory as objects. So each rule goes through it
product by product, and files are read group by group.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from fastindex.catalogue.contract import check_catalogue
from fastindex.catalogue.published import Mismatch, Published, open_catalogue
from fastindex.errors import translate_system_errors
from fastindex.events import Observer
from fastindex.formats.names import is_stream_name, version_label
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs
from fastindex.operations.verify.expectations import Expected, Tree, check_version
from fastindex.operations.verify.options import VerifyOptions, VerifyReport
from fastindex.operations.verify.reading import Reading

if TYPE_CHECKING:
    from concurrent.futures import Executor

_GROUP_FILES = 1 << 15
"""Files that are read before others are looked at: some 50 MB of expectations and digests. Only
within a group a file that several versions link to is read once."""


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
    outputs.require_readable_catalogue(mirror)
    observer = observer or Observer()
    with open_catalogue(mirror.output) as published:
        checked = check_catalogue(published)
        findings = [*published.findings, *checked.findings]
        for finding in findings:
            observer.warn(finding)
        mismatches = {*published.mismatches, *checked.mismatches}
        versions = files = 0
        is_one_group = checked.files <= _GROUP_FILES
        total_bytes = None if is_one_group else checked.bytes
        with closing(Reading(options.hashing, executor, observer, total_bytes)) as reading:
            every = _check_disk(mirror, options, published, mismatches)
            for group in _group_versions(every, 0 if options.method == "quick" else _GROUP_FILES):
                versions += len(group)
                files += sum(len(expected.files) for expected in group)
                if options.method != "quick":
                    mismatches.update(reading.find_mismatches(group))
    return VerifyReport(
        mismatches=tuple(sorted(mismatches, key=_get_sort_key)),
        findings=tuple(findings),
        versions=versions,
        files=files,
        bytes_read=reading.bytes_read,
        hashing_seconds=reading.seconds,
        seconds=time.perf_counter() - began,
    )


def _get_sort_key(mismatch: Mismatch) -> tuple[str, str, str]:
    return (mismatch.version, mismatch.file, mismatch.problem)


def _check_disk(
    mirror: Mirror, options: VerifyOptions, published: Published, mismatches: set[Mismatch]
) -> Iterator[Expected]:
    """Yield what each published version must look like; add what is wrong already."""
    streams = [file.stream for file in published.files if is_stream_name(file.stream)]
    tree = Tree(mirror.with_streams(list(dict.fromkeys(streams)) or mirror.streams))
    for stream, key, product in published.products():
        for name, version in product.versions.items():
            label = version_label(stream, key, name)
            cached = cache.load(mirror, label) if options.method == "known" else None
            expected, faults = check_version(label, version, tree, cached)
            mismatches.update(faults)
            yield expected


def _group_versions(versions: Iterable[Expected], max_files: int) -> Iterator[list[Expected]]:
    """Yield groups that end with the version that makes them ``max_files``; at least one group."""
    group: list[Expected] = []
    files = 0
    for expected in versions:
        group.append(expected)
        files += len(expected.files)
        if files >= max_files:
            yield group
            group, files = [], 0
    yield group
