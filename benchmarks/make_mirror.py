"""Make a mirror for trials and benchmarks: seeded, with valid metadata in its tarballs.

    python benchmarks/make_mirror.py /tmp/mirror
    python benchmarks/make_mirror.py --versions 8 --size 512M --roots squashfs /tmp/big
    python benchmarks/make_mirror.py --tiny --versions 20000 /tmp/many

The roots hold random bytes behind the right first ones, not file systems: they hash, import and
download like the real thing, but do not boot. Modification times are the versions' dates,
so that caches are trusted from the first run on.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import random
import re
import struct
import sys
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_ROOT_NAMES = {"squashfs": "rootfs.squashfs", "disk": "disk.qcow2", "tar": "rootfs.tar.xz"}
_SUPERBLOCK = struct.Struct("<4s4I6H8Q")  # fs/squashfs/squashfs_fs.h of Linux
_QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")  # docs/interop/qcow2 of QEMU
_XZ_MAGIC = b"\xfd7zXZ\0"
_DISTRIBUTIONS = ("debian/12", "debian/13", "ubuntu/24.04", "alpine/3.20", "fedora/42")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_FIRST_DAY = datetime(2020, 1, 1, 5, 24, tzinfo=UTC)
_BLOCK_BYTES = 1 << 20
TINY_BYTES = 300
"""Length of a root where only the number of files counts."""


def make_mirror(
    root: Path,
    *,
    versions: int,
    per_product: int,
    size_bytes: int | Sequence[int],
    roots: tuple[str, ...],
    metadata: tuple[str, ...],
    seed: int,
) -> int:
    """Write ``versions`` versions below ``root``/images; return the bytes of all files.

    Args:
        root: the directory to serve.
        versions: how many in all.
        per_product: how many a product has.
        size_bytes: length of each root; or of those of each version.
        roots: which kinds: keys of squashfs, disk, tar.
        metadata: ``incus``, ``lxd`` or both; their contents differ.
        seed: equal seeds give equal trees.
    """
    randomness = random.Random(seed)
    sizes = [size_bytes] * versions if isinstance(size_bytes, int) else size_bytes
    block = randomness.randbytes(min(_BLOCK_BYTES, max(*sizes, 1)))
    total_bytes = 0
    for number, length in enumerate(sizes):
        product, age = divmod(number, per_product)
        os_release, arch, variant = _product(product)
        day = _FIRST_DAY + timedelta(days=age)
        directory = root / "images" / os_release / arch / variant / f"{day:%Y%m%d_%H:%M}"
        directory.mkdir(parents=True)
        for client in metadata:
            data = _metadata_tarball(os_release, arch, variant, client, day, number)
            total_bytes += _write(directory / f"{client}.tar.xz", [data], day)
        for kind in roots:
            start = make_start(kind, length)
            pieces = _pieces(block, length, start, f"{seed} {number} {kind}".encode())
            total_bytes += _write(directory / _ROOT_NAMES[kind], pieces, day)
    return total_bytes


def make_tiny_mirror(root: Path, versions: int, *roots: str) -> None:
    """Write many versions of small files: 10 a product, both metadata files and ``roots``."""
    make_mirror(
        root,
        versions=versions,
        per_product=10,
        size_bytes=TINY_BYTES,
        roots=roots,
        metadata=("incus", "lxd"),
        seed=1,
    )


def forget_state(root: Path) -> None:
    """Remove what tells that nothing has changed, so that a build opens all caches."""
    for pattern in (".snapshot.json", ".products-*.state"):
        for path in (root / "streams").glob(pattern):
            path.unlink()


def _product(number: int) -> tuple[str, str, str]:
    number, arch = divmod(number, len(_ARCHITECTURES))
    variant, distribution = divmod(number, len(_DISTRIBUTIONS))
    name = "default" if variant == 0 else f"variant{variant}"
    return _DISTRIBUTIONS[distribution], list(_ARCHITECTURES)[arch], name


def make_start(kind: str, size_bytes: int) -> bytes:
    """Return how a root of ``kind`` and that length starts, as far as anybody looks."""
    if kind == "squashfs":
        absent = (1 << 64) - 1
        tables = (size_bytes, _SUPERBLOCK.size, absent, *4 * (_SUPERBLOCK.size,))
        return _SUPERBLOCK.pack(b"hsqs", 1, 0, 131072, 0, 1, 17, 0xC0, 1, 4, 0, 0, *tables)
    if kind == "disk":
        fields = (max(size_bytes, 1 << 20), 0, 1, 0x30000, 0x10000, 1, 0, 0)
        features = (0, 0, 0, 4, _QCOW2_HEADER.size)
        return _QCOW2_HEADER.pack(b"QFI\xfb", 3, 0, 0, 16, *fields, *features)
    return _XZ_MAGIC


def write_version(directory: Path) -> None:
    """Write one more small version with a squashfs into ``directory``, which is new."""
    directory.mkdir()
    start = make_start("squashfs", TINY_BYTES)
    (directory / "incus.tar.xz").write_bytes(_XZ_MAGIC + b"new")
    (directory / "rootfs.squashfs").write_bytes(start.ljust(TINY_BYTES, b"\n"))


def _pieces(block: bytes, size_bytes: int, start: bytes, header: bytes) -> Iterator[bytes]:
    """Yield ``size_bytes`` bytes that differ from file to file and from block to block."""
    offset = 0
    while offset < size_bytes:
        mark = b"%s%s %d\n" % (b"" if offset else start, header, offset)
        piece = (mark + block)[: min(len(block), size_bytes - offset)]
        yield piece
        offset += len(piece)


def _metadata_tarball(
    os_release: str, arch: str, variant: str, client: str, day: datetime, number: int
) -> bytes:
    distribution, release = os_release.split("/")
    text = (
        f"architecture: {_ARCHITECTURES[arch]}\n"
        f"creation_date: {day.timestamp():.0f}\n"
        "properties:\n"
        f"  architecture: {arch}\n"
        f"  description: {distribution} {release} {arch} for {client}\n"
        f"  os: {distribution}\n"
        f'  release: "{release}"\n'
        f'  serial: "{day:%Y%m%d_%H:%M}"\n'
        f'  trial: "{number}"\n'
        f"  variant: {variant}\n"
    ).encode()
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as archive:
        member = tarfile.TarInfo("metadata.yaml")
        member.size = len(text)
        member.mtime = day.timestamp()
        archive.addfile(member, io.BytesIO(text))
    return lzma.compress(tarball.getvalue(), preset=0)


def _write(path: Path, pieces: Iterator[bytes] | list[bytes], day: datetime) -> int:
    size_bytes = 0
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            size_bytes += file.write(piece)
    os.utime(path, (day.timestamp(), day.timestamp()))
    return size_bytes


def size_argument(word: str) -> int:
    """Return the bytes that ``word`` (300, 64K, 512M, 4G) stands for."""
    match = re.fullmatch(r"(\d+)([KMG]?)", word)
    if match is None:
        raise argparse.ArgumentTypeError(f"{word!r} is no size such as 300, 64K, 512M or 4G")
    return int(match[1]) * _UNITS[match[2]]


def _kinds(word: str) -> tuple[str, ...]:
    kinds = tuple(word.split(","))
    if not set(kinds) <= set(_ROOT_NAMES):
        raise argparse.ArgumentTypeError(f"{word!r}: choose among {','.join(_ROOT_NAMES)}")
    return kinds


def main() -> int:
    """Make a mirror as the command line says; print its size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--versions", type=int, default=12, help="in all (default: 12)")
    parser.add_argument("--per-product", type=int, default=3, help="of a product (default: 3)")
    parser.add_argument(
        "--size", type=size_argument, default="8M", help="of each root (default: 8M)"
    )
    parser.add_argument("--roots", type=_kinds, default="squashfs,disk", metavar="KIND,…")
    parser.add_argument("--one-metadata", action="store_true", help="incus.tar.xz only")
    parser.add_argument("--tiny", action="store_true", help="roots of 300 bytes, 10 a product")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if (arguments.root / "images").exists():
        print(f"{arguments.root}/images is there already", file=sys.stderr)
        return 1
    total_bytes = make_mirror(
        arguments.root,
        versions=arguments.versions,
        per_product=10 if arguments.tiny else arguments.per_product,
        size_bytes=TINY_BYTES if arguments.tiny else arguments.size,
        roots=arguments.roots,
        metadata=("incus",) if arguments.one_metadata else ("incus", "lxd"),
        seed=arguments.seed,
    )
    print(f"{arguments.versions} versions, {total_bytes:,} bytes in {arguments.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
