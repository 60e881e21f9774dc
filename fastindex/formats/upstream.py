"""What an upstream server publishes: its index and product files, read as a tolerant client does.

The bytes are a stranger's. Nothing in them ends the reading but a file that is no catalogue at all,
or one that exceeds a bound. A product or a version that cannot be used is named and left out; what
is not asked for is not even decoded. Values that become paths, digests and sizes are checked here,
names of directories in ``fastindex.operations.pull.mapping``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from fastindex.formats.errors import FormatError
from fastindex.formats.filters import (
    CONTAINER,
    MACHINE,
    Filter,
    Filters,
    ImageType,
    ProductNames,
)
from fastindex.formats.names import FTYPES, is_version_name
from fastindex.formats.product_pieces import find_pieces
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    DATATYPE,
    INDEX_FORMAT,
    METADATA_FTYPES,
    PRODUCTS_FORMAT,
    ROOT_TARBALL,
    SQUASHFS,
    UNDECODABLE,
    UNIFIED_FTYPES,
    VIRTUAL_MACHINE,
    Item,
    decode,
    get_fingerprint,
)

MAX_INDEX_BYTES: Final = 64 << 20
"""The length of an index that is worth reading; the caller bounds it."""
MAX_PRODUCT_FILE_BYTES: Final = 512 << 20
"""The length of a product file that is worth reading; the caller bounds it."""
MAX_FILES: Final = 1_000
"""The number of product files in an index."""
MAX_PRODUCTS: Final = 200_000
"""The number of products in all product files, unless the operator allows more."""
MAX_VERSIONS: Final = 10_000
"""The number of versions of a product."""
MAX_ITEMS: Final = 200
"""The number of items of a version."""
MAX_PRODUCT_BYTES: Final = 16 << 20
"""The length of a product in its file."""
MAX_WHOLE_BYTES: Final = 16 << 20
"""The length of a product file that is read as a whole, if it cannot be read otherwise."""
MAX_ALIASES_CHARACTERS: Final = 1 << 16
"""The length of all aliases of a product."""
MAX_CHARACTERS: Final = 1_000
"""The length of any other text."""
MAX_PATH_BYTES: Final = 1_000
"""The length of a path."""
MAX_SIZE_BYTES: Final = 1 << 40
"""The size of a file."""
MAX_REFUSALS: Final = 1_000
"""How many products and versions of a file are named that cannot be used; the rest is counted."""
_MAX_TOLD: Final = 100
"""Characters of a stranger's text in a message."""

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_UNFIT_FOR_PATH: Final = re.compile(r"[\x00-\x1f\x7f-\x9f%\\\u2028\u2029\ud800-\udfff]")
_CONTAINER_ROOTS: Final = (SQUASHFS, ROOT_TARBALL)


class UpstreamError(FormatError):
    """A file of an upstream that is no catalogue, or that exceeds a bound."""


class Refusal(Struct, frozen=True):
    """Why something of an upstream is left out."""

    key: str
    """The product's key; of a stream, its name in the index."""
    version: str
    """The version's name; empty: it is about the whole product or stream."""
    reason: str
    """What is wrong with it."""


class UpstreamEntry(Struct, frozen=True):
    """A product file that an index names."""

    stream: str
    """The stream's name in the index."""
    path: str
    """The product file, relative to the server's root."""
    keys: tuple[str, ...]
    """The keys of the products that it has, if the index is right."""


class UpstreamIndex(Struct, frozen=True):
    """What an index says of images."""

    entries: tuple[UpstreamEntry, ...]
    """The product files of images that clients read."""
    updated: str
    """When it was made, if it says so, as it is written."""
    refusals: tuple[Refusal, ...]
    """Entries that cannot be used."""


