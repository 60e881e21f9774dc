"""Tree → products, versions and files: their names and stamps, without reading a byte.

``STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILE``. All of it may come from an uploader whom
nobody trusts. A symlink is followed only within the directory of its product, or to where the
operator allows it; only regular files count; and a name that does not fit into a path, an alias or
JSON leaves its directory out, with a finding.

First come the levels above the products, then the products, in batches and side by side. What is
in a product as it was before is known by a digest of its names and stamps.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from types import MappingProxyType

from msgspec import Struct
from xxhash import xxh3_128_digest

from fastindex.errors import Code, TreeError, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import ProductName, is_flat_name
from fastindex.mirror.levels import TREE_SHAPE, explain_missing_stream, find_version
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scanning.levels import (
    NO_SETTINGS,
    Level,
    LevelReader,
    Place,
    describe_flat_tree,
)
from fastindex.mirror.scanning.links import Links, is_unservable, warn_unservable_directory
from fastindex.mirror.scanning.products import ProductReader
from fastindex.mirror.tree import Found, FoundProduct, FoundVersion
from fastindex.system import listing
from fastindex.system.crew import Crew, Task
from fastindex.system.directories import OpenDirectory
from fastindex.system.files import max_descriptors
from fastindex.system.listing import Listed, Records, Shape

_BATCH = 16
"""Directories that a thread lists in one call, so that handing over costs little."""
_VERSIONS_A_TASK = 8
"""The same, of versions of one product, where calls wait."""
_MAX_PRODUCTS_AHEAD = 2000
_MAX_VERSIONS_AHEAD = 10_000
"""What is scanned and not yet fetched, so that a big mirror is never in memory at once."""
_MAX_SCANNERS = 64
_WAIT_NS = 15_000 if listing.IS_QUICK else 60_000
"""Calls that take longer on average wait for a server or a disk; others take about 1 µs."""
_MIN_WAITS = 1 / 50
"""And that many of them do wait: others have too few CPUs."""
_MANY_CALLS = 400
"""After so many calls this is known;"""
_LONG_WAIT_NS, _FEW_CALLS = 200_000, 12
"""if they take that long, after a few."""
_DESCRIPTORS_A_SCANNER = 8


def require_streams(mirror: Mirror) -> None:
    """Check that each stream directory of ``mirror`` can be listed.

    Raises:
        TreeError: one cannot, or ROOT is missing.
        OSError: the system is out of descriptors or memory.
    """
    for stream in mirror.streams:
        top = os.path.join(mirror.root, stream)
        try:
            with os.scandir(top):
                pass
        except PermissionError as error:
            raise TreeError(
                f"{top}: {error.strerror}; give this user the right to read it"
            ) from error
        except OSError as error:
            if is_shortage(error):
                raise
            mirror.require_root()
            problem, remedy = explain_missing_stream(mirror.root, stream)
            if problem:
                raise TreeError(f"{mirror.root}: {problem}; {remedy}") from error
            hint = f"expected {TREE_SHAPE}"
            if version := find_version(mirror.root):
                hint = f"there are versions in {version[0]}/, which --stream {version[0]} names"
            raise TreeError(
                f"{top}: cannot list the stream directory ({error.strerror}); {hint}"
            ) from error


def refuse_flat_trees(mirror: Mirror) -> None:
    """Check that no stream of ``mirror`` is a flat tree, which cannot become one of fastindex.

    Raises:
        TreeError: one is.
    """
    for stream in mirror.streams:
        path = mirror.path(stream)
        absent = suppress(FileNotFoundError, NotADirectoryError, PermissionError)
        with absent, os.scandir(path) as entries:
            if any(is_flat_name(entry.name) for entry in entries):
                raise TreeError(f"{path}: {'; '.join(describe_flat_tree(path))}")


def split_streams(mirror: Mirror) -> tuple[Mirror, list[Finding]]:
    """Leave out streams that cannot be listed, as if their disks were not mounted.

    Returns:
        The mirror with the other streams, and a finding for each that is left out.

    Raises:
        TreeError: none can be listed, or ROOT is missing.
        OSError: the system is out of descriptors or memory.
    """
    usable: list[str] = []
    findings: list[Finding] = []
    errors: list[TreeError] = []
    for stream in mirror.streams:
        try:
            require_streams(mirror.with_streams((stream,)))
            usable.append(stream)
        except TreeError as error:
            errors.append(error)
            problem = "the stream directory cannot be listed; what was published of it stays"
            remedy = "mount its disk, or leave out its --stream"
            findings.append(
                Finding(Code.STREAM_REFUSED, stream, problem, remedy, versions_left_out=1)
            )
    if not usable:
        raise errors[0]
    return (mirror.with_streams(usable) if findings else mirror), findings


class ScannedProduct(Struct):
    """A product, and what is in it."""

    product: FoundProduct
    listing: bytes
    """A digest of all that the rest follows from, 16 bytes. Empty if names and stamps do not vouch
    for it, or if there are findings."""
    versions: list[FoundVersion] | None
    """Oldest first. None: the product is as it was when it had this ``listing``."""
    findings: list[Finding]
    """What was left out, and why, from the product's directory down; and of the directories above
    it those that only their owner can use."""


class ScanStatistics(Struct):
    """How much was scanned."""

    directories: int = 0
    """How many directories were listed."""
    files: int = 0
    """How many files were inspected."""
    seconds: float = 0.0
    """How long the caller waited for it."""
    scanners: int = 1
    """How many threads did it."""


class Scanned(Struct):
    """What is in the tree."""

    found: list[Found]
    """Products with their versions, stream by stream."""
    findings: list[Finding]
    """What was left out, and why."""


class _Outcome(Struct):
    """What a thread makes of a product."""

    scanned: ScannedProduct
    unservable: list[str]
    """The directories above it that only their owner can use."""


class Scan:
    """A scan; ``scan`` makes it. Iterate over it once: stream by stream, sorted by path.

    Or call ``list_products`` once.

    Args:
        mirror: the mirror.
        known: the path of a product → its ``listing`` at some time before.
        jobs: how many threads to use on a local disk.
        scanners: how many threads to use; None: as many as are of use.
    """

    def __init__(
        self, mirror: Mirror, known: Mapping[str, bytes], jobs: int, scanners: int | None
    ) -> None:
        self.findings: list[Finding] = []
        """What was left out, and why, that belongs to no product. Complete in the end."""
        self.statistics = ScanStatistics()
        """How much was scanned. Complete in the end."""
        self._mirror = mirror
        self._known = known
        self._max_scanners = _find_max_scanners() if scanners is None else scanners
        self._crew = Crew(min(jobs, self._max_scanners) if scanners is None else scanners)
        self._meter = _Meter()
        self._versions_ahead = 0
        self._links = Links(mirror)
        self._levels = LevelReader(mirror, self._links)
        self._products = ProductReader(mirror, self._links, self._levels, self._list_link)
        self._unservable: dict[str, bool] = {}
        self._told: set[str] = set()

    def __iter__(self) -> Generator[ScannedProduct, None, None]:
        """Scan. No thread is left in the end, nor if the iterator is closed.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        try:
            began = time.perf_counter()
            tops = self._scan_levels()
            self.statistics.seconds += time.perf_counter() - began
            places = (place for top in tops for place in top.list_places())
            yield from self._scan_products(places)
        finally:
            self._crew.close()
            self.statistics.directories = self._meter.directories
            self.statistics.files = self._meter.files
            self.statistics.scanners = self._crew.working

    def list_products(self, without: Collection[str]) -> list[FoundProduct]:
        """Return the products, with their settings files; nothing in their versions is looked at.

        Args:
            without: the paths of products to leave out.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        try:
            found: list[FoundProduct] = []
            for place in (place for top in self._scan_levels() for place in top.list_places()):
                if place.path not in without:
                    (records,) = self._list([self._encode(place.path)], Shape.LEVEL)
                    rows = list(listing.unpack(records))
                    contents = self._levels.read_contents(place.path, place.names, rows)
                    found.append(_make_product(place, tuple(contents.settings)))
            return found
        finally:
            self._crew.close()

    def _scan_levels(self) -> list[Level]:
        """Return the streams with the levels below, down to the names of the products."""
        tops = [Level(stream, (), (), NO_SETTINGS) for stream in self._mirror.streams]
        levels = tops
        while levels:
            size = 1 if self._meter.does_wait else _BATCH
            batches = [levels[start : start + size] for start in range(0, len(levels), size)]
            tasks = [self._crew.submit(partial(self._list_levels, batch)) for batch in batches]
            for task, batch in zip(tasks, batches, strict=True):
                for level, records in zip(batch, self._crew.wait(task), strict=True):
                    self._levels.read(level, records)
            levels = [child for level in levels for child in level.children]
        for top in tops:
            self._levels.warn_of_dead_ends(top)
            self.findings += top.list_findings()
        return tops

    def _list_levels(self, levels: Sequence[Level], _: Task[list[Records]]) -> list[Records]:
        paths = [self._encode(level.path) for level in levels]
        records: list[Records] = []
        while len(records) < len(paths):
            records += self._list(paths[len(records) :], Shape.LEVEL)
        return records

    def _scan_products(self, places: Iterator[Place]) -> Iterator[ScannedProduct]:
        pending: deque[Task[list[_Outcome]]] = deque()
        ahead = 0
        while True:
            began = time.perf_counter()
            # Without threads, nothing needs to be ahead.
            max_ahead = _MAX_PRODUCTS_AHEAD if self._crew.size > 1 else 1
            while ahead < max_ahead and self._versions_ahead < _MAX_VERSIONS_AHEAD:
                batch = list(islice(places, _BATCH))
                if not batch:
                    break
                ahead += len(batch)
                pending.append(self._crew.submit(partial(self._scan_batch, batch)))
            if not pending:
                break
            outcomes = self._crew.wait(pending.popleft())
            self.statistics.seconds += time.perf_counter() - began
            ahead -= len(outcomes)
            self._versions_ahead -= _count_versions(outcomes)
            for outcome in outcomes:
                self._tell_once(outcome)
                yield outcome.scanned

    def _tell_once(self, outcome: _Outcome) -> None:
        """Make what is wrong above a product a finding of the first one that it is seen from."""
        new = [path for path in outcome.unservable if path not in self._told]
        if new:
            self._told |= {*new}
            outcome.scanned.findings[:0] = map(warn_unservable_directory, new)

    def _scan_batch(
        self, places: Sequence[Place], task: Task[list[_Outcome]]
    ) -> list[_Outcome] | None:
        """Scan products in few calls; or each for itself, where calls wait."""
        outcomes: list[_Outcome] = []
        while len(outcomes) < len(places) and not self._meter.does_wait:
            rest = places[len(outcomes) :]
            records = self._list([self._encode(place.path) for place in rest], Shape.PRODUCT)
            outcomes += map(self._judge, rest, records)
        if len(outcomes) == len(places):
            return self._keep(outcomes)
        works = [partial(self._scan_one, place) for place in places[len(outcomes) :]]
        self._crew.split(task, works, lambda others: self._keep([*outcomes, *others]))
        return None

    def _keep(self, outcomes: list[_Outcome]) -> list[_Outcome]:
        self._versions_ahead += _count_versions(outcomes)
        return outcomes

    def _scan_one(self, place: Place, task: Task[_Outcome]) -> _Outcome | None:
        """Scan a product; one with many versions side by side."""
        try:
            directory = OpenDirectory(self._mirror.path(place.path))
        except OSError as error:
            if is_shortage(error):
                raise
            return self._judge(place, listing.record_failure(error.errno or 0))
        (own,) = self._list([b""], Shape.LEVEL, directory.descriptor)
        names = listing.find_directories(own)
        chunks = [
            names[start : start + _VERSIONS_A_TASK]
            for start in range(0, len(names), _VERSIONS_A_TASK)
        ]
        if len(chunks) <= 1:
            versions = [self._list_versions(directory, chunk) for chunk in chunks]
            return self._join(place, own, versions)
        works = [partial(self._list_versions, directory, chunk) for chunk in chunks]
        self._crew.split(task, works, partial(self._join, place, own))
        return None

    def _list_versions(
        self, directory: OpenDirectory, names: Sequence[bytes], _: Task[Records] | None = None
    ) -> Records:
        records: list[Records] = []
        while len(records) < len(names):
            rest = names[len(records) :]
            records += self._list(rest, Shape.VERSION, directory.descriptor)
        return listing.join_records(records)

    def _join(self, place: Place, own: Records, versions: Sequence[Records]) -> _Outcome:
        return self._judge(place, listing.join_records((own, *versions)))

    def _list_link(self, path: bytes) -> Records:
        return self._list([path], Shape.VERSION)[0]

    def _list(
        self, paths: Sequence[bytes], shape: Shape, at: int = listing.NO_DESCRIPTOR
    ) -> list[Records]:
        """List some of ``paths``, the first ones."""
        listed = listing.list_directories(paths, shape, self._crew.stop, at)
        if self._crew.stop[0]:
            raise _StoppedError
        self._meter.add(listed)
        if self._meter.does_wait:
            self._crew.grow(self._max_scanners)
        return listed.records

    def _encode(self, path: str) -> bytes:
        return os.fsencode(self._mirror.path(path))

    def _judge(self, place: Place, records: Records) -> _Outcome:
        """Return what is in a product, unless that is known."""
        headers, names, _, settings, traits = records
        digest = b""
        if place.settings_state and not traits:
            digest = xxh3_128_digest(b"".join((place.settings_state, headers, names, settings)))
        if digest and digest == self._known.get(place.path):
            own = tuple(f"{place.path}/{name}" for name in listing.find_settings(records))
            return _Outcome(ScannedProduct(_make_product(place, own), digest, None, []), [])
        product = self._products.read(place, records)
        findings = product.findings
        if self._is_unservable(place.path):
            findings.insert(0, warn_unservable_directory(place.path))
        above = [path for path in _list_above(place) if self._is_unservable(path)]
        if findings or above or not product.is_plain:
            digest = b""
        found = _make_product(place, product.settings)
        return _Outcome(ScannedProduct(found, digest, product.versions, findings), above)

    def _is_unservable(self, path: str) -> bool:
        known = self._unservable.get(path)
        if known is None:
            known = self._unservable[path] = is_unservable(self._mirror, path)
        return known


def scan(
    mirror: Mirror,
    *,
    known: Mapping[str, bytes] = MappingProxyType({}),
    jobs: int = 1,
    scanners: int | None = None,
) -> Scan:
    """Return a scan of the streams of ``mirror``, to iterate over once.

    Args:
        mirror: the mirror.
        known: the path of a product → its ``listing`` at some time before.
        jobs: how many threads to use on a local disk. Where calls wait, there will be more.
        scanners: how many threads to use; None: as many as are of use.
    """
    return Scan(mirror, known, jobs, scanners)


def collect(products: Scan) -> Scanned:
    """Return all that a scan finds; of a product that is known, no versions."""
    scanned = Scanned([], [])
    for one in products:
        scanned.found.append((one.product, one.versions or []))
        scanned.findings += one.findings
    scanned.findings[:0] = products.findings
    return scanned


class _StoppedError(Exception):
    """The scan is not wanted any more; nobody sees this."""


class _Meter:
    """Counts what threads list, and sees whether the system's calls wait."""

    def __init__(self) -> None:
        self.directories = 0
        self.files = 0
        self.does_wait = False
        """Whether calls wait for a server or a disk, so that many should wait side by side."""
        self._lock = threading.Lock()
        self._calls = self._waits = self._nanoseconds = 0

    def add(self, listed: Listed) -> None:
        """Count what has been listed."""
        with self._lock:
            self.directories += listed.directories
            self.files += listed.files
            self._calls += listed.calls
            self._waits += listed.waits
            self._nanoseconds += listed.nanoseconds
            is_slow = self._nanoseconds > _LONG_WAIT_NS * self._calls
            if self._calls < (_FEW_CALLS if is_slow else _MANY_CALLS):
                return
            is_slow = self._nanoseconds > _WAIT_NS * self._calls
            self.does_wait = is_slow and self._waits > _MIN_WAITS * self._calls
            self._calls = self._waits = self._nanoseconds = 0


def _find_max_scanners() -> int:
    return max(1, min(_MAX_SCANNERS, max_descriptors() // _DESCRIPTORS_A_SCANNER))


def _count_versions(outcomes: Sequence[_Outcome]) -> int:
    return sum(len(outcome.scanned.versions or ()) for outcome in outcomes)


def _make_product(place: Place, own_settings: tuple[str, ...]) -> FoundProduct:
    stream, _, _ = place.path.partition("/")
    name = ProductName(*place.names)
    return FoundProduct(stream, name, place.path, (*own_settings, *place.dotfiles))


def _list_above(place: Place) -> list[str]:
    """Return the paths of the directories between the stream and a product."""
    names = place.path.split("/")
    return ["/".join(names[:end]) for end in range(2, len(names))]
