"""What names mean: of files, versions, architectures and requirements.

Sources: ``shared/osarch``, ``shared/simplestreams`` and ``client`` of lxc/incus and
canonical/lxd; file names as distrobuilder, lxd-imagebuilder and the seed tool use them.
"""

from __future__ import annotations

import re
from datetime import date
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


FTYPES: Final = frozenset(
    (
        *(ftype for _, ftype in _TARBALL_FORMS.values()),
        *COMBINED_FIELD,
        "squashfs.vcdiff",
        "disk-kvm.img.vcdiff",
    )
)
"""All that clients know."""


@lru_cache(maxsize=4096)
def classify(name: str) -> FileRole | None:
    """Return the role of a file by its name, or None: no file of the catalogue.

    Virtual-machine deltas (``disk.BASE.qcow2.vcdiff``) have no role: Incus looks
    their base up by its squashfs fingerprint, so publishing one breaks pulls.
    """
    role = _PLAIN_ROLES.get(name)
    if role is not None:
        return role
    stem, is_tarball, rest = name.partition(".tar")
    compression = rest[1:]
    is_named_so = not rest or (rest[0] == "." and bool(compression))
    if is_tarball and stem in _TARBALL_FORMS and is_named_so and compression in _COMPRESSIONS:
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

_DISTRIBUTION_NAMES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "armv6l": "armel",
    "i686": "i386",
    "ppc64le": "ppc64el",
}


def distribution_architecture(name: str) -> str:
    """Return what distributions call the architecture that the kernel calls ``name``."""
    return _DISTRIBUTION_NAMES.get(name, name)


def default_aliases(os: str, release: str, variant: str) -> list[str]:
    """Return the names under which clients find a product's newest image."""
    aliases = [f"{os}/{release}/{variant}"]
    if variant == "default":
        aliases.append(f"{os}/{release}")
    if release == "current":
        aliases.append(f"{os}/{variant}")
        if variant == "default":
            aliases.append(os)
    return aliases


_UPLOAD_SUFFIXES: Final = (".part", ".partial", ".filepart", ".tmp", "~")
_FOREIGN_NAMES: Final = frozenset(
    ("lost+found", "@eaDir", "#recycle", "#snapshot", "System Volume Information")
)


_COMPANIONS: Final = re.compile(
    rf"{re.escape(IMAGE_YAML_NAME)}|{CHECKSUMS_NAME}.*|build\.log.*|serial|.*\.(asc|sig|gpg|log)"
)
"""What lies beside images without being one: signatures, logs, the builder's own files."""


def is_companion(name: str) -> bool:
    """Return whether a file lies beside images without being one, by its name."""
    return _COMPANIONS.fullmatch(name) is not None


def is_passed_over(name: str) -> bool:
    """Return whether a directory is no one's product: an uploader's or a file system's."""
    return name.endswith(_UPLOAD_SUFFIXES) or name in _FOREIGN_NAMES


_UNFIT = re.compile(
    r"[\x00-\x1f\x7f-\x9f,%\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")


def unfit_character(name: str) -> str | None:
    """Return the first character that may stand in no path or alias, or None.

    ``,`` separates aliases, ``%`` is mistaken for an escape by clients; bytes that
    are no UTF-8 (surrogates, as Python reads them) have no JSON form. What cannot be seen
    or turns the writing round makes a name look like another.
    """
    match = _UNFIT.search(name)
    return match[0] if match else None


class ProductName(Struct, frozen=True, gc=False):
    """What names a product: its directories below the stream."""

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
        """Where it lies below the stream, ``OS/RELEASE/ARCH/VARIANT``."""
        return f"{self.os}/{self.release}/{self.arch}/{self.variant}"

    @property
    def default_aliases(self) -> list[str]:
        """The names under which clients find its newest image."""
        return default_aliases(self.os, self.release, self.variant)


def version_label(stream: str, key: str, version: str) -> str:
    """Return where in the tree a version lies by its names; ``key`` is the product's."""
    return f"{stream}/{key.replace(':', '/')}/{version}"


def is_stream_name(name: str) -> bool:
    """Return whether a stream's directory and product file can be called ``name``."""
    is_taken = name in ("", "index", STREAMS_DIRECTORY)
    return not (is_taken or name[0] == "." or set("/:") & set(name) or unfit_character(name))


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