class UpstreamItem(Struct, frozen=True):
    """A file of a version that clients know what to do with."""

    name: str
    """Its key among the items of the version."""
    ftype: str
    """What it is for clients; one of ``FTYPES``."""
    path: str
    """Where it is, relative to the server's root."""
    size_bytes: int
    """Its size."""
    sha256: str
    """Its SHA-256, 64 lowercase hexadecimal digits."""
    fingerprints: dict[str, str]
    """Of metadata: ftype of a root → sha256(metadata ‖ root), 64 lowercase digits."""
    delta_base: str
    """Of a delta: the version that it starts from."""
    is_virtual_machine: bool
    """Whether it is a unified image of a virtual machine."""


class UpstreamVersion(Struct, frozen=True):
    """A version of a product."""

    name: str
    """Its name."""
    label: str
    """Its label, or ""."""
    items: tuple[UpstreamItem, ...]
    """Its files that clients know what to do with, in the order of the file."""
    wanted: frozenset[ImageType]
    """The types of images that the filters accept; never empty."""


class UpstreamProduct(Struct, frozen=True):
    """A product that the filters accept, with the versions that they accept."""

    key: str
    """Its key in the product file."""
    stream: str
    """The stream's name in the index."""
    os: str
    """The distribution, as clients show it."""
    release: str
    """The release."""
    arch: str
    """The architecture, as it is written."""
    variant: str
    """The variant; empty where the upstream has none."""
    release_title: str
    """The release, as people write it."""
    release_codename: str
    """The release's code name."""
    version: str
    """The release's number."""
    aliases: tuple[str, ...]
    """The aliases."""
    requirements: dict[str, str]
    """What it requires of an Incus host."""
    lxd_requirements: dict[str, str]
    """What it requires of an LXD host; empty: the same."""
    support_eol: str
    """The last day of support, as it is written."""
    supported: bool
    """Whether the release is supported."""
    newest: str
    """The name of the newest of all its versions, those included that the filters do not accept;
    empty: none has the name of a version."""
    versions: dict[str, UpstreamVersion]
    """Name → version, in the order of their names."""


class UpstreamProducts(Struct, frozen=True):
    """What was chosen of a product file."""

    products: tuple[UpstreamProduct, ...]
    """The products of which something is wanted, in the order of the file."""
    total: int
    """How many products the file has."""
    updated: str
    """When it was made, if it says so, as it is written."""
    refusals: tuple[Refusal, ...]
    """Products and versions that cannot be used; at most ``MAX_REFUSALS``."""
    refused: int
    """How many there are."""
    content_id: str = ""
    """Which stream the file says that it is of; empty: it does not say."""


class _WireIndex(Struct, frozen=True):
    format: str | None = ""
    updated: str | None = ""
    index: dict[str, msgspec.Raw] | None = None


class _WireEntry(Struct, frozen=True):
    datatype: str | None = ""
    format: str | None = ""
    path: str | None = ""
    products: list[str] | None = None


class _WireFile(Struct, frozen=True):
    content_id: str | None = ""
    datatype: str | None = ""
    format: str | None = ""
    updated: str | None = ""
    products: dict[str, msgspec.Raw] | None = None


class _WireNames(Struct, frozen=True):
    """What filters look at first."""

    os: str | None = ""
    release: str | None = ""
    arch: str | None = ""
    variant: str | None = ""
    aliases: str | None = ""


class _WireProduct(_WireNames, frozen=True):
    release_title: str | None = ""
    release_codename: str | None = ""
    version: str | None = ""
    support_eol: str | None = ""
    supported: bool | None = False
    requirements: dict[str, str | None] | None = None
    lxd_requirements: dict[str, str | None] | None = None
    versions: dict[str, msgspec.Raw] | None = None


class _WireVersion(Struct, frozen=True):
    label: str | None = ""
    items: dict[str, msgspec.Raw] | None = None


_Wire = TypeVar("_Wire")
_names_decoder: Final = msgspec.json.Decoder(_WireNames)


