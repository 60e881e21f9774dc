"""Whether a file can be what its name says, judging by its first bytes.

The daemon decides by the first bytes how to unpack a file, never by its name. An HTML page called
``disk.qcow2`` is downloaded, verified against the catalogue, and then of no use.

Formats: fs/squashfs/squashfs_fs.h of Linux, docs/interop/qcow2 of QEMU, RFC 3284 (VCDIFF),
``DetectCompression`` in ``shared/archive`` of lxc/incus for what daemons know, and ``block/`` of
QEMU for the disks that they do not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from msgspec import Struct

from fastindex.errors import Code
from fastindex.formats.names import FileRole
from fastindex.formats.simplestreams import SQUASHFS

HEAD_BYTES = 512
"""How many bytes from the start of a file are enough to judge it."""

_COMPRESSIONS = (
    (b"\xfd7zXZ\0", "xz"),
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_TAR_MAGIC, _TAR_MAGIC_OFFSET = b"ustar", 257
_SQUASHFS_MAGIC = b"hsqs"
_SUPERBLOCK = struct.Struct("<12xI4xHH4xHH8xQQQQQQQ")
"""Block size, compressor, block_log, version, length, and where the tables of ids,
attributes, inodes, directories, fragments and exports start."""
_SUPERBLOCK_BYTES = _SUPERBLOCK.size
_BLOCK_LOGS = range(12, 21)
"""Logarithms of the block sizes that there are: 4 KiB to 1 MiB."""
_COMPRESSORS = range(1, 7)
"""gzip, lzma, lzo, xz, lz4 and zstd."""
_SQUASHFS_VERSION = (4, 0)
_NO_TABLE = (1 << 64) - 1
"""Where a table starts that a squashfs does without."""
QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sIQIIQI")
"""Magic, version, offset and length of the backing file's name, cluster_bits, size, encryption."""
_QCOW2_FEATURES_OFFSET = 72
_QCOW2_DATA_FILE = 1 << 2
"""The incompatible feature of a disk whose data is in another file."""
_QCOW2_LENGTH_OFFSET = 100
_QCOW2_MIN_BYTES = {2: 72, 3: 104}
_CLUSTER_BITS = range(9, 22)
VCDIFF_MAGIC = b"\xd6\xc3\xc4"
OTHER_DISKS = (
    (b"KDMV", 0, "VMDK disk"),
    (b"COWD", 0, "VMDK disk"),
    (b"# Disk DescriptorFile", 0, "VMDK disk"),
    (b"\x7f\x10\xda\xbe", 64, "VDI disk"),
    (b"vhdxfile", 0, "VHDX disk"),
    (b"conectix", 0, "VHD disk"),
    (b"\x55\xaa", 510, "raw disk"),
)
"""Disks that ``qemu-img`` makes a qcow2 of: magic, offset, name. That of a raw disk is the mark of
its boot sector: one with an MBR or GPT has it."""
_MAX_DISK_BYTES = 1 << 56
"""No disk is larger: QEMU refuses one whose table of clusters has more than 32 MiB."""


class Fault(Struct, frozen=True):
    """Why a file cannot be what its name says."""

    code: Code
    """What kind of thing is wrong."""
    problem: str
    """What is wrong, for people."""
    remedy: str = "upload it again, or remove it"
    """What to do about it."""


def detect_compression(head: bytes) -> str | None:
    """Return the compression of a tarball as daemons detect it.

    Args:
        head: the first ``HEAD_BYTES`` bytes of the file, or all of it.

    Returns:
        ``xz``, ``gz``, ``bz2``, ``zst``, ``lzma``, ``lz4``, or empty for a plain tarball; None if
        it is no tarball that a daemon could unpack.
    """
    for magic, compression in _COMPRESSIONS:
        if head.startswith(magic):
            return compression
    return "" if head.startswith(_TAR_MAGIC, _TAR_MAGIC_OFFSET) else None


def find_magic(head: bytes, magics: Iterable[tuple[bytes, int, str]]) -> str:
    """Return the name of the first of ``magics`` that a file has; empty if it has none.

    Args:
        head: the first bytes of the file.
        magics: magic bytes, each with its offset and the name of what has it.
    """
    return next((name for magic, offset, name in magics if head.startswith(magic, offset)), "")


