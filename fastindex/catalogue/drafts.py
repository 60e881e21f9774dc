"""Product files that are ready to be published, as pieces of bytes.

A product file has hundreds of MB, and most of it is as it was. So a draft names for each product
the place of its bytes: in the published file, or in a spool with what is new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, KeysView, Mapping
from itertools import pairwise

import msgspec
from msgspec import Struct

from fastindex.catalogue.product_files import PublishedFile
from fastindex.errors import PublishError, is_shortage
from fastindex.formats.simplestreams import (
    UNDECODABLE,
    Product,
    ProductFrame,
    decode,
    encode_key,
    encode_piece,
    frame_products,
    product_file_path,
    survives_decoding,
)
from fastindex.system.spool import Spool

_CHUNK_BYTES = 1 << 20


class Kept(Struct, frozen=True, gc=False):
    """The bytes of a product as they are published."""

    file: PublishedFile
    """The published file that has them."""
    key: str
    """The product's key."""

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            OSError: they cannot be read.
        """
        return self.file.read_raw(self.key)

    def decode(self) -> Product:
        """Return the product.

        Raises:
            OSError: it cannot be read.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject it.
        """
        return self.file.read_product(self.key)


class Made(Struct, frozen=True, gc=False):
    """The bytes of a product that is new or has changed."""

    spool: Spool
    """What keeps them."""
    offset: int
    """Where they start in it."""
    length: int
    """How many they are."""

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            OSError: they cannot be read.
        """
        return self.spool.read(self.offset, self.length)

    def decode(self) -> Product:
        """Return the product.

        Raises:
            OSError: it cannot be read.
        """
        return decode(self.read(), Product)


Piece = Kept | Made
"""Where the bytes of a product are."""


class Draft(Struct, frozen=True):
    """A product file ready to be published. Make one with ``Draft.make``."""

    path: str
    """The absolute path to publish it at."""
    stream: str
    """The stream."""
    pieces: Mapping[str, Piece]
    """Product key → its bytes, in the order of the file."""
    published: PublishedFile | None
    """What is published at ``path``; None: nothing that can be read."""
    is_own_form: bool
    """Whether that file is, byte for byte, what would be written for its products."""
    affected: tuple[str, ...]
    """The keys of the products that are changed, added or removed."""
    is_published: bool
    """Whether the file at ``path`` has exactly these bytes already."""

    @classmethod
    def make(
        cls,
        output: str,
        stream: str,
        pieces: Mapping[str, Piece],
        published: PublishedFile | None,
    ) -> Draft:
        """Return a draft.

        Args:
            output: the directory with ``streams/``.
            stream: the stream.
            pieces: product key → its bytes, in the order of the file.
            published: what is published of the stream.
        """
        old = published.keys if published is not None else ()
        affected = [key for key, piece in pieces.items() if isinstance(piece, Made)]
        affected += [key for key in old if key not in pieces]
        is_own_form = published is not None and _has_own_form(published, stream)
        is_published = is_own_form and not affected and list(old) == list(pieces)
        path = os.path.join(output, product_file_path(stream))
        return cls(path, stream, pieces, published, is_own_form, tuple(affected), is_published)

    def read_published(self, key: str) -> Product | None:
        """Return what is published of a product; None if nothing is that clients could read."""
        return None if self.published is None else read_published(self.published, key)

    @property
    def keys(self) -> KeysView[str]:
        """The keys of its products, in their order."""
        return self.pieces.keys()

    def read_product(self, key: str) -> Product:
        """Return a product as it is to be published.

        Raises:
            OSError: it cannot be read.
        """
        return self.pieces[key].decode()

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the file, piece by piece.

        Raises:
            OSError: a piece cannot be read.
        """
        head, tail = frame_products(self.stream)
        chunk = bytearray(head)
        separator = b""
        for first, last in self._list_runs():
            chunk += separator + encode_key(first)
            separator = b","
            for data in self._read_run(first, last):
                chunk += data
                if len(chunk) > _CHUNK_BYTES:
                    yield bytes(chunk)
                    chunk.clear()
        yield bytes(chunk) + tail

    def _list_runs(self) -> Iterator[tuple[str, str]]:
        """Yield the first and the last product of each run that is one range of the old file."""
        following: dict[str, str] = {}
        if self.published is not None and self.is_own_form:
            following = dict(pairwise(self.published.keys))
        run: tuple[str, str] | None = None
        can_grow = False
        for key, piece in self.pieces.items():
            is_kept = isinstance(piece, Kept)
            if run is not None and can_grow and is_kept and following.get(run[1]) == key:
                run = run[0], key
                continue
            if run is not None:
                yield run
            run, can_grow = (key, key), is_kept
        if run is not None:
            yield run

    def _read_run(self, first: str, last: str) -> Iterator[bytes]:
        if first == last or self.published is None:
            yield self.pieces[first].read()
        else:
            yield from self.published.read_range(first, last)


def _has_own_form(published: PublishedFile, stream: str) -> bool:
    """Return whether the bytes between the products of a file are as they would be written.

    There is no other way to write them in as few bytes.
    """
    if not published.is_compact or published.frame != ProductFrame(content_id=stream):
        return False
    head, _ = frame_products(stream)
    offset = len(head)
    for key, span in published.spans.items():
        offset += len(encode_key(key))
        if span.offset != offset:
            return False
        offset += span.length + 1
    return True


class PieceWriter:
    """Encodes products, and checks that clients read in them what was meant.

    Args:
        spool: keeps the bytes.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def write(
        self, stream: str, key: str, product: Product, published: PublishedFile | None
    ) -> Piece:
        """Encode a product; return where its bytes are.

        Args:
            stream: its stream, for messages.
            key: its key.
            product: the product.
            published: the published file of the stream. If that has the same bytes for the
                product, they are taken from there.

        Raises:
            PublishError: clients would not read what was meant.
            OSError: the bytes cannot be kept.
        """
        data = encode_piece(product)
        _check_decoding(f"{product_file_path(stream)}: {key}", data, product)
        if published is not None and key in published.keys and published.read_raw(key) == data:
            return Kept(published, key)
        return Made(self._spool, self._spool.append(data), len(data))


def _check_decoding(name: str, data: bytes, product: Product) -> None:
    try:
        is_same = survives_decoding(data, product)
    except msgspec.DecodeError as error:
        raise PublishError(
            f"{name}: not published, clients would reject it ({error}); please report this bug"
        ) from error
    if not is_same:
        raise PublishError(
            f"{name}: not published, clients would read something else than what was written; "
            "please report this bug"
        )


def open_published(path: str) -> PublishedFile | None:
    """Open a published product file; None if there is none that clients could read.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    try:
        return PublishedFile(path)
    except (OSError, *UNDECODABLE) as error:
        if isinstance(error, OSError) and is_shortage(error):
            raise
        return None


def read_published(file: PublishedFile, key: str) -> Product | None:
    """Return a published product; None if there is none that clients could read."""
    try:
        return file.read_product(key) if key in file.keys else None
    except (OSError, *UNDECODABLE):
        return None
