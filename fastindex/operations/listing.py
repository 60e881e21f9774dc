"""The published images, as clients see them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fastindex.catalogue.images import Image, choose_images
from fastindex.catalogue.published import open_catalogue
from fastindex.errors import translate_system_errors
from fastindex.events import Observer, report_findings
from fastindex.formats.filters import Filters
from fastindex.formats.names import version_label
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs


class Listing(Struct, frozen=True):
    """What is published."""

    images: tuple[Image, ...]
    """By product, the newest first."""
    digests: dict[str, str]
    """The path of each file of their versions → its SHA-256; empty unless asked for."""
    is_damaged: bool
    """Whether clients reject the catalogue or skip a part of it, or a part of it was lost; what
    can be read is listed."""


@translate_system_errors()
def list_published(
    mirror: Mirror,
    *,
    every_version: bool,
    filters: Filters | None = None,
    with_digests: bool = False,
    observer: Observer | None = None,
) -> Listing:
    """Return the published images.

    Args:
        mirror: where everything lies.
        every_version: return every version, not only the newest of each product and type.
        filters: what to return; None: everything.
        with_digests: return the digests of all files of the versions that have an image in it.
        observer: told of findings, and of values in the filters that nothing has.

    Raises:
        TreeError: ROOT is missing, or nothing is published.
        ResourceError: the system ran out of something, or a disk or a directory failed.
    """
    mirror.require_root()
    outputs.require_readable_catalogue(mirror)
    filters = filters or Filters()
    with open_catalogue(mirror.output) as published:
        chosen = tuple(
            image
            for product in published.sorted_products()
            for image in choose_images(product, filters)
            if every_version or image.is_newest
        )
        report_findings(observer or Observer(), (*published.findings, *filters.find_unused()))
        versions = {image.version for image in chosen} if with_digests else set()
        digests = {
            item.path: item.sha256
            for stream, key, product in (published.products() if versions else ())
            for name, version in product.versions.items()
            if version_label(stream, key, name) in versions
            for item in version.items.values()
        }
        return Listing(chosen, digests, bool(published.mismatches))


def sort_images(images: Sequence[Image], key: str) -> tuple[Image, ...]:
    """Return images in another order; those that are equal in it stay in theirs.

    Args:
        images: the images, by product.
        key: ``product``, ``alias``, ``date`` (the newest first) or ``size`` (the largest first).
    """
    match key:
        case "alias":
            return tuple(sorted(images, key=lambda image: min(image.aliases, key=len, default="")))
        case "date":
            return tuple(sorted(images, key=lambda image: image.serial, reverse=True))
        case "size":
            return tuple(sorted(images, key=lambda image: image.size, reverse=True))
    return tuple(images)
