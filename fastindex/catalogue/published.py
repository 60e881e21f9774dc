"""The published catalogue, read as strictly as a client would; but it goes on.

A client rejects a whole file for one value of a wrong type. Here each such value is a
fault that names its version, and the rest is read.
"""

from __future__ import annotations

import os

from msgspec import Struct

from fastindex.errors import TreeError
from fastindex.formats.names import version_label
from fastindex.formats.rejected_catalogue import Rejection, decode_rejected
from fastindex.formats.simplestreams import (
    DATATYPE,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    ProductFile,
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
    except UNDECODABLE:
        file, rejections = decode_rejected(stream, data)
        return file, [_mismatch(stream, path, rejection) for rejection in rejections]


def _mismatch(stream: str, path: str, rejection: Rejection) -> Mismatch:
    if rejection.version:
        label = version_label(stream, rejection.product, rejection.version)
        return Mismatch(label, "", f"clients reject the whole catalogue for it: {rejection.reason}")
    where = f", for {rejection.product}" if rejection.product else ""
    return Mismatch(path, "", f"clients reject it{where}: {rejection.reason}")


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
