"""Pure: where the products, versions and files of an upstream belong in the tree.

A catalogue that fastindex, the seed tool or distrobuilder's servers wrote keeps its paths, so that
a copy of a copy is the same. Flat and other layouts (incus-simplestreams, Canonical's) are mapped
by the fields of each product. What cannot have a place is refused, with the reason.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from fastindex.formats.filters import ImageType
from fastindex.formats.names import (
    ARCHITECTURES,
    MICRO_ARCHITECTURES,
    FileRole,
    ProductName,
    classify,
    find_forbidden_character,
    is_ignored_name,
    is_stream_name,
    is_version_name,
    name_published_product,
    to_distribution_architecture,
)
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    INCUS_UNIFIED,
    LXD_METADATA,
    LXD_UNIFIED,
    METADATA_FTYPES,
    ROOT_TARBALL,
    SQUASHFS,
    UNIFIED_FTYPES,
)
from fastindex.formats.upstream import (
    Refusal,
    UpstreamItem,
    UpstreamProduct,
    UpstreamVersion,
    find_image_type,
)

DEFAULT_STREAM: Final = "images"
_MAX_NAME_BYTES: Final = 254
"""NAME_MAX, less the dot that hides the directory of a version while it is staged."""
_MAX_TOLD: Final = 100
"""Characters of a stranger's name in a message."""

_FILE_NAMES: Final = {
    INCUS_METADATA: "incus.tar.xz",
    LXD_METADATA: "lxd.tar.xz",
    INCUS_UNIFIED: "incus_combined.tar.gz",
    LXD_UNIFIED: "lxd_combined.tar.gz",
    SQUASHFS: "rootfs.squashfs",
    ROOT_TARBALL: "rootfs.tar.xz",
    "disk-kvm.img": "disk.qcow2",
    "disk1.img": "disk1.img",
    "uefi1.img": "uefi1.img",
}
"""ftype → the name that its file gets, unless it has one that means the same."""
_PAIRS: Final = (METADATA_FTYPES, UNIFIED_FTYPES)
"""The ftypes that one file may have both of: for each client, one."""
_DELTA: Final = "squashfs.vcdiff"


class Place(Struct, frozen=True):
    """Where a product belongs."""

    stream: str
    """The directory of its stream."""
    name: ProductName
    """The four directories below."""

    @property
    def path(self) -> str:
        """Its directory, relative to ROOT."""
        return f"{self.stream}/{self.name.directory}"


class MappedProduct(Struct, frozen=True):
    """A product with its place."""

    product: UpstreamProduct
    """What the upstream says of it."""
    place: Place
    """Where it belongs."""


class WantedFile(Struct, frozen=True, gc=False):
    """A file of a version that is wanted."""

    name: str
    """Its name in the version directory."""
    role: FileRole
    """What its name means."""
    path: str
    """Where the upstream has it, relative to its URL."""
    size_bytes: int
    """Its length."""
    sha256: str
    """64 hex digits."""
    fingerprints: dict[str, str] = {}
    """Of metadata: ftype of a root → sha256(metadata ‖ root), 64 hex digits."""


class MappedVersion(Struct, frozen=True):
    """A version with its place."""

    name: str
    """Its name, and that of its directory."""
    path: str
    """Its directory, relative to ROOT."""
    files: tuple[WantedFile, ...]
    """The files to fetch: metadata and roots, or unified images; deltas come last."""


def map_products(
    products: Iterable[UpstreamProduct], default_stream: str = DEFAULT_STREAM
) -> tuple[list[MappedProduct], list[Refusal]]:
    """Find the place of each product of an upstream.

    Args:
        products: those of all its streams that are wanted.
        default_stream: the stream for those whose paths are not those of our tree.

    Returns:
        The products that have a place, in their order; and why the others have none. Of two with
        one place, the second is refused.
    """
    mapped: list[MappedProduct] = []
    refusals: list[Refusal] = []
    owners: dict[str, str] = {}
    for product in products:
        place = find_place(product, default_stream)
        if isinstance(place, str):
            refusals.append(Refusal(product.key, "", place))
        elif place.path in owners:
            reason = f"its place, {place.path}, is that of {_quote(owners[place.path])}"
            refusals.append(Refusal(product.key, "", reason))
        else:
            owners[place.path] = product.key
            mapped.append(MappedProduct(product, place))
    return mapped, refusals


def find_place(product: UpstreamProduct, default_stream: str = DEFAULT_STREAM) -> Place | str:
    """Return where a product belongs, or why it has no place.

    Args:
        product: the product.
        default_stream: the stream for a product whose paths are not those of our tree.
    """
    name = name_published_product(
        product.key, product.os, product.release, product.arch, product.variant
    )
    is_own = product.key == name.key and bool(product.variant)
    if not is_own:
        arch = _choose_architecture(product.arch)
        name = ProductName(
            _make_safe(product.os),
            _make_safe(product.release),
            arch,
            _make_safe(product.variant or "default"),
        )
    for what, part in (("os", name.os), ("release", name.release), ("variant", name.variant)):
        fault = find_name_fault(part)
        if fault:
            return f"its {what} {_quote(part)} {fault}"
    if name.arch not in ARCHITECTURES:
        return f"clients do not know its architecture {_quote(product.arch)}"
    stream = product.stream if _has_own_paths(product, name) else default_stream
    return Place(stream, name)


def _choose_architecture(arch: str) -> str:
    if arch in MICRO_ARCHITECTURES:
        return arch
    return to_distribution_architecture(ARCHITECTURES.get(arch, arch))


