"""The catalogue files of a server, as ``catalogue/published`` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

from fastindex.catalogue.published import CatalogueFileError, Mismatch
from fastindex.errors import Code, FastindexError
from fastindex.formats.compression import expand_gzip
from fastindex.formats.errors import FormatError
from fastindex.formats.simplestreams import INDEX_PATH
from fastindex.formats.upstream import (
    MAX_INDEX_BYTES,
    MAX_PRODUCT_FILE_BYTES,
    MAX_PRODUCTS,
    require_bounded_index,
    require_bounded_products,
)
from fastindex.remote.addresses import join_url, show_url
from fastindex.remote.answers import Answered
from fastindex.remote.client import Client, Document
from fastindex.remote.errors import FetchError
from fastindex.system.directories import close
from fastindex.system.files import in_memory, read_span

_GZIP = "gzip"


class RemoteFiles:
    """The catalogue files of a server, each fetched once; a context manager.

    Whatever a server sends, memory holds no more than the bounds of ``formats/upstream`` allow.

    Args:
        client: asks the server.
        url: what stands before ``/streams/v1/index.json``.
    """

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url
        self._stack = ExitStack()
        self._kept: dict[str, tuple[int, int]] = {}
        self._products_left = MAX_PRODUCTS
        self._bytes_left = MAX_PRODUCT_FILE_BYTES
        self.answers: dict[str, Answered] = {}
        """Path of each file that came → what its headers say."""

    def __enter__(self) -> RemoteFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self._forget()

    def read_index(self) -> bytes:
        """Return the index as it is now, and forget all product files.

        Raises:
            FetchError: it cannot be had.
            UpstreamError: it exceeds a bound.
        """
        self._forget()
        document = self._fetch(INDEX_PATH, MAX_INDEX_BYTES)
        require_bounded_index(document.content, self.name(INDEX_PATH))
        self._keep(INDEX_PATH, document)
        return document.content

    def name(self, path: str) -> str:
        """Return the URL of a file as messages show it."""
        return show_url(join_url(self._url, path))

    def open(self, path: str) -> int:
        """Return a descriptor of a product file.

        Raises:
            CatalogueFileError: it cannot be had.
            UpstreamError: it exceeds a bound.
        """
        if path not in self._kept:
            try:
                document = self._fetch(path, self._bytes_left)
            except FetchError as error:
                raise CatalogueFileError(_find_code(error), error.problem) from error
            name = self.name(path)
            self._bytes_left -= len(document.content)
            self._products_left -= require_bounded_products(
                document.content, name, max_products=self._products_left
            )
            self._keep(path, document)
        return os.dup(self._kept[path][0])

    def find_other_contents(self) -> Iterator[Mismatch]:
        """Yield each file that clients, which ask for gzip, get with other content.

        A server with files that were compressed beforehand may have forgotten to renew one.
        """
        for path in [*self._kept]:
            try:
                problem = self._find_other_content(path)
            except FastindexError as error:
                problem = f"cannot be read compressed, as clients ask for it ({error})"
            if problem:
                yield Mismatch(Code.BAD_CATALOGUE, path, "", problem)

    def _find_other_content(self, path: str) -> str:
        document = self._fetch(path, MAX_PRODUCT_FILE_BYTES, _GZIP)
        if document.answered.encoding != _GZIP:
            return ""
        try:
            content = expand_gzip(document.content, MAX_PRODUCT_FILE_BYTES)
        except FormatError as error:
            return f"clients, which ask for gzip, cannot read it: {error}"
        descriptor, size_bytes = self._kept[path]
        if content == read_span(descriptor, 0, size_bytes):
            return ""
        # It may have been published anew in between.
        if content == self._fetch(path, MAX_PRODUCT_FILE_BYTES).content:
            return ""
        return "clients, which ask for gzip, get other content than is sent uncompressed"

    def _fetch(self, path: str, max_bytes: int, encoding: str = "identity") -> Document:
        url = join_url(self._url, path)
        document = self._client.fetch(url, max_bytes, accept_encoding=encoding)
        if document is None:  # asked for without a condition
            raise FetchError(f"{show_url(url)}: the server answers 304 unasked", "check the server")
        return document

    def _keep(self, path: str, document: Document) -> None:
        with ExitStack() as stack:
            descriptor = os.dup(stack.enter_context(in_memory(document.content)))
        self._stack.callback(close, descriptor)
        self._kept[path] = descriptor, len(document.content)
        self.answers[path] = document.answered

    def _forget(self) -> None:
        self._stack.close()
        self._kept.clear()
        self.answers.clear()
        self._products_left = MAX_PRODUCTS
        self._bytes_left = MAX_PRODUCT_FILE_BYTES


def _find_code(error: FetchError) -> Code:
    if error.is_insecure:
        return Code.INSECURE
    return Code.MISSING_FILE if error.is_missing else Code.UNREADABLE
