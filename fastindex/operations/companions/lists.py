"""Lists for those who mirror a mirror: which files there are, and which generation they are of.

``streams/files.txt`` names all files for ``rsync --files-from``: images first, then the catalogue,
its index last. ``streams/fullfiletimelist`` has their sizes and times, in the format of
quick-fedora-mirror (https://pagure.io/quick-fedora-mirror). ``streams/trace.json`` says which
generation this is, with the digests of its catalogue and of these lists: what was fetched while a
build went on does not agree with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from fastindex.catalogue.companions import CatalogueFile, Companion, Generation
from fastindex.formats.simplestreams import INDEX_PATH, STREAMS_DIRECTORY, encode_state
from fastindex.hashing.plain import sha256_of

FILES_PATH = f"{STREAMS_DIRECTORY}/files.txt"
TIMES_PATH = f"{STREAMS_DIRECTORY}/fullfiletimelist"
TRACE_PATH = f"{STREAMS_DIRECTORY}/trace.json"
_CATALOGUE_MARK = "# catalogue"
_TIMES_VERSION = 2


class _File(Struct, frozen=True):
    """A file in the trace."""

    path: str
    size: int
    sha256: str


class _Trace(Struct, frozen=True, kw_only=True):
    """``streams/trace.json``."""

    format: str = "fastindex-trace:1"
    generation: str
    published_at: str
    streams: int
    products: int
    versions: int
    files: int
    bytes: int
    catalogue: list[_File]
    lists: list[_File]


class ListMaker(Struct, frozen=True):
    """Makes the lists and the trace.

    Args:
        root: the directory with the images.
    """

    root: str
    name: str = "lists"
    fingerprint: str = "1"

    def make(self, generation: Generation) -> Iterator[Companion]:
        """Yield the lists of a generation."""
        sizes: dict[str, int] = {}
        products = versions = 0
        for _, _, product in generation.read_products():
            products += 1
            versions += len(product.versions)
            for version in product.versions.values():
                for item in version.items.values():
                    sizes[item.path] = item.size
        images = sorted(sizes)
        names = _list_catalogue(generation)
        lists = {
            FILES_PATH: _encode([*images, _CATALOGUE_MARK, *names]),
            TIMES_PATH: _encode(self._list_times(images)),
        }
        catalogue = [_describe(file) for file in generation.files]
        trace = _Trace(
            generation=sha256_of(one.sha256.encode() for one in catalogue),
            published_at=datetime.fromtimestamp(int(generation.published_at), UTC).isoformat(),
            streams=len(generation.files) - 1,
            products=products,
            versions=versions,
            files=len(images),
            bytes=sum(sizes.values()),
            catalogue=catalogue,
            lists=[_File(path, len(data), sha256_of([data])) for path, data in lists.items()],
        )
        for path, data in (*lists.items(), (TRACE_PATH, encode_state(trace))):
            yield Companion(path, (data,), INDEX_PATH)

    def _list_times(self, images: Sequence[str]) -> Iterator[str]:
        yield from ("[Version]", str(_TIMES_VERSION), "", "[Files]")
        for path in images:
            try:
                status = os.stat(f"{self.root}/{path}")
            except OSError:  # it has gone since; a client gets no more of it than a mirror does
                continue
            yield f"{int(status.st_mtime)}\tf\t{status.st_size}\t{path}"
        yield from ("", "[End]")


def _list_catalogue(generation: Generation) -> list[str]:
    """Return the files of the catalogue and what accompanies it, in the order to fetch them."""
    products = [file.path for file in generation.files if file.stream]
    own = [FILES_PATH, TIMES_PATH]
    stem = INDEX_PATH.removesuffix("json")
    late = [one for one in generation.companions if one.startswith(stem)]
    early = [one for one in generation.companions if one not in late]
    return [*products, *sorted(early), *own, INDEX_PATH, *sorted(late), TRACE_PATH]


def _describe(file: CatalogueFile) -> _File:
    size = os.stat(file.place).st_size
    return _File(file.path, size, sha256_of(file.read_chunks()))


def _encode(lines: Sequence[str] | Iterator[str]) -> bytes:
    # A path with other bytes than UTF-8 is never published.
    return "".join(f"{line}\n" for line in lines).encode()