def parse_index(data: bytes, where: str, *, max_products: int = MAX_PRODUCTS) -> UpstreamIndex:
    """Read an upstream's ``index.json``.

    Args:
        data: its bytes; the caller bounds their number.
        where: the file, as messages name it.
        max_products: the number of products that all entries may name.

    Raises:
        UpstreamError: clients reject it, or it exceeds a bound.
    """
    require_bounded_index(data, where, max_products=max_products)
    wire = _decode_file(data, _WireIndex, where, "index", "product files", MAX_FILES)
    if wire.format != INDEX_FORMAT:
        raise UpstreamError(f"{where}: its format is {_quote(wire.format)}, not {INDEX_FORMAT}")
    entries: list[UpstreamEntry] = []
    refusals: list[Refusal] = []
    total = 0
    for stream, raw in (wire.index or {}).items():
        entry = _read_entry(stream, raw)
        if isinstance(entry, str):
            refusals.append(Refusal(stream[:MAX_CHARACTERS], "", entry))
        elif entry is not None:
            entries.append(entry)
            total += len(entry.keys)
    if total > max_products:
        raise UpstreamError(_describe_excess(where, "products", max_products))
    return UpstreamIndex(tuple(entries), _cut(wire.updated or ""), tuple(refusals))


def require_bounded_index(data: bytes, where: str, *, max_products: int = MAX_PRODUCTS) -> None:
    """Check that an index can be read as a whole, whatever is in it.

    Args:
        data: its bytes; the caller bounds their number.
        where: the file, as messages name it.
        max_products: the number of products that all entries may name.

    Raises:
        UpstreamError: it cannot.
    """
    # Each product is a string with two quotes; an entry has a dozen strings besides.
    if data.count(b'"') > 2 * max_products + 100 * MAX_FILES:
        raise UpstreamError(_describe_excess(where, "products", max_products))
    _require_few(data, where, "index", "product files", MAX_FILES)


def require_bounded_products(data: bytes, where: str, *, max_products: int = MAX_PRODUCTS) -> int:
    """Check that a product file can be read product by product, whatever is in it.

    A small one may be anything: it is read as a whole.

    Args:
        data: its bytes; the caller bounds their number.
        where: the file, as messages name it.
        max_products: the number of products that it may have.

    Returns:
        How many products it has; 0 if that cannot be told.

    Raises:
        UpstreamError: it cannot.
    """
    try:
        wire = _decode_file(data, _WireFile, where, "products", "products", max_products)
    except UpstreamError:
        if len(data) > MAX_WHOLE_BYTES or _count_objects(data) > max_products:
            raise
        return 0
    raws = wire.products or {}
    longest = max((memoryview(raw).nbytes for raw in raws.values()), default=0)
    if longest > MAX_PRODUCT_BYTES:
        raise UpstreamError(f"{where}: a product in it has more than {MAX_PRODUCT_BYTES:,} bytes")
    if len(data) > MAX_WHOLE_BYTES and (b"null" in data or find_pieces(data) is None):
        raise UpstreamError(
            f"{where}: it has null, or a key twice, and more than {MAX_WHOLE_BYTES:,} bytes"
        )
    return len(raws)


def _count_objects(data: bytes) -> int:
    return data.count(b"{") + data.count(b"[")


def _read_entry(stream: str, raw: msgspec.Raw) -> UpstreamEntry | str | None:
    """Return an entry of an index; what is wrong with it; or None if clients skip it."""
    try:
        wire = msgspec.json.decode(raw, type=_WireEntry)
    except UNDECODABLE as error:
        return f"clients reject it: {error}"
    if wire.datatype != DATATYPE or not wire.products:
        return None
    if wire.format not in (PRODUCTS_FORMAT, "", None):
        return f"its format is {_quote(wire.format)}, not {PRODUCTS_FORMAT}"
    path = wire.path or ""
    fault = find_path_fault(path)
    if fault:
        return f"its path {_quote(path)} {fault}"
    if len(stream) > MAX_CHARACTERS or any(len(key) > MAX_CHARACTERS for key in wire.products):
        return f"a name in it is longer than {MAX_CHARACTERS:,} characters"
    return UpstreamEntry(stream, path, tuple(wire.products))