def find_fault(role: FileRole, head: bytes, size_bytes: int) -> Fault | None:
    """Return why a file cannot be what its name says; None if its first bytes fit.

    Args:
        role: what its name says.
        head: its first ``HEAD_BYTES`` bytes, or all of it.
        size_bytes: its length.
    """
    if not size_bytes:
        return Fault(Code.EMPTY_FILE, "is empty")
    if role.kind == "delta":
        expected, is_right = "VCDIFF delta", head.startswith(VCDIFF_MAGIC)
    elif role.ftype == SQUASHFS:
        expected, is_right = "squashfs", head.startswith(_SQUASHFS_MAGIC)
    elif role.kind == "root" and role.ftype.endswith(".img"):
        expected, is_right = "qcow2 disk", head.startswith(QCOW2_MAGIC)
    else:
        expected, is_right = "tarball", detect_compression(head) is not None
    if not is_right:
        disk = find_magic(head, OTHER_DISKS)
        found = f" (a {disk})" if disk else _describe(head)
        problem = f"is not a {expected}, judging by its first bytes{found}"
        if disk and expected == "qcow2 disk":
            return Fault(Code.WRONG_CONTENT, problem, "convert it with qemu-img convert -O qcow2")
        return Fault(Code.WRONG_CONTENT, problem)
    if expected == "squashfs":
        return _find_squashfs_fault(head, size_bytes)
    if expected == "qcow2 disk":
        return _find_qcow2_fault(head)
    return None


def _find_squashfs_fault(head: bytes, size_bytes: int) -> Fault | None:
    if len(head) < _SUPERBLOCK_BYTES:
        return Fault(Code.TRUNCATED, "is a squashfs that ends within its superblock")
    block_bytes, compressor, block_log, major, minor, used_bytes, *tables = _SUPERBLOCK.unpack_from(
        head
    )
    ids, attributes, inodes, directories, fragments, exports = tables
    if used_bytes > size_bytes:
        problem = f"is a squashfs of {used_bytes:,} bytes, of which only {size_bytes:,} are there"
        return Fault(Code.TRUNCATED, problem)
    is_sound = (
        block_log in _BLOCK_LOGS
        and block_bytes == 1 << block_log
        and compressor in _COMPRESSORS
        and (major, minor) == _SQUASHFS_VERSION
        and all(_SUPERBLOCK_BYTES <= start <= used_bytes for start in (ids, inodes, directories))
        and all(
            start <= used_bytes or start == _NO_TABLE for start in (attributes, fragments, exports)
        )
    )
    if not is_sound:
        return Fault(Code.WRONG_CONTENT, "is a squashfs with a meaningless superblock")
    return None


def _find_qcow2_fault(head: bytes) -> Fault | None:
    if len(head) < _QCOW2_HEADER.size:
        return Fault(Code.TRUNCATED, "is a qcow2 disk that ends within its header")
    _, version, backing_offset, _, cluster_bits, disk_bytes, crypt_method = (
        _QCOW2_HEADER.unpack_from(head)
    )
    min_bytes = _QCOW2_MIN_BYTES.get(version, 0)
    if len(head) < min_bytes:
        return Fault(Code.TRUNCATED, "is a qcow2 disk that ends within its header")
    header_bytes = int.from_bytes(head[_QCOW2_LENGTH_OFFSET:][:4], "big") if version == 3 else 72
    is_sound = (
        min_bytes <= header_bytes
        and cluster_bits in _CLUSTER_BITS
        and 0 < disk_bytes <= _MAX_DISK_BYTES
    )
    if not min_bytes or not is_sound:
        return Fault(Code.WRONG_CONTENT, "is a qcow2 disk with a meaningless header")
    features = int.from_bytes(head[_QCOW2_FEATURES_OFFSET:][:8], "big") if version == 3 else 0
    if backing_offset or features & _QCOW2_DATA_FILE:
        problem = "is a qcow2 disk that needs another file (a backing file or a data file)"
        return Fault(Code.WRONG_CONTENT, problem)
    if crypt_method:
        return Fault(Code.WRONG_CONTENT, "is an encrypted qcow2 disk, which no daemon can open")
    return None


def _describe(head: bytes) -> str:
    """Return, for people, what a file seems to be instead."""
    start = head.lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return " (an HTML page)"
    if not head.strip(b"\0"):
        return " (zeros)"
    return ""
