"""The smallest files that are what their names say, judging by their first bytes.

Formats: fs/squashfs/squashfs_fs.h of Linux, docs/interop/qcow2 of QEMU, RFC 3284 (VCDIFF).
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import tarfile

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


def make_tarball(files: dict[str, bytes]) -> bytes:
    """Return a .tar.xz with ``files``."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(tarball.getvalue(), preset=0)
