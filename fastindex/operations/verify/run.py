"""The verification from end to end: published catalogue → every mismatch on the disk.

A catalogue of a million versions does not fit into memory as objects. So each rule goes through it
product by product, and files are read group by group.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.catalogue.conflicts import resolve_conflicts
from fastindex.catalogue.contested import number_images
from fastindex.catalogue.lint import Sharer, find_nameless, find_pitfalls, find_shared_aliases
from fastindex.catalogue.published import Mismatch, Published, open_catalogue
from fastindex.errors import Code, translate_system_errors
from fastindex.events import Finding, Observer
from fastindex.formats.names import ARCHITECTURES, is_stream_name, product_label, version_label
from fastindex.formats.simplestreams import Product, ProductFile
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
        checked = _check_catalogue(published)
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


class _Checked(Struct):
    """What the catalogue itself says."""

    mismatches: list[Mismatch] = []
    """What clients cannot tell apart or do not know."""
    findings: list[Finding] = []
    """What people stumble on."""
    files: int = 0
    """How many items it has."""
    bytes: int = 0
    """How long these are together."""


def _check_catalogue(published: Published) -> _Checked:
    checked = _Checked()
    sharers: list[Sharer] = []
    numbers = array("Q")
    today = datetime.now(UTC).date()
    pitfalls: list[Finding] = []
    for stream, key, product in published.products():
        for version in product.versions.values():
            checked.files += len(version.items)
            sizes = {item.path: max(0, item.size) for item in version.items.values()}
            checked.bytes += sum(sizes.values())
        path = product_label(stream, key)
        if product.arch not in ARCHITECTURES:
            problem = f"clients do not know the architecture {product.arch!r}"
            checked.mismatches.append(Mismatch(Code.UNKNOWN_ARCHITECTURE, path, "", problem))
            continue
        sharers.append(Sharer(path, product.arch, tuple(filter(None, product.aliases.split(",")))))
        pitfalls += find_pitfalls(product, path, today)
        numbers.extend(number_images(product.versions))
    for conflict in _find_duplicates(published, numbers):
        directory, name = os.path.split(conflict.path)
        checked.mismatches.append(Mismatch(conflict.code, directory, name, conflict.problem))
    checked.findings += [*find_shared_aliases(sharers, ()), *find_nameless(sharers), *pitfalls]
    return checked


def _find_duplicates(published: Published, numbers: array[int]) -> list[Finding]:
    """Return the images that clients cannot tell apart.

    Args:
        published: the catalogue.
        numbers: those of all images in it. Images with one fingerprint have one number. Few have,
            so that products which have none of these can be left out of account.
    """
    contested = {one for one, other in pairwise(sorted(numbers)) if one == other}
    if not contested:
        return []
    files: dict[str, dict[str, Product]] = {}
    for stream, key, product in published.products():
        is_known = product.arch in ARCHITECTURES
        if is_known and not contested.isdisjoint(number_images(product.versions)):
            files.setdefault(stream, {})[key] = product
    _, duplicates = resolve_conflicts(
        [ProductFile(content_id=stream, products=products) for stream, products in files.items()]
    )
    return duplicates


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
