"""Encode the catalogue, check it, write it; the index last.

Equal content is not written again: bytes and mtime stay, so that HTTP caches keep it. New
content gets an mtime in another second, so that they do not mistake it for the old. All
checks come before the first write: a run that fails a check publishes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence, Set
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.brake import find_vanished, measure_loss
from fastindex.catalogue.contested import number_images
from fastindex.catalogue.drafts import Draft, PieceWriter
from fastindex.catalogue.ordering import order_files
from fastindex.catalogue.streams import OtherStreams, read_other_streams
from fastindex.errors import (
    BrakeError,
    Code,
    FastindexError,
    TreeError,
)
from fastindex.events import Finding
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    ProductFile,
    decode,
    decode_version_names,
    encode,
    make_index_entry,
    product_file_path,
)
from fastindex.system.files import has_content, read_small_file
from fastindex.system.spool import Spool

_MAX_LOSS = Fraction(1, 2)
"""How much of a stream a run may drop without ``--force``."""


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
    stream = draft.stream
    comparison = _compare(draft)
    is_known = comparison is not None
    before, after = comparison or ({}, _list_versions(draft))
    gone = {
        (key, name)
        for key, names in before.items()
        for name in names - after.get(key, set())
        if version_label(stream, key, name) not in withdrawn
    }
    added = {key: names - before.get(key, set()) for key, names in after.items()}
    new = max(1, sum(map(len, added.values())))
    published = _count_published(draft) if gone else {}
    refusal = None
    if force:
        pass
    elif not draft.pieces and (not is_known or gone):
        problem = "the stream has no versions to publish (is a disk not mounted?)"
        remedy = "if it is meant to be empty, use --force"
        refusal = Refusal(stream, problem, remedy, is_empty=True, versions=new)
    elif gone and measure_loss(published, gone, [key for key in added if added[key]]) > _MAX_LOSS:
        problem = (
            f"{len(gone):,} of the {sum(published.values()):,} published versions would be "
            "dropped, most of the stream (is a disk not mounted?)"
        )
        remedy = "list them with --dry-run, and use --force if this is intended"
        refusal = Refusal(stream, problem, remedy, is_empty=False, versions=new)
    vanished = find_vanished(stream, published, gone, {*draft.pieces, *present}) if gone else []
    return Review(refusal, () if refusal else tuple(vanished))


_Names = dict[str, Set[str]]
"""Product key → the names of versions."""


def _compare(draft: Draft) -> tuple[_Names, _Names] | None:
    """Return the versions before and after, of the products that are not published as drafted.

    None if nothing is published, or it cannot be read.
    """
    if draft.published is None:
        return None
    keys = [key for key in draft.affected if key in draft.published.keys]
    try:
        before = {key: decode_version_names(draft.published.read_raw(key)) for key in keys}
    except UNDECODABLE:
        return None
    return before, _list_versions(draft)


def _list_versions(draft: Draft) -> _Names:
    """Return the versions of the products that are changed or added."""
    keys = [key for key in draft.affected if key in draft.pieces]
    return {key: decode_version_names(draft.pieces[key].read()) for key in keys}


def _count_published(draft: Draft) -> dict[str, int]:
    """Return how many versions of each product are published."""
    file = draft.published
    raw = ((key, file.read_raw(key)) for key in file.keys) if file is not None else ()
    counts = {key: len(decode_version_names(data)) for key, data in raw}
    return {key: count for key, count in counts.items() if count}


class Write(Struct, frozen=True):
    """A catalogue file to write."""

    path: str
    """Relative to the output directory."""
    chunks: Iterable[bytes]
    """Its content, to be taken once."""


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
    if others is None:
        others = read_other_streams(output, [draft.stream for draft in drafts])
        for other in others.streams:
            other.file.close()
    entries = dict(others.entries)
    entries |= {draft.stream: make_index_entry(draft.stream, draft.pieces) for draft in drafts}
    changed = [draft for draft in drafts if not draft.is_published]
    steps = _order_drafts(changed) if len(changed) > 1 else changed
    writes = [Write(product_file_path(draft.stream), draft.read_chunks()) for draft in steps]
    index = Index(index=dict(sorted(entries.items())))
    path = os.path.join(output, INDEX_PATH)
    if not has_content(path, encode(index)):
        interim = _find_interim_index(path, index, steps)
        if interim is not None:
            writes.insert(0, Write(INDEX_PATH, (encode(interim),)))
        writes.append(Write(INDEX_PATH, (encode(index),)))
    return writes


def _order_drafts(drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts in the order to write them; some may come twice, first with less in them.

    Only images that move from one stream to another matter.
    """
    numbers = [_list_moving(draft) for draft in drafts]
    if not any(
        got & lost
        for place, (got, _) in enumerate(numbers)
        for other, (_, lost) in enumerate(numbers)
        if place != other
    ):
        return list(drafts)
    by_stream = {draft.stream: draft for draft in drafts}
    changes = [(_decode_published(draft), _decode_affected(draft)) for draft in drafts]
    wanted = {new.content_id: new for _, new in changes}
    return [
        by_stream[step.content_id]
        if step is wanted[step.content_id]
        else _make_interim(by_stream[step.content_id], step)
        for step in order_files(changes)
    ]


def _list_moving(draft: Draft) -> tuple[set[int], set[int]]:
    """Return numbers of the images in a draft's affected products: after the change, and before."""
    after: set[int] = set()
    before: set[int] = set()
    for key in draft.affected:
        if key in draft.pieces:
            after.update(number_images(draft.pieces[key].decode().versions))
        old = draft.read_published(key)
        before.update(number_images(old.versions) if old is not None else ())
    return after, before


def _decode_published(draft: Draft) -> ProductFile:
    products = {key: draft.read_published(key) for key in draft.affected}
    found = {key: product for key, product in products.items() if product is not None}
    return ProductFile(content_id=draft.stream, products=found)


def _decode_affected(draft: Draft) -> ProductFile:
    keys = [key for key in draft.affected if key in draft.pieces]
    products = {key: draft.pieces[key].decode() for key in keys}
    return ProductFile(content_id=draft.stream, products=products)


def _make_interim(draft: Draft, step: ProductFile) -> Draft:
    """Return a draft with less in its changed products, as ``step`` has them."""
    writer = PieceWriter(Spool())
    changed = set(draft.affected)
    pieces = {
        key: writer.write(draft.stream, key, step.products[key], None) if key in changed else piece
        for key, piece in draft.pieces.items()
        if key not in changed or key in step.products
    }
    return replace(draft, pieces=pieces, is_published=False)


def _find_interim_index(path: str, new: Index, steps: Sequence[Draft]) -> Index | None:
    """Return the published index with no more than what holds until the new one is written.

    It lacks the streams that are empty there and fill up now: clients skip such an entry, and
    would skip a product file that has something. And it lacks the products that a product file
    loses, so that an index which names one that is not there is damaged, and not left by a run
    that was killed. A stream that keeps none of its products stays as it is: clients would skip it.

    Args:
        path: the published index.
        new: the new one.
        steps: the product files that are written in between.

    Returns:
        None if that is the published index.
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
    for step in steps:
        entry = kept.get(step.stream)
        if entry is None or entry.path != product_file_path(step.stream):
            continue
        lasting = [key for key in entry.products if key in step.pieces]
        kept[step.stream] = replace(entry, products=lasting or entry.products)
    return Index(index=kept) if kept != old else None
