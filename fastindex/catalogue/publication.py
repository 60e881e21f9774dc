"""Encode, decode again as a strict client would, compare, write; the index last.

Equal content is not written again: bytes and mtime stay, so that HTTP caches hold. Other
content gets another second of mtime, so that they do not hold it for the old.
All checks come before the first write, so a run publishes all of its catalogue or
leaves what was published before.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from fastindex.catalogue.conflicts import list_fingerprints
from fastindex.errors import BrakeError, PublishError, TreeError
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    IndexEntry,
    ProductFile,
    decode,
    decode_published_versions,
    encode,
    product_file_path,
    survives_decoding,
)
from fastindex.system import atomic
from fastindex.system.files import has_content, read_small_file


class Draft(Struct, frozen=True):
    """A product file ready to be published."""

    path: str
    """Where it goes, absolute."""
    document: ProductFile
    """What it says."""
    data: bytes
    """The same, encoded."""
    is_published: bool
    """Whether exactly these bytes lie there already."""


def draft_product_file(output: str, document: ProductFile) -> Draft:
    """Encode ``document`` for ``output``/streams/v1 and see whether it lies there already."""
    path = os.path.join(output, product_file_path(document.content_id))
    data = encode(document)
    return Draft(path, document, data, has_content(path, data))


def check_drafts(drafts: Sequence[Draft], *, force: bool, withdrawn: Collection[str] = ()) -> None:
    """See that the drafts may be published.

    Args:
        drafts: one a stream.
        force: let pass what drops most of a stream, or empties it.
        withdrawn: versions (paths) that go on purpose.

    Raises:
        BrakeError: more than half of a stream's published versions would go.
        TreeError: a stream would be published empty, and not because all was withdrawn.
        PublishError: a draft does not survive a client's strict decoding.
    """
    for item in drafts:
        if item.is_published:
            continue
        if not force:
            _brake(item, withdrawn)
        try:
            is_same = survives_decoding(item.data, item.document)
        except msgspec.DecodeError as error:
            raise PublishError(
                f"{item.path}: not published, clients would reject it ({error}); "
                "please report this as a bug"
            ) from error
        if not is_same:
            raise PublishError(
                f"{item.path}: not published, it does not decode to what was encoded; "
                "please report this as a bug"
            )


def _brake(item: Draft, withdrawn: Collection[str]) -> None:
    stream = item.document.content_id
    versions = {
        (key, name) for key, entry in item.document.products.items() for name in entry.versions
    }
    published = read_published_versions(item.path)
    gone = {
        (key, name)
        for key, name in (published or set()) - versions
        if version_label(stream, key, name) not in withdrawn
    }
    if not versions and (published is None or gone):
        raise TreeError(
            f"{stream}: no version to publish; if the stream is meant to be empty, use --force"
        )
    if published and 2 * len(gone) > len(published):
        raise BrakeError(
            f"{stream}: {len(gone)} of the {len(published)} published versions would go "
            "(is a disk not mounted?), so nothing was published; "
            "if they are to go, use --force; --dry-run lists them"
        )


def read_published_versions(path: str) -> set[tuple[str, str]] | None:
    """Return the (product, version) pairs that a product file names; None where there is none."""
    try:
        return decode_published_versions(read_small_file(path, MAX_CATALOGUE_BYTES))
    except (OSError, *UNDECODABLE):
        return None


def read_published_fingerprints(output: str, streams: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return each published fingerprint with the stream and key of the product that has it."""
    owners: dict[str, tuple[str, str]] = {}
    for stream in streams:
        path = os.path.join(output, product_file_path(stream))
        with suppress(OSError, *UNDECODABLE):
            file = decode(read_small_file(path, MAX_CATALOGUE_BYTES), ProductFile)
            owners |= list_fingerprints(file)
    return owners


def publish_drafts(output: str, drafts: Sequence[Draft]) -> tuple[str, ...]:
    """Write the drafts that differ from what lies there, then the index.

    Streams that are in the published index and have a product file, but are not among
    ``drafts``, stay in the index.

    Args:
        output: the directory with ``streams/``.
        drafts: checked ones.

    Returns:
        The paths written, relative to ``output``.

    Raises:
        PublishError: a file could not be written; each file is whole, the old or the new.
    """
    index_path = os.path.join(output, INDEX_PATH)
    entries = {**_other_streams(output, index_path), **{_stream(d): _entry(d) for d in drafts}}
    index = encode(Index(index=dict(sorted(entries.items()))))
    wrote: list[str] = []
    files = [(d.path, d.data, d.is_published) for d in drafts]
    files.append((index_path, index, has_content(index_path, index)))
    for path, data, is_published in files:
        if is_published:
            continue
        try:
            atomic.replace_file(path, data, is_served=True)
        except OSError as error:
            raise PublishError(
                f"{path}: cannot be written ({error.strerror}); the file that clients see "
                "is as it was; make room or give this user the right to write, then run again"
            ) from error
        wrote.append(os.path.relpath(path, output))
    return tuple(wrote)


def _stream(item: Draft) -> str:
    return item.document.content_id


def _entry(item: Draft) -> IndexEntry:
    return IndexEntry(
        path=product_file_path(item.document.content_id), products=list(item.document.products)
    )


def _other_streams(output: str, index_path: str) -> dict[str, IndexEntry]:
    try:
        index = decode(read_small_file(index_path, MAX_CATALOGUE_BYTES), Index)
    except (OSError, *UNDECODABLE):
        return {}
    return {
        stream: entry
        for stream, entry in index.index.items()
        if entry.path == product_file_path(stream)
        and os.path.isfile(os.path.join(output, entry.path))
    }
