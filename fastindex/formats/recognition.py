"""What a file that a builder made is: decided by its content, not by its name.

distrobuilder, lxd-imagebuilder and ``incus image export`` each name their files differently
(``incus.tar.xz`` + ``rootfs.squashfs``, ``meta-FP.tar.xz`` + ``FP.squashfs``, ``NAME`` +
``NAME.root``, ``NAME.tar.gz``). So a name is only a hint here: the magic bytes decide, and the
members of a tarball.

Magic bytes: fs/squashfs/squashfs_fs.h of Linux, docs/interop/qcow2 of QEMU, RFC 3284 (VCDIFF),
ECMA-119 (ISO 9660), and magic(5) for the rest.
"""

from __future__ import annotations

import codecs
import os
import stat

from msgspec import Struct

from fastindex.formats.names import FileRole, classify, is_companion, is_ignored_name
from fastindex.formats.tar import TarballError
from fastindex.formats.tarball import Contents, detect_compression, inspect_tarball

_ISO_MAGIC = b"CD001"
_ISO_MAGIC_OFFSET = 0x8001
_HEAD_BYTES = _ISO_MAGIC_OFFSET + len(_ISO_MAGIC)
_VCDIFF_MAGIC = b"\xd6\xc3\xc4"
_OTHER_MAGICS = (
    (_VCDIFF_MAGIC, "VCDIFF delta whose name does not say which squashfs it starts from"),
    (b"\x7fELF", "ELF program"),
    (b"MZ", "Windows program"),
    (b"PK\x03\x04", "ZIP archive"),
)
_DISKS = ("disk1.img", "uefi1.img")
_EXPECTED = "expected a squashfs, qcow2 or tarball"


class Part(Struct, frozen=True):
    """A file of an image."""

    path: str
    """The file."""
    name: str
    """The name that it gets in the tree."""
    role: FileRole
    """What that name means."""
    status: os.stat_result
    """Its status when it was inspected."""
    metadata_yaml: bytes | None = None
    """The ``metadata.yaml`` in it, if it is metadata or a unified image."""


class IgnoredFile(Struct, frozen=True):
    """A file that belongs to no image."""

    path: str
    """The file. It stays where it is."""
    reason: str
    """Why it is ignored."""
    is_unexpected: bool
    """Whether a person should know about it."""


def recognise(path: str) -> Part | IgnoredFile:
    """Return what the file at ``path`` is.

    A file that cannot be read is an ignored one; no error is raised for it.
    """
    name = os.path.basename(path)
    if is_companion(name):
        return IgnoredFile(path, "accompanies images", is_unexpected=False)
    if is_ignored_name(name):
        return IgnoredFile(path, "an unfinished upload, by its name", is_unexpected=True)
    try:
        return _recognise(path)
    except TarballError as error:
        return IgnoredFile(path, f"cannot be used ({error})", is_unexpected=True)
    except OSError as error:
        return IgnoredFile(path, f"cannot be read ({error.strerror})", is_unexpected=True)


def _recognise(path: str) -> Part | IgnoredFile:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return IgnoredFile(path, "not a regular file", is_unexpected=True)
    name = os.path.basename(path)
    head = _read_head(path)
    metadata: bytes | None = None
    if detect_compression(head) is not None:
        contents = inspect_tarball(path)
        metadata = contents.metadata_yaml
        target = _choose_tarball_name(name, contents)
        if target is None and "config" in contents.top_names:
            return IgnoredFile(path, "plain LXC metadata", is_unexpected=False)
        found = "tarball with neither a metadata.yaml nor a root file system"
    else:
        target = _choose_name(name, head)
        found = f"{_describe(head)}; {_EXPECTED}"
    role = classify(target) if target is not None else None
    if target is None or role is None:
        return IgnoredFile(path, f"not an image file ({found})", is_unexpected=True)
    return Part(path, target, role, status, metadata)


def _read_head(path: str) -> bytes:
    """Return the first ``_HEAD_BYTES`` bytes of a file, fewer if it is shorter."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    head = b""
    try:
        # One read may return less than was asked for, as on network file systems.
        while len(head) < _HEAD_BYTES and (piece := os.read(descriptor, _HEAD_BYTES - len(head))):
            head += piece
    finally:
        os.close(descriptor)
    return head


def _choose_name(name: str, head: bytes) -> str | None:
    """Return the name in the tree of a file that is not a tarball; None if it is of no image."""
    role = classify(name)
    if head.startswith((b"hsqs", b"sqsh")):
        return name if role is not None and role.ftype == "squashfs" else "rootfs.squashfs"
    if head.startswith(b"QFI\xfb"):
        return name if name in _DISKS else "disk.qcow2"
    if head.startswith(_VCDIFF_MAGIC):
        return name if role is not None and role.kind == "delta" else None
    return name if name in _DISKS and _has_boot_signature(head) else None


def _choose_tarball_name(name: str, contents: Contents) -> str | None:
    """Return the name in the tree of a tarball; its suffix is that of the compression found."""
    role = classify(name)
    kind = role.kind if role is not None else ""
    stem = name.partition(".tar")[0]
    if contents.metadata_yaml is not None:
        if contents.has_rootfs or contents.has_disk:
            stem = stem if kind == "unified" else "incus_combined"
        else:
            stem = stem if kind == "metadata" else "incus"
    elif contents.is_root or kind == "root":
        stem = stem if kind == "root" else "rootfs"
    else:
        return None
    return f"{stem}.tar.{contents.compression}".removesuffix(".")


def _has_boot_signature(head: bytes) -> bool:
    """Return whether a file starts with a boot sector: a disk with an MBR or GPT does."""
    return head[510:512] == b"\x55\xaa"


def _describe(head: bytes) -> str:
    """Return, for people, what a file is that belongs to no image, judging by its head."""
    if not head:
        return "empty file"
    if head[_ISO_MAGIC_OFFSET:] == _ISO_MAGIC:  # first: it may also have a boot sector
        return "ISO image"
    for magic, description in _OTHER_MAGICS:
        if head.startswith(magic):
            return description
    if _has_boot_signature(head):
        return "raw disk image"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    return "text file" if _is_text(head) else "unknown format"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\f\r" for character in text)
