"""The wire format: what Incus and LXD clients accept, and the file names it is made from.

The only module that knows a JSON key. Sources: ``shared/simplestreams`` and
``shared/osarch`` of lxc/incus and canonical/lxd. The clients decode with Go's
``encoding/json`` into typed structs, so one value of a wrong JSON type makes them
reject the whole file: the Structs here are strict for the same reason.
"""

from __future__ import annotations

import re
from datetime import date
from functools import cache, lru_cache
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

DATATYPE: Final = "image-downloads"
INDEX_FORMAT: Final = "index:1.0"
PRODUCTS_FORMAT: Final = "products:1.0"
STREAMS_DIRECTORY: Final = "streams"
INDEX_PATH: Final = "streams/v1/index.json"
CACHE_NAME: Final = ".items.json"
REQUIREMENTS_NAME: Final = ".requirements"
LXD_REQUIREMENTS_NAME: Final = ".lxd_requirements"

Sha256 = Annotated[str, Meta(min_length=64, max_length=64)]
"""64 hexadecimal digits (the length is checked on decode)."""
OptionalDigest = Annotated[str, Meta(max_length=64)]


class Item(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    rename={
        "combined_disk_kvm_img_sha256": "combined_disk-kvm-img_sha256",
        "combined_disk1_img_sha256": "combined_disk1-img_sha256",
        "combined_uefi1_img_sha256": "combined_uefi1-img_sha256",
    },
):
    """One file of a version, as clients see it. ``size`` is in bytes.

    The ``combined_*`` digests stand on metadata items only; each is the
    fingerprint of an image: sha256(metadata ‖ root).
    """

    ftype: str
    path: Annotated[str, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=0)]
    sha256: Sha256
    combined_sha256: OptionalDigest = ""
    combined_rootxz_sha256: OptionalDigest = ""
    combined_squashfs_sha256: OptionalDigest = ""
    combined_disk_kvm_img_sha256: OptionalDigest = ""
    combined_disk1_img_sha256: OptionalDigest = ""
    combined_uefi1_img_sha256: OptionalDigest = ""
    combined_type: str = ""
    delta_base: str = ""