def parse_products(
    data: bytes, stream: str, where: str, filters: Filters, *, max_products: int = MAX_PRODUCTS
) -> UpstreamProducts:
    """Read what the filters accept of a product file.

    Args:
        data: its bytes; the caller bounds their number.
        stream: the stream's name in the index.
        where: the file, as messages name it.
        filters: what is wanted.
        max_products: the number of products that it may have.

    Raises:
        UpstreamError: clients can use nothing of it, or it exceeds a bound.
    """
    wire = _decode_file(data, _WireFile, where, "products", "products", max_products)
    for found, right in ((wire.datatype, DATATYPE), (wire.format, PRODUCTS_FORMAT)):
        if found and found != right:
            raise UpstreamError(f"{where}: it says that it is {_quote(found)}, not {right}")
    raws = wire.products or {}
    products: list[UpstreamProduct] = []
    refusals: list[Refusal] = []
    refused = 0
    for key, raw in raws.items():
        product, wrong = _read_product(key, raw, stream, filters)
        refused += len(wrong)
        refusals += wrong[: MAX_REFUSALS - len(refusals)]
        if product is not None:
            products.append(product)
    updated = _cut(wire.updated or "")
    content_id = wire.content_id or ""
    return UpstreamProducts(
        tuple(products), len(raws), updated, tuple(refusals), refused, content_id
    )


def find_path_fault(path: str) -> str:
    """Return why a client should not ask for ``path``; empty: it may."""
    unfit = _UNFIT_FOR_PATH.search(path)
    if unfit is not None:
        return f"contains {unfit[0]!r}"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES:,} bytes"
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "has a part that is empty, '.' or '..'"
    return ""


def _decode_file(
    data: bytes, form: type[_Wire], where: str, field: str, what: str, max_number: int
) -> _Wire:
    """Decode a file that has many JSON objects, of which each is decoded later.

    Args:
        data: its bytes.
        form: what to decode it as.
        where: the file, as messages name it.
        field: the field with those objects.
        what: the word for them.
        max_number: how many there may be.
    """
    error = _require_few(data, where, field, what, max_number)
    try:
        if error is None:
            return msgspec.json.decode(data, type=form)
    except UNDECODABLE as failure:
        error = failure
    raise UpstreamError(f"{where}: {_describe_undecodable(data, error)}") from error


def _require_few(
    data: bytes, where: str, field: str, what: str, max_number: int
) -> Exception | None:
    """Check how many JSON objects a file has; return why it is not JSON with such a field.

    They are counted before anything is kept of them: ten million products would fill the memory.

    Args:
        data: its bytes.
        where: the file, as messages name it.
        field: the field with those objects.
        what: the word for them.
        max_number: how many there may be.

    Raises:
        UpstreamError: there are more.
    """
    number = 0

    class Counted(Struct, gc=False):
        def __post_init__(self) -> None:
            nonlocal number
            number += 1
            if number > max_number:
                raise ValueError(what)

    frame = msgspec.defstruct("Frame", [(field, dict[str, Counted] | None, None)])
    try:
        msgspec.json.decode(data, type=frame)
    except UNDECODABLE as error:
        if number > max_number:
            raise UpstreamError(_describe_excess(where, what, max_number)) from error
        return error
    return None


def _describe_undecodable(data: bytes, error: Exception) -> str:
    """Return what is wrong with a file that is no catalogue."""
    start = data[:4096].lstrip()
    if not data:
        return "is empty"
    if not data.strip(b"\0"):
        return "consists of NUL bytes; the server's disk is damaged, or its last copy broke off"
    if start[:1] == b"<":
        return "is a web page, not JSON; is the address right?"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if start[:1] == b"{" and str(error) == "Input data was truncated":
        return "is cut off"
    return f"clients reject it: {error}"


def _describe_excess(where: str, what: str, max_number: int) -> str:
    return f"{where}: it has more than {max_number:,} {what}, which is the limit"


