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
_CATALOGUE_MARK = b"# catalogue\n"
_TIMES_HEAD = b"[Version]\n2\n\n[Files]\n"
_TIMES_TAIL = b"\n[End]\n"
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


class _Images(Struct):
    """The lines of all images, by path."""

    paths: bytes
    """Of each its path."""
    times: bytes
    """Of each its line in the list of times, which ends with its path."""
    totals: _Totals
    """How much they are about."""


def _add(totals: _Totals, lines: Sequence[bytes], sign: int = 1) -> None:
    """Add the lines of one product, or with ``sign`` -1 take them away."""
    if lines:
        fields = [line.split(b"\t", 3) for line in lines]
        totals.products += sign
        totals.versions += sign * len({path.rpartition(b"/")[0] for *_, path in fields})
        totals.files += sign * len(lines)
        totals.bytes += sign * sum(int(size) for _, _, size, _ in fields)


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
        images = _read_known(generation)
        if images is None:
            images = self._list_all(generation)
        else:
            self._bring_up_to_date(generation, images)
        totals = images.totals
        beside = "".join(f"{path}\n" for path in _list_catalogue(generation)).encode()
        lists = {
            FILES_PATH: b"".join((images.paths, _CATALOGUE_MARK, beside)),
            TIMES_PATH: b"".join((_TIMES_HEAD, images.times, _TIMES_TAIL)),
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

    def _list_all(self, generation: Generation) -> _Images:
        """Return the lines of all images."""
        totals = _Totals()
        every: dict[bytes, bytes] = {}
        for _, _, product in generation.read_products():
            lines = self._make_lines(product)
            _add(totals, [*lines.values()])
            every |= lines
        paths = sorted(every)
        return _Images(_join(paths), _join([every[path] for path in paths]), totals)

    def _bring_up_to_date(self, generation: Generation, images: _Images) -> None:
        """Replace the lines of the products that have changed.

        Args:
            generation: the new generation.
            images: those of the old one.
        """
        for stream, keys in (generation.changed or {}).items():
            for key in keys:
                new: dict[bytes, bytes] = {}
                if key in generation.products[stream].keys:
                    new = self._make_lines(generation.products[stream].read_product(key))
                label = product_label(stream, key).encode()
                paths = sorted(new)
                images.paths, _ = _replace(images.paths, label, paths)
                images.times, old = _replace(images.times, label, [new[path] for path in paths])
                _add(images.totals, old, -1)
                _add(images.totals, [*new.values()])

    def _make_lines(self, product: Product) -> dict[bytes, bytes]:
        """Return the path of each image file of a product → its line in the list of times."""
        lines: dict[bytes, bytes] = {}
        for version in product.versions.values():
            for item in version.items.values():
                try:
                    mtime = int(os.stat(f"{self.root}/{item.path}").st_mtime)
                except OSError:  # it has gone since; a client does not get it either
                    mtime = 0
                path = item.path.encode()  # with other bytes than UTF-8 it is never published
                lines[path] = b"%d\tf\t%d\t%b" % (mtime, item.size, path)
        return lines


def _replace(lines: bytes, label: bytes, new: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Replace the lines of a product.

    Args:
        lines: those of all images, by path.
        label: the directory of the product.
        new: its new lines, by path.

    Returns:
        The lines of all images, and the old ones of the product.
    """
    first = _find_line(lines, label + b"/")
    end = _find_line(lines, label + b"0")  # which follows "/"
    return b"".join((lines[:first], _join(new), lines[end:])), lines[first:end].split(b"\n")[:-1]


def _find_line(lines: bytes, path: bytes) -> int:
    """Return where the first line begins that is not before ``path``. All are by path."""
    low, high = 0, len(lines)
    while low < high:
        middle = (low + high) // 2
        start = lines.rfind(b"\n", low, middle) + 1 or low
        end = lines.index(b"\n", middle)
        if lines[start:end].rpartition(b"\t")[2] < path:
            low = end + 1
        else:
            high = start
    return low


def _read_known(generation: Generation) -> _Images | None:
    """Return the lines of the old generation.

    Returns:
        None if they are not known to be those that the new generation differs from as it says.
    """
    if generation.changed is None:
        return None
    files, times, trace = (
        os.path.join(generation.output, path) for path in (FILES_PATH, TIMES_PATH, TRACE_PATH)
    )
    try:
        old = decode_state(read_small_file(trace, _MAX_TRACE_BYTES), _Trace)
        paths = b"".join(read_pieces(files, MAX_CATALOGUE_BYTES))
        lines = b"".join(read_pieces(times, MAX_CATALOGUE_BYTES))
    except (OSError, *UNDECODABLE):
        return None
    sizes = [(one.path, one.size) for one in old.lists]
    if sizes != [(FILES_PATH, len(paths)), (TIMES_PATH, len(lines))]:
        return None
    if old.streams != sorted(generation.products):
        return None
    images = _Images(
        paths.rpartition(_CATALOGUE_MARK)[0],
        lines[len(_TIMES_HEAD) : -len(_TIMES_TAIL)],
        _Totals(old.products, old.versions, old.files, old.bytes),
    )
    are_whole = old.files == images.paths.count(b"\n") == images.times.count(b"\n")
    return images if are_whole else None


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


def _join(lines: Sequence[bytes]) -> bytes:
    return b"\n".join((*lines, b""))
