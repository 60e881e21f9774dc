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
import re
import shlex
import stat

from msgspec import Struct

from fastindex.errors import Code
from fastindex.formats.completeness import check_completeness
from fastindex.formats.content import (
    OTHER_DISKS,
    QCOW2_MAGIC,
    VCDIFF_MAGIC,
    Fault,
    detect_compression,
    find_fault,
    find_magic,
)
from fastindex.formats.names import FileRole, classify, is_companion, is_ignored_name
from fastindex.formats.qcow2 import DiskError, check_disk
from fastindex.formats.reading import open_file
from fastindex.formats.tar import TarballError
from fastindex.formats.tarball import Contents, has_skippable_frame, inspect_tarball

_ISO_MAGIC = b"CD001"
_ISO_MAGIC_OFFSET = 0x8001
_FILE_SYSTEMS = (
    (b"XFSB", 0, "XFS"),
    (b"\x53\xef", 0x438, "ext4"),
    (b"_BHRfS_M", 0x10040, "Btrfs"),
)
_HEAD_BYTES = 0x10048
"""Enough for all magic bytes, of which those of Btrfs come last."""
_OTHER_MAGICS = (
    (VCDIFF_MAGIC, 0, "VCDIFF delta whose name does not say which squashfs it starts from"),
    (b"\x7fELF", 0, "ELF program"),
    (b"MZ", 0, "Windows program"),
    (b"PK\x03\x04", 0, "ZIP archive"),
)
_DISKS = ("disk1.img", "uefi1.img")
_EXPECTED = "expected a squashfs, qcow2 or tarball"
_CLAIM = re.compile(r".*\.(squashfs|qcow2|t[gx]z|tar(\.(xz|gz|bz2|zst|lzma|lz4))?)")
"""Names of files that people take for an image's."""
_LXD_NAME = re.compile(r"(.*[-._])?lxd([-._].*)?")
_REMEDY = "fetch it again, or remove it"
_ISO_REMEDY = "import the disk of a machine that was installed from it"
_FILE_SYSTEM_REMEDY = "mount it, and pack what is in it with mksquashfs or tar"


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
    is_virtual_machine: bool = False
    """Whether it is a unified image of a virtual machine."""
    found_at: str = ""
    """The path that it was found at; it differs from ``path`` if that is a symlink."""
    is_linked: bool = False
    """Whether a symlink led to it, so that it must stay where it is."""
    is_made: bool = False
    """Whether the import made it, as the image came without."""


class IgnoredFile(Struct, frozen=True):
    """A file that belongs to no image."""

    path: str
    """The file. It stays where it is."""
    reason: str
    """Why it is ignored."""
    is_unexpected: bool
    """Whether a person should know about it."""
    remedy: str = "remove it if it is of no use"
    """What to do about it."""


class BadFile(Struct, frozen=True):
    """A file that its name, or its first bytes, claim to be an image's, but that is of no use."""

    path: str
    """The file. It stays where it is."""
    code: Code
    """What kind of thing is wrong."""
    problem: str
    """What is wrong."""
    remedy: str
    """What to do about it."""


def recognise(path: str, found_at: str = "") -> Part | IgnoredFile | BadFile:
    """Return what the file at ``path`` is.

    A file that cannot be read is an ignored one or a bad one; no error is raised for it.

    Args:
        path: the file; a symlink is not followed.
        found_at: the symlink that led to it, whose name counts; empty: none.
    """
    found_at = found_at or path
    name = os.path.basename(found_at)
    if is_companion(name):
        return IgnoredFile(found_at, "accompanies images", is_unexpected=False)
    if is_ignored_name(name):
        return IgnoredFile(found_at, "an unfinished upload, by its name", is_unexpected=True)
    try:
        found = _recognise(path, found_at)
    except TarballError as error:
        found = Fault(Code.TRUNCATED, f"cannot be used ({error})", _REMEDY)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        found = Fault(Code.UNREADABLE, problem, "give this user the right to read it")
    if not isinstance(found, Fault):
        return found
    if not claims_to_be_of_image(name):
        return IgnoredFile(found_at, found.problem, True, found.remedy)
    return BadFile(found_at, found.code, found.problem, found.remedy)


def claims_to_be_of_image(name: str) -> bool:
    """Return whether people take a file called ``name`` for one of an image."""
    return classify(name) is not None or _CLAIM.fullmatch(name) is not None


