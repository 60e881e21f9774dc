"""``metadata.yaml`` → what an image is, and where in the tree it belongs. Pure functions.

Format: doc/reference/image_format of lxc/incus, and what distrobuilder, lxd-imagebuilder and
``incus image export`` write.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from fastindex.errors import Code, RefusalError
from fastindex.formats.names import (
    ARCHITECTURES,
    ProductName,
    find_forbidden_character,
    is_ignored_name,
    is_version_name,
    to_distribution_architecture,
)
from fastindex.formats.yaml import YamlError, YamlValue, load_strings


class Naming(Struct, frozen=True, kw_only=True):
    """Names that the operator chose. An empty one is taken from the metadata."""

    os: str = ""
    release: str = ""
    arch: str = ""
    variant: str = ""
    version: str = ""
    """The name of the version."""
    from_serial: bool = False
    """Name the version after the builder's serial, not after the creation date."""


class Place(Struct, frozen=True):
    """Where a version belongs, below the stream directory."""

    product: ProductName
    """Its product."""
    version: str
    """The name of the version."""


class MetadataError(RefusalError):
    """An image whose metadata gives it no place in the tree."""

    code = Code.BAD_METADATA


_NULLS = ("", "~", "null", "Null", "NULL")
"""YAML 1.1's spellings of null, as strings."""
_MAX_NAME_BYTES = 254
"""NAME_MAX, less the dot that hides the directory of a version while it is imported."""
_FIX_AT_BUILD = "fix it where the image is built"


class ImageMetadata(Struct, frozen=True):
    """The values of a ``metadata.yaml``, as they are written; empty where there is none."""

    os: str
    release: str
    variant: str
    architecture: str
    serial: str
    creation_date: str
    """Seconds since 1970, UTC."""


def parse_metadata_yaml(content: bytes) -> ImageMetadata:
    """Read a ``metadata.yaml``. A value in ``properties`` wins over one at the top level.

    Args:
        content: its bytes; the caller bounds their number.

    Raises:
        MetadataError: it is not a YAML mapping, or exceeds a bound of ``load_strings``.
    """
    try:
        document = load_strings(content)
    except YamlError as error:
        raise MetadataError(f"its metadata.yaml cannot be used: {error}", _FIX_AT_BUILD) from error
    if not isinstance(document, dict):
        raise MetadataError("its metadata.yaml is not a mapping of keys to values", _FIX_AT_BUILD)
    properties = document.get("properties")
    levels = (properties if isinstance(properties, dict) else {}, document)

    def find(key: str) -> str:
        for level in levels:
            value: YamlValue = level.get(key)
            if isinstance(value, str) and value.strip() not in _NULLS:
                return value.strip()
        return ""

    return ImageMetadata(
        os=find("os"),
        release=find("release"),
        variant=find("variant"),
        architecture=find("architecture"),
        serial=find("serial"),
        creation_date=find("creation_date"),
    )


def choose_place(metadata: ImageMetadata, naming: Naming) -> Place:
    """Decide where an image belongs.

    Args:
        metadata: what its builder says of it.
        naming: what the operator says of it, which wins.

    Raises:
        MetadataError: a name is missing, or cannot be that of a directory, an alias and a URL.
            Its remedy names the option that sets another.
    """
    arch = to_distribution_architecture(naming.arch or metadata.architecture)
    variant = naming.variant or metadata.variant or "default"
    chosen = Place(
        ProductName(
            os=_check_name("os", naming.os or metadata.os, "--os"),
            release=_check_name("release", naming.release or metadata.release, "--release"),
            arch=_check_name("architecture", arch, "--arch"),
            variant=_check_name("variant", variant, "--variant"),
        ),
        _choose_version(metadata, naming),
    )
    if arch not in ARCHITECTURES:
        raise MetadataError(
            f"its architecture {arch!r} is unknown to clients", "set one that they know with --arch"
        )
    return chosen


def _check_name(what: str, name: str, option: str, allowed: str = "") -> str:
    """Return ``name`` if it can be one component of a path, an alias and a product's key."""
    remedy = f"set another with {option}"
    if not name:
        raise MetadataError(f"its metadata.yaml has no {what}", f"set one with {option}")
    forbidden = find_forbidden_character(name) or next(
        (c for c in "/:" if c in name and c != allowed), None
    )
    if forbidden is not None:
        raise MetadataError(f"its {what} {name!r} contains the character {forbidden!r}", remedy)
    if name[0] == ".":
        raise MetadataError(f"its {what} {name!r} starts with a dot", remedy)
    if name != name.strip():
        raise MetadataError(f"its {what} {name!r} starts or ends with white space", remedy)
    if is_ignored_name(name):
        raise MetadataError(
            f"its {what} {name!r} is a name of unfinished uploads or of file systems", remedy
        )
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise MetadataError(f"its {what} is too long for a file name", remedy)
    return name


def _choose_version(metadata: ImageMetadata, naming: Naming) -> str:
    option = "--version-name"
    if naming.version:
        name, what = naming.version, "version"
    elif naming.from_serial:
        name, what = metadata.serial, "serial"
    else:
        name, what = _format_date(metadata.creation_date), "creation_date"
        option = f"--serial or {option}"
    _check_name(what, name, option, allowed=":")
    if not is_version_name(name):
        raise MetadataError(
            f"its {what} {name!r} is not a version name: it must start with a date, YYYYMMDD",
            f"set another with {option}",
        )
    return name


def _format_date(seconds: str) -> str:
    """Return ``YYYYMMDD_HH:MM`` in UTC, or "" if ``seconds`` since 1970 is empty."""
    if not seconds:
        return ""
    try:
        created = datetime.fromtimestamp(int(seconds, 10), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise MetadataError(
            f"its creation_date {seconds!r} is not a number of seconds since 1970",
            "use --serial or --version-name",
        ) from error
    return created.strftime("%Y%m%d_%H:%M")
