"""The published catalogue, read as strictly as a client would; but it goes on.

A client rejects a whole file for one value of a wrong type. Here each such value is a
fault that names its version, and the rest is read.
"""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from fastindex.errors import TreeError
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    DATATYPE,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    Product,
    ProductFile,
    ProductFrame,
    Version,
    decode,
)
from fastindex.system.files import read_small_file

_REBUILD = "fastindex ROOT writes it anew"


class Mismatch(Struct, frozen=True):
    """Something that is published and not as it should be."""

    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or the catalogue file."""
    file: str
    """The file's name in the version; empty: the version as published."""
    problem: str
    """What is wrong."""


class _RawFile(Struct, frozen=True):
    products: dict[str, msgspec.Raw]


class _RawProduct(Struct, frozen=True):
    versions: dict[str, msgspec.Raw]


def read_published(output: str) -> tuple[list[ProductFile], list[Mismatch]]:
    """Read the index and all product files that it names.

    Args:
        output: the directory with ``streams/``.

    Returns:
        The product files, in the index's order, and what is wrong with any of them.

    Raises:
        TreeError: there is no index.
    """
    path = os.path.join(output, INDEX_PATH)
    try:
        data = read_small_file(path, MAX_CATALOGUE_BYTES)
    except OSError as error:
        is_denied = isinstance(error, PermissionError)
        remedy = "give this user the right to read it" if is_denied else _REBUILD
        raise TreeError(
            f"{path}: there is no catalogue to read ({error.strerror or error}); {remedy}"
        ) from error
    try:
        index = decode(data, Index)
    except UNDECODABLE as error:
        problem = f"clients reject it: {error}"
        return [], [Mismatch(INDEX_PATH, "", problem)]
    files: list[ProductFile] = []
    faults: list[Mismatch] = []
    names: dict[str, str] = {}
    for stream, entry in index.index.items():
        # They pass over one without products, too; that matters where its file has some (below).
        if (entry.datatype, entry.format) != (DATATYPE, PRODUCTS_FORMAT):
            faults.append(Mismatch(INDEX_PATH, "", f"clients pass the stream {stream!r} over"))
            continue
        other = names.setdefault(os.path.basename(entry.path), entry.path)
        if other != entry.path:
            problem = f"clients take {entry.path} for {other}: they cache files by their last name"
            faults.append(Mismatch(INDEX_PATH, "", problem))
        file, wrong = _read_product_file(output, stream, entry.path)
        faults += wrong
        if file is not None:
            files.append(file)
            for key in set(entry.products) ^ set(file.products):
                problem = f"the index and the product file differ about {key}"
                if not any(key in fault.problem for fault in wrong):
                    faults.append(Mismatch(entry.path, "", problem))
    return files, faults


def _read_product_file(
    output: str, stream: str, path: str
) -> tuple[ProductFile | None, list[Mismatch]]:
    if path.startswith("/") or ".." in path.split("/"):
        return None, [Mismatch(INDEX_PATH, "", f"the path {path!r} leads out of the mirror")]
    try:
        data = read_small_file(os.path.join(output, path), MAX_CATALOGUE_BYTES)
    except OSError as error:
        return None, [Mismatch(path, "", f"cannot be read ({error.strerror or error})")]
    try:
        return decode(data, ProductFile), []
    except UNDECODABLE as error:
        try:
            raw = msgspec.json.decode(data, type=_RawFile)
        except UNDECODABLE:
            return None, [Mismatch(path, "", f"clients reject it: {error}")]
        file, faults = _salvaged(stream, path, raw)
    try:
        msgspec.json.decode(data, type=ProductFrame)
    except UNDECODABLE as error:
        faults.append(Mismatch(path, "", f"clients reject it: {error}"))
    return file, faults


def _salvaged(stream: str, path: str, raw: _RawFile) -> tuple[ProductFile, list[Mismatch]]:
    """Return what of a product file can be read, and what makes clients reject all of it."""
    products: dict[str, Product] = {}
    faults: list[Mismatch] = []
    for key, data in raw.products.items():
        try:
            products[key] = msgspec.json.decode(data, type=Product)
            continue
        except UNDECODABLE as error:
            reason = error
        wrong = _wrong_versions(stream, key, data)
        where = [Mismatch(path, "", f"clients reject it, for {key}: {reason}")]
        faults += wrong or where
        # What stands in the other versions can still be held against the disk.
        try:
            versions = msgspec.json.decode(data, type=_RawProduct).versions
            bad = {fault.version.rpartition("/")[2] for fault in wrong}
            sound = {
                name: msgspec.json.decode(version, type=Version)
                for name, version in versions.items()
                if name not in bad
            }
        except UNDECODABLE:
            continue
        os_name, release, arch, variant = [*key.split(":"), "", "", "", ""][:4]
        products[key] = Product(
            aliases="",
            arch=arch,
            os=os_name,
            release=release,
            release_title="",
            variant=variant,
            requirements={},
            versions=sound,
        )
    return ProductFile(content_id=stream, products=products), faults


def _wrong_versions(stream: str, key: str, data: msgspec.Raw) -> list[Mismatch]:
    try:
        versions = msgspec.json.decode(data, type=_RawProduct).versions
    except UNDECODABLE:
        return []
    wrong: list[Mismatch] = []
    for name, version in versions.items():
        try:
            msgspec.json.decode(version, type=Version)
        except UNDECODABLE as error:
            problem = f"clients reject the whole catalogue for it: {error}"
            wrong.append(Mismatch(version_label(stream, key, name), "", problem))
    return wrong


def read_published_paths(output: str) -> set[str] | None:
    """Return all files that the catalogue names, and their versions' directories.

    Args:
        output: the directory with ``streams/``.

    Returns:
        Paths as the catalogue has them; None where it cannot be read in full, so that
        nobody takes for unpublished what is only illegible.
    """
    if not os.path.lexists(os.path.join(output, INDEX_PATH)):
        return set()
    try:
        files, wrong = read_published(output)
    except TreeError:
        return None
    if wrong:
        return None
    paths = {
        item.path
        for file in files
        for product in file.products.values()
        for version in product.versions.values()
        for item in version.items.values()
    }
    return paths | {os.path.dirname(path) for path in paths}
