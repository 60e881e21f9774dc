"""The streams that a run does not build: they are part of one publication with those it builds.

Clients read all streams of the index, and cannot download an image that two of them have. What
is published of the other streams therefore takes part when conflicts are resolved.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import is_stream_name
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    IndexEntry,
    ProductFile,
    decode,
    make_index_entry,
    product_file_path,
)
from fastindex.system.files import exists, read_small_file

_Form = TypeVar("_Form", Index, ProductFile)


class OtherStreams(Struct, frozen=True):
    """What is published of the streams that a run does not build."""

    entries: dict[str, IndexEntry]
    """Stream → its entry in the index."""
    files: tuple[ProductFile, ...]
    """Their product files, as far as they can be read, in the order of the index."""
    findings: tuple[Finding, ...]
    """What is wrong with the index or with one of them."""


def read_other_streams(output: str, built: Collection[str]) -> OtherStreams:
    """Return what is published of the streams that are not in ``built``.

    If the index is lost or torn, the product files beside it say what was in it.

    Args:
        output: the directory with ``streams/``.
        built: the streams that the run builds.

    Raises:
        OSError: the system is out of descriptors or memory, or it cannot be told whether a file is
            there.
    """
    index = _read(output, INDEX_PATH, Index)
    if isinstance(index, Index) and not index.index:
        index = "it names no stream"
    streams = _list_indexed(output, index) if isinstance(index, Index) else _find_streams(output)
    findings: list[Finding] = []
    entries: dict[str, IndexEntry] = {}
    files: list[ProductFile] = []
    for stream in streams:
        path = product_file_path(stream)
        if stream in built:
            continue
        file = _read(output, path, ProductFile)
        if isinstance(file, ProductFile):
            # The stream is what the index calls it.
            files.append(replace(file, content_id=stream))
            entries[stream] = make_index_entry(files[-1])
        elif isinstance(index, Index):
            entries[stream] = index.index[stream]
            problem = f"clients reject the catalogue because of it ({file})"
            remedy = f"run fastindex --stream {stream} to write it anew"
            findings.append(Finding(Code.BAD_CATALOGUE, path, problem, remedy))
    if not isinstance(index, Index) and (streams or exists(os.path.join(output, INDEX_PATH))):
        findings.insert(0, _describe_lost_index(index, entries))
    return OtherStreams(entries, tuple(files), tuple(findings))


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
        and isinstance(file := _read(output, product_file_path(stream), ProductFile), ProductFile)
        and file.content_id == stream
    ]


def _read(output: str, path: str, form: type[_Form]) -> _Form | str:
    """Return a catalogue file, or why it cannot be used."""
    try:
        return decode(read_small_file(os.path.join(output, path), MAX_CATALOGUE_BYTES), form)
    except OSError as error:
        if is_shortage(error):
            raise
        return error.strerror or str(error)
    except UNDECODABLE as error:
        return str(error)
