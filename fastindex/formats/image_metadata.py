"""``metadata.yaml`` → what an image is, and where in the tree it belongs. Pure functions.

Format: doc/reference/image_format of lxc/incus, and what distrobuilder, lxd-imagebuilder and
``incus image export`` write.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
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
    is_dated_by_file: bool = False
    """Whether the version has the date of the metadata file: its own is no date."""


class MetadataError(RefusalError):
    """An image whose metadata gives it no place in the tree."""

    code = Code.BAD_METADATA


_NULLS = ("", "~", "null", "Null", "NULL")
"""YAML 1.1's spellings of null, as strings."""
_MAX_NAME_BYTES = 254
"""NAME_MAX, less the dot that hides the directory of a version while it is imported."""
_LAST_FALSE_SECOND = 315_532_800
"""Reproducible builds set 0, 1, or the first time that ZIP archives can hold, 1980-01-01. No image
is as old."""
_REQUIREMENT_PREFIX = "requirements."
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
    requirements: dict[str, str] = {}
    """What the image requires of its host; not checked. Empty where it is not a scalar."""


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
    properties = properties if isinstance(properties, dict) else {}
    levels = (properties, document)

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
        architecture=_join_equal_lines(find("architecture")),
        serial=find("serial"),
        creation_date=find("creation_date"),
        requirements={
            key.removeprefix(_REQUIREMENT_PREFIX): value.strip() if isinstance(value, str) else ""
            for key, value in properties.items()
            if key.startswith(_REQUIREMENT_PREFIX)
        },
    )


def _join_equal_lines(text: str) -> str:
    """Return the line that ``text`` repeats: Canonical writes ``x86_64`` twice."""
    lines = set(text.splitlines())
    return lines.pop() if len(lines) == 1 else text


def make_metadata_yaml(naming: Naming, created: int) -> bytes:
    """Return the ``metadata.yaml`` of an image that came without one.

    Args:
        naming: what the operator says of it.
        created: its creation date, in seconds since 1970.

    Raises:
        MetadataError: clients do not know its architecture.
    """
    arch = to_distribution_architecture(naming.arch)
    if arch not in ARCHITECTURES:
        raise _make_architecture_error(arch)
    variant = naming.variant or "default"
    properties = {
        "architecture": arch,
        "description": f"{naming.os} {naming.release} {arch} {variant}",
        "os": naming.os,
        "release": naming.release,
        "variant": variant,
    }
    # A JSON string is a YAML string.
    lines = [f"  {key}: {msgspec.json.encode(value).decode()}" for key, value in properties.items()]
    top = f"architecture: {ARCHITECTURES[arch]}\ncreation_date: {created}\nproperties:\n"
    return (top + "\n".join(lines) + "\n").encode()


def choose_place(metadata: ImageMetadata, naming: Naming, file_date: int = 0) -> Place:
    """Decide where an image belongs.

    Args:
        metadata: what its builder says of it.
        naming: what the operator says of it, which wins.
        file_date: when the metadata file was last modified, in seconds since 1970; 0: unknown.

    Raises:
        MetadataError: a name is missing, or cannot be that of a directory, an alias and a URL.
            Its remedy names the option that sets another.
    """
    arch = to_distribution_architecture(naming.arch or metadata.architecture)
    variant = naming.variant or metadata.variant or "default"
    version, is_dated_by_file = _choose_version(metadata, naming, file_date)
    chosen = Place(
        ProductName(
            os=_check_name("os", naming.os or metadata.os, "--os"),
            release=_check_name("release", naming.release or metadata.release, "--release"),
            arch=_check_name("architecture", arch, "--arch"),
            variant=_check_name("variant", variant, "--variant"),
        ),
        version,
        is_dated_by_file,
    )
    if arch not in ARCHITECTURES:
        raise _make_architecture_error(arch)
    return chosen


def _make_architecture_error(arch: str) -> MetadataError:
    return MetadataError(
        f"its architecture {arch!r} is unknown to clients", "set one that they know with --arch"
    )


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


def _choose_version(metadata: ImageMetadata, naming: Naming, file_date: int) -> tuple[str, bool]:
    """Return the name of the version, and whether it is the date of the metadata file."""
    option = "--version-name"
    is_dated_by_file = False
    if naming.version:
        name, what = naming.version, "version"
    elif naming.from_serial:
        name, what = metadata.serial, "serial"
    else:
        seconds = _read_date(metadata.creation_date)
        is_dated_by_file = seconds is not None and seconds <= _LAST_FALSE_SECOND
        if is_dated_by_file and file_date <= _LAST_FALSE_SECOND:
            raise MetadataError(
                f"its creation_date {metadata.creation_date} is no date, as in reproducible "
                "builds, and the file's own date is none either",
                "use --serial or --version-name",
            )
        name, what = _format_date(file_date if is_dated_by_file else seconds), "creation_date"
        option = f"--serial or {option}"
    _check_name(what, name, option, allowed=":")
    if not is_version_name(name):
        raise MetadataError(
            f"its {what} {name!r} is not a version name: it must start with a date, YYYYMMDD",
            f"set another with {option}",
        )
    return name, is_dated_by_file


def _read_date(text: str) -> int | None:
    """Return seconds since 1970, or None if ``text`` is empty."""
    if not text:
        return None
    try:
        seconds = int(text, 10)
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise MetadataError(
            f"its creation_date {text!r} is not a number of seconds since 1970",
            "use --serial or --version-name",
        ) from error
    return seconds


def _format_date(seconds: int | None) -> str:
    """Return ``YYYYMMDD_HH:MM`` in UTC, or "" if there is no date."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d_%H:%M")
