"""What is published, by its sizes only: quicker than to decode all that clients read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

from msgspec import Struct

from fastindex.catalogue.product_files import PublishedFile, describe_lost_products, leads_out
from fastindex.errors import TreeError, is_shortage
from fastindex.formats.names import product_label
from fastindex.formats.simplestreams import (
    DATATYPE,
    INDEX_FORMAT,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    IndexEntry,
    decode,
    decode_version_sizes,
)
from fastindex.system.files import read_small_file


class ProductSummary(Struct, frozen=True):
    """A published product."""

    stream: str
    """Its stream."""
    path: str
    """STREAM/OS/RELEASE/ARCH/VARIANT."""
    versions: dict[str, int]
    """The name of each of its versions → the size of its files, in bytes."""


class UnreadableFile(Struct, frozen=True):
    """A catalogue file that cannot be read."""

    path: str
    """Its path, relative to the output directory."""
    problem: str
    """Why."""


def summarize_published(output: str) -> Iterator[ProductSummary | UnreadableFile]:
    """Yield each published product, and each product file that cannot be read.

    Args:
        output: the directory with ``streams/``.

    Raises:
        TreeError: there is no index, or it cannot be read.
        OSError: the system is out of descriptors or memory.
    """
    path = os.path.join(output, INDEX_PATH)
    try:
        index = decode(read_small_file(path, MAX_CATALOGUE_BYTES), Index)
    except FileNotFoundError as error:
        raise TreeError(f"{path}: nothing is published yet; run fastindex ROOT") from error
    except (OSError, *UNDECODABLE) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise TreeError(f"{path}: cannot be read ({reason}); see fastindex verify") from error
    if not index.index or index.format != INDEX_FORMAT:
        yield UnreadableFile(INDEX_PATH, "clients reject it, or find no stream in it")
    for stream, entry in index.index.items():
        if entry.datatype == DATATYPE:
            yield from _summarize_stream(output, stream, entry)


def _summarize_stream(
    output: str, stream: str, entry: IndexEntry
) -> Iterator[ProductSummary | UnreadableFile]:
    if leads_out(entry.path):
        yield UnreadableFile(entry.path, "leads out of the mirror")
        return
    try:
        with closing(PublishedFile(os.path.join(output, entry.path))) as file:
            frame = file.frame
            if (frame.datatype, frame.format) != (DATATYPE, PRODUCTS_FORMAT):
                yield UnreadableFile(entry.path, "clients reject it: it has another format")
            lost = describe_lost_products(entry.products, file.keys)
            if lost:
                yield UnreadableFile(entry.path, lost)
            if file.keys and not entry.products:
                yield UnreadableFile(
                    entry.path, "clients skip it: the index names no product of it"
                )
            for key in file.keys:
                sizes = decode_version_sizes(file.read_raw(key))
                yield ProductSummary(stream, product_label(stream, key), sizes)
    except UNDECODABLE as error:
        yield UnreadableFile(entry.path, f"clients reject it: {error}")
    except OSError as error:
        if is_shortage(error):
            raise
        yield UnreadableFile(entry.path, f"cannot be read ({error.strerror or error})")
