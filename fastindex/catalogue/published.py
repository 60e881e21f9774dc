"""Reading the published catalogue as a client does, but beyond the first error.

A client rejects a whole file because of one value of a wrong type. Here each such value is a
mismatch that names its version, and the rest of the file is read. What a client does not mind,
such as a field that is missing, is no mismatch: other tools write catalogues, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Protocol

from msgspec import Struct

from fastindex.catalogue.images import PublishedProduct
from fastindex.catalogue.product_files import (
    WINDOW_BYTES,
    PublishedFile,
    describe_lost_products,
    leads_out,
)
from fastindex.errors import Code, TreeError, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import version_label
from fastindex.formats.rejected_catalogue import (
    Rejection,
    decode_rejected,
    decode_rejected_product,
)
from fastindex.formats.simplestreams import (
    DATATYPE,
    INDEX_FORMAT,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    IndexEntry,
    Product,
    decode,
)
from fastindex.system.directories import close
from fastindex.system.files import exists, open_regular, read_small_file, read_windows

_REBUILD = "run fastindex ROOT to write it"
_MAX_ATTEMPTS = 4
"""How often to read the catalogue while builds write it."""


class Mismatch(Struct, frozen=True):
    """Something that is published but wrong."""

    code: Code
    """What kind of thing it is, for programs."""
    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or the path of the catalogue file."""
    file: str
    """The file's name in the version; empty: the version or catalogue file itself."""
    problem: str
    """What is wrong."""


class CatalogueFileError(OSError):
    """A product file cannot be had.

    Args:
        code: what kind of thing is wrong.
        problem: what is wrong.
    """

    def __init__(self, code: Code, problem: str) -> None:
        super().__init__(None, problem)
        self.code = code


class CatalogueFiles(Protocol):
    """Where the files of a catalogue come from."""

    def read_index(self) -> bytes:
        """Return the index as it is now.

        Raises:
            FastindexError: it cannot be had.
        """

    def name(self, path: str) -> str:
        """Return what errors call a product file, given its path in the index."""

    def open(self, path: str) -> int:
        """Return a descriptor of a product file, as it was at the first call since ``read_index``.

        Args:
            path: as the index has it; it does not lead out of the mirror.

        Raises:
            OSError: it cannot be had; a ``CatalogueFileError`` says what kind of thing is wrong.
        """


class _LocalFiles:
    """The files below the output directory of a mirror."""

    def __init__(self, output: str) -> None:
        self._output = output

    def read_index(self) -> bytes:
        path = self.name(INDEX_PATH)
        try:
            return read_small_file(path, MAX_CATALOGUE_BYTES)
        except OSError as error:
            is_denied = isinstance(error, PermissionError)
            remedy = "give this user read permission" if is_denied else _REBUILD
            raise TreeError(
                f"{path}: cannot read the catalogue ({error.strerror or error}); {remedy}"
            ) from error

    def name(self, path: str) -> str:
        return os.path.join(self._output, path)

    def open(self, path: str) -> int:
        return open_regular(self.name(path))


class PublishedStream:
    """A product file that the index names, read product by product.

    Args:
        stream: the name of the stream in the index.
        path: the product file, relative to the output directory.
        source: the open file; or its sound products, if it cannot be read one product at a time.
        keys: the keys of the products that can be read.
        is_rejected: whether clients reject the file; then the sound versions are all there is.
    """

    def __init__(
        self,
        stream: str,
        path: str,
        source: PublishedFile | dict[str, Product],
        keys: Sequence[str],
        *,
        is_rejected: bool,
    ) -> None:
        self.stream = stream
        self.keys = keys
        self._path = path
        self._source = source
        self.is_rejected = is_rejected
        """Whether clients reject the file."""

    def read_product(self, key: str) -> Product:
        """Return the product with that key, which must be one of ``keys``.

        Raises:
            OSError: the file cannot be read, or was changed in its place.
        """
        if isinstance(self._source, dict):
            return self._source[key]
        product = None
        with suppress(*UNDECODABLE):
            if self.is_rejected:
                product, _ = decode_rejected_product(key, self._source.read_raw(key))
            else:
                product = self._source.read_product(key)
        if product is None:  # it could be decoded a moment ago
            raise OSError(None, "changed while it was read", self._path)
        return product


