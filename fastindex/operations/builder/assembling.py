"""Fourth stage: all products of all streams → product files, by the rules that span products.

All streams of the index are one publication: those that are not built now take part as they are
published. Products that are as they were take part with what is known of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.aliases import Claim, assign_aliases, bound_stream
from fastindex.catalogue.conflicts import list_fingerprints, resolve_conflicts
from fastindex.catalogue.contested import (
    find_contested,
    list_image_fingerprints,
    number_fingerprint,
    number_images,
    update,
)
from fastindex.catalogue.drafts import Draft, Kept, Piece, PieceWriter, read_published
from fastindex.catalogue.lint import Sharer, find_nameless, find_shared_aliases
from fastindex.catalogue.streams import OtherStream
from fastindex.events import Finding
from fastindex.formats.simplestreams import Product, ProductFile
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.known import KnownProduct, KnownStream
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.builder.drafting import DraftedProduct, Drafter
from fastindex.operations.builder.inputs import StaleStateError
from fastindex.operations.builder.published import PublishedStreams

_FEW_CONTESTED = 64
_Place = tuple[str, str]
"""Stream and product key."""


Origin = KnownProduct | DraftedProduct
"""What was known of a product, if it is as it was; else what has become of it."""


class Tree(Struct):
    """The products of the streams that are built."""

    kept: list[tuple[FoundProduct, KnownProduct]]
    """Those that are as they were, with what is known of them."""
    drafted: list[DraftedProduct]
    """The others."""


class Entry(Struct, frozen=True):
    """A product of a stream that is built, as it is to be published."""

    product: FoundProduct
    """The product directory."""
    key: str
    """Its key in the catalogue."""
    claims: tuple[str, ...]
    """The aliases that it claims."""
    aliases: tuple[str, ...]
    """The aliases that it gets."""
    piece: Piece | None
    """Its bytes, with these aliases; None: nothing of it is published."""
    origin: Origin
    """Where it comes from."""

    @property
    def versions(self) -> int:
        """How many versions of it are published."""
        return self.origin.versions if self.piece is not None else 0

    @property
    def place(self) -> _Place:
        """Where it is in the catalogue."""
        return self.product.stream, self.key


class Assembled(Struct):
    """The catalogue, not yet published."""

    entries: list[Entry]
    """The products of the streams that are built, also those of which nothing is published."""
    drafts: list[Draft]
    """The product file of each stream that is built."""
    other_drafts: list[Draft]
    """The product files of other streams that must change because of those."""
    fingerprints: dict[str, array[int]]
    """Stream → the sorted numbers of its images."""
    findings: list[Finding]
    """What was left out, and what people stumble over, that is about several products."""


class Assembler:
    """Applies the rules that span products.

    Args:
        mirror: the mirror.
        tree: what was found.
        known: stream → what was known of it before.
        published: the published files of the streams that are built.
        drafter: makes products again that lose images.
        writer: keeps bytes.
    """

    def __init__(
        self,
        mirror: Mirror,
        tree: Tree,
        known: Mapping[str, KnownStream],
        published: PublishedStreams,
        drafter: Drafter,
        writer: PieceWriter,
    ) -> None:
        self._mirror = mirror
        self._tree = tree
        self._known = known
        self._published = published
        self._drafter = drafter
        self._writer = writer

    def assemble(
        self,
        streams: Sequence[str],
        others: Sequence[OtherStream],
        unpublished: Sequence[Claim] = (),
    ) -> Assembled:
        """Return the catalogue of what was found and digested.

        Args:
            streams: those to make product files for.
            others: what is published of all other streams.
            unpublished: claims of products in streams that are not built, and of which nothing is
                published.
        """
        order = {stream: number for number, stream in enumerate(self._mirror.streams)}
        entries = list(self._list_entries(streams))
        entries.sort(key=lambda entry: (entry.key, order[entry.product.stream]))
        images = self._number_images(entries, streams, others)
        contested = images.find_contested()
        lost: dict[_Place, Product | None] = {}
        duplicates: list[Finding] = []
        if contested:
            lost, duplicates = self._resolve(contested, entries, streams, others)
            entries = [self._apply_loss(entry, lost) for entry in entries]
            images = self._number_images(entries, streams, others)
        claims = [_claim(entry) for entry in entries]
        foreign = [product.claim for other in others for product in other.products.values()]
        assigned, findings = assign_aliases([*claims, *foreign, *unpublished])
        findings += duplicates
        by_stream: dict[str, list[int]] = {stream: [] for stream in streams}
        for number, entry in enumerate(entries):
            if entry.piece is not None:
                by_stream[entry.product.stream].append(number)
        drafts: list[Draft] = []
        sharers: list[Sharer] = []
        for stream, numbers in by_stream.items():
            names = [(entries[number].product.name, assigned[number]) for number in numbers]
            bounded, exceeding = bound_stream(stream, names)
            findings += exceeding
            for number, aliases in zip(numbers, bounded, strict=True):
                entry = entries[number] = self._give_aliases(entries[number], aliases)
                product = entry.product
                sharers.append(Sharer(product.path, product.name.arch, entry.aliases))
            pieces = {
                entries[number].key: piece
                for number in numbers
                if (piece := entries[number].piece) is not None
            }
            published = self._published.find(stream)
            drafts.append(Draft.make(self._mirror.output, stream, pieces, published))
        remaining = iter(assigned[len(claims) :])
        changed = [self._draft_other(other, remaining, lost) for other in others]
        foreign_sharers = (sharer for _, some in changed for sharer in some)
        findings += find_shared_aliases(sharers, foreign_sharers)
        findings += find_nameless(sharers)
        other_drafts = [draft for draft, _ in changed if draft is not None]
        fingerprints = {stream: images.list_after(stream) for stream in streams}
        return Assembled(entries, drafts, other_drafts, fingerprints, findings)

    def _list_entries(self, streams: Sequence[str]) -> Iterator[Entry]:
        """Yield all products; those of streams that are not in ``streams`` without their bytes."""
        for product, known in self._tree.kept:
            piece: Piece | None = None
            key = product.name.key
            if known.versions and product.stream in streams:
                published = self._published.find(product.stream)
                if published is None or key not in published.keys:
                    raise StaleStateError
                piece = Kept(published, key)
            claims, aliases = known.list_aliases(product.name.default_aliases)
            yield Entry(product, key, claims, aliases, piece, known)
        for drafted in self._tree.drafted:
            product = drafted.product
            piece = drafted.piece if product.stream in streams else None
            key = product.name.key
            yield Entry(product, key, drafted.claims, drafted.claims, piece, drafted)

    def _number_images(
        self, entries: Sequence[Entry], streams: Sequence[str], others: Sequence[OtherStream]
    ) -> _Images:
        images = _Images({}, {stream: array("Q") for stream in streams}, {}, [])
        kept = {entry.place for entry in entries if isinstance(entry.piece, Kept)}
        for stream in streams:
            known, file = self._known.get(stream), self._published.find(stream)
            if known is None or file is None:
                continue
            images.held[stream] = known.list_fingerprints()
            freed = images.freed[stream] = Counter[int]()
            for key in file.keys:
                if (stream, key) not in kept and (old := read_published(file, key)) is not None:
                    freed.update(number_images(old.versions))
        for entry in entries:
            origin, stream = entry.origin, entry.product.stream
            is_held = stream in images.held and isinstance(entry.piece, Kept)
            if isinstance(origin, DraftedProduct) and entry.piece is not None and not is_held:
                images.new[stream] += origin.fingerprints
        for other in others:
            images.foreign.append(other.fingerprints)
        return images

    def _resolve(
        self,
        contested: Set[int],
        entries: Sequence[Entry],
        streams: Sequence[str],
        others: Sequence[OtherStream],
    ) -> tuple[dict[_Place, Product | None], list[Finding]]:
        """Compare the images that may be the same; return what is left of products that lose some.

        Raises:
            StaleStateError: a product that is as it was would lose one.
        """
        built: dict[str, dict[str, Product]] = {stream: {} for stream in streams}
        for entry, product in _find_holders(contested, entries):
            built[entry.product.stream][entry.key] = product
        foreign = {other.stream: _find_in_other(contested, other) for other in others}
        files = [
            ProductFile(content_id=stream, products=products)
            for some in (built, foreign)
            for stream, products in some.items()
        ]
        unaffected = {
            entry.place
            for entry in entries
            if isinstance(entry.origin, KnownProduct)
            and entry.key not in built.get(entry.product.stream, ())
        }
        owners = self._find_owners(contested, unaffected)
        for file in files[len(built) :]:
            for fingerprint, owner in list_fingerprints(file):
                owners.setdefault(fingerprint, owner)
        resolved, findings = resolve_conflicts(files, owners)
        lost = {
            (before.content_id, key): after.products.get(key)
            for before, after in zip(files, resolved, strict=True)
            for key, product in before.products.items()
            if after.products.get(key) is not product
        }
        if any(isinstance(entry.origin, KnownProduct) and entry.place in lost for entry in entries):
            raise StaleStateError
        return lost, findings

    def _find_owners(
        self, contested: Set[int], unaffected: Set[_Place]
    ) -> dict[str, tuple[str, str]]:
        """Return which product is published with which of the contested fingerprints.

        Args:
            contested: the numbers of the fingerprints.
            unaffected: products that have none of them.
        """
        owners: dict[str, tuple[str, str]] = {}
        for stream in self._mirror.streams:
            file = self._published.find(stream)
            for key in file.keys if file is not None else ():
                if (stream, key) in unaffected or file is None:
                    continue
                product = read_published(file, key)
                for fingerprint in list_image_fingerprints(product.versions if product else {}):
                    if number_fingerprint(fingerprint) in contested:
                        owners.setdefault(fingerprint, (stream, key))
        return owners

    def _apply_loss(self, entry: Entry, lost: Mapping[_Place, Product | None]) -> Entry:
        origin = entry.origin
        if isinstance(origin, KnownProduct) or entry.piece is None or entry.place not in lost:
            return entry
        drafted = self._drafter.redraft(origin, lost[entry.place])
        aliases = drafted.claims
        return replace(entry, claims=aliases, aliases=aliases, piece=drafted.piece, origin=drafted)

    def _give_aliases(self, entry: Entry, aliases: tuple[str, ...]) -> Entry:
        """Return a published product with the aliases that it gets."""
        if entry.piece is None or aliases == entry.aliases:
            return entry
        product = replace(entry.piece.decode(), aliases=",".join(aliases))
        stream, key = entry.place
        piece = self._writer.write(stream, key, product, self._published.find(stream))
        return replace(entry, aliases=aliases, piece=piece)

    def _draft_other(
        self,
        other: OtherStream,
        assigned: Iterator[tuple[str, ...]],
        lost: Mapping[_Place, Product | None],
    ) -> tuple[Draft | None, list[Sharer]]:
        """Return the product file of another stream, if it changes; and its products' aliases.

        Args:
            other: the stream.
            assigned: yields the aliases that its products keep, in their order.
            lost: what is left of products that lose images.
        """
        changed: dict[str, Product | None] = {}
        sharers: list[Sharer] = []
        for key, known in other.products.items():
            aliases = next(assigned)
            product: Product | None = None
            place = (other.stream, key)
            if place in lost and lost[place] is None:
                changed[key] = None
                continue
            if place in lost:
                product = lost[place]
            if aliases != known.claim.aliases:
                product = product or other.file.read_product(key)
                product = replace(product, aliases=",".join(aliases))
            if product is not None:
                changed[key] = product
            sharers.append(Sharer(known.claim.path, known.arch, aliases))
        if not changed:
            return None, sharers
        pieces: dict[str, Piece] = {}
        for key in other.products:
            if key not in changed and other.file.is_compact:
                pieces[key] = Kept(other.file, key)
                continue
            product = changed.get(key) if key in changed else other.file.read_product(key)
            if product is not None:
                pieces[key] = self._writer.write(other.stream, key, product, other.file)
        return Draft.make(self._mirror.output, other.stream, pieces, other.file), sharers


class _Images(Struct):
    """The numbers of all images (see ``contested``)."""

    held: dict[str, array[int]]
    """Stream → those that the last run published, sorted."""
    new: dict[str, array[int]]
    """Stream → those that it did not publish, or not with the same product."""
    freed: dict[str, Counter[int]]
    """Stream → those of ``held`` that are not published any more, or are in ``new``."""
    foreign: list[array[int]]
    """Those of other streams."""

    def find_contested(self) -> set[int]:
        """Return the numbers that several images have."""
        freed = sum(self.freed.values(), Counter[int]())
        return find_contested([*self.foreign, *self.new.values()], list(self.held.values()), freed)

    def list_after(self, stream: str) -> array[int]:
        """Return the sorted numbers of the images that a stream has now."""
        held = self.held.get(stream, array("Q"))
        return update(held, self.freed.get(stream, Counter()), self.new[stream])


def _claim(entry: Entry) -> Claim:
    is_published = entry.piece is not None
    return Claim(entry.product.name, entry.product.path, entry.claims, is_published=is_published)


def _find_holders(contested: Set[int], entries: Sequence[Entry]) -> Iterator[tuple[Entry, Product]]:
    """Yield the products that have images with one of the numbers, in the order of ``entries``."""
    drafted = {
        entry.place: entry.piece.decode()
        for entry in entries
        if entry.piece is not None
        and isinstance(entry.origin, DraftedProduct)
        and not contested.isdisjoint(entry.origin.fingerprints)
    }
    texts = {
        fingerprint.encode()
        for product in drafted.values()
        for fingerprint in list_image_fingerprints(product.versions)
        if number_fingerprint(fingerprint) in contested
    }
    # Nearly always a few new images are copies of others. To look for their fingerprints in the
    # bytes of all products is much quicker than to decode these.
    are_all_new = len(texts) == len(contested) <= _FEW_CONTESTED
    for entry in entries:
        if entry.place in drafted:
            yield entry, drafted[entry.place]
            continue
        if entry.piece is None or isinstance(entry.origin, DraftedProduct):
            continue
        data = entry.piece.read() if are_all_new else b""
        if are_all_new and not any(text in data for text in texts):
            continue
        product = entry.piece.decode()
        if not contested.isdisjoint(number_images(product.versions)):
            yield entry, product


def _find_in_other(contested: Set[int], other: OtherStream) -> dict[str, Product]:
    if contested.isdisjoint(other.fingerprints):
        return {}
    return {
        key: product
        for key, product in other.file.products()
        if not contested.isdisjoint(number_images(product.versions))
    }
