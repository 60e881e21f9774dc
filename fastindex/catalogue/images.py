"""Pure: the published catalogue → the images that clients see, and those that filters accept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fastindex.catalogue.fingerprints import ImageFingerprints, find_images
from fastindex.formats.filters import CONTAINER, MACHINE, Filters, ImageType, ProductNames
from fastindex.formats.names import name_published_product, version_label
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    VIRTUAL_MACHINE,
    Item,
    Product,
)

_VIRTUAL_MACHINES = frozenset(("disk-kvm.img", "disk1.img", "uefi1.img"))
_PREFERENCE = (
    "squashfs",
    "incus_combined.tar.gz",
    "lxd_combined.tar.gz",
    "root.tar.xz",
    "disk-kvm.img",
    "uefi1.img",
    "disk1.img",
)
"""ftypes of roots in the order in which clients prefer them. A unified image ties with a
squashfs: which of the two an alias stands for is left to chance in the client."""


PublishedProduct = tuple[str, str, Product]
"""The stream of a product, its key, and the product."""


class Image(Struct, frozen=True):
    """An image as a client lists it."""

    aliases: tuple[str, ...]
    """The product's aliases. For each client and type they stand for the first image of the
    newest version; so does each of them with ``/ARCH`` added."""
    fingerprint: str
    """The fingerprint for Incus; for LXD if only LXD sees the image. 64 hex digits."""
    incus_fingerprint: str
    """The fingerprint for Incus; empty if Incus does not see the image."""
    lxd_fingerprint: str
    """The fingerprint for LXD; empty if LXD does not see the image."""
    os: str
    """The distribution, as clients show it."""
    release: str
    """The release, as clients show it."""
    variant: str
    """The variant, as clients show it."""
    arch: str
    """The architecture, as clients show it."""
    type: str
    """``container`` or ``virtual-machine``."""
    size: int
    """Bytes to download: metadata and root. The metadata is Incus's if Incus sees the image."""
    date: str
    """YYYY-MM-DD."""
    serial: str
    """The version's name."""
    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
    file: str
    """The name of its root file in the version."""
    is_newest: bool
    """Whether it is the newest image of its product and type for Incus or for LXD."""

    @property
    def stream(self) -> str:
        """The stream that it is in."""
        return self.version.partition("/")[0]


def list_images(products: Iterable[PublishedProduct]) -> Iterator[Image]:
    """Yield all images, product by product, the newest version first.

    The images of a version are in the order in which clients prefer them.

    Args:
        products: the products in their order; each is needed only until the next is asked for.
    """
    for stream, key, product in products:
        yield from _list_product_images(stream, key, product)


def choose_images(published: PublishedProduct, filters: Filters) -> Iterator[Image]:
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


def _list_product_images(stream: str, key: str, product: Product) -> Iterator[Image]:
    aliases = tuple(filter(None, product.aliases.split(",")))
    seen: set[tuple[str, int]] = set()
    for name, version in sorted(product.versions.items(), reverse=True):
        roots = list_roots(version.items)
        for root, metadata, fingerprints in roots:
            incus, lxd = fingerprints
            yield Image(
                aliases=aliases,
                fingerprint=incus or lxd,
                incus_fingerprint=incus,
                lxd_fingerprint=lxd,
                os=product.os,
                release=product.release,
                variant=product.variant,
                arch=product.arch,
                type=find_type(root),
                size=root.size + (metadata.size if metadata is not None else 0),
                date=f"{name[:4]}-{name[4:6]}-{name[6:8]}",
                serial=name,
                version=version_label(stream, key, name),
                file=os.path.basename(root.path),
                is_newest=not _list_audiences(root, fingerprints) <= seen,
            )
        for root, _, fingerprints in roots:
            seen |= _list_audiences(root, fingerprints)


def _list_audiences(root: Item, fingerprints: tuple[str, str]) -> set[tuple[str, int]]:
    """Return (type of the image, number of the client) for each client that sees it."""
    return {(find_type(root), client) for client, seen in enumerate(fingerprints) if seen}


def list_roots(items: dict[str, Item]) -> list[tuple[Item, Item | None, tuple[str, str]]]:
    """Return each root with its metadata and its fingerprints for Incus and for LXD.

    They are in the order in which clients prefer them. A unified image has no separate metadata.
    Roots that no client sees are left out.
    """
    by_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = by_ftype.get(INCUS_METADATA), by_ftype.get(LXD_METADATA)
    return [
        (
            items[name],
            (incus if fingerprints[0] else lxd) if ftype in COMBINED_FIELD else None,
            fingerprints,
        )
        for name, ftype, fingerprints in sorted(find_images(items), key=_by_preference)
        if any(fingerprints)
    ]


def _by_preference(image: ImageFingerprints) -> int:
    return _PREFERENCE.index(image[1])


def find_type(root: Item) -> str:
    """Return the type of the image of a root: ``container`` or ``virtual-machine``."""
    is_vm = root.ftype in _VIRTUAL_MACHINES or root.combined_type == VIRTUAL_MACHINE
    return VIRTUAL_MACHINE if is_vm else "container"


MIN_PREFIX_DIGITS = 4
"""Digits that a prefix of a fingerprint needs, so that a typing error does not name an image."""


def find_named(images: Iterable[Image], word: str) -> list[Image]:
    """Return the images that an alias, a fingerprint or a prefix of one stands for.

    An alias stands for the newest image of its product and type; where Incus and LXD see
    different ones, only for the newer: somebody who removes an alias means the last build.

    Args:
        images: as ``list_images`` returns them.
        word: an alias; or a fingerprint or at least the first 4 digits of one, in any case.

    Returns:
        The images in their order; none if no image has that name.
    """
    images = list(images)
    by_alias = [image for image in images if image.is_newest and _is_called(image, word)]
    if by_alias:
        latest = {_by_product_and_type(image): image.serial for image in reversed(by_alias)}
        return [image for image in by_alias if image.serial == latest[_by_product_and_type(image)]]
    return find_by_fingerprint(images, word)


def find_by_fingerprint(images: Iterable[Image], word: str) -> list[Image]:
    """Return the images whose fingerprint ``word`` is, or starts; as ``find_named`` does."""
    prefix = word.lower()
    if len(prefix) < MIN_PREFIX_DIGITS or set(prefix) - set("0123456789abcdef"):
        return []
    return [
        image
        for image in images
        if image.fingerprint.startswith(prefix) or image.lxd_fingerprint.startswith(prefix)
    ]


def _is_called(image: Image, word: str) -> bool:
    """Return whether ``word`` is an alias of an image, or one with ``/ARCH``, as clients add it."""
    return word in image.aliases or word.removesuffix(f"/{image.arch}") in image.aliases


def _by_product_and_type(image: Image) -> tuple[str, str]:
    return image.version.rpartition("/")[0], image.type
