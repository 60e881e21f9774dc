"""What may be served: what the catalogue names, and what it named until lately.

Clients keep catalogues for an hour, so a file that is no longer published is still asked for. It is
served for as long as it stays in the tree: a file that this server has seen published, for two
hours; one that was withdrawn before it started, while the record of that is kept.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fastindex.catalogue.contract import is_unsafe_path
from fastindex.catalogue.images import PublishedProduct
from fastindex.catalogue.published import open_catalogue
from fastindex.errors import FastindexError, TreeError
from fastindex.formats.names import classify
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    decode,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import companions, withdrawals
from fastindex.operations.serve.answers import Resource
from fastindex.system import directories
from fastindex.system.files import read_small_file
from fastindex.system.stamps import Stamp, stamp_of

REMEMBERED_SECONDS = 7200.0
"""How long a file is served that is no longer published; as long as ``prune`` keeps it."""
_SECOND_NS = 1_000_000_000


class Offer(Struct, frozen=True):
    """What a catalogue offers."""

    stamps: tuple[Stamp | None, ...]
    """Of its files, when it was read; None: it was missing."""
    catalogue: tuple[str, ...]
    """The product files that the index names."""
    images: frozenset[str]
    """The files of images that it names."""
    earlier: dict[str, float]
    """Files of images that were named before → when they are forgotten, on the monotonic clock."""
    withdrawn: withdrawals.Withdrawals
    """What was withdrawn, and may still be asked for."""
    companions: dict[str, Stamp | None]
    """The path of what a build made to accompany the catalogue → its stamp then."""

    def has_image(self, path: str) -> bool:
        """Return whether a path, relative to ROOT, is that of an image that may be served."""
        if path in self.images:
            return True
        until = self.earlier.get(path)
        if until is not None:
            return time.monotonic() < until
        is_withdrawn = withdrawals.covers(self.withdrawn, path)
        return is_withdrawn and classify(posixpath.basename(path)) is not None

    def has_document(self, path: str) -> bool:
        """Return whether a path is that of a catalogue file, or of what accompanies one."""
        if path in self.companions:
            return True
        return any(path in list_forms(one) for one in (INDEX_PATH, *self.catalogue))


def list_forms(document: str) -> tuple[str, ...]:
    """Return a catalogue file, and what may accompany it, whoever made that."""
    stem = document.removesuffix(".json")
    others = (f"{document}{end}" for end in (".gz", ".zst", ".gpg"))
    return (document, *others, f"{stem}.sjson")


def read_offer(mirror: Mirror, before: Offer | None = None) -> Offer:
    """Return what is published.

    Args:
        mirror: where everything lies.
        before: what was published until now.

    Raises:
        FastindexError: the catalogue cannot be read.
        OSError: the same.
    """
    first = look(mirror, ())
    made = companions.load(mirror).files
    catalogue = _list_catalogue(mirror)
    stamps = (*first, *look(mirror, catalogue)[len(first) :])
    with open_catalogue(mirror.output) as published:
        if any(file.is_rejected for file in published.files) or not published.files:
            raise TreeError(
                f"{mirror.output}: the catalogue is damaged; run fastindex verify to see what is "
                "wrong"
            )
        images = frozenset(_list_images(published.products()))
    earlier: dict[str, float] = {}
    if before is not None:
        now = time.monotonic()
        earlier = {path: until for path, until in before.earlier.items() if until > now}
        earlier |= dict.fromkeys(before.images - images, now + REMEMBERED_SECONDS)
    try:
        withdrawn = withdrawals.load(mirror)
    except FastindexError:  # builds tell what is wrong with it
        withdrawn = {}
    stamped = {path: record.stamp for path, record in made.items() if is_shown(path)}
    return Offer(stamps, catalogue, images, earlier, withdrawn, stamped)


def _list_catalogue(mirror: Mirror) -> tuple[str, ...]:
    path = os.path.join(mirror.output, INDEX_PATH)
    try:
        index = decode(read_small_file(path, MAX_CATALOGUE_BYTES), Index)
    except (OSError, *UNDECODABLE) as error:
        raise TreeError(
            f"{path}: cannot read the catalogue ({error}); run fastindex ROOT to write it"
        ) from error
    entries = [entry.path for entry in index.index.values()]
    return tuple(path for path in entries if is_shown(path))


def is_shown(path: str) -> bool:
    """Return whether a path in a catalogue leads nowhere else, and is not hidden by a dot."""
    return not (is_unsafe_path(path) or any(name.startswith(".") for name in path.split("/")))


def _list_images(products: Iterable[PublishedProduct]) -> Iterator[str]:
    for _, _, product in products:
        for version in product.versions.values():
            for item in version.items.values():
                if is_shown(item.path):
                    yield item.path


def look(mirror: Mirror, catalogue: tuple[str, ...]) -> tuple[Stamp | None, ...]:
    """Return the stamps of what decides what is offered, as they are now.

    Args:
        mirror: where everything lies.
        catalogue: the product files. They come after the index, and the record of companions.
    """
    places = [os.path.join(mirror.output, path) for path in (INDEX_PATH, *catalogue)]
    return tuple(map(_find_stamp, [*places[:1], companions.find_record(mirror), *places[1:]]))


def _find_stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def open_image(mirror: Mirror, path: str) -> tuple[int, Resource]:
    """Open a file of an image, where symlinks may lead.

    Returns:
        Its descriptor, which the caller closes, and what it is.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    return _describe(mirror.open_file(path), path, is_image=True)


def open_document(
    mirror: Mirror, path: str, *, gzip: bool, made: Stamp | None = None
) -> tuple[int, Resource]:
    """Open a catalogue file, or what accompanies it; no symlink is followed.

    Args:
        mirror: where everything lies.
        path: relative to the output directory.
        gzip: whether the client takes the compressed form. That is sent if it lies beside the
            file and a build made it, or it is not older: an older one of somebody else's was made
            of what was published before.
        made: the stamp of the compressed form that a build made; None: none did.

    Returns:
        As ``open_image`` does.

    Raises:
        OSError: as in ``open_image``.
    """
    above, name = posixpath.split(path)
    with directories.closing(directories.open_below(mirror.output, above)) as directory:
        plain, told = _describe(directories.open_file(name, directory), path, is_image=False)
        has_forms = name.endswith(".json")
        if not has_forms:
            return plain, told
        try:
            packed, form = _describe(
                directories.open_file(f"{name}.gz", directory), path, is_image=False
            )
        except OSError:
            return plain, _with_forms(told, is_gzipped=False)
    is_older = form.stamp.mtime_ns // _SECOND_NS < told.stamp.mtime_ns // _SECOND_NS
    if not gzip or (is_older and form.stamp != made):
        directories.close(packed)
        return plain, _with_forms(told, is_gzipped=False)
    directories.close(plain)
    return packed, _with_forms(form, is_gzipped=True)


def _with_forms(told: Resource, *, is_gzipped: bool) -> Resource:
    return Resource(told.path, told.stamp, is_image=False, is_gzipped=is_gzipped, has_forms=True)


def _describe(descriptor: int, path: str, *, is_image: bool) -> tuple[int, Resource]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        directories.close(descriptor)
        raise OSError(None, "not a regular file", path)
    return descriptor, Resource(path, stamp_of(status), is_image)
