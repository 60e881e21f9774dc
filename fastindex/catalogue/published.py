"""Reading the published catalogue as a client does, but beyond the first error.

A client rejects a whole file because of one value of a wrong type. Here each such value is a
mismatch that names its version, and the rest of the file is read. What a client does not mind,
such as a field that is missing, is no mismatch: other tools write catalogues, too.
"""

from __future__ import annotations

import os

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import Code, TreeError, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import version_label
from fastindex.formats.rejected_catalogue import Rejection, decode_rejected
from fastindex.formats.simplestreams import (
    DATATYPE,
    INDEX_FORMAT,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    IndexEntry,
    ProductFile,
    decode,
)
from fastindex.system.files import exists, read_small_file

_REBUILD = "run fastindex ROOT to write it"


class Mismatch(Struct, frozen=True):
    """Something that is published but wrong."""

    code: Code
    """What kind of thing it is, for programs."""
    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or the path of the catalogue file."""
    file: str
    """The file's name in the version; empty: the version or catalogue file itself."""
    problem: str
    """What is wrong."""


class Published(Struct, frozen=True):
    """The published catalogue."""

    files: list[ProductFile]
    """The product files, in the order of the index. Each has the name of its stream there."""
    mismatches: list[Mismatch]
    """What is wrong with any of the catalogue files."""
    findings: list[Finding]
    """What clients do not mind, but a person should know."""


def read_published(output: str) -> tuple[list[ProductFile], list[Mismatch]]:
    """Read the index and all product files that it names.

    Args:
        output: the directory with ``streams/``.

    Returns:
        The product files, in the order of the index, and what is wrong with any of them.

    Raises:
        TreeError: there is no index, or it cannot be opened.
        OSError: the system is out of descriptors or memory.
    """
    published = read_catalogue(output)
    return published.files, published.mismatches


def read_catalogue(output: str) -> Published:
    """Read the index and all product files that it names.

    Args:
        output: the directory with ``streams/``.

    Raises:
        TreeError: there is no index, or it cannot be opened.
        OSError: the system is out of descriptors or memory.
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
    published = Published([], [], [])
    try:
        index = decode(data, Index)
    except UNDECODABLE as error:
        problem = f"clients reject it: {error}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        return published
    if not index.index or index.format != INDEX_FORMAT:
        problem = "it names no stream" if not index.index else f"its format is {index.format!r}"
        problem = f"clients reject it: {problem}; {_REBUILD}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
    names: dict[str, str] = {}
    for stream, entry in index.index.items():
        other = names.setdefault(os.path.basename(entry.path), entry.path)
        if other != entry.path:
            problem = f"clients mistake {entry.path} for {other}: they cache files by basename"
            published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        _read_stream(output, stream, entry, published)
    return published


def _read_stream(output: str, stream: str, entry: IndexEntry, published: Published) -> None:
    """Add the product file of a stream to ``published``, and what is wrong with it."""
    is_skipped = entry.datatype != DATATYPE
    if is_skipped or entry.format != PRODUCTS_FORMAT:
        field = ("datatype", entry.datatype) if is_skipped else ("format", entry.format)
        problem = f"clients skip the stream {stream!r}: its {field[0]} in the index is {field[1]!r}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
    if is_skipped:
        return
    file, wrong = _read_product_file(output, stream, entry.path)
    published.mismatches.extend(wrong)
    if file is None:
        return
    if file.products and not entry.products:
        problem = (
            f"clients skip the stream {stream!r}: the index names none of its products, and "
            f"{entry.path} has {len(file.products):,}"
        )
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        return
    published.files.append(file)
    differing = sorted(set(entry.products) ^ set(file.products))
    if differing and not wrong:
        where = "the index" if differing[0] in entry.products else "the product file"
        more = f", and {len(differing) - 1:,} more differ" if len(differing) > 1 else ""
        published.findings.append(
            Finding(
                Code.INDEX_OUTDATED,
                entry.path,
                f"only {where} has the product {differing[0]}{more}; clients do not mind",
                _REBUILD,
            )
        )


def _read_product_file(
    output: str, stream: str, path: str
) -> tuple[ProductFile | None, list[Mismatch]]:
    if path.startswith("/") or ".." in path.split("/"):
        problem = f"its path {path!r} leads out of the mirror"
        return None, [Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem)]
    try:
        data = read_small_file(os.path.join(output, path), MAX_CATALOGUE_BYTES)
    except OSError as error:
        if is_shortage(error):
            raise
        code = Code.MISSING_FILE if isinstance(error, FileNotFoundError) else Code.UNREADABLE
        return None, [Mismatch(code, path, "", f"cannot be read ({error.strerror or error})")]
    try:
        file = decode(data, ProductFile)
    except UNDECODABLE:
        sound, rejections = decode_rejected(stream, data)
        return sound, [_make_mismatch(stream, path, rejection) for rejection in rejections]
    wrong = [
        Mismatch(Code.BAD_CATALOGUE, path, "", f"clients reject it: its {name} is {found!r}")
        for name, found, right in (
            ("datatype", file.datatype, DATATYPE),
            ("format", file.format, PRODUCTS_FORMAT),
        )
        if found != right
    ]
    # The stream is what the index calls it.
    return replace(file, content_id=stream), wrong


def _make_mismatch(stream: str, path: str, rejection: Rejection) -> Mismatch:
    if rejection.version:
        label = version_label(stream, rejection.product, rejection.version)
        problem = f"clients reject the whole catalogue because of it: {rejection.reason}"
        return Mismatch(Code.BAD_CATALOGUE, label, "", problem)
    where = f" because of {rejection.product}" if rejection.product else ""
    problem = f"clients reject it{where}: {rejection.reason}"
    return Mismatch(Code.BAD_CATALOGUE, path, "", problem)


def read_published_paths(output: str) -> set[str] | None:
    """Return the paths of all published files and of their version directories.

    Args:
        output: the directory with ``streams/``.

    Returns:
        Paths relative to ROOT, as in the catalogue; empty if there is none. None if it cannot
        be read completely: what is in the unreadable part is published, too.
    """
    try:
        if not exists(os.path.join(output, INDEX_PATH)):
            return set()
        files, wrong = read_published(output)
    except (OSError, TreeError):
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
