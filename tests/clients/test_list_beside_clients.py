"""What ``fastindex list`` tells beside what the real clients list."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastindex.catalogue.images import list_images
from fastindex.catalogue.published import open_catalogue
from fastindex.formats.names import ARCHITECTURES
from tests.support.clients.image_maker import (
    DISK,
    INCUS_COMBINED,
    INCUS_METADATA,
    LXD_COMBINED,
    LXD_METADATA,
    NEWER,
    OLDER,
    PRODUCT,
    SQUASHFS,
    TARBALL,
    ImageMaker,
)
from tests.support.clients.mirror_server import Mirror
from tests.support.clients.real_clients import Client, Flavour, ListedImage
from tests.support.command import Run

BOTH = (INCUS_METADATA, LXD_METADATA)
UNIFIED = (INCUS_COMBINED, LXD_COMBINED)
PROPERTIES = ("os", "release", "variant", "serial")
TREE = (
    (PRODUCT, OLDER, (*BOTH, SQUASHFS, DISK)),  # its VM is the newest VM
    (PRODUCT, NEWER, (*BOTH, SQUASHFS, TARBALL)),  # one alias, two roots
    ("alpine/3.19/arm64/cloud", OLDER, (INCUS_METADATA, SQUASHFS)),
    ("void/current/armhf/default", OLDER, (LXD_METADATA, TARBALL)),
    ("debian/12/amd64/default", OLDER, (LXD_METADATA, TARBALL)),
    ("debian/12/amd64/default", NEWER, UNIFIED),
    ("fedora/40/amd64/default", OLDER, (*BOTH, SQUASHFS)),
    ("fedora/40/amd64/default", NEWER, (INCUS_COMBINED,)),  # LXD sees it, too
)


@pytest.fixture
def served(maker: ImageMaker, mirror: Mirror) -> Mirror:
    """Publish the tree; its busybox has another name and aliases of a user's own."""
    for product, version, names in TREE:
        maker.add_version(mirror.root, names, product=product, version=version)
    (mirror.root / "images/busybox/.product.toml").write_text(
        'os = "Busy Box"\naliases = ["box", "{os}/{arch}"]\n', encoding="utf-8"
    )
    mirror.index()
    return mirror


def as_told(row: dict[str, Any], fingerprint: str, answers: bool, root: Path) -> ListedImage:
    """Return what a client is to tell of a row; its aliases only where it answers."""
    arch, architecture = row["arch"], ARCHITECTURES[row["arch"]]
    suffixes = ("", f"/{arch}") if architecture == platform.machine() else (f"/{arch}",)
    size = row["size"]
    if fingerprint != row["fingerprint"]:  # LXD has metadata of its own
        incus, lxd = ((root / row["version"] / name).stat().st_size for name in BOTH)
        size += lxd - incus
    return ListedImage(
        fingerprint=fingerprint,
        type=row["type"],
        architecture=architecture,
        aliases=tuple(f"{name}{end}" for name in row["aliases"] for end in suffixes if answers),
        size=size,
        date=row["date"],
        properties={**{name: row[name] for name in PROPERTIES}, "architecture": arch},
    )


def test_list_tells_what_each_client_lists(
    served: Mirror, flavour: Flavour, connect: Callable[[], Client], fastindex: Run
) -> None:
    field = {"incus": "incus_fingerprint", "lxc": "lxd_fingerprint"}[flavour.tool]
    rows = json.loads(fastindex("list", "--json", "--all", served.root).stdout)
    newest = json.loads(fastindex("list", "--json", served.root).stdout)
    seen = [row for row in rows if row[field]]
    answering: dict[tuple[str, str], str] = {}
    for row in newest:  # the first of each product and type that this client sees
        if row[field]:
            product = row["version"].rpartition("/")[0]
            answering.setdefault((product, row["type"]), row[field])

    listed = connect().list_images()

    names = (*PROPERTIES, "architecture")
    told = [replace(i, properties={name: i.properties[name] for name in names}) for i in listed]
    expected = [
        as_told(row, row[field], row[field] in answering.values(), served.root) for row in seen
    ]
    by_fingerprint = attrgetter("fingerprint")
    assert sorted(told, key=by_fingerprint) == sorted(expected, key=by_fingerprint)
    # What only the other client sees: of debian a unified image.
    assert len(rows) - len(seen) == 1
    older = [(row["os"], row["serial"], row["type"]) for row in rows if row not in newest]
    assert older == [(name, OLDER, "container") for name in ("Busy Box", "debian", "fedora")]
    with open_catalogue(str(served.root)) as published:
        images = list(list_images(published.sorted_products()))
    assert json.loads(msgspec.json.encode(images)) == rows
