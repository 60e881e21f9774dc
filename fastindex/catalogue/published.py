"""Reading the published catalogue as strictly as a client does, but beyond the first error.

A client rejects a whole file because of one value of a wrong type. Here each such value is a
mismatch that names its version, and the rest of the file is read.
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

_REBUILD = "run fastindex ROOT to write it"


class Mismatch(Struct, frozen=True):
    """Something that is published but wrong."""

    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or the path of the catalogue file."""
    file: str
    """The file's name in the version; empty: the version or catalogue file itself."""
    problem: str
    """What is wrong."""


def read_published(output: str) -> tuple[list[ProductFile], list[Mismatch]]:
    """Read the index and all product files that it names.

    Args:
        output: the directory with ``streams/``.

    Returns:
        The product files, in the order of the index, and what is wrong with any of them.

    Raises:
        TreeError: there is no index, or it cannot be opened.
    """
    path = os.path.join(output, INDEX_PATH)
    try:
        data = read_small_file(path, MAX_CATALOGUE_BYTES)
    except OSError as error:
        is_denied = isinstance(error, PermissionError)
        remedy = "give this user read permission" if is_denied else _REBUILD
        raise TreeError(
            f"{path}: cannot read the catalogue ({error.strerror or error}); {remedy}"
        ) from error
    try:
        index = decode(data, Index)
    except UNDECODABLE as error:
        problem = f"clients reject it: {error}"
        return [], [Mismatch(INDEX_PATH, "", problem)]
    files: list[ProductFile] = []
    mismatches: list[Mismatch] = []
    names: dict[str, str] = {}
    for stream, entry in index.index.items():
        # Clients also skip an entry without products. If its file has some, the two differ.
        if (entry.datatype, entry.format) != (DATATYPE, PRODUCTS_FORMAT):
            problem = f"clients skip the stream {stream!r}: wrong datatype or format"
            mismatches.append(Mismatch(INDEX_PATH, "", problem))
            continue
        other = names.setdefault(os.path.basename(entry.path), entry.path)
        if other != entry.path:
            problem = f"clients mistake {entry.path} for {other}: they cache files by basename"
            mismatches.append(Mismatch(INDEX_PATH, "", problem))
        file, wrong = _read_product_file(output, stream, entry.path)
        mismatches += wrong
        if file is not None:
            files.append(file)
            for key in set(entry.products) ^ set(file.products):
                where = "the index" if key in entry.products else "the product file"
                problem = f"only {where} has the product {key}"
                if not any(key in mismatch.problem for mismatch in wrong):
                    mismatches.append(Mismatch(entry.path, "", problem))
    return files, mismatches


def _read_product_file(
    output: str, stream: str, path: str
) -> tuple[ProductFile | None, list[Mismatch]]:
    if path.startswith("/") or ".." in path.split("/"):
        return None, [Mismatch(INDEX_PATH, "", f"its path {path!r} leads out of the mirror")]
    try:
        data = read_small_file(os.path.join(output, path), MAX_CATALOGUE_BYTES)
    except OSError as error:
        return None, [Mismatch(path, "", f"cannot be read ({error.strerror or error})")]
    try:
        return decode(data, ProductFile), []
    except UNDECODABLE:
        file, rejections = decode_rejected(stream, data)
        return file, [_make_mismatch(stream, path, rejection) for rejection in rejections]


def _make_mismatch(stream: str, path: str, rejection: Rejection) -> Mismatch:
    if rejection.version:
        label = version_label(stream, rejection.product, rejection.version)
        problem = f"clients reject the whole catalogue because of it: {rejection.reason}"
        return Mismatch(label, "", problem)
    where = f" because of {rejection.product}" if rejection.product else ""
    return Mismatch(path, "", f"clients reject it{where}: {rejection.reason}")


def read_published_paths(output: str) -> set[str] | None:
    """Return the paths of all published files and of their version directories.

    Args:
        output: the directory with ``streams/``.

    Returns:
        Paths relative to ROOT, as in the catalogue; empty if there is none. None if it cannot
        be read completely: what is in the unreadable part is published, too.
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
