"""Mirrors that are nowhere on disk: what a scan and the caches would give is made up.

Five files a version, ten versions a product. All that comes after is the program: plan, catalogue,
checks, and the writing of catalogue and state.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from unittest import mock

from msgspec.structs import replace

from fastindex.catalogue.aliases import list_aliases
from fastindex.catalogue.assembly import assemble_items, assemble_product
from fastindex.events import Finding
from fastindex.formats.names import ProductName, classify
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    CachedItem,
    Item,
    Product,
    ProductFile,
    fingerprint_fields,
)
from fastindex.mirror import cache
from fastindex.mirror.cache import Cached
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import ScannedProduct, ScanStatistics
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations import plan
from fastindex.operations.builder import pipeline
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.system.stamps import Stamp

VERSIONS_A_PRODUCT = 10
ITEMS_A_VERSION = 5
_NAMES = ("disk.qcow2", "incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs", "rootfs.tar.xz")
_ROLES = {name: role for name in _NAMES if (role := classify(name)) is not None}
_ROOT_ROLES = [role for role in _ROLES.values() if role.kind == "root"]
_FIRST_DAY = datetime(2020, 1, 1, 5, 24, tzinfo=UTC)
_SIZE_BYTES = 123_456_789
_KEY = Stamp(_SIZE_BYTES, 0, 1, 1).key
_STREAM = "images"


def build_simulated(root: Path, versions: int, added: int = 0) -> tuple[float, BuildReport]:
    """Build a simulated mirror in this process.

    Args:
        root: a directory for its catalogue; another run may have built it there.
        versions: how many it has.
        added: how many more its first product has.

    Returns:
        The seconds that it took, without those for making things up; and the report.
    """
    mirror = SimulatedMirror(root, versions, added)
    began = time.perf_counter()
    report = mirror.build()
    return time.perf_counter() - began - mirror.seconds, report


def document(versions: int) -> ProductFile:
    """Return the catalogue of a mirror of so many versions; the same for the same number."""
    products: dict[str, Product] = {}
    for first in range(0, versions, VERSIONS_A_PRODUCT):
        found = _find_product(first)
        count = min(VERSIONS_A_PRODUCT, versions - first)
        entries = {
            version.name: _assemble(found, version)
            for version in _list_versions(found, first, count)
        }
        aliases, _ = list_aliases(found.name, Settings())
        products[found.name.key] = assemble_product(found.name, Settings(), aliases, entries)
    return ProductFile(content_id=_STREAM, products=products)


def _assemble(found: FoundProduct, version: FoundVersion) -> dict[str, Item]:
    selection, _ = plan.select(version, frozenset())
    planned = plan.plan_version(found, version, selection, _make_cache(version.path))
    items = assemble_items(version.path, planned.items, version.metadata_ftypes)
    if planned.pending or isinstance(items, Finding):
        raise RuntimeError(f"{version.path}: a simulated cache knows all")
    return items


class SimulatedMirror:
    """A mirror that is on no disk, but for its catalogue and what runs note beside it.

    Args:
        root: an existing directory, for ``streams/``.
        versions: how many it has.
        added: how many more its first product has.
    """

    def __init__(self, root: Path, versions: int, added: int = 0) -> None:
        self.seconds = 0.0
        """What it took to make up what a scan and the caches would give."""
        self.findings: list[Finding] = []
        self.statistics = ScanStatistics()
        self._root = root
        self._versions = versions
        self._added = added
        self._known: Mapping[str, bytes] = {}

    def build(self) -> BuildReport:
        """Build it as a run does that finds all digests in the caches or in its own notes."""
        gc.disable()  # as the command does
        (self._root / _STREAM).mkdir(exist_ok=True)
        with (
            mock.patch.object(pipeline, "scan", self._scan),
            mock.patch.object(cache, "load", self._load),
        ):
            return pipeline.build(Mirror.at(self._root), BuildOptions())

    def _scan(self, mirror: Mirror, *, known: Mapping[str, bytes], **_: object) -> Self:
        self._known = known
        return self

    def __iter__(self) -> Iterator[ScannedProduct]:
        began = time.perf_counter()
        for first in range(0, self._versions, VERSIONS_A_PRODUCT):
            count = min(VERSIONS_A_PRODUCT, self._versions - first)
            count += self._added if first == 0 else 0
            product = _find_product(first)
            listing = f"{first:09} {count:06}".encode()
            versions: list[FoundVersion] | None = None
            if self._known.get(product.path) != listing:
                versions = _list_versions(product, first, count)
            self.seconds += time.perf_counter() - began
            yield ScannedProduct(product, listing, versions, [])
            began = time.perf_counter()
        self.seconds += time.perf_counter() - began

    def _load(self, mirror: Mirror, version_path: str, *, adopts: bool = False) -> Cached:
        began = time.perf_counter()
        cached = _make_cache(version_path)
        self.seconds += time.perf_counter() - began
        return cached


def _find_product(first: int) -> FoundProduct:
    """Return the product whose first version has that number."""
    variant = f"variant{first // VERSIONS_A_PRODUCT:06}"
    path = f"{_STREAM}/debian/12/amd64/{variant}"
    return FoundProduct(_STREAM, ProductName("debian", "12", "amd64", variant), path, ())


def _list_versions(found: FoundProduct, first: int, count: int) -> list[FoundVersion]:
    return [_make_version(found.path, age, first + age) for age in range(count)]


def _make_version(product_path: str, age: int, number: int) -> FoundVersion:
    name = f"{_FIRST_DAY + timedelta(days=age):%Y%m%d_%H:%M}"
    files = tuple(
        FoundFile(name, role, Stamp(_SIZE_BYTES, 0, 1, ITEMS_A_VERSION * number + place))
        for place, (name, role) in enumerate(_ROLES.items())
    )
    return FoundVersion(name, f"{product_path}/{name}", files)


def _make_cache(version_path: str) -> Cached:
    """Return what the cache of a version knows."""
    randomness = random.Random(version_path)
    items: dict[str, CachedItem] = {}
    for name, role in _ROLES.items():
        item = CachedItem(
            ftype=role.ftype,
            path=f"{version_path}/{name}",
            size=_SIZE_BYTES,
            sha256=_make_digest(randomness),
            key=_KEY,
            blake3=_make_digest(randomness),
            checked=True,
        )
        if role.kind == "metadata":
            digests = {role.combined: _make_digest(randomness) for role in _ROOT_ROLES}
            item = replace(item, **fingerprint_fields(digests))
        items[name] = item
    return Cached(items, 0)


def _make_digest(randomness: random.Random) -> str:
    return randomness.randbytes(32).hex()
