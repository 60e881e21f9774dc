"""Reading an upstream's catalogue: the index, and each product file that it names."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from fastindex.formats.filters import Filters
from fastindex.formats.simplestreams import INDEX_PATH
from fastindex.formats.upstream import (
    MAX_INDEX_BYTES,
    MAX_PRODUCT_FILE_BYTES,
    MAX_PRODUCTS,
    UpstreamEntry,
    UpstreamError,
    UpstreamIndex,
    UpstreamProducts,
    parse_index,
    parse_products,
)
from fastindex.mirror.state import pulled
from fastindex.mirror.state.pulled import CatalogueFile
from fastindex.operations.pull.signatures import Keyring, SignatureError
from fastindex.remote.addresses import join_url, show_text, show_url
from fastindex.remote.client import Client, Document
from fastindex.remote.errors import FetchError


class UpstreamCatalogue(Struct, frozen=True):
    """What an upstream publishes, as far as it was asked for."""

    index: UpstreamIndex
    """The index."""
    files: tuple[tuple[UpstreamEntry, UpstreamProducts], ...]
    """Each product file, with what was chosen of it."""
    state: dict[str, CatalogueFile]
    """Path of each catalogue file → what it is now."""


class UpstreamReader:
    """Reads catalogue files from a server.

    Args:
        client: asks the server.
        url: the upstream.
        keyring: with whose keys they must be signed; None: they need not be.
    """

    def __init__(self, client: Client, url: str, keyring: Keyring | None) -> None:
        self._client = client
        self._url = url
        self._keyring = keyring

    def is_unchanged(self, known: Mapping[str, CatalogueFile]) -> bool:
        """Return whether all catalogue files are as they were.

        Args:
            known: path of each → what it was.

        Raises:
            FetchError: one cannot be had.
        """
        return bool(known) and all(self._is_same(path, known[path]) for path in known)

    def _is_same(self, path: str, known: CatalogueFile) -> bool:
        fetched = self._client.fetch(join_url(self._url, path), _find_limit(path), known.etag)
        return fetched is None or pulled.digest(fetched.content) == known.digest

    def read(self, filters: Filters) -> UpstreamCatalogue:
        """Return the catalogue.

        Args:
            filters: what is wanted of it.

        Raises:
            FetchError: a file of it cannot be had.
            UpstreamError: clients reject it, or it exceeds a bound.
            SignatureError: it is not signed as it must be.
        """
        try:
            return self._read(filters)
        except UpstreamError as error:
            raise UpstreamError(
                f"{error}; nothing was changed; try again later, and if that does not help, ask "
                "who runs the upstream"
            ) from error

    def _read(self, filters: Filters) -> UpstreamCatalogue:
        state: dict[str, CatalogueFile] = {}
        index = parse_index(
            self._fetch(INDEX_PATH, state), show_url(join_url(self._url, INDEX_PATH))
        )
        files: list[tuple[UpstreamEntry, UpstreamProducts]] = []
        left = MAX_PRODUCTS
        for entry in index.entries:
            where = show_url(join_url(self._url, entry.path))
            data = self._fetch(entry.path, state)
            products = parse_products(data, entry.stream, where, filters, max_products=left)
            if self._keyring is not None:
                _require_own(where, entry, products)
            left -= products.total
            files.append((entry, products))
        return UpstreamCatalogue(index, tuple(files), state)

    def _fetch(self, path: str, state: dict[str, CatalogueFile]) -> bytes:
        """Return the bytes of a catalogue file, and note what it is."""
        if self._keyring is None:
            document = self._fetch_document(path)
            content = document.content
        else:
            signed = self._keyring.fetch(self._client, self._url, path, _find_limit(path))
            path, document, content = signed.path, signed.document, signed.content
        state[path] = CatalogueFile(document.etag, pulled.digest(document.content))
        return content

    def _fetch_document(self, path: str) -> Document:
        document = self._client.fetch(join_url(self._url, path), _find_limit(path))
        if document is None:  # asked for without a condition
            raise FetchError(f"{self._url}: answers 304 unasked", "check the server")
        return document


def _require_own(where: str, entry: UpstreamEntry, products: UpstreamProducts) -> None:
    """Check that a signed file is that of the stream for which the signed index names it.

    Raises:
        SignatureError: it is another one, which the same key signed.
    """
    if products.content_id not in ("", entry.stream):
        says, named = show_text(products.content_id), show_text(entry.stream)
        raise SignatureError(
            f"{where}: it is signed, but as {says!r}, and the index names it for {named!r}; "
            "nothing was changed; ask who runs the upstream"
        )


def _find_limit(path: str) -> int:
    return MAX_INDEX_BYTES if path == INDEX_PATH else MAX_PRODUCT_FILE_BYTES
