"""What the names of files, versions, architectures and requirements mean.

Sources: ``shared/osarch``, ``shared/simplestreams`` and ``client`` of lxc/incus and
canonical/lxd; the file names that distrobuilder, lxd-imagebuilder and the seed tool (antifob's
``simplestreams.py``, a script that fastindex replaces) write.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final, Literal

from msgspec import Struct

from fastindex.formats.simplestreams import (
    CHECKSUMS_NAME,
    COMBINED_FIELD,
    IMAGE_YAML_NAME,
    INCUS_METADATA,
    LXD_METADATA,
    SQUASHFS,
    STREAMS_DIRECTORY,
)

_COMPRESSIONS: Final = ("xz", "gz", "bz2", "zst", "lzma", "lz4", "")
_TARBALL_FORMS: Final[dict[str, tuple[Literal["metadata", "root", "unified"], str]]] = {
    "incus": ("metadata", INCUS_METADATA),
    "lxd": ("metadata", LXD_METADATA),
    "rootfs": ("root", "root.tar.xz"),
    "root": ("root", "root.tar.xz"),
    "incus_combined": ("unified", "incus_combined.tar.gz"),
    "lxd_combined": ("unified", "lxd_combined.tar.gz"),
}
_DELTA_SUFFIX: Final = ".vcdiff"
_DELTA_PREFIXES: Final = ("rootfs.", "root.", "delta-")
_MACHINE_DELTA_SUFFIX: Final = ".qcow2.vcdiff"
_MACHINE_DELTA_PREFIXES: Final = ("disk.", "delta-")
_DISK: Final = "disk-kvm.img"
_MAX_NAME_BYTES: Final = 255


class FileRole(Struct, frozen=True, gc=False):
    """What a file name means to the catalogue."""

    kind: Literal["metadata", "root", "unified", "delta"]
    """*unified*: metadata and root in one file; *delta*: from the root of a base version."""
    ftype: str
    """How clients tell files apart. Of each ftype, a version publishes one file."""
    rank: int = 0
    """Of the files of one ftype in a version, the one with the lowest rank is published."""
    combined: str = ""
    """Of a root: the field of the metadata item that holds the fingerprint."""
    delta_base: str = ""
    """Of a delta: the name of the version that it starts from."""

    @property
    def is_machine_delta(self) -> bool:
        """Whether it is a delta of a disk, which Incus cannot use."""
        return self.ftype == _DISK + _DELTA_SUFFIX


def find_root_ftype(ftype: str) -> str:
    """Return the ftype of the roots between which a delta with this ftype leads."""
    return ftype.removesuffix(_DELTA_SUFFIX)


def name_delta(base: str, root_ftype: str) -> str | None:
    """Return the name of the delta from the root of another version; None if there can be none.

    Args:
        base: the name of that version.
        root_ftype: the ftype of both roots.
    """
    name = f"delta-{base}{_MACHINE_DELTA_SUFFIX if root_ftype == _DISK else _DELTA_SUFFIX}"
    role = classify(name)
    if role is None or len(os.fsencode(name)) > _MAX_NAME_BYTES:
        return None
    is_right = (role.delta_base, find_root_ftype(role.ftype)) == (base, root_ftype)
    return name if is_right else None


def _new_root(ftype: str, rank: int = 0) -> FileRole:
    return FileRole("root", ftype, rank, COMBINED_FIELD[ftype])


_PLAIN_ROLES: Final = {
    "rootfs.squashfs": _new_root(SQUASHFS),
    "root.squashfs": _new_root(SQUASHFS, 1),
    "disk.qcow2": _new_root(_DISK),
    "disk1.img": _new_root("disk1.img"),
    "uefi1.img": _new_root("uefi1.img"),
}


FTYPES: Final = frozenset(
    (
        *(ftype for _, ftype in _TARBALL_FORMS.values()),
        *COMBINED_FIELD,
        SQUASHFS + _DELTA_SUFFIX,
        _DISK + _DELTA_SUFFIX,
    )
)
"""Every ftype that clients know."""


@lru_cache(maxsize=4096)
def classify(name: str) -> FileRole | None:
    """Return the role of the file called ``name``; None if the catalogue has no such files."""
    role = _PLAIN_ROLES.get(name)
    if role is not None:
        return role
    stem, is_tarball, rest = name.partition(".tar")
    compression = rest[1:]
    has_good_suffix = not rest or (rest[0] == "." and bool(compression))
    if is_tarball and stem in _TARBALL_FORMS and has_good_suffix and compression in _COMPRESSIONS:
        kind, ftype = _TARBALL_FORMS[stem]
        rank = _COMPRESSIONS.index(compression) + (stem == "root") * len(_COMPRESSIONS)
        return FileRole(kind, ftype, rank, COMBINED_FIELD.get(ftype, ""))
    return _classify_delta(name) if name.endswith(_DELTA_SUFFIX) else None


def _classify_delta(name: str) -> FileRole | None:
    is_machine = name.endswith(_MACHINE_DELTA_SUFFIX)
    suffix = _MACHINE_DELTA_SUFFIX if is_machine else _DELTA_SUFFIX
    for prefix in _MACHINE_DELTA_PREFIXES if is_machine else _DELTA_PREFIXES:
        base = name.removeprefix(prefix).removesuffix(suffix)
        if name.startswith(prefix) and is_version_name(base) and not find_forbidden_character(base):
            ftype = _DISK if is_machine else SQUASHFS
            return FileRole("delta", ftype + _DELTA_SUFFIX, delta_base=base)
    return None


ARCHITECTURES: Final = {
    alias: canonical
    for canonical, aliases in {
        "i686": "i386 i586 386 x86 generic_32",
        "x86_64": "amd64 generic_64 amd64v3 x86_64_v1 x86_64_v2 x86_64_v3 x86_64_v4",
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
"""Every architecture name that clients know (case-sensitive) → its canonical name.

