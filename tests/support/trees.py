"""A tree as a literal: ``write_tree(root, {"images/…/incus.tar.xz": b"…"})``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastindex.formats.content import HEAD_BYTES, find_fault
from fastindex.formats.names import classify
from fastindex.formats.simplestreams import Item, Product, ProductFile, Version
from tests.support.contents import make_content

OLD_NS = 1_700_000_000_000_000_000
"""A modification time that any cache trusts (November 2023)."""

Tree = Mapping[str, bytes | str | None]
"""Path → content of a file, target of a symlink (a str), or None for a directory."""


def write_tree(root: Path, tree: Tree, mtime_ns: int = OLD_NS) -> Path:
    """Write ``tree`` below ``root``; files get ``mtime_ns``."""
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            write_file(path, content, mtime_ns)
    return root


def write_file(path: Path, content: bytes, mtime_ns: int = OLD_NS) -> None:
    """Write a file. One of an image becomes what its name says, with ``content`` somewhere in it.

    Empty content stays empty, and what is right already stays as it is.
    """
    path.write_bytes(fit_content(path.name, content))
    os.utime(path, ns=(mtime_ns, mtime_ns))


def fit_content(name: str, content: bytes) -> bytes:
    """Return a file that is what ``name`` says, if it is that of an image's file."""
    role = classify(name)
    if role is None or not content or find_fault(role, content[:HEAD_BYTES], len(content)) is None:
        return content
    return make_content(name, content)


Files = dict[str, bytes | str | None]


def version(path: str = "debian/12/amd64/default/20240505_05:24", /, **files: bytes) -> Files:
    """Return one whole version: incus.tar.xz and rootfs.squashfs, unique to ``path``.

    ``files`` replaces them: ``_`` in a name stands for ``.``.
    """
    chosen = {name.replace("_", "."): content for name, content in files.items()} or {
        name: make_content(name, path) for name in ("incus.tar.xz", "rootfs.squashfs")
    }
    return {f"images/{path}/{name}": content for name, content in chosen.items()}


def in_stream(stream: str, tree: Files) -> Files:
    """Return ``tree`` with ``stream`` for ``images``."""
    return {f"{stream}/{path.removeprefix('images/')}": item for path, item in tree.items()}


def catalogue(root: Path, stream: str = "images") -> dict[str, Any]:
    """Return the published product file, decoded."""
    decoded: dict[str, Any] = json.loads((root / f"streams/v1/{stream}.json").read_bytes())
    return decoded


def published(root: Path, stream: str = "images") -> set[str]:
    """Return ``PRODUCT VERSION`` of all that is published."""
    products = catalogue(root, stream)["products"]
    return {f"{key} {name}" for key, product in products.items() for name in product["versions"]}


def product_file(sha256: str) -> ProductFile:
    """Return a product file of one version of one metadata file with that digest."""
    item = Item(ftype="incus.tar.xz", path="images/x", size=1, sha256=sha256)
    product = Product(
        aliases="a",
        arch="amd64",
        os="a",
        release="b",
        release_title="b",
        variant="c",
        requirements={},
        versions={"20240101": Version(items={"incus.tar.xz": item})},
    )
    return ProductFile(content_id="images", products={"a:b:amd64:c": product})


def forget_state(root: Path) -> None:
    """Remove what lets the next run keep products as they are: it looks at all of them again.

    Args:
        root: the output directory.
    """
    streams = root / "streams"
    for path in (streams / ".snapshot.json", *streams.glob(".products-*.state")):
        path.unlink(missing_ok=True)


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """Return (inode, mtime_ns) of every file below ``root``, but for what each run records."""
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if not (path.is_dir() or path.name.startswith(".run-"))
    }
