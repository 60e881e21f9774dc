"""Pure: the published catalogue → the images that clients see, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fastindex.catalogue import images_in
from fastindex.contract import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    VIRTUAL_MACHINE,
    Item,
    Product,
    ProductFile,
)
from fastindex.names import version_label

_VIRTUAL_MACHINES = frozenset(("disk-kvm.img", "disk1.img", "uefi1.img"))


class Image(Struct, frozen=True):
    """An image as a client lists it."""

    aliases: tuple[str, ...]
    """Its names; only the newest image of a product and a type answers to them."""
    fingerprint: str
    """As Incus sees it; as LXD does where only that sees the image."""
    lxd_fingerprint: str
    """As LXD sees it; empty where it does not."""
    os: str
    release: str
    variant: str
    arch: str
    type: str
    """``container`` or ``virtual-machine``."""
    size: int
    """Bytes to download: metadata and root."""
    date: str
    """YYYY-MM-DD."""
    serial: str
    """The version's name."""
    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
    file: str
    """The name of its root in the version."""
    is_newest: bool
    """Whether it is the newest of its product and type."""


def list_images(files: Iterable[ProductFile]) -> list[Image]:
    """Return all images, product by product, the newest first."""
    return [
        image
        for file in files
        for key, product in sorted(file.products.items())
        for image in _images_of(file.content_id, key, product)
    ]


def _images_of(stream: str, key: str, product: Product) -> Iterator[Image]:
    seen: set[str] = set()
    for name, version in sorted(product.versions.items(), reverse=True):
        roots = _roots(version.items)
        for root, metadata, fingerprints in roots:
            kind = _type(root)
            is_newest = kind not in seen
            incus, lxd = fingerprints
            yield Image(
                aliases=tuple(product.aliases.split(",")),
                fingerprint=incus or lxd,
                lxd_fingerprint=lxd,
                os=product.os,
                release=product.release,
                variant=product.variant,
                arch=product.arch,
                type=kind,
                size=root.size + (metadata.size if metadata is not None else 0),
                date=f"{name[:4]}-{name[4:6]}-{name[6:8]}",
                serial=name,
                version=version_label(stream, key, name),
                file=os.path.basename(root.path),
                is_newest=is_newest,
            )
        seen |= {_type(root) for root, _, _ in roots}


def _roots(items: dict[str, Item]) -> list[tuple[Item, Item | None, tuple[str, str]]]:
    """Return each root with its metadata and its fingerprints for Incus and for LXD."""
    of_ftype = {item.ftype: item for item in items.values()}
    metadata = of_ftype.get(INCUS_METADATA) or of_ftype.get(LXD_METADATA)
    return [
        (items[name], metadata if ftype in COMBINED_FIELD else None, fingerprints)
        for name, ftype, fingerprints in sorted(images_in(items), key=_ftype)
        if any(fingerprints)
    ]


def _ftype(image: tuple[str, str, tuple[str, str]]) -> str:
    return image[1]


def _type(root: Item) -> str:
    is_vm = root.ftype in _VIRTUAL_MACHINES or root.combined_type == VIRTUAL_MACHINE
    return VIRTUAL_MACHINE if is_vm else "container"


def find(images: Iterable[Image], word: str) -> list[Image]:
    """Return the images that ``word`` names: by alias the newest ones, else by fingerprint.

    A prefix of a fingerprint, of 4 digits or more, names every image that it fits.
    """
    images = list(images)
    by_alias = [image for image in images if image.is_newest and word in image.aliases]
    if by_alias:
        return by_alias
    is_prefix = len(word) >= 4 and not set(word.lower()) - set("0123456789abcdef")
    prefix = word.lower()
    return [
        image
        for image in images
        if is_prefix
        and (image.fingerprint.startswith(prefix) or image.lxd_fingerprint.startswith(prefix))
    ]
