"""Encode the catalogue, check it, write it; the index last.

Equal content is not written again: bytes and mtime stay, so that HTTP caches keep it. New
content gets an mtime in another second, so that they do not mistake it for the old. All
checks come before the first write: a run that fails a check publishes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from fastindex.catalogue.conflicts import list_fingerprints
from fastindex.errors import BrakeError, PublishError, TreeError, suggest_remedy
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    IndexEntry,
    Item,
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
    """The absolute path to publish it at."""
    document: ProductFile
    """The product file."""
    data: bytes
    """The document, encoded."""
    is_published: bool
    """Whether the file at ``path`` has exactly these bytes already."""


def draft_product_file(output: str, document: ProductFile) -> Draft:
    """Encode a product file, and compare it with the published one.

    Args:
        output: the directory with ``streams/``.
        document: the product file.
    """
    path = os.path.join(output, product_file_path(document.content_id))
    data = encode(document)
    return Draft(path, document, data, has_content(path, data))


def check_drafts(drafts: Sequence[Draft], *, force: bool, withdrawn: Collection[str] = ()) -> None:
    """Check that the drafts may be published.

    Args:
        drafts: one per stream.
        force: allow to drop most of a stream, or all of it.
        withdrawn: versions (STREAM/OS/RELEASE/ARCH/VARIANT/VERSION) that are dropped on
            purpose.

    Raises:
        BrakeError: more than half of a stream's published versions would be dropped.
        TreeError: a stream would be published empty, and not because all was withdrawn.
        PublishError: a draft does not survive a client's strict decoding.
    """
    for draft in drafts:
        if draft.is_published:
            continue
        if not force:
            _brake(draft, withdrawn)
        try:
            is_same = survives_decoding(draft.data, draft.document)
        except msgspec.DecodeError as error:
            raise PublishError(
                f"{draft.path}: not published, clients would reject it ({error}); "
                "please report this bug"
            ) from error
        if not is_same:
            raise PublishError(
                f"{draft.path}: not published, clients would read something else than what was "
                "written; please report this bug"
            )


def _brake(draft: Draft, withdrawn: Collection[str]) -> None:
    stream = draft.document.content_id
    versions = {
        (key, name) for key, entry in draft.document.products.items() for name in entry.versions
    }
    published = read_published_versions(draft.path)
    gone = {
        (key, name)
        for key, name in (published or set()) - versions
        if version_label(stream, key, name) not in withdrawn
    }
    if not versions and (published is None or gone):
        raise TreeError(
            f"{stream}: the stream has no versions to publish; if it is meant to be empty, "
            "use --force"
        )
    if published and 2 * len(gone) > len(published):
        raise BrakeError(
            f"{stream}: {len(gone)} of the {len(published)} published versions would be dropped "
            "(is a disk not mounted?), so nothing was published; "
            "list them with --dry-run, and use --force if this is intended"
        )


def read_published_versions(path: str) -> set[tuple[str, str]] | None:
    """Return the (product key, version name) pairs in a published product file.

    Args:
        path: the path of the file.

    Returns:
        The pairs; None if the file is missing or cannot be read.
    """
    try:
        return decode_published_versions(read_small_file(path, MAX_CATALOGUE_BYTES))
    except (OSError, *UNDECODABLE):
        return None


def read_published_items(path: str) -> dict[tuple[str, str], dict[str, Item]]:
    """Return the items of each version in a published product file.

    Args:
        path: the path of the file; one that cannot be read counts as empty.

    Returns:
        (product key, version name) → file name → item.
    """
    try:
        file = decode(read_small_file(path, MAX_CATALOGUE_BYTES), ProductFile)
    except (OSError, *UNDECODABLE):
        return {}
    return {
        (key, name): version.items
        for key, product in file.products.items()
        for name, version in product.versions.items()
    }


def read_published_fingerprints(output: str, streams: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return which product is published with which fingerprint.

    Args:
        output: the directory with ``streams/``.
        streams: the streams to read; one that cannot be read counts as empty.

    Returns:
        Fingerprint → stream and key of the product.
    """
    owners: dict[str, tuple[str, str]] = {}
    for stream in streams:
        path = os.path.join(output, product_file_path(stream))
        with suppress(OSError, *UNDECODABLE):
            file = decode(read_small_file(path, MAX_CATALOGUE_BYTES), ProductFile)
            owners |= list_fingerprints(file)
    return owners


def publish_drafts(output: str, drafts: Sequence[Draft]) -> tuple[str, ...]:
    """Write the drafts that differ from what is published, then the index.

    Streams that are in the published index and have a product file, but are not among
    ``drafts``, stay in the index.

    Args:
        output: the directory with ``streams/``.
        drafts: one per stream, checked with ``check_drafts``.

    Returns:
        The paths written, relative to ``output``.

    Raises:
        PublishError: a file cannot be written; every file is complete, either old or new.
    """
    index_path = os.path.join(output, INDEX_PATH)
    entries = _read_other_entries(output, index_path)
    entries |= {draft.document.content_id: _make_entry(draft) for draft in drafts}
    index = encode(Index(index=dict(sorted(entries.items()))))
    wrote: list[str] = []
    files = [(draft.path, draft.data, draft.is_published) for draft in drafts]
    files.append((index_path, index, has_content(index_path, index)))
    for path, data, is_published in files:
        if is_published:
            continue
        try:
            atomic.replace_file(path, data, is_served=True)
        except OSError as error:
            raise PublishError(
                f"{path}: cannot be written ({error.strerror or error}); the published file is "
                f"unchanged; {suggest_remedy(error)}, then run again"
            ) from error
        wrote.append(os.path.relpath(path, output))
    return tuple(wrote)


def _make_entry(draft: Draft) -> IndexEntry:
    return IndexEntry(
        path=product_file_path(draft.document.content_id), products=list(draft.document.products)
    )


def _read_other_entries(output: str, index_path: str) -> dict[str, IndexEntry]:
    """Return the entries of the published index whose product file exists."""
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
