"""What N hostile files of one uploader cost the runs of a mirror: it must grow with N, not N².

    python benchmarks/hostile.py
    python benchmarks/hostile.py --counts 1000 2000 --only deltas links

For each kind, a tree with N such files is built twice: first as it is new, then after one file of
another product has changed, as in the next night. Twice as many should take twice as long.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from make_mirror import make_mirror
from measure import argument_parser, tell_lines

Make = Callable[[Path, int], object]
_OLD = 1_700_000_000


def _version(product: Path, number: int) -> Path:
    path = product / f"20240101_{number:06d}"
    path.mkdir(parents=True)
    return path


def _product(root: Path, number: int = 0) -> Path:
    return root / f"images/mallory/{number}/amd64/default"


def _make_tiny_mirror(root: Path, *, seed: int) -> None:
    """Make a mirror of one version, of tiny files."""
    make_mirror(
        root,
        versions=1,
        per_product=1,
        size_bytes=300,
        roots=("squashfs",),
        metadata=("incus",),
        seed=seed,
    )


def _sources(root: Path) -> Path:
    """Return a version of tiny files to link from."""
    directory = root / "sources"
    _make_tiny_mirror(directory, seed=7)
    return next(directory.rglob("incus.tar.xz")).parent


def _link_image(source: Path, version: Path, *names: str) -> None:
    for name in names or ("incus.tar.xz", "rootfs.squashfs"):
        os.link(source / name, version / name)


def make_deltas(root: Path, count: int) -> None:
    """N versions, hard links of one image, each with a delta from the next."""
    source = _sources(root)
    delta = source / "delta"
    delta.write_bytes(b"\xd6\xc3\xc4\0delta")
    os.utime(delta, (_OLD, _OLD))
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version)
        base = f"20240101_{(number + 1) % count:06d}"
        os.link(delta, version / f"rootfs.{base}.vcdiff")


def make_links(root: Path, count: int) -> None:
    """N versions whose root is a symlink to that of the one before, up to 40 steps away."""
    source = _sources(root)
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version, "incus.tar.xz")
        if number % 41:
            target = f"../20240101_{number - 1:06d}/rootfs.squashfs"
            (version / "rootfs.squashfs").symlink_to(target)
        else:
            _link_image(source, version, "rootfs.squashfs")


def make_long_links(root: Path, count: int) -> None:
    """N versions whose root is a symlink of 4,000 bytes, as many steps as it has room for."""
    source = _sources(root)
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version, "incus.tar.xz")
        steps = f"../{version.name}/" * (4000 // (len(version.name) + 4))
        (version / "rootfs.squashfs").symlink_to(steps + "real.squashfs")
        os.link(source / "rootfs.squashfs", version / "real.squashfs")


def make_metadata(root: Path, count: int) -> None:
    """N versions with metadata of their own, and one root of 1 MiB hard-linked into each."""
    made = root / "made"
    make_mirror(
        made,
        versions=count,
        per_product=count,
        size_bytes=1,
        roots=(),
        metadata=("incus",),
        seed=3,
    )
    big = root / "big"
    make_mirror(
        big, versions=1, per_product=1, size_bytes=1 << 20, roots=("squashfs",), metadata=(), seed=3
    )
    source = next(big.rglob("rootfs.squashfs"))
    for number, metadata in enumerate(made.rglob("incus.tar.xz")):
        version = _version(_product(root), number)
        metadata.rename(version / metadata.name)
        os.link(source, version / source.name)


def make_toml(root: Path, count: int) -> None:
    """N products with a hard link of one .product.toml of 64 KiB: as many keys as there is room."""
    source = _sources(root)
    toml = source / "toml"
    toml.write_text("".join(f"key{number} = 1\n" for number in range(5000)))
    for number in range(count):
        version = _version(_product(root, number), 0)
        _link_image(source, version)
        os.link(toml, version.parent / ".product.toml")


def make_aliases(root: Path, count: int) -> None:
    """N products that inherit 100 aliases, each with eight long placeholders."""
    source = _sources(root)
    for number in range(count):
        version = _version(root / f"images/mallory/{'r' * 240}{number}/amd64/{'v' * 250}", 0)
        _link_image(source, version)
    names = (f'"{number}{"{variant}{release}" * 4}"' for number in range(100))
    (root / "images/mallory/.product.toml").write_text(f"aliases = [{', '.join(names)}]\n")


def make_sparse(root: Path, count: int) -> None:
    """N roots of 16 GiB each, all of them holes but for the first bytes."""
    source = _sources(root)
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version, "incus.tar.xz")
        with (version / "rootfs.squashfs").open("wb") as file:
            file.write((source / "rootfs.squashfs").read_bytes())
            file.truncate(16 << 30)


def make_pages(root: Path, count: int) -> None:
    """N roots of 1 MiB that are HTML pages."""
    source = _sources(root)
    page = source / "page"
    page.write_bytes(b"<!DOCTYPE html>" + bytes(1 << 20))
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version, "incus.tar.xz")
        os.link(page, version / "disk.qcow2")


def make_checksums(root: Path, count: int) -> None:
    """N versions with a hard link of one SHA256SUMS of 64 KiB."""
    source = _sources(root)
    sums = source / "SHA256SUMS"
    sums.write_text("".join(f"{number:064x}  file{number}\n" for number in range(840)))
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version)
        os.link(sums, version / "SHA256SUMS")


def make_locks(root: Path, count: int) -> list[int]:
    """N versions whose temporary cache file somebody keeps locked; at most 10,000 of them."""
    source = _sources(root)
    held: list[int] = []
    for number in range(count):
        version = _version(_product(root), number)
        _link_image(source, version)
        if number < 10_000:
            descriptor = os.open(version / ".items.json.tmp", os.O_WRONLY | os.O_CREAT)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held.append(descriptor)
    return held


KINDS: dict[str, Make] = {
    "deltas": make_deltas,
    "links": make_links,
    "long-links": make_long_links,
    "metadata": make_metadata,
    "toml": make_toml,
    "aliases": make_aliases,
    "sparse": make_sparse,
    "pages": make_pages,
    "checksums": make_checksums,
    "locks": make_locks,
}


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=1)
    parser.add_argument("--counts", type=int, nargs=2, default=(10_000, 20_000))
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    first: dict[str, dict[int, list[float]]] = {}
    again: dict[str, dict[int, list[float]]] = {}
    for kind in arguments.only:
        runs = {count: _measure(KINDS[kind], count, arguments) for count in arguments.counts}
        first[kind] = {count: [new] for count, (new, _) in runs.items()}
        again[kind] = {count: [old] for count, (_, old) in runs.items()}
        few, many = (new for new, _ in runs.values())
        print(f"{kind:<12} {few:8.2f} s {many:8.2f} s, {many / few:.2f} times", flush=True)
    panels = {"s, first build": first, "s, next build": again}
    tell_lines("N hostile files of one uploader", "N", panels, {}, arguments.record)
    return 0


def _measure(make: Make, count: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds of the first build of N hostile files, and of the next after a change."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        root = Path(directory)
        _make_tiny_mirror(root, seed=1)
        held = make(root, count)
        first = _build(root)
        honest = next((root / "images/debian").rglob("rootfs.squashfs"))
        os.utime(honest, (_OLD, _OLD))
        again = _build(root)
        for descriptor in held if isinstance(held, list) else ():
            os.close(descriptor)
        return first, again


def _build(root: Path) -> float:
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("fastindex")), "-q", str(root)]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode not in (0, 3):
        print(result.stderr.decode()[-500:], file=sys.stderr)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
