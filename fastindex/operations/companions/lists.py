"""Lists for those who mirror a mirror: which files there are, and which generation they are of.

``streams/files.txt`` names all files for ``rsync --files-from``: images first, then the catalogue,
its index last. ``streams/fullfiletimelist`` has their sizes and times, in the format of
quick-fedora-mirror (https://pagure.io/quick-fedora-mirror). ``streams/trace.json`` says which
generation this is, with the digests of its catalogue and of these lists: what was fetched while a
build went on does not agree with it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from fastindex.catalogue.companions import CatalogueFile, Companion, Generation
from fastindex.formats.names import product_label
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    STREAMS_DIRECTORY,
    UNDECODABLE,
    Product,
    decode_state,
    encode_state,
)
from fastindex.hashing.plain import sha256_of
from fastindex.system.files import read_pieces, read_small_file

FILES_PATH = f"{STREAMS_DIRECTORY}/files.txt"
TIMES_PATH = f"{STREAMS_DIRECTORY}/fullfiletimelist"
TRACE_PATH = f"{STREAMS_DIRECTORY}/trace.json"
_CATALOGUE_MARK = "# catalogue"
_TIMES_HEAD = ("[Version]", "2", "", "[Files]")
_TIMES_TAIL = ("", "[End]")
_MAX_TRACE_BYTES = 1 << 20


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
    streams: list[str]
    products: int
    versions: int
    files: int
    bytes: int
    catalogue: list[_File]
    lists: list[_File]


class _Totals(Struct):
    """How much the lines of images are about."""

    products: int = 0
    versions: int = 0
    files: int = 0
    bytes: int = 0

    def add(self, lines: Sequence[str], sign: int = 1) -> None:
        """Add the lines of one product, or with ``sign`` -1 take them away."""
        if lines:
            fields = [line.split("\t", 3) for line in lines]
            self.products += sign
            self.versions += sign * len({path.rpartition("/")[0] for *_, path in fields})
            self.files += sign * len(lines)
            self.bytes += sign * sum(int(size) for _, _, size, _ in fields)


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
        known = _read_known(generation)
        lines, totals = self._list_all(generation) if known is None else known
        if known is not None:
            self._bring_up_to_date(generation, lines, totals)
        images = [line.rpartition("\t")[2] for line in lines]
        lists = {
            FILES_PATH: _encode([*images, _CATALOGUE_MARK, *_list_catalogue(generation)]),
            TIMES_PATH: _encode([*_TIMES_HEAD, *lines, *_TIMES_TAIL]),
        }
        catalogue = [_describe(file) for file in generation.files]
        trace = _Trace(
            generation=sha256_of(one.sha256.encode() for one in catalogue),
            published_at=datetime.fromtimestamp(int(generation.published_at), UTC).isoformat(),
            streams=sorted(generation.products),
            products=totals.products,
            versions=totals.versions,
            files=totals.files,
            bytes=totals.bytes,
            catalogue=catalogue,
            lists=[_File(path, len(data), sha256_of([data])) for path, data in lists.items()],
        )
        for path, data in (*lists.items(), (TRACE_PATH, encode_state(trace))):
            yield Companion(path, (data,), INDEX_PATH)

    def _list_all(self, generation: Generation) -> tuple[list[str], _Totals]:
        """Return the lines of all images, by path, and how much they are about."""
        totals = _Totals()
        every: dict[str, str] = {}
        for _, _, product in generation.read_products():
            lines = self._make_lines(product)
            totals.add([*lines.values()])
            every |= lines
        return [every[path] for path in sorted(every)], totals

    def _bring_up_to_date(self, generation: Generation, lines: list[str], totals: _Totals) -> None:
        """Replace the lines of the products that have changed.

        Args:
            generation: the new generation.
            lines: those of the old one, by path.
            totals: how much they are about.
        """
        for stream, keys in (generation.changed or {}).items():
            for key in keys:
                prefix = f"{product_label(stream, key)}/"
                first = bisect_left(lines, prefix, key=_find_path)
                end = bisect_left(lines, f"{prefix[:-1]}0", key=_find_path)  # "0" follows "/"
                totals.add(lines[first:end], -1)
                new: list[str] = []
                if key in generation.products[stream].keys:
                    made = self._make_lines(generation.products[stream].read_product(key))
                    new = [made[path] for path in sorted(made)]
                totals.add(new)
                lines[first:end] = new

    def _make_lines(self, product: Product) -> dict[str, str]:
        """Return the path of each image file of a product → its line in the list of times."""
        lines: dict[str, str] = {}
        for version in product.versions.values():
            for item in version.items.values():
                try:
                    mtime = int(os.stat(f"{self.root}/{item.path}").st_mtime)
                except OSError:  # it has gone since; a client does not get it either
                    mtime = 0
                lines[item.path] = f"{mtime}\tf\t{item.size}\t{item.path}"
        return lines


def _find_path(line: str) -> str:
    return line.rpartition("\t")[2]


def _read_known(generation: Generation) -> tuple[list[str], _Totals] | None:
    """Return the lines of the old generation, by path, and how much they are about.

    Returns:
        None if they are not known to be those that the new generation differs from as it says.
    """
    if generation.changed is None:
        return None
    times, trace = (os.path.join(generation.output, path) for path in (TIMES_PATH, TRACE_PATH))
    try:
        old = decode_state(read_small_file(trace, _MAX_TRACE_BYTES), _Trace)
        text = b"".join(read_pieces(times, MAX_CATALOGUE_BYTES)).decode()
    except (OSError, *UNDECODABLE):
        return None
    head, tail = len(_TIMES_HEAD), len(_TIMES_TAIL)
    lines = text.split("\n")[head : -tail - 1]
    if old.streams != sorted(generation.products) or len(lines) != old.files:
        return None
    return lines, _Totals(old.products, old.versions, old.files, old.bytes)


def _list_catalogue(generation: Generation) -> list[str]:
    """Return the files of the catalogue and what accompanies it, in the order to fetch them."""
    products = [file.path for file in generation.files if file.stream]
    own = [FILES_PATH, TIMES_PATH]
    stem = INDEX_PATH.removesuffix("json")
    # What is hidden is for the next run.
    served = [one for one in generation.companions if os.path.basename(one)[0] != "."]
    late = [one for one in served if one.startswith(stem)]
    early = [one for one in served if one not in late]
    return [*products, *sorted(early), *own, INDEX_PATH, *sorted(late), TRACE_PATH]


def _describe(file: CatalogueFile) -> _File:
    size = os.stat(file.place).st_size
    return _File(file.path, size, sha256_of(file.read_chunks()))


def _encode(lines: Sequence[str]) -> bytes:
    # A path with other bytes than UTF-8 is never published.
    return "\n".join((*lines, "")).encode()
