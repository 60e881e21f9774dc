"""A published catalogue against what clients accept; pure but for reading the catalogue.

``published`` finds what keeps clients from reading its files. Here is what they stumble on in what
can be read, wherever it lies: on this disk, or on a server.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

from msgspec import Struct

from fastindex.catalogue.conflicts import resolve_conflicts
from fastindex.catalogue.contested import number_images
from fastindex.catalogue.lint import Sharer, find_nameless, find_pitfalls, find_shared_aliases
from fastindex.catalogue.published import Mismatch, Published
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import (
    ARCHITECTURES,
    FTYPES,
    find_forbidden_character,
    is_version_name,
    product_label,
)
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    METADATA_FTYPES,
    Item,
    Product,
    ProductFile,
    Version,
    get_fingerprint,
    has_sound_digests,
)


class CheckedCatalogue(Struct):
    """What the catalogue itself says."""

    mismatches: list[Mismatch] = []
    """What clients cannot tell apart or do not know."""
    findings: list[Finding] = []
    """What people stumble on."""
    files: int = 0
    """How many items it has."""
    bytes: int = 0
    """How long these are together."""


def check_catalogue(published: Published) -> CheckedCatalogue:
    """Check what products say, and what they have in common; product by product.

    Raises:
        OSError: a file cannot be read, or was changed in its place.
    """
    checked = CheckedCatalogue()
    sharers: list[Sharer] = []
    sound: list[Sharer] = []
    rejected = {file.stream for file in published.files if file.is_rejected}
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
        sound += sharers[-1:] if stream not in rejected else []
        pitfalls += find_pitfalls(product, path, today)
        numbers.extend(number_images(product.versions))
    for conflict in _find_duplicates(published, numbers):
        directory, name = os.path.split(conflict.path)
        checked.mismatches.append(Mismatch(conflict.code, directory, name, conflict.problem))
    # Of a product that clients reject, the aliases may be what cannot be read.
    checked.findings += [*find_shared_aliases(sharers, ()), *find_nameless(sound), *pitfalls]
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


Claim = tuple[str, int, str]
"""Path, size in bytes and SHA-256 of a file."""


def get_claim(item: Item) -> Claim:
    """Return what the catalogue says of a file: two items may disagree about one."""
    return item.path, item.size, item.sha256


def find_version_faults(label: str, version: Version) -> Iterator[tuple[Code, str]]:
    """Yield what keeps clients from showing or downloading an image.

    Args:
        label: the version, as STREAM/OS/RELEASE/ARCH/VARIANT/VERSION.
        version: as published.
    """
    name = label.rpartition("/")[2]
    if not is_version_name(name):
        problem = f"clients do not accept the version name {name!r}: it must start with a date"
        yield Code.BAD_NAME, problem
    items = version.items
    metadata = [item for item in items.values() if item.ftype in METADATA_FTYPES]
    for key, item in items.items():
        if item.ftype not in FTYPES:
            yield Code.BAD_CATALOGUE, f"{key}: clients do not know the ftype {item.ftype!r}"
        if is_unsafe_path(item.path) or find_forbidden_character(item.path):
            yield Code.BAD_CATALOGUE, f"{key}: clients cannot download the path {item.path!r}"
        combined = [get_fingerprint(item, ftype) for ftype in COMBINED_FIELD]
        if not has_sound_digests([item.sha256, *filter(None, combined)]):
            problem = f"{key}: has a digest that is not 64 lowercase hex digits"
            yield Code.BAD_CATALOGUE, problem
        if item.ftype in COMBINED_FIELD:
            if not metadata:
                problem = f"{key}: lacks metadata; clients do not show it"
                yield Code.INCOMPLETE_VERSION, problem
            for beside in metadata:
                if not get_fingerprint(beside, item.ftype):
                    problem = f"lacks a fingerprint with {beside.ftype}; clients do not show it"
                    yield Code.BAD_CATALOGUE, f"{key}: {problem}"


def is_unsafe_path(path: str) -> bool:
    """Return whether a path in a catalogue may lead out of the mirror, or to no file."""
    return path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/"))


def list_fingerprints(version: Version) -> Iterator[tuple[Item, Item, str]]:
    """Yield each metadata item, a root that it has a fingerprint with, and that fingerprint."""
    roots = {item.ftype: item for item in version.items.values() if item.ftype in COMBINED_FIELD}
    for item in version.items.values():
        if item.ftype in METADATA_FTYPES:
            for ftype, root in roots.items():
                combined = get_fingerprint(item, ftype)
                if combined:
                    yield item, root, combined


def describe_size(found_bytes: int, said_bytes: int) -> str:
    """Return what is wrong with a file of a wrong size."""
    return f"is {found_bytes:,} bytes long; the catalogue says {said_bytes:,}"


def describe_sha256(found: str, said: str) -> str:
    """Return what is wrong with a file of a wrong digest."""
    return f"its SHA-256 is {found}; the catalogue says {said}"


def describe_fingerprint(root: str, found: str, said: str) -> str:
    """Return what is wrong with metadata of a wrong fingerprint with the file called ``root``."""
    return f"its fingerprint with {root} is {found}; the catalogue says {said}"
