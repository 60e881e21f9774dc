"""The published images, as clients see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from fastindex.catalogue.images import Image, PublishedProduct, list_images
from fastindex.catalogue.published import open_catalogue
from fastindex.errors import translate_system_errors
from fastindex.events import Observer, report_findings
from fastindex.formats.filters import (
    CONTAINER,
    MACHINE,
    Filters,
    ImageType,
    ProductNames,
)
from fastindex.formats.names import name_published_product
from fastindex.formats.simplestreams import VIRTUAL_MACHINE, Product
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs


class Listing(Struct, frozen=True):
    """What is published."""

    images: tuple[Image, ...]
    """By product, the newest first."""
    is_damaged: bool
    """Whether clients reject the catalogue or skip a part of it, or a part of it was lost; what
    can be read is listed."""


@translate_system_errors()
def list_published(
    mirror: Mirror,
    *,
    every_version: bool,
    filters: Filters | None = None,
    observer: Observer | None = None,
) -> Listing:
    """Return the published images.

    Args:
        mirror: where everything lies.
        every_version: return every version, not only the newest of each product and type.
        filters: what to return; None: everything.
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
            for image in _choose_images(product, filters)
            if every_version or image.is_newest
        )
        report_findings(observer or Observer(), (*published.findings, *filters.find_unused()))
        return Listing(chosen, bool(published.mismatches))


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


def _choose_images(published: PublishedProduct, filters: Filters) -> Iterator[Image]:
    """Yield the images of a product that the filters accept, the newest first."""
    _, key, product = published
    candidates = filters.match_product(_list_names(key, product))
    if not candidates:
        return
    for image in list_images([published]):
        label = product.versions[image.serial].label
        accepting = filters.match_version(candidates, image.serial, label)
        kind: ImageType = MACHINE if image.type == VIRTUAL_MACHINE else CONTAINER
        if accepting and filters.match_types(accepting, {kind}):
            yield image


def _list_names(key: str, product: Product) -> ProductNames:
    arch, variant = product.arch, product.variant
    name = name_published_product(key, product.os, product.release, arch, variant)
    return ProductNames((name.os, product.os), name.release, arch, variant, _list_aliases(product))


def _list_aliases(product: Product) -> list[str]:
    return [alias for alias in product.aliases.split(",") if alias]
