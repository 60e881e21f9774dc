"""A published product file, read product by product: it may be gigabytes long.

It is read through one descriptor, so that it stays the same file when another is renamed over it,
and it is never mapped: if something truncated it in place, that would kill the process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, KeysView
from types import TracebackType
from typing import Final, Self

from xxhash import xxh3_128

from fastindex.formats.product_pieces import (
    PieceFinder,
    Pieces,
    Span,
    decode_piece,
    find_pieces,
)
from fastindex.formats.simplestreams import (
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Product,
    ProductFile,
    ProductFrame,
    decode,
    encode_piece,
)
from fastindex.system.directories import close
from fastindex.system.files import name_path_in_errors, open_regular, read_span, read_windows

WINDOW_BYTES: Final = 1 << 18
_NULL: Final = b"null"


class PublishedFile:
    """A product file whose products are decoded one at a time, as a client decodes them.

    A file in the form in which fastindex writes it is read once in windows when it is opened, and
    memory holds the longest product at most. Any other is held as a whole then.

    What ``decode`` rejects is rejected here as well, but it may be found only when its products are
    read; ``check`` reads all.

    Args:
        path: the file.
        descriptor: the file, if it is open already; it is closed in the end. Errors name ``path``.
        window_bytes: how much is read at once.

    Raises:
        OSError: it cannot be opened or read, is no regular file or is too large.
        msgspec.DecodeError, UnicodeError, RecursionError: clients reject it (``UNDECODABLE``).
    """

    digest: bytes
    """xxh3_128 of all its bytes."""
    is_compact: bool
    """Whether it has the form that fastindex writes, as far as what is around its products."""
    frame: ProductFrame
    """Its fields other than its products."""
    spans: dict[str, Span]
    """Product key → where its JSON object lies, in the order of the file. Empty if the file has
    keys twice or is valid only because null counts as missing; ``keys`` names its products."""

    def __init__(
        self, path: str, descriptor: int | None = None, *, window_bytes: int = WINDOW_BYTES
    ) -> None:
        self._path = path
        self._whole: dict[str, Product] | None = None
        self._descriptor = open_regular(path) if descriptor is None else descriptor
        try:
            with name_path_in_errors(path):
                self._open(window_bytes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing of it can be read any more."""
        if self._descriptor >= 0:
            close(self._descriptor)
        self._descriptor = -1

    @property
    def content_id(self) -> str:
        """The stream that the file says it is of."""
        return self.frame.content_id

    @property
    def keys(self) -> KeysView[str]:
        """The keys of its products, in their order."""
        return self.spans.keys() if self._whole is None else self._whole.keys()

    def read_raw(self, key: str) -> bytes:
        """Return the JSON of a product, as it stands in the file if ``spans`` has it.

        Raises:
            KeyError: there is no such product.
            OSError: the file cannot be read, or became shorter.
        """
        if self._whole is not None and not self.spans:
            return encode_piece(self._whole[key])
        span = self.spans[key]
        with name_path_in_errors(self._path):
            return read_span(self._descriptor, span.offset, span.length)

    def read_range(self, first: str, last: str) -> Iterator[bytes]:
        """Yield the bytes from the JSON of a product to the end of that of a later one.

        Args:
            first: the key of the one; ``spans`` has both.
            last: the key of the other.

        Raises:
            OSError: the file cannot be read, or became shorter.
        """
        offset, (start, length) = self.spans[first].offset, self.spans[last]
        end = start + length
        with name_path_in_errors(self._path):
            while offset < end:
                data = read_span(self._descriptor, offset, min(WINDOW_BYTES, end - offset))
                offset += len(data)
                yield data

    def read_product(self, key: str) -> Product:
        """Return a product.

        Raises:
            KeyError: there is no such product.
            OSError: the file cannot be read, or became shorter.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject the file.
        """
        if self._whole is not None:
            return self._whole[key]
        data = self.read_raw(key)
        try:
            return decode_piece(data)
        except UNDECODABLE:
            if not self._has_null():
                raise
        # A null anywhere lets all of the file be decoded in another way.
        self._whole = decode(self.read_all(), ProductFile).products
        return self._whole[key]

    def products(self) -> Iterator[tuple[str, Product]]:
        """Yield each product and its key, in the order of the file.

        Raises:
            OSError: the file cannot be read, or became shorter.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject the file.
        """
        for key in list(self.keys):
            yield key, self.read_product(key)

    def check(self) -> None:
        """Read all products.

        Raises:
            OSError: the file cannot be read, or became shorter.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject the file.
        """
        for _ in self.products():
            pass

    def read_all(self) -> bytes:
        """Return all bytes of the file; those of a large one fill memory.

        Raises:
            OSError: the file cannot be read.
        """
        with name_path_in_errors(self._path):
            return b"".join(self._read_windows(WINDOW_BYTES))

    def _open(self, window_bytes: int) -> None:
        self.digest, pieces = _find_compact(self._read_windows(window_bytes))
        self.is_compact = pieces is not None
        if pieces is None:
            data = self.read_all()
            self.digest = xxh3_128(data).digest()
            pieces = find_pieces(data)
            if pieces is None:
                file = decode(data, ProductFile)
                self._whole = file.products
                pieces = file, {}
        self.frame, self.spans = pieces

    def _has_null(self) -> bool:
        end = b""
        with name_path_in_errors(self._path):
            for window in self._read_windows(WINDOW_BYTES):
                if _NULL in window or _NULL in end + window[: len(_NULL) - 1]:
                    return True
                end = (end + window[1 - len(_NULL) :])[1 - len(_NULL) :]
        return False

    def _read_windows(self, window_bytes: int) -> Iterator[bytes]:
        return read_windows(self._descriptor, window_bytes, MAX_CATALOGUE_BYTES)


class FileProducts:
    """The products of a product file, which is opened when the first is asked for.

    Args:
        place: its absolute path.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._opened: PublishedFile | None = None

    @property
    def keys(self) -> Collection[str]:
        """Their keys, in the order of the file.

        Raises:
            OSError: the file cannot be read.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject it.
        """
        return self._file.keys

    def read_product(self, key: str) -> Product:
        """Return one of them; raises as ``keys``."""
        return self._file.read_product(key)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _file(self) -> PublishedFile:
        if self._opened is None:
            self._opened = PublishedFile(self._place)
        return self._opened


def _find_compact(windows: Iterable[bytes]) -> tuple[bytes, Pieces | None]:
    """Return the digest of a file, and its products if it has the form that fastindex writes."""
    hasher = xxh3_128()
    finder = PieceFinder()
    is_compact = True
    for window in windows:
        hasher.update(window)
        is_compact = is_compact and finder.feed(window)
    return hasher.digest(), finder.finish() if is_compact else None


def leads_out(path: str) -> bool:
    """Return whether a path in an index is not one below the output directory."""
    return path.startswith("/") or ".." in path.split("/")


def describe_lost_products(named: Iterable[str], keys: Iterable[str]) -> str:
    """Return what is wrong with a product file that lacks products; "" if it lacks none.

    Args:
        named: the products that the index names.
        keys: those that the file has.
    """
    lost = sorted(set(named).difference(keys))
    if len(lost) > 1:
        return f"lacks {len(lost):,} products that the index names, such as {lost[0]}"
    return f"lacks the product {lost[0]}, which the index names" if lost else ""
