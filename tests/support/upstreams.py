"""Upstream servers as values: product files as other tools publish them, and copies of trees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fastindex.formats.filters import Filters
from fastindex.formats.upstream import UpstreamProduct, parse_index, parse_products
from fastindex.operations.pull.mapping import map_products, map_version
from fastindex.operations.pull.settings import make_settings

HEX = "0123456789abcdef" * 4
FINGERPRINT = "fedcba9876543210" * 4


def item(ftype: str, path: str, **fields: object) -> dict[str, Any]:
    """Return an item of a product file."""
    return {"ftype": ftype, "path": path, "size": 5, "sha256": HEX, **fields}


def product_json(products: object, **fields: object) -> bytes:
    """Return a product file."""
    frame = {"content_id": "images", "datatype": "image-downloads", "format": "products:1.0"}
    return json.dumps({**frame, "products": products, **fields}).encode()


def index_json(entries: object, **fields: object) -> bytes:
    """Return an index."""
    return json.dumps({"format": "index:1.0", "index": entries, **fields}).encode()


def flat_product() -> tuple[str, dict[str, Any]]:
    """Return a product, and its key, as incus-simplestreams publishes it."""
    metadata = item(
        "incus.tar.xz",
        f"images/{HEX}.incus.tar.xz",
        **{"combined_squashfs_sha256": FINGERPRINT, "combined_disk-kvm-img_sha256": HEX.upper()},
    )
    items = {
        "incus.tar.xz": metadata,
        "squashfs": item("squashfs", f"images/{HEX}.squashfs"),
        "disk-kvm.img": item("disk-kvm.img", f"images/{HEX}.qcow2"),
    }
    product = {
        "aliases": "Debian/12/default,mine",
        "arch": "x86_64",
        "os": "Debian",
        "release": "12",
        "release_title": "12",
        "variant": "default",
        "versions": {"202405050524": {"items": items}},
    }
    return "Debian:12:default:x86_64", product


def canonical_product() -> tuple[str, dict[str, Any]]:
    """Return a product, and its key, as Canonical publishes it."""
    top = "server/releases/jammy/release-20240505/ubuntu-22.04-server-cloudimg-amd64"
    metadata = item(
        "lxd.tar.xz",
        f"{top}-lxd.tar.xz",
        **{
            "combined_disk1-img_sha256": FINGERPRINT,
            "combined_rootxz_sha256": HEX,
            "combined_sha256": HEX,
            "combined_squashfs_sha256": HEX[::-1],
        },
        md5="0" * 32,
    )
    items = {
        "disk1.img": item("disk1.img", f"{top}.img"),
        "disk-kvm.img": item("disk-kvm.img", f"{top}-disk-kvm.img"),  # without a fingerprint
        "lxd.tar.xz": metadata,
        "manifest": item("manifest", f"{top}.manifest"),
        "ova": {"ftype": "ova", "path": f"{top}.ova", "size": 1, "sha256": ""},
        "root.tar.xz": item("root.tar.xz", f"{top}-root.tar.xz"),
        "squashfs": item("squashfs", f"{top}.squashfs"),
        "squashfs.vcdiff": item("squashfs.vcdiff", f"{top}.20240401.vcdiff", delta_base="20240401"),
    }
    product = {
        "aliases": "22.04,j,jammy,lts",
        "arch": "amd64",
        "os": "ubuntu",
        "release": "jammy",
        "release_codename": "Jammy Jellyfish",
        "release_title": "22.04 LTS",
        "support_eol": "2027-06-01",
        "supported": True,
        "version": "22.04",
        "versions": {"20240505": {"items": items, "label": "release", "pubname": "ubuntu-jammy"}},
    }
    return "com.ubuntu.cloud:server:22.04:amd64", product


def parse(products: dict[str, object], stream: str = "images") -> tuple[UpstreamProduct, ...]:
    """Return all that can be used of a product file."""
    return parse_products(product_json(products), stream, "file", Filters()).products


def copy_tree(source: Path, target: Path) -> None:
    """Copy what ``source`` publishes into the tree below ``target``, as a pull does."""
    index = parse_index((source / "streams/v1/index.json").read_bytes(), "index")
    assert not index.refusals
    found: list[UpstreamProduct] = []
    for entry in index.entries:
        data = (source / entry.path).read_bytes()
        read = parse_products(data, entry.stream, entry.path, Filters())
        assert not read.refusals
        found += read.products
    mapped, refusals = map_products(found)
    assert not refusals
    for one in mapped:
        directory = target / one.place.path
        directory.mkdir(parents=True)
        settings = make_settings(one.product, one.place)
        assert settings.left_out == ()
        for name, content in (
            (".product.toml", settings.product_toml),
            (".lxd_requirements", settings.lxd_requirements),
        ):
            if content is not None:
                (directory / name).write_bytes(content)
        for version in one.product.versions.values():
            place = map_version(one.place, version)
            assert not isinstance(place, str)
            (target / place.path).mkdir()
            for file in place.files:
                shutil.copy2(source / file.path, target / place.path / file.name)
