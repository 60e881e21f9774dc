"""What accompanies the catalogue: compressed and signed copies, lists, pages; of one generation.

Whoever makes them is handed the generation that is about to be published, and makes all from it
before the first file of it appears. A companion of one catalogue file appears right after it. One
of the whole catalogue appears when all product files have, and before the index.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from fastindex.formats.simplestreams import MAX_CATALOGUE_BYTES, Product
from fastindex.system.directories import closing
from fastindex.system.files import name_path_in_errors, open_regular, read_windows

_WINDOW_BYTES = 1 << 20


class CatalogueFile(Struct, frozen=True):
    """The index or a product file, as it is about to be published."""

    path: str
    """Relative to the output directory."""
    stream: str
    """The stream of a product file; "" for the index."""
    place: str
    """The absolute path where its bytes are now."""

    def read_chunks(self) -> Iterator[bytes]:
        """Yield its bytes.

        Raises:
            OSError: it cannot be read, or not to its end.
        """
        with name_path_in_errors(self.place), closing(open_regular(self.place)) as descriptor:
            yield from read_windows(descriptor, _WINDOW_BYTES, MAX_CATALOGUE_BYTES)


class Companion(Struct, frozen=True):
    """A file that accompanies the catalogue."""

    path: str
    """Relative to the output directory."""
    chunks: Iterable[bytes] | None
    """Its content, to be taken once; the same for the same generation. None: what is there stays,
    as nothing that it describes has changed."""
    of: str = ""
    """The path of the catalogue file that it describes; "": the whole catalogue."""


class Products(Protocol):
    """The products of a product file."""

    @property
    def keys(self) -> Collection[str]:
        """Their keys, in the order of the file."""

    def read_product(self, key: str) -> Product:
        """Return one of them.

        Raises:
            OSError: it cannot be read.
            msgspec.DecodeError, UnicodeError, RecursionError: clients reject it.
        """


class Generation(Struct, frozen=True):
    """A catalogue that is about to be published, readable before it is."""

    output: str
    """The directory with ``streams/``."""
    files: Sequence[CatalogueFile]
    """Its product files, in the order of the index, and then the index."""
    products: Mapping[str, Products]
    """Stream → its products, in the order of the index."""
    published_at: float
    """When it was published first, in seconds since 1970."""
    companions: Sequence[str] = ()
    """The paths of the companions that other makers have made already, relative to the output
    directory."""
    changed: Mapping[str, Collection[str]] | None = None
    """Stream → the keys of the products that were added, changed or removed since the companions
    were made that are there; None: nobody knows."""

    def read_products(self) -> Iterator[tuple[str, str, Product]]:
        """Yield all products: stream, key, product; those of a file in its order.

        Raises:
            OSError: a file cannot be read.
        """
        for stream, products in self.products.items():
            for key in products.keys:
                yield stream, key, products.read_product(key)


class FileMaker(Protocol):
    """Makes companions of each catalogue file."""

    @property
    def name(self) -> str:
        """What it makes, such as ``gzip``."""

    @property
    def fingerprint(self) -> str:
        """Its options and its version: if it is another, all is made again."""

    def make(self, file: CatalogueFile) -> Iterable[Companion]:
        """Return the companions of one file.

        Raises:
            FastindexError, OSError: they cannot be made, so nothing is published.
        """


class Maker(Protocol):
    """Makes companions of a whole catalogue."""

    @property
    def name(self) -> str:
        """What it makes, such as ``page``."""

    @property
    def fingerprint(self) -> str:
        """Its options and its version: if it is another, all is made again."""

    def make(self, generation: Generation) -> Iterable[Companion]:
        """Return the companions of a generation.

        Raises:
            FastindexError, OSError: they cannot be made, so nothing is published.
        """


class Makers(Struct, frozen=True):
    """All that is to accompany the catalogue."""

    of_files: tuple[FileMaker, ...] = ()
    """They make companions of each catalogue file."""
    of_all: tuple[Maker, ...] = ()
    """They make companions of the whole catalogue, one after the other."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """The name of each maker → its fingerprint."""
        every: list[FileMaker | Maker] = [*self.of_files, *self.of_all]
        return {maker.name: maker.fingerprint for maker in every}