def _read_product(
    key: str, raw: msgspec.Raw, stream: str, filters: Filters
) -> tuple[UpstreamProduct | None, list[Refusal]]:
    """Return a product, None if nothing of it is wanted or usable; and what is refused of it."""
    if len(key) > MAX_CHARACTERS or memoryview(raw).nbytes > MAX_PRODUCT_BYTES:
        reason = (
            f"it has more than {MAX_PRODUCT_BYTES:,} bytes, or its key more than "
            f"{MAX_CHARACTERS:,} characters"
        )
        return None, [_refuse(key, reason)]
    try:
        names = _names_decoder.decode(raw)
        arch = _get_first_line(names.arch or "")
        product_names = ProductNames(
            (names.os or "", _get_directory(key, names)),
            names.release or "",
            arch,
            names.variant or "",
            (names.aliases or "")[:MAX_ALIASES_CHARACTERS].split(","),
        )
        candidates = filters.match_product(product_names)
        if not candidates:
            return None, []
        wire = msgspec.json.decode(raw, type=_WireProduct)
    except UNDECODABLE as error:
        return None, [_refuse(key, f"clients reject it: {error}")]
    reason = _find_excess(wire)
    if reason:
        return None, [_refuse(key, reason)]
    versions, refusals = _read_versions(key, wire.versions or {}, filters, candidates)
    if not versions:
        return None, refusals
    product = UpstreamProduct(
        key=key,
        stream=stream,
        os=wire.os or "",
        release=wire.release or "",
        arch=arch,
        variant=wire.variant or "",
        release_title=wire.release_title or "",
        release_codename=wire.release_codename or "",
        version=wire.version or "",
        aliases=tuple(filter(None, (wire.aliases or "").split(","))),
        requirements=_read_requirements(wire.requirements),
        lxd_requirements=_read_requirements(wire.lxd_requirements),
        support_eol=wire.support_eol or "",
        supported=wire.supported or False,
        newest=max(filter(is_version_name, wire.versions or {}), default=""),
        versions=versions,
    )
    return product, refusals


def _get_first_line(text: str) -> str:
    """Return the first line of ``text``: Canonical writes ``x86_64`` twice."""
    return text.split("\n", 1)[0].strip()


def _get_directory(key: str, names: _WireNames) -> str:
    """Return the name of the distribution's directory, if the key names it."""
    head, _, rest = key.partition(":")
    return head if rest == f"{names.release}:{names.arch}:{names.variant}" else ""


def _read_requirements(wire: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: value or "" for key, value in (wire or {}).items()}


def _find_excess(wire: _WireProduct) -> str:
    """Return which bound a product exceeds; empty: none."""
    if len(wire.versions or {}) > MAX_VERSIONS:
        return f"it has more than {MAX_VERSIONS:,} versions"
    if len(wire.aliases or "") > MAX_ALIASES_CHARACTERS:
        return f"its aliases have more than {MAX_ALIASES_CHARACTERS:,} characters"
    requirements = {**(wire.requirements or {}), **(wire.lxd_requirements or {})}
    texts = (
        *(wire.os, wire.release, wire.arch, wire.variant, wire.release_title),
        *(wire.release_codename, wire.version, wire.support_eol),
        *requirements,
        *(wire.requirements or {}).values(),
        *(wire.lxd_requirements or {}).values(),
    )
    if any(text is not None and len(text) > MAX_CHARACTERS for text in texts):
        return f"one of its fields has more than {MAX_CHARACTERS:,} characters"
    return ""


def _read_versions(
    key: str, raws: Mapping[str, msgspec.Raw], filters: Filters, candidates: tuple[Filter, ...]
) -> tuple[dict[str, UpstreamVersion], list[Refusal]]:
    versions: dict[str, UpstreamVersion] = {}
    refusals: list[Refusal] = []
    for name, raw in sorted(raws.items()):
        if len(name) > MAX_CHARACTERS:
            reason = f"a version's name has more than {MAX_CHARACTERS:,} characters"
            refusals.append(_refuse(key, reason, name))
            continue
        version = _read_version(name, raw, filters, candidates)
        if isinstance(version, str):
            refusals.append(_refuse(key, version, name))
        elif version is not None:
            versions[name] = version
    return versions, refusals


