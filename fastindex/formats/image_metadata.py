"""``metadata.yaml`` → what an image is, and where in the tree that puts it. Pure.

Format: doc/reference/image_format of lxc/incus; in the wild, as distrobuilder,
lxd-imagebuilder and ``incus image export`` write it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from fastindex.errors import RefusalError
from fastindex.formats.names import (
    ARCHITECTURES,
    ProductName,
    distribution_architecture,
    is_passed_over,
    is_version_name,
    unfit_character,
)
from fastindex.formats.yaml import YamlValue, load_strings


class Naming(Struct, frozen=True, kw_only=True):
    """What the operator says of names; empty: what the metadata says."""

    os: str = ""
    release: str = ""
    arch: str = ""
    variant: str = ""
    version: str = ""
    """The version's name."""
    from_serial: bool = False
    """Take the builder's serial for the version's name, not the creation date."""


class Place(Struct, frozen=True):
    """Where a version belongs, below the stream directory."""

    product: ProductName
    """Its product."""
    version: str
    """The version's name."""


class MetadataError(RefusalError):
    """An image whose metadata gives it no place in the tree."""


_NOTHING = ("", "~", "null", "Null", "NULL")
_MOST_NAME_BYTES = 255
_MEND = "mend it where the image is built"


class ImageMetadata(Struct, frozen=True):
    """What ``metadata.yaml`` says, as it says it; empty where it does not."""

    os: str
    release: str
    variant: str
    architecture: str
    serial: str
    creation_date: str
    """Seconds since the epoch."""


def parse_metadata_yaml(content: bytes) -> ImageMetadata:
    """Read a ``metadata.yaml``: ``properties`` first, the top level next.

    Raises:
        MetadataError: no YAML mapping, or beyond what is accepted of strangers.
    """
    try:
        document = load_strings(content)
    except ValueError as error:
        raise MetadataError(f"its metadata.yaml is {error}", _MEND) from error
    if not isinstance(document, dict):
        raise MetadataError("its metadata.yaml is no mapping of keys to values", _MEND)
    properties = document.get("properties")
    levels = (properties if isinstance(properties, dict) else {}, document)

    def said(key: str) -> str:
        for level in levels:
            value: YamlValue = level.get(key)
            if isinstance(value, str) and value.strip() not in _NOTHING:
                return value.strip()
        return ""

    return ImageMetadata(
        os=said("os"),
        release=said("release"),
        variant=said("variant"),
        architecture=said("architecture"),
        serial=said("serial"),
        creation_date=said("creation_date"),
    )


def place(metadata: ImageMetadata, naming: Naming) -> Place:
    """Decide where an image belongs.

    Raises:
        MetadataError: something is missing, or is no name that a directory, an alias and
            a URL can have; it tells the option that mends it.
    """
    arch = distribution_architecture(naming.arch or metadata.architecture)
    variant = naming.variant or metadata.variant or "default"
    found = Place(
        ProductName(
            os=_component("os", naming.os or metadata.os, "--os"),
            release=_component("release", naming.release or metadata.release, "--release"),
            arch=_component("architecture", arch, "--arch"),
            variant=_component("variant", variant, "--variant"),
        ),
        _version(metadata, naming),
    )
    if arch not in ARCHITECTURES:
        raise MetadataError(
            f"no client knows its architecture {arch!r}", "name one that they do with --arch"
        )
    return found


def _component(what: str, name: str, option: str, allowed: str = "") -> str:
    """Return ``name`` if it can be one component of a path, an alias and a product's key."""
    remedy = f"name another with {option}"
    if not name:
        raise MetadataError(f"its metadata.yaml says no {what}", f"name it with {option}")
    unfit = unfit_character(name) or next((c for c in "/:" if c in name and c != allowed), None)
    if unfit is not None:
        raise MetadataError(f"its {what} {name!r} has the character {unfit!r}", remedy)
    if name[0] == "." or name != name.strip() or is_passed_over(name):
        raise MetadataError(
            f"its {what} {name!r} begins with a dot, has blanks around it or looks like an "
            "upload's",
            remedy,
        )
    if len(name.encode()) >= _MOST_NAME_BYTES:  # a dot goes before it
        raise MetadataError(f"its {what} is too long for a file name", remedy)
    return name


def _version(metadata: ImageMetadata, naming: Naming) -> str:
    option = "--version-name"
    if naming.version:
        name, what = naming.version, "version"
    elif naming.from_serial:
        name, what = metadata.serial, "serial"
    else:
        name, what, option = _date(metadata.creation_date), "creation_date", f"--serial or {option}"
    _component(what, name, option, allowed=":")
    if not is_version_name(name):
        raise MetadataError(
            f"its {what} {name!r} is no version: it does not start with a real date as YYYYMMDD",
            f"name another with {option}",
        )
    return name


def _date(seconds: str) -> str:
    """Return ``YYYYMMDD_HH:MM`` in UTC, or empty where there is no date."""
    if not seconds:
        return ""
    try:
        created = datetime.fromtimestamp(int(seconds, 10), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise MetadataError(
            f"its creation_date {seconds!r} is no number of seconds since 1970",
            "use --serial or --version-name",
        ) from error
    return created.strftime("%Y%m%d_%H:%M")