class Published(Struct, frozen=True):
    """The published catalogue."""

    files: list[PublishedStream]
    """The product files, in the order of the index."""
    mismatches: list[Mismatch]
    """What is wrong with any of the catalogue files."""
    findings: list[Finding]
    """What clients do not mind, but a person should know."""

    def products(self) -> Iterator[PublishedProduct]:
        """Yield all products, as far as they can be read, in the order of the files.

        Raises:
            OSError: a file cannot be read, or was changed in its place.
        """
        for file in self.files:
            for key in file.keys:
                yield file.stream, key, file.read_product(key)

    def sorted_products(self) -> Iterator[PublishedProduct]:
        """Yield all products, as far as they can be read, those of a file by their keys.

        Raises:
            OSError: a file cannot be read, or was changed in its place.
        """
        for file in self.files:
            for key in sorted(file.keys):
                yield file.stream, key, file.read_product(key)


@contextmanager
def open_catalogue(output: str) -> Iterator[Published]:
    """Open the index and all product files that it names, and check all that clients check.

    Args:
        output: the directory with ``streams/``.

    Raises:
        TreeError: there is no index, or it cannot be opened.
        OSError: the system is out of descriptors or memory.
    """
    with open_catalogue_of(_LocalFiles(output)) as published:
        yield published


@contextmanager
def open_catalogue_of(source: CatalogueFiles) -> Iterator[Published]:
    """Open a catalogue wherever it lies, as ``open_catalogue`` does.

    Args:
        source: where its files come from.

    Raises:
        FastindexError: the index cannot be had.
        OSError: the system is out of descriptors or memory.
    """
    with ExitStack() as stack:
        yield _open_settled(source, stack)


def _open_settled(source: CatalogueFiles, stack: ExitStack) -> Published:
    """Open the catalogue, again if a build has written another index meanwhile.

    The products that it names are those of its product files, and not of newer ones.
    """
    data = source.read_index()
    for _ in range(_MAX_ATTEMPTS):
        stack.pop_all().close()
        published = _open_catalogue(source, data, stack)
        if all(one.code is not Code.PRODUCT_LOST for one in published.mismatches):
            break
        before, data = data, source.read_index()
        if data == before:
            break
    return published


def _open_catalogue(source: CatalogueFiles, data: bytes, stack: ExitStack) -> Published:
    published = Published([], [], [])
    try:
        index = decode(data, Index)
    except UNDECODABLE as error:
        problem = f"clients reject it: {error}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        return published
    if not index.index or index.format != INDEX_FORMAT:
        problem = "it names no stream" if not index.index else f"its format is {index.format!r}"
        problem = f"clients reject it: {problem}; {_REBUILD}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
    names: dict[str, str] = {}
    for stream, entry in index.index.items():
        other = names.setdefault(os.path.basename(entry.path), entry.path)
        if other != entry.path:
            problem = f"clients mistake {entry.path} for {other}: they cache files by basename"
            published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        _add_stream(source, stream, entry, published, stack)
    return published


