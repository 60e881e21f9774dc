"""What is published, all of one generation: opened at once, read while later builds go on.

A build replaces files by renaming others over them. So what is open here stays as it was. Files of
images are not opened: they stay for the grace after the last catalogue that names them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from fastindex.catalogue.published import open_catalogue_of
from fastindex.errors import TreeError
from fastindex.formats.object_stores import (
    CATALOGUE,
    COMPANION,
    IMAGE,
    MANIFEST_PATH,
    PushedObject,
    is_object_path,
)
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    STREAMS_DIRECTORY,
    UNDECODABLE,
    Index,
    decode,
    has_sound_digests,
)
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.stream import StreamDigest
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import companions
from fastindex.operations.push.planning import order_documents
from fastindex.system.directories import close
from fastindex.system.files import name_path_in_errors, open_regular, read_windows

_WINDOW_BYTES = 1 << 20


class Generation:
    """The catalogue as it was when it was opened. Make one with ``open_generation``.

    Args:
        mirror: the mirror.
        descriptors: path → the open file, of the catalogue and what accompanies it.
        product_files: the product files, in the order of the index.
        of: the path of each companion → that of the catalogue file that it describes; "": of all.
    """

    def __init__(
        self,
        mirror: Mirror,
        descriptors: dict[str, int],
        product_files: list[str],
        of: dict[str, str],
    ) -> None:
        self._output = mirror.output
        self._descriptors = descriptors
        self._product_files = product_files
        self.order = order_documents(product_files, of)
        """The catalogue files and what accompanies them, in the order to write them."""

    def read_windows(self, path: str, window_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of a document, in pieces of ``window_bytes``.

        Raises:
            OSError: it cannot be read.
        """
        with name_path_in_errors(self.name(path)):
            yield from read_windows(self._descriptors[path], window_bytes, MAX_CATALOGUE_BYTES)

    def list_objects(self) -> dict[str, PushedObject]:
        """Return all that belongs into the bucket: path → size, digest and kind.

        Raises:
            TreeError: clients would reject the catalogue, or it names what no bucket can have.
            OSError: a file cannot be read.
        """
        objects = self._list_images()
        own = {*self._product_files, INDEX_PATH}
        for path in self.order:
            kind = CATALOGUE if path in own else COMPANION
            digest = StreamDigest(HashingOptions(blake3=False))
            for window in self.read_windows(path, _WINDOW_BYTES):
                digest.update(window)
            objects[path] = PushedObject(digest.size_bytes, digest.sha256, kind)
        return objects

    def _list_images(self) -> dict[str, PushedObject]:
        objects: dict[str, PushedObject] = {}
        with open_catalogue_of(self) as published:
            if published.mismatches:
                wrong = published.mismatches[0]
                raise TreeError(
                    f"{wrong.version}: {wrong.problem}, so nothing was pushed; see fastindex verify"
                )
            for _, key, product in published.products():
                for name, version in product.versions.items():
                    for item in version.items.values():
                        one = PushedObject(max(item.size, 0), item.sha256)
                        _check_item(f"{key} {name}", item.path, one)
                        if objects.setdefault(item.path, one) != one:
                            raise TreeError(
                                f"{item.path}: the catalogue has two digests of it, so nothing was "
                                "pushed; run fastindex ROOT to publish it anew"
                            )
        return objects

    # What ``open_catalogue_of`` asks for:

    def read_index(self) -> bytes:
        """Return the index."""
        return b"".join(self.read_windows(INDEX_PATH, _WINDOW_BYTES))

    def name(self, path: str) -> str:
        """Return what errors call a file."""
        return os.path.join(self._output, path)

    def open(self, path: str) -> int:
        """Return another descriptor of a product file."""
        return os.dup(self._descriptors[path])


def _check_item(version: str, path: str, one: PushedObject) -> None:
    """Check that a file of an image can be an object, and that its digest is known.

    Raises:
        TreeError: it cannot, or is not.
    """
    is_apart = path.partition("/")[0] != STREAMS_DIRECTORY
    if not (is_object_path(path) and is_apart and one.kind == IMAGE):
        raise TreeError(
            f"{version}: its file {path[:200]!r} cannot be in a bucket, so nothing was pushed; "
            "give it another name, or remove that version"
        )
    if not has_sound_digests([one.sha256]):
        raise TreeError(
            f"{path}: the catalogue has no SHA-256 of it, so nothing was pushed; publish with "
            "fastindex ROOT first"
        )


@contextmanager
def open_generation(
    mirror: Mirror, wait_seconds: float, *, is_locked: bool
) -> Iterator[Generation]:
    """Open the catalogue and what accompanies it.

    Args:
        mirror: the mirror.
        wait_seconds: how long to wait for a run that publishes.
        is_locked: whether to hold the mirror's lock meanwhile; a dry run does not.

    Raises:
        LockHeldError: another run holds the lock.
        TreeError: there is no catalogue that can be read.
    """
    with ExitStack() as stack:
        with mirror.lock(wait_seconds) if is_locked else nullcontext():
            generation = _open(mirror, stack)
        yield generation


def _open(mirror: Mirror, stack: ExitStack) -> Generation:
    descriptors: dict[str, int] = {}

    def add(path: str) -> int:
        if path not in descriptors:
            descriptors[path] = open_regular(os.path.join(mirror.output, path))
            stack.callback(close, descriptors[path])
        return descriptors[path]

    try:
        windows = read_windows(add(INDEX_PATH), _WINDOW_BYTES, MAX_CATALOGUE_BYTES)
        index = decode(b"".join(windows), Index)
        paths = [entry.path for entry in index.index.values()]
        for path in paths:
            if not is_object_path(path) or path in (INDEX_PATH, MANIFEST_PATH):
                raise TreeError(f"{INDEX_PATH}: names {path[:200]!r}, which is no product file")
            add(path)
        of = _find_companions(mirror)
        for path in of:
            if not is_object_path(path) or path == MANIFEST_PATH:
                raise TreeError(f"{path[:200]!r}: cannot be in a bucket, so nothing was pushed")
            add(path)
    except (OSError, *UNDECODABLE) as error:
        where = getattr(error, "filename", None) or os.path.join(mirror.output, INDEX_PATH)
        reason = getattr(error, "strerror", None) or error
        raise TreeError(
            f"{where}: cannot be read ({reason}), so nothing was pushed; run fastindex ROOT first"
        ) from error
    return Generation(mirror, descriptors, list(dict.fromkeys(paths)), of)


def _find_companions(mirror: Mirror) -> dict[str, str]:
    """Return what accompanies the catalogue: its path → that of the file that it describes.

    What is of another generation, as somebody has changed the catalogue, is left out: the next
    build makes it. So is what is hidden, which is for that build.

    Raises:
        TreeError: a build was stopped while it wrote them, so they are of two generations.
        OSError: a catalogue file cannot be read.
    """
    found: dict[str, str] = {}
    made = companions.load(mirror)
    if made.files and not made.published:
        raise TreeError(
            f"{mirror.output}: a build was stopped before all was written that accompanies the "
            "catalogue, so nothing was pushed; run fastindex ROOT with the same options first"
        )
    for path, record in made.files.items():
        is_hidden = os.path.basename(path).startswith(".")
        if not is_hidden and record.is_at(os.path.join(mirror.output, path)):
            described = os.path.join(mirror.output, record.of)
            if not record.source or companions.digest_file(described) == record.source:
                found[path] = record.of
    return found
