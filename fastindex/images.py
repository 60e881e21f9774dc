"""Pure: the published catalogue → the images that clients see, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fastindex.contract import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    VIRTUAL_MACHINE,
    Item,
    Product,
    ProductFile,
)
from fastindex.published import version_label

_UNIFIED = {"incus_combined.tar.gz": 0, "lxd_combined.tar.gz": 1}
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
        for root, metadata, fingerprints in _roots(version.items):
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
        seen |= {_type(root) for root, _, _ in _roots(version.items)}


def _roots(items: dict[str, Item]) -> Iterator[tuple[Item, Item | None, tuple[str, str]]]:
    """Yield each root with its metadata and its fingerprints for Incus and for LXD."""
    of_ftype = {item.ftype: item for item in items.values()}
    views = (of_ftype.get(INCUS_METADATA), of_ftype.get(LXD_METADATA))
    for ftype, item in sorted(of_ftype.items()):
        field = COMBINED_FIELD.get(ftype)
        if field is not None:
            incus, lxd = (getattr(view, field) if view is not None else "" for view in views)
            if incus or lxd:
                yield item, views[0] or views[1], (incus, lxd)
        elif ftype in _UNIFIED:
            is_lxd = _UNIFIED[ftype]
            yield item, None, ("", item.sha256) if is_lxd else (item.sha256, "")


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