def _has_own_paths(product: UpstreamProduct, name: ProductName) -> bool:
    """Return whether the files of a product lie where they lie in our tree."""
    if not is_stream_name(product.stream):
        return False
    top = f"{product.stream}/{name.directory}"
    return all(
        os.path.dirname(item.path) == f"{top}/{version.name}"
        for version in product.versions.values()
        for item in version.items
    )


def _make_safe(name: str) -> str:
    """Return ``name`` with a hyphen for each character that no directory of ours may contain."""
    name = unicodedata.normalize("NFC", name.strip())
    return "".join("-" if c in "/:" or find_forbidden_character(c) else c for c in name)


def find_name_fault(name: str, allowed: str = "") -> str:
    """Return why ``name`` cannot be that of a directory in the tree; empty: it can.

    Args:
        name: the name.
        allowed: what it may contain, although the name of a product may not.
    """
    unfit = find_forbidden_character(name) or next(
        (c for c in "/:" if c in name and c not in allowed), None
    )
    if unfit is not None:
        return f"contains the character {unfit!r}"
    if not name:
        return "is empty"
    if name[0] == ".":
        return "starts with a dot"
    if is_ignored_name(name):
        return "is a name of unfinished uploads or of file systems"
    return "is too long for a file name" if len(name.encode()) > _MAX_NAME_BYTES else ""


def map_version(place: Place, version: UpstreamVersion) -> MappedVersion | str:
    """Find the place of a version and of its files, or return why it has none.

    Args:
        place: where its product belongs.
        version: the version; only images of the types that are wanted are mapped.
    """
    fault = find_name_fault(version.name, allowed=":")
    if not fault and not is_version_name(version.name):
        fault = "is not a version name, which starts with a date (YYYYMMDD)"
    if fault:
        return f"its name {_quote(version.name)} {fault}"
    chosen = _choose_items(version.items, version.wanted)
    if not chosen:
        return "it has no image that clients see"
    files = _map_files(chosen)
    if isinstance(files, str):
        return files
    return MappedVersion(version.name, f"{place.path}/{version.name}", files)


def _choose_items(
    items: Sequence[UpstreamItem], wanted: frozenset[ImageType]
) -> list[UpstreamItem]:
    """Return the items of the images that are wanted; of each ftype, the first."""
    by_ftype: dict[str, UpstreamItem] = {}
    for item in sorted(items, key=_by_rank):
        if item.ftype != _DELTA:
            by_ftype.setdefault(item.ftype, item)
    metadata = [by_ftype[ftype] for ftype in sorted(METADATA_FTYPES & set(by_ftype))]
    seen = {root for item in metadata for root in item.fingerprints}
    roots = [
        item
        for item in by_ftype.values()
        if (item.ftype in UNIFIED_FTYPES or (item.ftype in COMBINED_FIELD and item.ftype in seen))
        and find_image_type(item.ftype, is_virtual_machine=item.is_virtual_machine) in wanted
    ]
    deltas = [item for item in items if item.ftype == _DELTA and item.delta_base]
    if not any(item.ftype == SQUASHFS for item in roots):
        deltas = []
    if not any(item.ftype in COMBINED_FIELD for item in roots):
        metadata = []
    return [*metadata, *roots, *deltas] if roots else []


def _by_rank(item: UpstreamItem) -> tuple[int, str]:
    """Order the items of an ftype as our tree orders files: the first is published."""
    role = classify(os.path.basename(item.path))
    return (role.rank if role is not None and role.ftype == item.ftype else 0), item.name


def _map_files(items: Iterable[UpstreamItem]) -> tuple[WantedFile, ...] | str:
    """Return a file for each path; or what is wrong with the items.

    A lone metadata file, or a lone unified image, is there twice: once for each client.
    """
    by_path: dict[str, list[UpstreamItem]] = {}
    for item in items:
        by_path.setdefault(item.path, []).append(item)
    files: dict[str, WantedFile] = {}
    for path, same in by_path.items():
        first = same[0]
        is_pair = any({item.ftype for item in same} <= pair for pair in _PAIRS)
        if len({(item.size_bytes, item.sha256) for item in same}) > 1 or (same[1:] and not is_pair):
            return f"its items contradict each other about {_quote(path)}"
        fingerprints: dict[str, str] = {}
        for item in same:
            for root, digest in item.fingerprints.items():
                if fingerprints.setdefault(root, digest) != digest:
                    return f"its items contradict each other about {_quote(path)}"
        name = _choose_file_name(same)
        role = classify(name)
        if role is None or find_name_fault(name, allowed=":"):
            continue  # a delta whose base has no place here
        if name in files:
            return f"two of its files would be {name}"
        files[name] = WantedFile(name, role, path, first.size_bytes, first.sha256, fingerprints)
    return tuple(files.values())


def _choose_file_name(items: Sequence[UpstreamItem]) -> str:
    """Return the name of a file in our tree.

    Args:
        items: those with its path.
    """
    own = os.path.basename(items[0].path)
    role = classify(own)
    first = items[0]
    if role is not None and any(
        role.ftype == item.ftype and role.delta_base == item.delta_base for item in items
    ):
        return own
    if first.ftype == _DELTA:
        return f"delta-{first.delta_base}.vcdiff"
    name = _FILE_NAMES[first.ftype]
    stem, is_tarball, _ = name.partition(".tar.")
    suffix = own.rpartition(".tar.")[2]
    renamed = f"{stem}.tar.{suffix}"
    role = classify(renamed) if is_tarball else None
    return renamed if role is not None and role.ftype == first.ftype else name


def _quote(text: str) -> str:
    """Return a stranger's text as it stands in a message."""
    return repr(text[:_MAX_TOLD])
