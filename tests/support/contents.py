"""The smallest files that are what their names say, judging by their first bytes.

Formats: fs/squashfs/squashfs_fs.h of Linux, docs/interop/qcow2 of QEMU, RFC 3284 (VCDIFF).
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import tarfile
from collections.abc import Sequence

_SQUASHFS_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_ABSENT = (1 << 64) - 1


def make_content(name: str, salt: bytes | str) -> bytes:
    """Return a file called ``name`` that every check of its first bytes accepts.

    Args:
        name: its name in a version directory.
        salt: different salts give different files.
    """
    body = os.fsencode(salt) if isinstance(salt, str) else salt
    if name.endswith(".squashfs"):
        return make_squashfs(body)
    if name.endswith((".qcow2", ".img")):
        return make_qcow2(body)
    if name.endswith(".vcdiff"):
        return b"\xd6\xc3\xc4\0" + body
    return make_tarball({"metadata.yaml": b"# " + body.hex().encode() + b"\n"})


def make_squashfs(body: bytes, missing_bytes: int = 0) -> bytes:
    """Return a squashfs superblock and ``body``; the superblock counts ``missing_bytes`` more."""
    end = _SQUASHFS_SUPERBLOCK.size + len(body) + missing_bytes
    tables = (96, _ABSENT, 96, 96, 96, 96)
    head = (b"hsqs", 1, 0, 131072, 0, 1, 17, 0xC0, 1, 4, 0, 0, end, *tables)
    return _SQUASHFS_SUPERBLOCK.pack(*head) + body


def make_qcow2(body: bytes, version: int = 3, cluster_bits: int = 16) -> bytes:
    """Return a qcow2 header and ``body``."""
    table, counts = 0x30000, 0x10000
    head = (b"QFI\xfb", version, 0, 0, cluster_bits, 1 << 20, 0, 1, table, counts, 1, 0, 0)
    return _QCOW2_HEADER.pack(*head, 0, 0, 0, 4, 104) + body


def make_disk(
    entries: Sequence[int],
    l1: Sequence[int] = (2048,),
    *,
    disk_bytes: int = 1 << 20,
    data_bytes: int = 0,
    features: int = 0,
    version: int = 3,
) -> bytes:
    """Return a qcow2 disk with clusters of 512 bytes: header, counts, an L1 and an L2 table, data.

    Args:
        entries: the words of the L2 table, which is at 2048; data starts at 2560.
        l1: the words of the L1 table, which is at 1536.
        disk_bytes: the length of the disk.
        data_bytes: how much comes after the L2 table.
        features: the incompatible features.
        version: of the format.
    """
    head = (b"QFI\xfb", version, 0, 0, 9, disk_bytes, 0, len(l1), 1536, 512, 1, 0, 0)
    header = _QCOW2_HEADER.pack(*head, features, 0, 0, 4, 104)
    counts = struct.pack(">Q", 1024), struct.pack(">8H", *[1] * 8)
    tables = (struct.pack(f">{len(words)}Q", *words) for words in (l1, entries))
    parts = [header, *counts, *tables]
    return b"".join(part.ljust(512, b"\0") for part in parts) + bytes(data_bytes)


def make_tarball(files: dict[str, bytes]) -> bytes:
    """Return a .tar.xz with ``files``."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(tarball.getvalue(), preset=0)
