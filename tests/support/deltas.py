"""Pairs of similar roots, a stand-in for xdelta3 that disturbs it, and what the daemon does."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.contents import make_squashfs
from tests.support.tools import needs
from tests.support.trees import OLD_NS, Files, catalogue, version

INSTALL_LINE = "apt-get install xdelta3"


@cache
def find_xdelta3() -> str:
    """Return the path of the real program: that of the first call, before one is disturbed."""
    return needs("xdelta3", INSTALL_LINE)


def similar_roots(count: int, seed: int | str, size_bytes: int = 200_000) -> list[bytes]:
    """Return roots each of which has most of the bytes of the one before."""
    chance = random.Random(seed)
    body = bytearray(chance.randbytes(size_bytes))
    roots: list[bytes] = []
    for _ in range(count):
        roots.append(make_squashfs(bytes(body)))
        for _ in range(3):
            at = chance.randrange(len(body))
            body[at : at + chance.randrange(2000)] = chance.randbytes(chance.randrange(2000))
    return roots


def series(product: str, names: list[str], size_bytes: int = 200_000) -> Files:
    """Return versions of a product that are similar to each other, the oldest first."""
    tree: Files = {}
    for name, root in zip(names, similar_roots(len(names), product, size_bytes), strict=True):
        metadata = version(f"{product}/{name}")
        tree |= {path: content for path, content in metadata.items() if path.endswith(".xz")}
        tree[f"images/{product}/{name}/rootfs.squashfs"] = root
    return tree


def make_random_squashfs(work: Path, chance: random.Random, targets: list[Path]) -> None:
    """Make real squashfs files of one random tree, which changes from one to the next."""
    mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    compression = chance.choice(("gzip", "xz", "zstd", "lz4"))
    for number in range(chance.randrange(1, 12)):
        (tree / f"f{number}").write_bytes(_random_content(chance))
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        words = ["-noappend", "-no-progress", "-quiet", "-all-root", "-comp", compression]
        subprocess.run([mksquashfs, tree, target, *words], check=True, capture_output=True)
        os.utime(target, ns=(OLD_NS, OLD_NS))
        for _ in range(chance.randrange(3)):
            changed = tree / f"f{chance.randrange(14)}"
            if changed.exists() and chance.random() < 0.3:
                changed.unlink()
            else:
                changed.write_bytes(_random_content(chance))


def _random_content(chance: random.Random) -> bytes:
    size = int(2 ** chance.uniform(0, 18))
    return chance.randbytes(size) if chance.random() < 0.5 else chance.randbytes(7) * (size // 7)


def list_deltas(root: Path, stream: str = "images") -> dict[str, dict[str, Any]]:
    """Return each published delta: its path → its item."""
    return {
        item["path"]: item
        for product in catalogue(root, stream)["products"].values()
        for version in product["versions"].values()
        for item in version["items"].values()
        if item["ftype"].endswith(".vcdiff")
    }


def decode_as_the_daemon(root: Path, work: Path) -> dict[str, bytes]:
    """Decode each published delta as incusd does, by the catalogue alone; return path → bytes."""
    decoded: dict[str, bytes] = {}
    for product in catalogue(root)["products"].values():
        versions = product["versions"]
        for newer in versions.values():
            for item in newer["items"].values():
                if item["ftype"] == "squashfs.vcdiff":
                    (base,) = (
                        one["path"]
                        for one in versions[item["delta_base"]]["items"].values()
                        if one["ftype"] == "squashfs"
                    )
                    output = work / "decoded"
                    words = ["-f", "-d", "-s", root / base, root / item["path"], output]
                    subprocess.run([find_xdelta3(), *words], check=True, capture_output=True)
                    decoded[item["path"]] = output.read_bytes()
    return decoded


def list_hidden(root: Path) -> set[str]:
    """Return what runs and killed runs may leave among the images."""
    return {
        str(path.relative_to(root))
        for path in (root / "images").rglob(".*")
        if path.name != ".items.json"
    }


def disturb(directory: Path, *lines: str) -> Path:
    """Write a program called xdelta3 that does something else as well; return its directory.

    Args:
        directory: gets ``bin``, and ``calls``, which has a line for each call.
        lines: of a shell script; ``$real`` is the real program, ``$1`` is ``-e`` or ``-d``.
    """
    place = directory / "bin"
    place.mkdir(exist_ok=True)
    script = place / "xdelta3"
    assert Path(find_xdelta3()) != script  # it would call itself for ever
    head = ["#!/bin/sh", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"real={find_xdelta3()}"]
    text = "\n".join([*head, f"echo $1 >> {directory}/calls", *lines, 'exec $real "$@"', ""])
    script.write_text(text)
    script.chmod(0o755)
    return place


def count_calls(directory: Path) -> tuple[int, int]:
    """Return how often a disturbed program has encoded and decoded."""
    try:
        calls = (directory / "calls").read_text().split()
    except FileNotFoundError:
        return 0, 0
    return calls.count("-e"), calls.count("-d")


def read_record(root: Path) -> dict[str, Any]:
    """Return what is recorded about deltas."""
    found: dict[str, Any] = json.loads((root / "streams/.deltas.json").read_bytes())
    return found
