"""Catalogues of mirrors that are nowhere on disk, made by fastindex's own pure stages.

What a scan and the caches would give is made up, seeded: five files a version, ten versions
a product. All that comes after is the program: ``plan``, ``catalogue``, ``contract``,
``publish``. A run with ``document`` goes through the same calls as ``rebuild`` does where
all caches hold.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from fastindex.catalogue import publication
from fastindex.catalogue.aliases import list_aliases
from fastindex.catalogue.assembly import assemble_items, assemble_product
from fastindex.catalogue.conflicts import resolve_conflicts
from fastindex.catalogue.lint import find_pitfalls
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
from fastindex.mirror.cache import Cached
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations import plan
from fastindex.system.stamps import Stamp

VERSIONS_A_PRODUCT = 10
ITEMS_A_VERSION = 5
_METADATA = ("incus.tar.xz", "lxd.tar.xz")
_ROOTS = ("disk.qcow2", "rootfs.squashfs", "rootfs.tar.xz")
_FIRST_DAY = datetime(2020, 1, 1, 5, 24, tzinfo=UTC)
_SIZE_BYTES = 123_456_789
_KEY = Stamp(_SIZE_BYTES, 0, 1, 1).key
_STREAM = "images"


def document(versions: int, seed: int = 1) -> ProductFile:
    """Return the catalogue of a mirror of so many versions; equal seeds, equal catalogues."""
    return _document(versions, seed)[0]


def publish_stages(versions: int, output: Path) -> dict[str, float]:
    """Publish a mirror of so many versions, none of which needs reading, into ``output``.

    Returns:
        The seconds of each stage, without those that it took to make the input up.
    """
    gc.disable()  # as a build does
    made, seconds = _document(versions, 1)
    stages = {"plan and catalogue": seconds}
    began = time.perf_counter()
    draft = publication.draft_product_file(str(output), made)
    stages["encode"] = time.perf_counter() - began
    began = time.perf_counter()
    publication.check_decoding(draft)
    stages["decode and compare"] = time.perf_counter() - began
    began = time.perf_counter()
    publication.publish_drafts(str(output), [draft])
    stages["write"] = time.perf_counter() - began
    return stages


def _document(versions: int, seed: int) -> tuple[ProductFile, float]:
    """Return the catalogue, and the seconds that fastindex had a part in."""
    products: dict[str, Product] = {}
    seconds = 0.0
    for found, its_versions, caches in _mirror(versions, seed):
        began = time.perf_counter()
        products[found.name.key] = _product(found, its_versions, caches)
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    (made,), findings = resolve_conflicts([ProductFile(content_id=_STREAM, products=products)])
    findings += find_pitfalls(
        [made], {(_STREAM, key): key for key in products}, _FIRST_DAY.date() + timedelta(days=36500)
    )
    if findings:
        raise RuntimeError(f"a simulated mirror has no faults: {findings[0]}")
    return made, seconds + time.perf_counter() - began


def _product(found: FoundProduct, versions: list[FoundVersion], caches: list[Cached]) -> Product:
    entries: dict[str, dict[str, Item]] = {}
    bases = plan.find_delta_bases(versions)
    for version, cached in zip(versions, caches, strict=True):
        selection, _ = plan.select(version, bases)
        planned = plan.plan_version(found, version, selection, cached)
        items = assemble_items(version.path, planned.items, version.metadata_ftypes)
        if planned.pending or isinstance(items, Finding):
            raise RuntimeError(f"{version.path}: a simulated cache knows all")
        entries[version.name] = items
    aliases, _ = list_aliases(found.name, Settings())
    return assemble_product(found.name, Settings(), aliases, entries)


def _mirror(
    versions: int, seed: int
) -> Iterator[tuple[FoundProduct, list[FoundVersion], list[Cached]]]:
    """Yield each product as a scan finds it, with what the caches of its versions know."""
    randomness = random.Random(seed)
    for first in range(0, versions, VERSIONS_A_PRODUCT):
        number = first // VERSIONS_A_PRODUCT
        variant = f"variant{number:06}"
        path = f"{_STREAM}/debian/12/amd64/{variant}"
        found = FoundProduct(_STREAM, ProductName("debian", "12", "amd64", variant), path, ())
        of_product = [
            _version(path, age, first + age)
            for age in range(min(VERSIONS_A_PRODUCT, versions - first))
        ]
        yield found, of_product, [_cache(version, randomness) for version in of_product]


def _version(product_path: str, age: int, number: int) -> FoundVersion:
    name = f"{_FIRST_DAY + timedelta(days=age):%Y%m%d_%H:%M}"
    files = tuple(
        FoundFile(name, role, Stamp(_SIZE_BYTES, 0, 1, ITEMS_A_VERSION * number + place))
        for place, name in enumerate(sorted((*_METADATA, *_ROOTS)))
        if (role := classify(name)) is not None
    )
    return FoundVersion(name, f"{product_path}/{name}", files)


def _cache(version: FoundVersion, randomness: random.Random) -> Cached:
    fields = [file.role.combined for file in version.files if file.role.kind == "root"]
    items: dict[str, CachedItem] = {}
    for file in version.files:
        digests = {field: _digest(randomness) for field in fields}
        item = CachedItem(
            ftype=file.role.ftype,
            path=f"{version.path}/{file.name}",
            size=file.stamp.size_bytes,
            sha256=_digest(randomness),
            key=_KEY,
            blake3=_digest(randomness),
            checked=True,
        )
        if file.role.kind == "metadata":
            item = replace(item, **fingerprint_fields(digests))
        items[file.name] = item
    return Cached(items, 0)


def _digest(randomness: random.Random) -> str:
    return randomness.randbytes(32).hex()