Source: ``shared/osarch/architectures.go`` of lxc/incus and canonical/lxd.
"""

MICRO_ARCHITECTURES: Final = frozenset(
    ("amd64v3", "x86_64_v1", "x86_64_v2", "x86_64_v3", "x86_64_v4")
)
"""Architectures that clients take for x86_64 although not every such CPU runs their images.
Source: as above, Incus from 6.18 and 6.0.6, LXD from 6.7."""

_DISTRIBUTION_NAMES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "armv6l": "armel",
    "i686": "i386",
    "ppc64le": "ppc64el",
}


def to_distribution_architecture(name: str) -> str:
    """Return the distributions' name (``amd64``) of an architecture (``x86_64``).

    A name without another one is returned as it is.
    """
    return _DISTRIBUTION_NAMES.get(name, name)


def default_aliases(os: str, release: str, arch: str, variant: str) -> list[str]:
    """Return the aliases that every product gets: clients find its newest image by them.

    Those of a micro-architecture end in its name: clients would give its images to any CPU.
    """
    aliases = [f"{os}/{release}/{variant}"]
    if variant == "default":
        aliases.append(f"{os}/{release}")
    if release == "current":
        aliases.append(f"{os}/{variant}")
        if variant == "default":
            aliases.append(os)
    return [f"{alias}/{arch}" for alias in aliases] if arch in MICRO_ARCHITECTURES else aliases


_UPLOAD_SUFFIXES: Final = (".part", ".partial", ".filepart", ".tmp", "~")
_FOREIGN_NAMES: Final = frozenset(
    ("lost+found", "@eaDir", "#recycle", "#snapshot", "System Volume Information")
)


_COMPANIONS: Final = re.compile(
    rf"{re.escape(IMAGE_YAML_NAME)}|{CHECKSUMS_NAME}.*|build\.log.*|serial|.*\.(asc|sig|gpg|log)"
)
"""Files that accompany images: signatures, logs, the builder's own files."""


def is_companion(name: str) -> bool:
    """Return whether a file called ``name`` accompanies images without being part of one."""
    return _COMPANIONS.fullmatch(name) is not None


_IMAGE_SUFFIXES: Final = (".squashfs", ".qcow2", ".img", ".vcdiff", ".tar", ".tar.xz", ".tar.gz")


def looks_like_image_file(name: str) -> bool:
    """Return whether a file called ``name`` may be one of an image, under whatever name."""
    return classify(name) is not None or name.endswith(_IMAGE_SUFFIXES)


_FLAT_NAME: Final = re.compile(r"[0-9a-f]{64}\.incus\.tar\.xz")


def is_flat_name(name: str) -> bool:
    """Return whether ``name`` is one that ``incus-simplestreams`` gives to metadata."""
    return _FLAT_NAME.fullmatch(name) is not None


def is_ignored_name(name: str) -> bool:
    """Return whether ``name`` is that of an unfinished upload, or reserved by a file system."""
    return name.endswith(_UPLOAD_SUFFIXES) or name in _FOREIGN_NAMES


_FORBIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f,%\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")


def find_forbidden_character(name: str) -> str | None:
    """Return the first character of ``name`` that no path and no alias may contain, or None.

    Forbidden are: ``,``, which separates aliases; ``%``, which clients mistake for an escape;
    surrogates (Python's reading of bytes that are not UTF-8), which JSON cannot represent;
    control characters; and what is invisible or changes the direction of writing, which makes
    one name look like another.
    """
    match = _FORBIDDEN.search(name)
    return match[0] if match else None


PRODUCT_DEPTH: Final = 4
"""How many directories below its stream a product is: OS, RELEASE, ARCH, VARIANT."""


class ProductName(Struct, frozen=True, gc=False):
    """The name of a product: the four directories below the stream.

    The fields are the directories' names, in their order.
    """

    os: str
    release: str
    arch: str
    variant: str

    @property
    def key(self) -> str:
        """The product's key in the catalogue, ``OS:RELEASE:ARCH:VARIANT``."""
        return f"{self.os}:{self.release}:{self.arch}:{self.variant}"

    @property
    def directory(self) -> str:
        """Its path below the stream, ``OS/RELEASE/ARCH/VARIANT``."""
        return f"{self.os}/{self.release}/{self.arch}/{self.variant}"

    @property
    def default_aliases(self) -> list[str]:
        """The aliases that it gets without any settings."""
        return default_aliases(self.os, self.release, self.arch, self.variant)


def name_published_product(key: str, os: str, release: str, arch: str, variant: str) -> ProductName:
    """Return the name of a published product: the names of its directories, if it has any.

    fastindex's keys are made of the directories' names. Other tools order the parts of a key in
    another way or have other keys. Then only the product's own fields say what it is.

    Args:
        key: its key in the catalogue.
        os: the field of the product with that name, and so on.
        release: see ``os``.
        arch: see ``os``.
        variant: see ``os``.
    """
    parts = key.split(":")
    is_made_of_directories = len(parts) == 4 and parts[1:] == [release, arch, variant]
    return ProductName(parts[0] if is_made_of_directories else os, release, arch, variant)


def product_label(stream: str, key: str) -> str:
    """Return the path of a product relative to ROOT, given its ``key``.

    Of a product that another tool published, with a key that does not name its directories, it
    is STREAM/KEY.
    """
    parts = key.split(":")
    if len(parts) == 4 and parts[2] in ARCHITECTURES:
        key = "/".join(parts)
    return f"{stream}/{key}"


def version_label(stream: str, key: str, version: str) -> str:
    """Return the path of a version relative to ROOT, as ``product_label`` does of its product."""
    return f"{product_label(stream, key)}/{version}"


def is_stream_name(name: str) -> bool:
    """Return whether ``name`` can be that of a stream: of its directory and its product file."""
    is_reserved = name in ("", "index", STREAMS_DIRECTORY)
    return not (
        is_reserved or name[0] == "." or set("/:") & set(name) or find_forbidden_character(name)
    )


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
    """Return whether clients accept a version called ``name``: it starts with a real date."""
    return _is_date(name[:8])


@lru_cache(maxsize=65536)
def find_version_time(name: str) -> float:
    """Return the date and, if it tells, the time of a version by its name; seconds since 1970."""
    day = datetime(int(name[:4]), int(name[4:6]), int(name[6:8]), tzinfo=UTC).timestamp()
    hour, minute = name[9:11], name[12:14]
    is_time = name[8:9] == "_" and len(hour) == 2 and (hour + minute).isascii()
    if not (is_time and (hour + minute).isdigit() and int(hour) < 24):
        return day
    return day + int(hour) * 3600 + int(minute or 0) * 60


def version_style(name: str) -> str:
    """Return the style of a version name: its digits as zeros (``00000000_00:00``).

    For clients the newest version is the greatest *string*, so the styles of one product
    must not mix: ``_`` sorts after the digits.
    """
    return name.translate(_DIGITS_TO_ZERO)


INCUS_REQUIREMENT_KEYS: Final = frozenset(
    ("secureboot", "cgroup", "privileged", "nesting", "cdrom_agent", "cdrom_cloud_init")
)
"""The keys of requirements that Incus enforces."""
LXD_REQUIREMENT_KEYS: Final = frozenset(("secureboot", "cgroup", "nesting"))
"""The keys of requirements that LXD enforces."""
