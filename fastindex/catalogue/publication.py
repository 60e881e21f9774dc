"""Encode the catalogue, check it, write it; the index last.

Equal content is not written again: bytes and mtime stay, so that HTTP caches keep it. New
content gets an mtime in another second, so that they do not mistake it for the old. All
checks come before the first write: a run that fails a check publishes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from fractions import Fraction

import msgspec
from msgspec import Struct

from fastindex.catalogue.brake import find_vanished, measure_loss
from fastindex.catalogue.conflicts import list_fingerprints
from fastindex.catalogue.ordering import order_files
from fastindex.catalogue.streams import OtherStreams, read_other_streams
from fastindex.errors import (
    BrakeError,
    Code,
    FastindexError,
    PublishError,
    TreeError,
    suggest_remedy,
)
from fastindex.events import Finding
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    Item,
    ProductFile,
    decode,
    decode_published_versions,
    encode,
    make_index_entry,
    product_file_path,
    survives_decoding,
)
from fastindex.system import atomic
from fastindex.system.files import has_content, read_small_file

_MAX_LOSS = Fraction(1, 2)
"""How much of a stream a run may drop without ``--force``."""


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


class Refusal(Struct, frozen=True):
    """Why a stream is not published."""

    stream: str
    """The stream."""
    problem: str
    """What is wrong."""
    remedy: str
    """What to do about it."""
    is_empty: bool
    """Whether nothing of it could be published, rather than too little."""
    versions: int
    """How many versions the draft has that are not published; at least 1."""

    @property
    def error(self) -> FastindexError:
        """The error of a run that publishes nothing because of this."""
        kind = TreeError if self.is_empty else BrakeError
        return kind(f"{self.stream}: {self.problem}, so nothing was published; {self.remedy}")

    @property
    def finding(self) -> Finding:
        """The finding of a run that publishes other streams."""
        problem = f"{self.problem}; what was published of this stream stays as it is"
        return Finding(
            Code.STREAM_REFUSED,
            self.stream,
            problem,
            self.remedy,
            versions_left_out=self.versions,
        )


class Review(Struct, frozen=True):
    """What would be lost if a draft were published."""

    refusal: Refusal | None = None
    """Why it must not be published."""
    findings: tuple[Finding, ...] = ()
    """What people should know of what goes."""


def review_draft(
    draft: Draft,
    *,
    force: bool,
    withdrawn: Collection[str] = (),
    present: Collection[str] = (),
) -> Review:
    """Compare a draft with what is published: is it a mistake that so much goes?

    Args:
        draft: the draft.
        force: allow to drop most of the stream, or all of it.
        withdrawn: versions (STREAM/OS/RELEASE/ARCH/VARIANT/VERSION) that are dropped on
            purpose.
        present: keys of products that have versions in the tree. If these are left out, each
            has a finding of its own.
    """
    if draft.is_published:
        return Review()
    stream, products = draft.document.content_id, draft.document.products
    versions = {(key, name) for key, entry in products.items() for name in entry.versions}
    published = read_published_versions(draft.path)
    gone = {
        (key, name)
        for key, name in (published or set()) - versions
        if version_label(stream, key, name) not in withdrawn
    }
    new = max(1, len(versions - (published or set())))
    refusal = None
    if force:
        pass
    elif not versions and (published is None or gone):
        problem = "the stream has no versions to publish (is a disk not mounted?)"
        remedy = "if it is meant to be empty, use --force"
        refusal = Refusal(stream, problem, remedy, is_empty=True, versions=new)
    elif published and measure_loss(published, gone, versions - published) > _MAX_LOSS:
        problem = (
            f"{len(gone):,} of the {len(published):,} published versions would be dropped, most "
            "of the stream (is a disk not mounted?)"
        )
        remedy = "list them with --dry-run, and use --force if this is intended"
        refusal = Refusal(stream, problem, remedy, is_empty=False, versions=new)
    vanished = find_vanished(stream, published or (), gone, {*products, *present}) if gone else []
    return Review(refusal, () if refusal else tuple(vanished))


def check_decoding(draft: Draft) -> None:
    """Check that clients read in a draft what was meant.

    Raises:
        PublishError: they would not.
    """
    if draft.is_published:
        return
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
    file = _read_published(path)
    if file is None:
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
        file = _read_published(os.path.join(output, product_file_path(stream)))
        for fingerprint, owner in list_fingerprints(file) if file else ():
            owners.setdefault(fingerprint, owner)
    return owners


class Write(Struct, frozen=True):
    """A catalogue file to write."""

    path: str
    """Relative to the output directory."""
    data: bytes
    """Its content."""


def plan_writes(
    output: str, drafts: Sequence[Draft], others: OtherStreams | None = None
) -> list[Write]:
    """Return the catalogue files that differ from what is published, in the order to write them.

    A run that is killed between any two of them leaves a catalogue that clients can use.
    Streams that are published, but not among ``drafts``, stay in the index.

    Args:
        output: the directory with ``streams/``.
        drafts: one per stream.
        others: what is published of the other streams; None: look for it.
    """
    others = others or read_other_streams(output, [draft.document.content_id for draft in drafts])
    entries = dict(others.entries)
    entries |= {draft.document.content_id: make_index_entry(draft.document) for draft in drafts}
    changed = [draft for draft in drafts if not draft.is_published]
    writes = [Write(product_file_path(draft.document.content_id), draft.data) for draft in changed]
    if len(changed) > 1:
        steps = order_files([(_read_published(draft.path), draft.document) for draft in changed])
        writes = [Write(product_file_path(step.content_id), encode(step)) for step in steps]
    index = Index(index=dict(sorted(entries.items())))
    path = os.path.join(output, INDEX_PATH)
    if not has_content(path, encode(index)):
        interim = _find_interim_index(path, index) if writes else None
        if interim is not None:
            writes.insert(0, Write(INDEX_PATH, encode(interim)))
        writes.append(Write(INDEX_PATH, encode(index)))
    return writes


def _find_interim_index(path: str, new: Index) -> Index | None:
    """Return the published index without the streams that are empty there and fill up now.

    Clients skip such an entry. Until the new index is written they would skip a product file
    that has something. None if there is no such stream.
    """
    try:
        old = decode(read_small_file(path, MAX_CATALOGUE_BYTES), Index).index
    except (OSError, *UNDECODABLE):
        return None
    kept = {
        stream: entry
        for stream, entry in old.items()
        if entry.products or stream not in new.index or not new.index[stream].products
    }
    return Index(index=kept) if len(kept) < len(old) else None


def _read_published(path: str) -> ProductFile | None:
    try:
        return decode(read_small_file(path, MAX_CATALOGUE_BYTES), ProductFile)
    except (OSError, *UNDECODABLE):
        return None


def publish_drafts(
    output: str, drafts: Sequence[Draft], others: OtherStreams | None = None
) -> tuple[str, ...]:
    """Write the catalogue files that differ from what is published.

    Args:
        output: the directory with ``streams/``.
        drafts: one per stream, reviewed with ``review_draft`` and checked with ``check_decoding``.
        others: as for ``plan_writes``.

    Returns:
        The paths written, relative to ``output``.

    Raises:
        PublishError: a file cannot be written; every file is complete, either old or new.
    """
    wrote: list[str] = []
    for write in plan_writes(output, drafts, others):
        path = os.path.join(output, write.path)
        try:
            atomic.replace_file(path, write.data, is_served=True)
        except OSError as error:
            raise PublishError(
                f"{path}: cannot be written ({error.strerror or error}); the published file is "
                f"unchanged; {suggest_remedy(error)}, then run again, or publish elsewhere with "
                "--output"
            ) from error
        wrote.append(write.path)
    return tuple(dict.fromkeys(wrote))