def _add_stream(
    source: CatalogueFiles, stream: str, entry: IndexEntry, published: Published, stack: ExitStack
) -> None:
    """Add the product file of a stream to ``published``, and what is wrong with it."""
    is_skipped = entry.datatype != DATATYPE
    if is_skipped or entry.format != PRODUCTS_FORMAT:
        field = ("datatype", entry.datatype) if is_skipped else ("format", entry.format)
        problem = f"clients skip the stream {stream!r}: its {field[0]} in the index is {field[1]!r}"
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
    if is_skipped:
        return
    file, wrong = _open_stream(source, stream, entry.path, stack)
    published.mismatches.extend(wrong)
    if file is None:
        return
    if file.keys and not entry.products:
        problem = (
            f"clients skip the stream {stream!r}: the index names none of its products, and "
            f"{entry.path} has {len(file.keys):,}"
        )
        published.mismatches.append(Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem))
        return
    published.files.append(file)
    if wrong:  # it has products that cannot be read
        return
    lost = describe_lost_products(entry.products, file.keys)
    if lost:
        mismatch = Mismatch(Code.PRODUCT_LOST, entry.path, "", f"{lost}; {_REBUILD}")
        published.mismatches.append(mismatch)
    unnamed = sorted(set(file.keys) - set(entry.products))
    if unnamed:
        problem = (
            f"has the product {unnamed[0]}, which the index does not name; clients see it"
            if len(unnamed) == 1
            else f"has {len(unnamed):,} products that the index does not name, such as "
            f"{unnamed[0]}; clients see them"
        )
        published.findings.append(
            Finding(Code.INDEX_OUTDATED, entry.path, f"{problem} all the same", _REBUILD)
        )


def _open_stream(
    source: CatalogueFiles, stream: str, path: str, stack: ExitStack
) -> tuple[PublishedStream | None, list[Mismatch]]:
    if leads_out(path):
        problem = f"its path {path!r} leads out of the mirror"
        return None, [Mismatch(Code.BAD_CATALOGUE, INDEX_PATH, "", problem)]
    try:
        return _check_stream(stream, path, source, stack)
    except OSError as error:
        if is_shortage(error):
            raise
        code = Code.MISSING_FILE if isinstance(error, FileNotFoundError) else Code.UNREADABLE
        if isinstance(error, CatalogueFileError):
            code = error.code
        return None, [Mismatch(code, path, "", f"cannot be read ({error.strerror or error})")]


def _check_stream(
    stream: str, path: str, source: CatalogueFiles, stack: ExitStack
) -> tuple[PublishedStream | None, list[Mismatch]]:
    """Decode all products of a file, and keep none."""
    try:
        file = stack.enter_context(PublishedFile(source.name(path), source.open(path)))
    except UNDECODABLE:
        sound, rejections = decode_rejected(stream, _read_all(source.open(path)))
        wrong = [_make_mismatch(stream, path, rejection) for rejection in rejections]
        if sound is None:
            return None, wrong
        products = sound.products
        return PublishedStream(stream, path, products, [*products], is_rejected=True), wrong
    try:
        file.check()
    except UNDECODABLE:
        return _list_sound(stream, path, file)
    wrong = [
        Mismatch(Code.BAD_CATALOGUE, path, "", f"clients reject it: its {name} is {found!r}")
        for name, found, right in (
            ("datatype", file.frame.datatype, DATATYPE),
            ("format", file.frame.format, PRODUCTS_FORMAT),
        )
        if found != right
    ]
    return PublishedStream(stream, path, file, [*file.keys], is_rejected=False), wrong


def _read_all(descriptor: int) -> bytes:
    """Return the bytes of an open file, and close it."""
    try:
        return b"".join(read_windows(descriptor, WINDOW_BYTES, MAX_CATALOGUE_BYTES))
    finally:
        close(descriptor)


def _list_sound(
    stream: str, path: str, file: PublishedFile
) -> tuple[PublishedStream, list[Mismatch]]:
    """Return what can be read of a file that clients reject, and why they do."""
    sound: list[str] = []
    wrong: list[Mismatch] = []
    for key in file.keys:
        product, rejections = decode_rejected_product(key, file.read_raw(key))
        wrong += [_make_mismatch(stream, path, rejection) for rejection in rejections]
        if product is not None:
            sound.append(key)
    return PublishedStream(stream, path, file, sound, is_rejected=True), wrong