def _read_version(
    name: str, raw: msgspec.Raw, filters: Filters, candidates: tuple[Filter, ...]
) -> UpstreamVersion | str | None:
    """Return a version; what is wrong with it; or None if nothing of it is wanted."""
    try:
        wire = msgspec.json.decode(raw, type=_WireVersion)
        label = wire.label or ""
        accepting = filters.match_version(candidates, name, label)
        items = _read_items(wire.items or {}) if accepting else ()
    except UNDECODABLE as error:
        return f"clients reject it: {error}"
    if isinstance(items, str):
        return items
    wanted = filters.match_types(accepting, _find_types(items))
    return UpstreamVersion(name, _cut(label), items, wanted) if wanted else None


def _read_items(raws: Mapping[str, msgspec.Raw]) -> tuple[UpstreamItem, ...] | str:
    """Return the items that clients do not skip, or what is wrong with one of them.

    Raises:
        msgspec.DecodeError, UnicodeError, RecursionError: clients reject one of them.
    """
    if len(raws) > MAX_ITEMS:
        return f"it has more than {MAX_ITEMS} items"
    items: list[UpstreamItem] = []
    for key, raw in raws.items():
        wire = decode(raw, Item)
        if wire.ftype in FTYPES and wire.path:
            item = _read_item(key, wire)
            if isinstance(item, str):
                return f"its item {_quote(key)} {item}"
            items.append(item)
    return tuple(items)


def _read_item(key: str, item: Item) -> UpstreamItem | str:
    """Return an item, or what is wrong with it."""
    fault = find_path_fault(item.path)
    if fault:
        return f"has a path that {fault}: {_quote(item.path)}"
    if not 0 <= item.size <= MAX_SIZE_BYTES:
        return f"has a size of {item.size:,} bytes; the limit is {MAX_SIZE_BYTES:,}"
    fingerprints: dict[str, str] = {}
    if item.ftype in METADATA_FTYPES:
        found = {root: get_fingerprint(item, root).lower() for root in COMBINED_FIELD}
        fingerprints = {root: digest for root, digest in found.items() if digest}
    for digest in (item.sha256, *fingerprints.values()):
        if _DIGEST.fullmatch(digest) is None:
            return f"has a digest that is not 64 hexadecimal digits: {_quote(digest)}"
    if max(len(item.delta_base), len(key)) > MAX_CHARACTERS:
        return f"has a name or a base of more than {MAX_CHARACTERS:,} characters"
    return UpstreamItem(
        name=key,
        ftype=item.ftype,
        path=item.path,
        size_bytes=item.size,
        sha256=item.sha256.lower(),
        fingerprints=fingerprints,
        delta_base=item.delta_base,
        is_virtual_machine=item.combined_type == VIRTUAL_MACHINE,
    )


def find_image_type(ftype: str, *, is_virtual_machine: bool) -> ImageType:
    """Return what an image is of.

    Args:
        ftype: that of its root, or of the unified image.
        is_virtual_machine: whether a unified image says that it is of a machine.
    """
    is_machine = ftype in COMBINED_FIELD and ftype not in _CONTAINER_ROOTS
    return MACHINE if is_machine or is_virtual_machine else CONTAINER


def _find_types(items: Iterable[UpstreamItem]) -> frozenset[ImageType]:
    """Return the types of the images that clients see in a version."""
    seen = {root for item in items for root in item.fingerprints} | UNIFIED_FTYPES
    return frozenset(
        find_image_type(item.ftype, is_virtual_machine=item.is_virtual_machine)
        for item in items
        if item.ftype in seen
    )


def _refuse(key: str, reason: str, version: str = "") -> Refusal:
    return Refusal(key[:MAX_CHARACTERS], version[:MAX_CHARACTERS], reason)


def _cut(text: str) -> str:
    return text[:MAX_CHARACTERS]


def _quote(text: str | None) -> str:
    """Return a stranger's text as it stands in a message."""
    return repr((text or "")[:_MAX_TOLD])
