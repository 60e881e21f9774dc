"""The simplestreams format: what Incus and LXD clients accept.

No other module knows a JSON key of it. Sources: ``shared/simplestreams`` and ``shared/osarch`` of
lxc/incus and canonical/lxd. The clients decode with Go's ``encoding/json`` into typed structs, so
one value of a wrong JSON type makes them reject the whole file, while a field that is missing or
null is an empty one to them. The Structs here are as strict and as lenient. What fastindex writes
has every field that other tools expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct, field

DATATYPE: Final = "image-downloads"
INDEX_FORMAT: Final = "index:1.0"
PRODUCTS_FORMAT: Final = "products:1.0"
STREAMS_DIRECTORY: Final = "streams"
INDEX_PATH: Final = "streams/v1/index.json"
MAX_CATALOGUE_BYTES: Final = 4 << 30
"""Larger catalogue files are not read."""
CACHE_NAME: Final = ".items.json"
REQUIREMENTS_NAME: Final = ".requirements"
LXD_REQUIREMENTS_NAME: Final = ".lxd_requirements"
PRODUCT_TOML_NAME: Final = ".product.toml"
IMAGE_YAML_NAME: Final = "image.yaml"
CHECKSUMS_NAME: Final = "SHA256SUMS"

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What the decoders here raise: bytes that are not JSON, not of the right types, not UTF-8, or
nested too deeply."""

Sha256 = Annotated[str, Meta(min_length=64, max_length=64)]
"""64 hexadecimal digits. Decoding checks the length only."""
OptionalDigest = Annotated[str, Meta(max_length=64)]
"""64 hexadecimal digits, or "" if there is no digest."""
MAX_DAMAGE_CHARACTERS: Final = 200
"""The length of what a cache says about a damaged file."""


def _make_empty_object() -> dict[str, Any]:
    return {}


# What is missing when msgspec decodes comes from these factories. A field that has one is never
# omitted when msgspec encodes, although ``omit_defaults`` is set.
_make_empty_string: Final = str
_make_zero: Final = int


INCUS_METADATA: Final = "incus.tar.xz"
LXD_METADATA: Final = "lxd.tar.xz"
INCUS_UNIFIED: Final = "incus_combined.tar.gz"
LXD_UNIFIED: Final = "lxd_combined.tar.gz"
METADATA_FTYPES: Final = frozenset((INCUS_METADATA, LXD_METADATA))
UNIFIED_FTYPES: Final = frozenset((INCUS_UNIFIED, LXD_UNIFIED))
SQUASHFS: Final = "squashfs"
ROOT_TARBALL: Final = "root.tar.xz"
VIRTUAL_MACHINE: Final = "virtual-machine"
"""The ``combined_type`` of a unified image of a virtual machine (Incus ≥ 7.1)."""

COMBINED_FIELD: Final = {
    SQUASHFS: "combined_squashfs_sha256",
    ROOT_TARBALL: "combined_rootxz_sha256",
    "disk-kvm.img": "combined_disk_kvm_img_sha256",
    "disk1.img": "combined_disk1_img_sha256",
    "uefi1.img": "combined_uefi1_img_sha256",
}
"""ftype of a root → the field of the metadata item that holds its fingerprint."""


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

    Only metadata items have ``combined_*`` digests. Each is the fingerprint of an image:
    sha256(metadata ‖ root).
    """

    ftype: str = field(default_factory=_make_empty_string)
    path: str = field(default_factory=_make_empty_string)
    size: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] = field(default_factory=_make_zero)
    sha256: OptionalDigest = field(default_factory=_make_empty_string)
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

    ``key`` is xxh3_64 of (size, mtime_ns). It is "" if the stamp was too young to trust, and
    None (absent) if the seed tool (antifob's ``simplestreams.py``) wrote the item. ``checked``
    tells whether the first bytes of the file were found to be what its name says.

    ``damaged`` says what is wrong with a file that had other bytes than these digests, or none,
    when it was read again under that key; "" if nothing is. ``changed_ns`` is when the inode of
    such a file last changed by then.
    """

    ftype: str
    path: Annotated[str, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=0)]
    sha256: Sha256
    key: str | None = None
    blake3: OptionalDigest = ""
    checked: bool = False
    damaged: Annotated[str, Meta(max_length=MAX_DAMAGE_CHARACTERS)] = ""
    changed_ns: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0