def _recognise(path: str, found_at: str) -> Part | IgnoredFile | BadFile | Fault:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return Fault(Code.NOT_A_FILE, "not a regular file", "remove it")
    name = os.path.basename(found_at)
    head = _read_head(path)
    if detect_compression(head) is not None or has_skippable_frame(head):
        return _recognise_tarball(path, found_at, status)
    target = _choose_name(name, head)
    role = classify(target) if target is not None else None
    if target is None or role is None:
        found, remedy = _describe(head, found_at)
        problem = f"not an image file ({found}; {_EXPECTED})"
        code = Code.WRONG_CONTENT if head else Code.EMPTY_FILE
        return Fault(code, problem, remedy)
    fault = find_fault(role, head, status.st_size)
    if fault is None and head.startswith(QCOW2_MAGIC):
        fault = _find_missing_part(path)
    if fault is not None:  # its first bytes are those of an image file, whatever its name
        return BadFile(found_at, fault.code, fault.problem, fault.remedy)
    return Part(path, target, role, status, found_at=found_at)


def _find_missing_part(path: str) -> Fault | None:
    try:
        check_disk(path)
    except DiskError as error:
        return Fault(Code.TRUNCATED, f"cannot be used ({error})", _REMEDY)
    return None


def _recognise_tarball(
    path: str, found_at: str, status: os.stat_result
) -> Part | IgnoredFile | Fault:
    contents = inspect_tarball(path)
    target = _choose_tarball_name(os.path.basename(found_at), contents)
    if target is None and "config" in contents.top_names:
        return IgnoredFile(found_at, "plain LXC metadata", is_unexpected=False)
    role = classify(target) if target is not None else None
    if target is None or role is None:
        found = "tarball with neither a metadata.yaml nor a root file system"
        return IgnoredFile(found_at, f"not an image file ({found})", is_unexpected=True)
    check_completeness(path, contents.compression)
    return Part(
        path,
        target,
        role,
        status,
        contents.metadata_yaml,
        is_virtual_machine=role.kind == "unified" and contents.has_disk,
        found_at=found_at,
    )


def _read_head(path: str) -> bytes:
    """Return the first ``_HEAD_BYTES`` bytes of a file, fewer if it is shorter."""
    with open_file(path) as file:
        return file.read(_HEAD_BYTES)


def _choose_name(name: str, head: bytes) -> str | None:
    """Return the name in the tree of a file that is not a tarball; None if it is of no image."""
    role = classify(name)
    if head.startswith((b"hsqs", b"sqsh")):
        return name if role is not None and role.ftype == "squashfs" else "rootfs.squashfs"
    if head.startswith(QCOW2_MAGIC):
        return name if name in _DISKS else "disk.qcow2"
    is_delta = role is not None and role.kind == "delta" and head.startswith(VCDIFF_MAGIC)
    return name if is_delta else None


def _choose_tarball_name(name: str, contents: Contents) -> str | None:
    """Return the name in the tree of a tarball; its suffix is that of the compression found."""
    role = classify(name)
    kind = role.kind if role is not None else ""
    stem = name.partition(".tar")[0]
    if contents.metadata_yaml is not None:
        if contents.has_rootfs or contents.has_disk:
            stem = stem if kind == "unified" else "incus_combined"
        elif kind != "metadata":
            stem = "lxd" if _LXD_NAME.fullmatch(stem) else "incus"
    elif contents.is_root or kind == "root":
        stem = stem if kind == "root" else "rootfs"
    else:
        return None
    return f"{stem}.tar.{contents.compression}".removesuffix(".")


def _describe(head: bytes, path: str) -> tuple[str, str]:
    """Return, for people, what a file is that belongs to no image, and what to do about it."""
    if head.startswith(_ISO_MAGIC, _ISO_MAGIC_OFFSET):  # first: it may also have a boot sector
        return "ISO image", _ISO_REMEDY
    other = find_magic(head, _OTHER_MAGICS)
    disk = "" if other else find_magic(head, OTHER_DISKS)
    if disk:
        return disk, f"put a qcow2 in its place: {_make_conversion(path)}"
    file_system = find_magic(head, _FILE_SYSTEMS)
    if file_system:
        return f"{file_system} file system that no machine boots from", _FILE_SYSTEM_REMEDY
    return other or _describe_text(head), _REMEDY


def _describe_text(head: bytes) -> str:
    if not head:
        return "empty file"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    return "text file" if _is_text(head) else "unknown format"


def _make_conversion(path: str) -> str:
    """Return the command that makes a qcow2 of another disk."""
    stem, suffix = os.path.splitext(path)
    made = f"{path if suffix == '.qcow2' else stem}.qcow2"
    return f"qemu-img convert -O qcow2 {shlex.quote(path)} {shlex.quote(made)}"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\f\r" for character in text)
