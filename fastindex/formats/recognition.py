"""What a file that a builder made is: its content tells, whatever its name.

distrobuilder, lxd-imagebuilder and ``incus image export`` name their files in ways of
their own (``incus.tar.xz`` + ``rootfs.squashfs``, ``meta-FP.tar.xz`` + ``FP.squashfs``,
``NAME`` + ``NAME.root``, ``NAME.tar.gz``). A name is only a hint here: the magic bytes
decide, and what a tarball holds.
"""

from __future__ import annotations

import os
import stat

from msgspec import Struct

from fastindex.formats.names import FileRole, classify, is_companion, is_passed_over
from fastindex.formats.tar import TarballError
from fastindex.formats.tarball import Contents, compression_of, look_into

_HEAD_BYTES = 512
_DISKS = ("disk1.img", "uefi1.img")


class Part(Struct, frozen=True):
    """A file of an image."""

    path: str
    """Where it lies."""
    name: str
    """Its name in the tree."""
    role: FileRole
    """What that name means."""
    status: os.stat_result
    """As it was when it was looked at."""
    metadata_yaml: bytes | None = None
    """From the tarball, where it is metadata or a unified image."""


class Rest(Struct, frozen=True):
    """A file that belongs to no image."""

    path: str
    """Where it lies, and stays."""
    what: str
    """What it is taken for."""
    is_alien: bool
    """Whether a person should know."""


def recognise(path: str) -> Part | Rest:
    """Tell what the file at ``path`` is; never raises on account of it."""
    name = os.path.basename(path)
    if is_companion(name):
        return Rest(path, "stands beside images", is_alien=False)
    if is_passed_over(name):
        return Rest(path, "an upload that has not ended, by its name", is_alien=True)
    try:
        return _recognise(path)
    except TarballError as error:
        return Rest(path, str(error), is_alien=True)
    except OSError as error:
        return Rest(path, f"cannot be read ({error.strerror})", is_alien=True)


def _recognise(path: str) -> Part | Rest:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return Rest(path, "no regular file", is_alien=True)
    name = os.path.basename(path)
    head = _head(path)
    metadata: bytes | None = None
    if compression_of(head) is not None:
        contents = look_into(path)
        metadata = contents.metadata_yaml
        target = _tarball_name(name, contents)
        if target is None and "config" in contents.top_names:
            return Rest(path, "plain LXC metadata", is_alien=False)
    else:
        target = _root_name(name, head)
    role = classify(target) if target is not None else None
    if target is None or role is None:
        return Rest(path, "no file of an image", is_alien=True)
    return Part(path, target, role, status, metadata)


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    head = b""
    try:
        # one read may return less, as network file systems do
        while len(head) < _HEAD_BYTES and (piece := os.read(descriptor, _HEAD_BYTES - len(head))):
            head += piece
    finally:
        os.close(descriptor)
    return head


def _root_name(name: str, head: bytes) -> str | None:
    """Return the name in the tree of what is no tarball."""
    role = classify(name)
    if head.startswith((b"hsqs", b"sqsh")):
        return name if role is not None and role.ftype == "squashfs" else "rootfs.squashfs"
    if head.startswith(b"QFI\xfb"):
        return name if name in _DISKS else "disk.qcow2"
    if head.startswith(b"\xd6\xc3\xc4"):
        return name if role is not None and role.kind == "delta" else None
    is_partitioned = head[510:512] == b"\x55\xaa"
    return name if name in _DISKS and is_partitioned else None


def _tarball_name(name: str, contents: Contents) -> str | None:
    """Return the name in the tree of a tarball; its compression is what it is, not is called."""
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