class CachedItem(Item, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An item as ``.items.json`` keeps it: with its cache key and its BLAKE3 digest.

    ``key`` is xxh3_64 of (size, mtime_ns); "" where the stamp was too young to trust;
    None (absent) where the seed tool wrote the item.
    """

    key: str | None = None
    blake3: OptionalDigest = ""


class Version(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One dated build of a product: file name → item."""

    items: dict[str, Item]
    label: str = ""


class Product(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All versions of one OS:RELEASE:ARCH:VARIANT. ``aliases`` is comma-separated."""

    aliases: str
    arch: str
    os: str
    release: str
    release_title: str
    variant: str
    requirements: dict[str, str]
    lxd_requirements: dict[str, str] = {}
    version: str = ""
    release_codename: str = ""
    support_eol: str = ""
    supported: bool = False
    versions: dict[str, Version]


class ProductFile(Struct, frozen=True, kw_only=True):
    """The catalogue of one stream: ``streams/v1/STREAM.json``."""

    content_id: str
    datatype: Literal["image-downloads"] = DATATYPE
    format: Literal["products:1.0"] = PRODUCTS_FORMAT
    products: dict[str, Product]


class IndexEntry(Struct, frozen=True, kw_only=True):
    """Where a stream's product file lies and which products it has."""

    datatype: str = DATATYPE
    format: str = PRODUCTS_FORMAT
    path: str
    products: list[str]


class Index(Struct, frozen=True, kw_only=True):
    """``streams/v1/index.json``: what a client reads first."""

    format: Literal["index:1.0"] = INDEX_FORMAT
    index: dict[str, IndexEntry]


class _PublishedProduct(Struct, frozen=True):
    versions: dict[str, msgspec.Raw]


class _PublishedFile(Struct, frozen=True):
    products: dict[str, _PublishedProduct]


_encoder = msgspec.json.Encoder()
_Wire = TypeVar("_Wire", ProductFile, Index)
_AnyItem = TypeVar("_AnyItem", Item, CachedItem)


def encode(document: ProductFile | Index | dict[str, CachedItem]) -> bytes:
    """Encode a wire document: compact UTF-8 JSON, fields in their order, a final newline."""
    return _encoder.encode_lines((document,))  # with the newline, and without a copy for it


def decode(data: bytes, form: type[_Wire]) -> _Wire:
    """Decode ``data`` as strictly as a client would.

    Raises:
        msgspec.DecodeError: no JSON, or a value of a wrong type.
    """
    return msgspec.json.decode(data, type=form)


class _ProductFileOfRaw(Struct, frozen=True):
    content_id: str
    datatype: Literal["image-downloads"]
    format: Literal["products:1.0"]
    products: dict[str, msgspec.Raw]


def survives_decoding(data: bytes, document: ProductFile) -> bool:
    """Return whether ``data`` decodes strictly to ``document``, product by product.

    One at a time, so that memory does not hold the whole catalogue twice. Raises
    ``msgspec.DecodeError`` where a client would reject the file.
    """
    decoded = msgspec.json.decode(data, type=_ProductFileOfRaw)
    product_decoder = msgspec.json.Decoder(Product)
    return (
        decoded.content_id == document.content_id
        and decoded.products.keys() == document.products.keys()
        and all(
            product_decoder.decode(raw) == document.products[key]
            for key, raw in decoded.products.items()
        )
    )


def decode_cache(data: bytes) -> dict[str, CachedItem]:
    """Decode an ``.items.json``; raises ``msgspec.DecodeError`` where it is none."""
    return _cache_decoder().decode(data)


@cache
def _cache_decoder() -> msgspec.json.Decoder[dict[str, CachedItem]]:
    return msgspec.json.Decoder(dict[str, CachedItem])


def decode_published_versions(data: bytes) -> set[tuple[str, str]]:
    """Return the (product key, version name) pairs of a product file.

    Cheap: items are skipped, not decoded. Raises ``msgspec.DecodeError``.
    """
    published = msgspec.json.decode(data, type=_PublishedFile)
    return {
        (key, version)
        for key, product in published.products.items()
        for version in product.versions
    }


def decode_requirements(data: bytes) -> dict[str, str | bool | int | float]:
    """Decode a requirements dotfile: an object of scalars; raises ``msgspec.DecodeError``."""
    return msgspec.json.decode(data, type=dict[str, str | bool | int | float])


def product_file_path(stream: str) -> str:
    """Return where the product file of ``stream`` lies, relative to the output directory."""
    return f"streams/v1/{stream}.json"


# --- file names -------------------------------------------------------------

INCUS_METADATA: Final = "incus.tar.xz"
LXD_METADATA: Final = "lxd.tar.xz"
SQUASHFS: Final = "squashfs"

COMBINED_FIELD: Final = {
    SQUASHFS: "combined_squashfs_sha256",
    "root.tar.xz": "combined_rootxz_sha256",
    "disk-kvm.img": "combined_disk_kvm_img_sha256",
    "disk1.img": "combined_disk1_img_sha256",
    "uefi1.img": "combined_uefi1_img_sha256",
}
"""ftype of a root → the field of the metadata item that holds its fingerprint."""

_COMPRESSIONS: Final = ("xz", "gz", "bz2", "zst", "lzma", "lz4")
_TARBALL_FORMS: Final[dict[str, tuple[Literal["metadata", "root", "unified"], str]]] = {
    "incus": ("metadata", INCUS_METADATA),
    "lxd": ("metadata", LXD_METADATA),
    "rootfs": ("root", "root.tar.xz"),
    "root": ("root", "root.tar.xz"),
    "incus_combined": ("unified", "incus_combined.tar.gz"),
    "lxd_combined": ("unified", "lxd_combined.tar.gz"),
}
_DELTA_PREFIXES: Final = ("rootfs.", "root.", "delta-")


class FileRole(Struct, frozen=True, gc=False):
    """What a file name means to the catalogue."""

    kind: Literal["metadata", "root", "unified", "delta"]
    """*unified*: metadata and root in one; *delta*: from a base version's squashfs."""
    ftype: str
    """What clients go by; one file an ftype is published per version."""
    rank: int = 0
    """Among files of one ftype in one version the lowest rank is published."""
    combined: str = ""
    """On a split root: the field of its metadata's item that holds the fingerprint."""
    delta_base: str = ""
    """On a delta: the name of the version that it starts from."""


def _root(ftype: str, rank: int = 0) -> FileRole:
    return FileRole("root", ftype, rank, COMBINED_FIELD[ftype])


_PLAIN_ROLES: Final = {
    "rootfs.squashfs": _root(SQUASHFS),
    "root.squashfs": _root(SQUASHFS, 1),
    "disk.qcow2": _root("disk-kvm.img"),
    "disk1.img": _root("disk1.img"),
    "uefi1.img": _root("uefi1.img"),
}


@lru_cache(maxsize=4096)
def classify(name: str) -> FileRole | None:
    """Return the role of a file by its name, or None: no file of the catalogue.

    Virtual-machine deltas (``disk.BASE.qcow2.vcdiff``) have no role: Incus looks
    their base up by its squashfs fingerprint, so publishing one breaks pulls.
    """
    role = _PLAIN_ROLES.get(name)
    if role is not None:
        return role
    stem, _, compression = name.partition(".tar.")
    if stem in _TARBALL_FORMS and compression in _COMPRESSIONS:
        kind, ftype = _TARBALL_FORMS[stem]
        rank = _COMPRESSIONS.index(compression) + (stem == "root") * len(_COMPRESSIONS)
        return FileRole(kind, ftype, rank, COMBINED_FIELD.get(ftype, ""))
    if not name.endswith(".vcdiff") or name.endswith(".qcow2.vcdiff"):
        return None
    for prefix in _DELTA_PREFIXES:
        base = name.removeprefix(prefix).removesuffix(".vcdiff")
        if name.startswith(prefix) and is_version_name(base) and not unfit_character(base):
            return FileRole("delta", "squashfs.vcdiff", delta_base=base)
    return None


def with_both_metadata(items: dict[str, _AnyItem], names: set[str]) -> dict[str, _AnyItem]:
    """Return ``items`` with a lone metadata item copied under the other client's key.

    ``names``: the ftypes of all metadata files that lie in the version, readable or
    not: a file that is there but failed is no reason to publish the other in its place.
    The copy keeps the real path.
    """
    if len(names) != 1:
        return items
    (present,) = names
    absent = LXD_METADATA if present == INCUS_METADATA else INCUS_METADATA
    for item in items.values():
        if item.ftype == present:
            return {**items, absent: msgspec.structs.replace(item, ftype=absent)}
    return items


# --- names of directories ----------------------------------------------------

ARCHITECTURES: Final = {
    alias: canonical
    for canonical, aliases in {
        "i686": "i386 i586 386 x86 generic_32",
        "x86_64": "amd64 generic_64",
        "armv6l": "armel arm",
        "armv7l": "armhf armhfp armv7a_hardfp armv7 armv7a_vfpv3_hardfp",
        "armv8l": "",
        "aarch64": "arm64 arm64_generic",
        "ppc": "powerpc",
        "ppc64": "powerpc64",
        "ppc64le": "ppc64el",
        "s390x": "",
        "riscv32": "",
        "riscv64": "",
        "mips": "mipsel mipsle",
        "mips64": "mips64el mips64le",
        "loongarch64": "loong64",
    }.items()
    for alias in (canonical, *aliases.split())
}
"""Every architecture name that clients know (case-sensitive) → its canonical name."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f,%\ud800-\udfff]")
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")


def unfit_character(name: str) -> str | None:
    """Return the first character that may stand in no path or alias, or None.

    ``,`` separates aliases, ``%`` is mistaken for an escape by clients; bytes that
    are no UTF-8 (surrogates, as Python reads them) have no JSON form.
    """
    match = _UNFIT.search(name)
    return match[0] if match else None


@lru_cache(maxsize=4096)
def _is_date(digits: str) -> bool:
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return False
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True


def is_version_name(name: str) -> bool:
    """Return whether clients take ``name`` for a version: it starts with a real date."""
    return _is_date(name[:8])


def version_style(name: str) -> str:
    """Return the shape of a version name, its digits as zeros (``00000000_00:00``).

    Clients take the greatest *string* for the newest version, so shapes within one
    product must not mix: ``_`` sorts after the digits.
    """
    return name.translate(_DIGITS_TO_ZERO)


INCUS_REQUIREMENT_KEYS: Final = frozenset(
    ("secureboot", "cgroup", "privileged", "nesting", "cdrom_agent", "cdrom_cloud_init")
)
LXD_REQUIREMENT_KEYS: Final = frozenset(("secureboot", "cgroup", "nesting"))