class Version(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One dated build of a product: file name → item."""

    items: dict[str, Item] = field(default_factory=_make_empty_object)
    label: str = ""


class Product(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All versions of one OS:RELEASE:ARCH:VARIANT. ``aliases`` is comma-separated."""

    aliases: str = field(default_factory=_make_empty_string)
    arch: str = field(default_factory=_make_empty_string)
    os: str = field(default_factory=_make_empty_string)
    release: str = field(default_factory=_make_empty_string)
    release_title: str = field(default_factory=_make_empty_string)
    variant: str = field(default_factory=_make_empty_string)
    requirements: dict[str, str] = field(default_factory=_make_empty_object)
    lxd_requirements: dict[str, str] = {}
    version: str = ""
    release_codename: str = ""
    support_eol: str = ""
    supported: bool = False
    versions: dict[str, Version] = field(default_factory=_make_empty_object)


class ProductFrame(Struct, frozen=True, kw_only=True):
    """The fields of a product file other than its products; clients look at none of them."""

    content_id: str = ""
    datatype: str = DATATYPE
    format: str = PRODUCTS_FORMAT


class ProductFile(ProductFrame, frozen=True, kw_only=True):
    """The catalogue of one stream: ``streams/v1/STREAM.json``."""

    products: dict[str, Product] = field(default_factory=_make_empty_object)


class IndexEntry(Struct, frozen=True, kw_only=True):
    """The path of a stream's product file below the output directory, and the keys in it."""

    datatype: str = ""
    format: str = ""
    path: str = ""
    products: list[str] = []


def make_index_entry(stream: str, keys: Iterable[str]) -> IndexEntry:
    """Return the entry of a stream in the index; ``keys`` are those of its products."""
    return IndexEntry(
        datatype=DATATYPE,
        format=PRODUCTS_FORMAT,
        path=product_file_path(stream),
        products=list(keys),
    )


class Index(Struct, frozen=True, kw_only=True):
    """``streams/v1/index.json``, which a client reads first."""

    format: str = INDEX_FORMAT
    index: dict[str, IndexEntry] = {}


class _PublishedProduct(Struct, frozen=True):
    versions: dict[str, msgspec.Raw] = {}


class _SizedItem(Struct, frozen=True, gc=False):
    path: str
    size: int


class _SizedVersion(Struct, frozen=True):
    items: dict[str, _SizedItem] = {}


class _SizedProduct(Struct, frozen=True):
    versions: dict[str, _SizedVersion] = {}


_encoder = msgspec.json.Encoder()
_Wire = TypeVar("_Wire")
_AnyItem = TypeVar("_AnyItem", Item, CachedItem)


def encode(document: ProductFile | Index | dict[str, CachedItem]) -> bytes:
    """Encode a document as compact UTF-8 JSON with a final newline; fields keep their order.

    Raises:
        UnicodeEncodeError: a string in it cannot be encoded as UTF-8.
    """
    return _encoder.encode_lines((document,))  # adds the newline without a copy


def encode_piece(product: Product) -> bytes:
    """Encode a product as it stands in a product file.

    Raises:
        UnicodeEncodeError: a string in it cannot be encoded as UTF-8.
    """
    return _encoder.encode(product)


def encode_key(key: str) -> bytes:
    """Encode the key of a product as it stands before the product, with its colon."""
    return _encoder.encode(key) + b":"


def frame_products(content_id: str) -> tuple[bytes, bytes]:
    """Return what stands before the first product of a product file, and after the last.

    Args:
        content_id: the stream.
    """
    end = b"}}\n"
    return encode(ProductFile(content_id=content_id)).removesuffix(end), end


def wrap_lines(data: bytes) -> bytes:
    """Return the same JSON with a line for each value.

    Raises:
        msgspec.DecodeError: it is not JSON.
    """
    return msgspec.json.format(data, indent=1)


def decode(data: bytes | msgspec.Raw, form: type[_Wire]) -> _Wire:
    """Decode a part of a catalogue as a client does.

    A value of a wrong type is an error. A field that is missing or null is an empty one.

    Raises:
        msgspec.DecodeError: it is not JSON, or a value has a wrong type.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.ValidationError:
        if b"null" not in bytes(data):
            raise
        return msgspec.convert(_remove_nulls(msgspec.json.decode(data)), form)


def _remove_nulls(value: Any) -> Any:
    """Return decoded JSON without the fields that are null."""
    if isinstance(value, dict):
        return {key: _remove_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_remove_nulls(entry) for entry in value] if isinstance(value, list) else value


def survives_decoding(data: bytes, product: Product) -> bool:
    """Return whether ``data`` decodes to ``product``, as strictly as a client decodes it.

    Raises:
        msgspec.DecodeError: a client would reject the file.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return _product_decoder().decode(data) == product


@cache
def _product_decoder() -> msgspec.json.Decoder[Product]:
    return msgspec.json.Decoder(Product)


def decode_cache(data: bytes) -> dict[str, CachedItem]:
    """Decode an ``.items.json``.

    Raises:
        msgspec.DecodeError: it is something else.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return _cache_decoder().decode(data)


@cache
def _cache_decoder() -> msgspec.json.Decoder[dict[str, CachedItem]]:
    return msgspec.json.Decoder(dict[str, CachedItem])


_Form = TypeVar("_Form")


def encode_state(document: object) -> bytes:
    """Encode what a run saves for the next ones: JSON with sorted keys and a final newline.

    Raises:
        UnicodeEncodeError: a string in it cannot be encoded as UTF-8.
    """
    return msgspec.json.encode(document, order="sorted") + b"\n"


def decode_state(data: bytes, form: type[_Form]) -> _Form:
    """Decode what an earlier run saved with ``encode_state``.

    Raises:
        msgspec.DecodeError: it is something else.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return msgspec.json.decode(data, type=form)


def decode_version_names(data: bytes) -> Set[str]:
    """Return the names of the versions of a product.

    Cheap: items are skipped, not decoded.

    Raises:
        msgspec.DecodeError: it is not a product.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return frozenset(decode(data, _PublishedProduct).versions)  # without the bytes of the items


def decode_version_sizes(data: bytes) -> dict[str, int]:
    """Return the versions of a product: the name → the size of its files in bytes.

    Cheap: nothing else is decoded.

    Raises:
        msgspec.DecodeError: it is not a product.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return {
        name: sum({item.path: item.size for item in version.items.values()}.values())
        for name, version in decode(data, _SizedProduct).versions.items()
    }


def pack_state(document: object) -> bytes:
    """Encode what a run saves for the next ones, if it is too much for JSON.

    Raises:
        UnicodeEncodeError: a string in it cannot be encoded as UTF-8.
    """
    return msgspec.msgpack.encode(document)


def unpack_state(data: bytes | memoryview, form: type[_Form]) -> _Form:
    """Decode what an earlier run saved with ``pack_state``.

    Raises:
        msgspec.DecodeError: it is something else.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return msgspec.msgpack.decode(data, type=form)


def decode_requirements(data: bytes) -> dict[str, str | bool | int | float]:
    """Decode ``.requirements`` or ``.lxd_requirements``: a JSON object of scalars.

    Raises:
        msgspec.DecodeError: it is something else.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return msgspec.json.decode(data, type=dict[str, str | bool | int | float])


def product_file_path(stream: str) -> str:
    """Return the path of the product file of ``stream``, relative to the output directory."""
    return f"streams/v1/{stream}.json"


def fingerprint_fields(fingerprints: dict[str, str]) -> dict[str, str]:
    """Return the ``combined_*`` fields of a metadata item.

    Args:
        fingerprints: field, as in ``COMBINED_FIELD`` → fingerprint.

    Returns:
        The same fields, and that of a root tarball under a second name for old clients.
    """
    return {**fingerprints, "combined_sha256": fingerprints.get(COMBINED_FIELD[ROOT_TARBALL], "")}


def get_fingerprint(metadata: Item | None, root_ftype: str) -> str:
    """Return the fingerprint that a metadata item gives a root of that ftype; "" if none.

    Of a root tarball, clients take ``combined_sha256`` where the newer field is missing.
    """
    if metadata is None:
        return ""
    fingerprint: str = getattr(metadata, COMBINED_FIELD[root_ftype])
    if not fingerprint and root_ftype == ROOT_TARBALL:
        return metadata.combined_sha256
    return fingerprint


def has_sound_digests(digests: list[str]) -> bool:
    """Return whether all ``digests`` are 64 lowercase hex digits; uploaders can write caches."""
    joined = "".join(digests)
    try:
        length = len(bytes.fromhex(joined))
    except ValueError:
        return False
    # fromhex skips white space; the equal lengths rule it out.
    return length == 32 * len(digests) and len(joined) == 2 * length and joined == joined.lower()


def with_both_clients(items: dict[str, _AnyItem], names: Set[str]) -> dict[str, _AnyItem]:
    """Return ``items`` with each lone item for one client copied under the other client's key.

    The copies of metadata and of unified images keep the path of the real file.

    Args:
        items: the items of one version.
        names: the ftypes of all metadata files and unified images in the version directory,
            readable or not. If one could not be read, the other must not be published in its
            place.
    """
    copies: dict[str, _AnyItem] = {}
    for pair in (METADATA_FTYPES, UNIFIED_FTYPES):
        if len(present := pair & names) == 1:
            (absent,) = pair - present
            for item in items.values():
                if item.ftype in present:
                    copies[absent] = msgspec.structs.replace(item, ftype=absent)
    return {**items, **copies}