def _make_mismatch(stream: str, path: str, rejection: Rejection) -> Mismatch:
    if rejection.version:
        label = version_label(stream, rejection.product, rejection.version)
        problem = f"clients reject the whole catalogue because of it: {rejection.reason}"
        return Mismatch(Code.BAD_CATALOGUE, label, "", problem)
    where = f" because of {rejection.product}" if rejection.product else ""
    problem = f"clients reject it{where}: {rejection.reason}"
    return Mismatch(Code.BAD_CATALOGUE, path, "", problem)


class HeldCatalogue:
    """The published catalogue as it is now, to be read later: builds replace files, and these stay.

    Args:
        output: the directory with ``streams/``.
        stack: closes the files in the end.

    Raises:
        OSError: the system is out of descriptors or memory.
    """

    def __init__(self, output: str, stack: ExitStack) -> None:
        self._held: _HeldFiles | None = None
        self._is_there = exists(os.path.join(output, INDEX_PATH))
        if self._is_there:
            with suppress(TreeError):
                self._held = _HeldFiles(output, stack)

    @property
    def streams(self) -> Set[str]:
        """The streams in its index, as far as it can be read."""
        return frozenset() if self._held is None else self._held.streams

    @cached_property
    def paths(self) -> set[str] | None:
        """What it names, as ``read_published_paths`` has it."""
        if not self._is_there:
            return set()
        return None if self._held is None else _add_directories(_read_paths(self._held))


class _HeldFiles(_LocalFiles):
    """The files of a catalogue that are held open."""

    def __init__(self, output: str, stack: ExitStack) -> None:
        super().__init__(output)
        self._index = super().read_index()
        self._open: dict[str, int | OSError] = {}
        stack.callback(self._close)
        index = Index(index={})
        with suppress(*UNDECODABLE):
            index = decode(self._index, Index)
        self.streams = index.index.keys()
        for entry in index.index.values():
            if leads_out(entry.path):
                continue
            try:
                self._open[entry.path] = super().open(entry.path)
            except OSError as error:
                if is_shortage(error):
                    raise
                self._open[entry.path] = error

    def read_index(self) -> bytes:
        return self._index

    def open(self, path: str) -> int:
        held = self._open[path]
        if isinstance(held, OSError):
            raise held
        return os.dup(held)

    def _close(self) -> None:
        for held in self._open.values():
            if not isinstance(held, OSError):
                close(held)
        self._open.clear()


def read_published_paths(output: str) -> set[str] | None:
    """Return the paths of all published files and of their version directories.

    Args:
        output: the directory with ``streams/``.

    Returns:
        Paths relative to ROOT, as in the catalogue; empty if there is none. None if it cannot
        be read completely: what is in the unreadable part is published, too.
    """
    return _add_directories(_read_published(output))


def read_published_directories(output: str) -> set[str] | None:
    """Return the version directories of all published files, as ``read_published_paths`` does."""
    paths = _read_published(output)
    return None if paths is None else _list_directories(paths)


def _read_published(output: str) -> set[str] | None:
    try:
        return (
            _read_paths(_LocalFiles(output)) if exists(os.path.join(output, INDEX_PATH)) else set()
        )
    except OSError:
        return None


def _read_paths(source: CatalogueFiles) -> set[str] | None:
    try:
        with open_catalogue_of(source) as published:
            return None if published.mismatches else set(_list_paths(published))
    except (OSError, TreeError):
        return None


def _add_directories(paths: set[str] | None) -> set[str] | None:
    return None if paths is None else paths | _list_directories(paths)


def _list_directories(paths: Set[str]) -> set[str]:
    """Return the directories of files; there are many files, and each is STREAM/…/FILE."""
    return {path.rpartition("/")[0].rstrip("/") for path in paths}


def _list_paths(published: Published) -> Iterator[str]:
    for _, _, product in published.products():
        for version in product.versions.values():
            for item in version.items.values():
                yield item.path
