"""Pure: the published catalogue → the images that clients see, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fastindex.catalogue.fingerprints import ImageFingerprints, find_images
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    VIRTUAL_MACHINE,
    Item,
    Product,
    ProductFile,
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
"""The roots of a version in the clients' order. A unified image ties with a squashfs: which
of the two an alias then names, chance decides in the client."""


class Image(Struct, frozen=True):
    """An image as a client lists it."""

    aliases: tuple[str, ...]
    """Its names. Of the images of a product and a type that a client sees, only the first of
    the newest version answers to them, and to each with ``/ARCH`` added."""
    fingerprint: str
    """As Incus sees it; as LXD does where only that sees the image."""
    incus_fingerprint: str
    """As Incus sees it; empty where it does not."""
    lxd_fingerprint: str
    """As LXD sees it; empty where it does not."""
    os: str
    release: str
    variant: str
    arch: str
    type: str
    """``container`` or ``virtual-machine``."""
    size: int
    """Bytes to download: metadata and root; with Incus's metadata where Incus sees it."""
    date: str
    """YYYY-MM-DD."""
    serial: str
    """The version's name."""
    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
    file: str
    """The name of its root in the version."""
    is_newest: bool
    """Whether it is the newest of its product and type that Incus sees, or that LXD does."""


def list_images(files: Iterable[ProductFile]) -> list[Image]:
    """Return all images, product by product, the newest first, a version's as clients do."""
    return [
        image
        for file in files
        for key, product in sorted(file.products.items())
        for image in _images_of(file.content_id, key, product)
    ]


def _images_of(stream: str, key: str, product: Product) -> Iterator[Image]:
    seen: set[tuple[str, int]] = set()
    for name, version in sorted(product.versions.items(), reverse=True):
        roots = _roots(version.items)
        for root, metadata, fingerprints in roots:
            incus, lxd = fingerprints
            yield Image(
                aliases=tuple(filter(None, product.aliases.split(","))),
                fingerprint=incus or lxd,
                incus_fingerprint=incus,
                lxd_fingerprint=lxd,
                os=product.os,
                release=product.release,
                variant=product.variant,
                arch=product.arch,
                type=_type(root),
                size=root.size + (metadata.size if metadata is not None else 0),
                date=f"{name[:4]}-{name[4:6]}-{name[6:8]}",
                serial=name,
                version=version_label(stream, key, name),
                file=os.path.basename(root.path),
                is_newest=not _views(root, fingerprints) <= seen,
            )
        for root, _, fingerprints in roots:
            seen |= _views(root, fingerprints)


def _views(root: Item, fingerprints: tuple[str, str]) -> set[tuple[str, int]]:
    """Return what an image is one of: its type, with each client that sees it."""
    return {(_type(root), client) for client, seen in enumerate(fingerprints) if seen}


def _roots(items: dict[str, Item]) -> list[tuple[Item, Item | None, tuple[str, str]]]:
    """Return each root with its metadata and its fingerprints for Incus and for LXD."""
    of_ftype = {item.ftype: item for item in items.values()}
    incus, lxd = of_ftype.get(INCUS_METADATA), of_ftype.get(LXD_METADATA)
    return [
        (
            items[name],
            (incus if fingerprints[0] else lxd) if ftype in COMBINED_FIELD else None,
            fingerprints,
        )
        for name, ftype, fingerprints in sorted(find_images(items), key=_rank)
        if any(fingerprints)
    ]


def _rank(image: ImageFingerprints) -> int:
    return _PREFERENCE.index(image[1])


def _type(root: Item) -> str:
    is_vm = root.ftype in _VIRTUAL_MACHINES or root.combined_type == VIRTUAL_MACHINE
    return VIRTUAL_MACHINE if is_vm else "container"


MIN_PREFIX_DIGITS = 4
"""Digits that a prefix of a fingerprint needs, so that a typing slip names no image."""


def find_named(images: Iterable[Image], word: str) -> list[Image]:
    """Return the images that ``word`` names: by alias the newest ones, else by fingerprint.

    Where the clients differ about the newest, the newer alone: who removes an alias means
    the last build. A prefix of a fingerprint, of 4 digits or more, names every image that
    it fits.
    """
    images = list(images)
    by_alias = [image for image in images if image.is_newest and word in image.aliases]
    if by_alias:
        latest = {_product_and_type(image): image.serial for image in reversed(by_alias)}
        return [image for image in by_alias if image.serial == latest[_product_and_type(image)]]
    is_prefix = len(word) >= MIN_PREFIX_DIGITS and not set(word.lower()) - set("0123456789abcdef")
    prefix = word.lower()
    return [
        image
        for image in images
        if is_prefix
        and (image.fingerprint.startswith(prefix) or image.lxd_fingerprint.startswith(prefix))
    ]


def _product_and_type(image: Image) -> tuple[str, str]:
    return image.version.rpartition("/")[0], image.type
