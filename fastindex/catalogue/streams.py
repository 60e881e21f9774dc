"""The streams that a run does not build: they are part of one publication with those it builds.

Clients read all streams of the index, and cannot download an image that two of them have. What
is published of the other streams therefore takes part when conflicts are resolved.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from fastindex.catalogue.aliases import Claim
from fastindex.catalogue.contested import number_images
from fastindex.catalogue.product_files import PublishedFile, describe_lost_products
from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import is_stream_name, name_published_product, product_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    IndexEntry,
    Product,
    decode,
    make_index_entry,
    product_file_path,
)
from fastindex.system.files import exists, read_small_file


class OtherProduct(Struct, frozen=True, gc=False):
    """A published product of a stream that a run does not build."""

    claim: Claim
    """Its aliases."""
    arch: str
    """Its architecture, as the catalogue has it."""
    versions: int
    """How many versions it has."""


class OtherStream(Struct, frozen=True):
    """What is published of a stream that a run does not build."""

    stream: str
    """What the index calls it."""
    file: PublishedFile
    """Its product file."""
    products: dict[str, OtherProduct]
    """Product key → what the rules for the whole catalogue need to know of it."""
    fingerprints: array[int]
    """The numbers of its images."""


class StreamSummary(Struct, frozen=True):
    """What is known of a stream without reading it."""

    digest: bytes
    """The digest of the product file that it is about."""
    products: dict[str, OtherProduct]
    """Product key → what the rules for the whole catalogue need to know of it."""
    fingerprints: array[int]
    """The numbers of its images."""


class OtherStreams(Struct, frozen=True):
    """What is published of the streams that a run does not build."""

    entries: dict[str, IndexEntry]
    """Stream → its entry in the index."""
    streams: tuple[OtherStream, ...]
    """Those whose product files can be read, in the order of the index."""
    findings: tuple[Finding, ...]
    """What is wrong with the index or with one of them."""


def read_other_streams(
    output: str, built: Collection[str], summarize: Summarize | None = None
) -> OtherStreams:
    """Return what is published of the streams that are not in ``built``.

    If the index is lost or torn, the product files beside it say what was in it.

    Args:
        output: the directory with ``streams/``.
        built: the streams that the run builds.
        summarize: returns what is known of a stream, or None; it is asked first, as decoding a
            stream takes much longer.

    Raises:
        OSError: the system is out of descriptors or memory, or it cannot be told whether a file is
            there.
    """
    index = _read_index(output)
    if isinstance(index, Index) and not index.index:
        index = "it names no stream"
    streams = _list_indexed(output, index) if isinstance(index, Index) else _find_streams(output)
    findings: list[Finding] = []
    entries: dict[str, IndexEntry] = {}
    others: list[OtherStream] = []
    for stream in streams:
        path = product_file_path(stream)
        if stream in built:
            continue
        other = _read_stream(output, stream, summarize)
        named = index.index[stream].products if isinstance(index, Index) else []
        remedy = f"run fastindex --stream {stream} to write it anew"
        if isinstance(other, OtherStream):
            others.append(other)
            keys: Iterable[str] = other.products
            lost = describe_lost_products(named, keys)
            if lost:
                findings.append(Finding(Code.PRODUCT_LOST, path, lost, remedy))
                keys = sorted({*named, *keys})  # without them, nothing would tell of it
            entries[stream] = make_index_entry(stream, keys)
        elif isinstance(index, Index):
            entries[stream] = index.index[stream]
            problem = f"clients reject the catalogue because of it ({other})"
            findings.append(Finding(Code.BAD_CATALOGUE, path, problem, remedy))
    if not isinstance(index, Index) and (streams or exists(os.path.join(output, INDEX_PATH))):
        findings.insert(0, _describe_lost_index(index, entries))
    return OtherStreams(entries, tuple(others), tuple(findings))


Summarize = Callable[[str], StreamSummary | None]
"""Returns what is known of a stream, or None."""


def _describe_lost_index(reason: str, entries: Collection[str]) -> Finding:
    found = ", ".join(sorted(entries)) or "none"
    return Finding(
        Code.INDEX_REBUILT,
        INDEX_PATH,
        f"cannot be used ({reason}); made anew from the product files beside it (other streams: "
        f"{found})",
        "if a stream is missing, build it with --stream",
    )


def _list_indexed(output: str, index: Index) -> list[str]:
    """Return the streams of the index whose product file exists."""
    return [
        stream
        for stream, entry in index.index.items()
        if entry.path == product_file_path(stream)
        and is_stream_name(stream)
        and exists(os.path.join(output, entry.path))
    ]


def _find_streams(output: str) -> list[str]:
    """Return the streams whose product files are there, and say so themselves."""
    directory = os.path.join(output, os.path.dirname(INDEX_PATH))
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        if is_shortage(error):
            raise
        return []
    streams = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [
        stream
        for stream in streams
        if is_stream_name(stream)
        and isinstance(other := _read_stream(output, stream), OtherStream)
        and other.file.content_id == stream
    ]


def _read_stream(output: str, stream: str, summarize: Summarize | None = None) -> OtherStream | str:
    """Return what is published of a stream, or why it cannot be used."""
    try:
        file = PublishedFile(os.path.join(output, product_file_path(stream)))
        known = summarize(stream) if summarize is not None else None
        if known is not None and known.digest == file.digest:
            return OtherStream(stream, file, known.products, known.fingerprints)
        products: dict[str, OtherProduct] = {}
        fingerprints = array("Q")
        for key, product in file.products():
            claim = _make_claim(stream, key, product)
            products[key] = OtherProduct(claim, product.arch, len(product.versions))
            fingerprints.extend(number_images(product.versions))
    except (OSError, *UNDECODABLE) as error:
        return _explain(error)
    return OtherStream(stream, file, products, fingerprints)


def _make_claim(stream: str, key: str, product: Product) -> Claim:
    """Return the claim of a product that is published by another run or another tool."""
    return Claim(
        name_published_product(key, product.os, product.release, product.arch, product.variant),
        product_label(stream, key),
        tuple(filter(None, product.aliases.split(","))),
    )


def _read_index(output: str) -> Index | str:
    """Return the index, or why it cannot be used."""
    try:
        return decode(read_small_file(os.path.join(output, INDEX_PATH), MAX_CATALOGUE_BYTES), Index)
    except (OSError, *UNDECODABLE) as error:
        return _explain(error)


def _explain(error: Exception) -> str:
    """Return why something cannot be used.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    if isinstance(error, OSError):
        if is_shortage(error):
            raise error
        return error.strerror or str(error)
    return str(error)
