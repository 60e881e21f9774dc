"""A server shaped as Canonical's for the releases of Ubuntu, with small files that are real."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.clients.image_maker import (
    DISK,
    SQUASHFS,
    TARBALL,
    ImageMaker,
    fingerprint,
)
from tests.support.tools import needs

PRODUCTS = "streams/v1/com.ubuntu.cloud:released:download.json"
INDEX = "streams/v1/index.json"
OLDER, NEWER = "20240418", "20240505"
_UPDATED = "Sun, 05 May 2024 12:00:00 +0000"
_AMAZON = "com.ubuntu.cloud:released:aws"
_METADATA = """\
architecture: "{machine}\\n{machine}"
creation_date: 1714886640
properties:
  architecture: "{machine}\\n{machine}"
  description: Ubuntu {version} LTS server ({serial})
  os: ubuntu
  release: {release}
templates:
  /etc/hostname:
    when:
    - create
    - copy
    template: hostname.tpl
"""
_RELEASES = {
    "jammy": {
        "aliases": "22.04,j,jammy",
        "release_codename": "Jammy Jellyfish",
        "release_title": "22.04 LTS",
        "support_eol": "2027-06-01",
        "supported": True,
        "version": "22.04",
    },
    "trusty": {
        "aliases": "14.04,t,trusty",
        "release_codename": "Trusty Tahr",
        "release_title": "14.04 LTS",
        "support_eol": "2019-04-25",
        "supported": False,
        "version": "14.04",
    },
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class CanonicalServer:
    """A tree as it lies at cloud-images.ubuntu.com/releases.

    Args:
        root: the directory that is served.
        workshop: an empty directory to build in.
        maker: makes the root file systems.
    """

    def __init__(self, root: Path, workshop: Path, maker: ImageMaker) -> None:
        self._root = root
        self._workshop = workshop
        roots = maker.add_version(workshop / "roots", [SQUASHFS, TARBALL, DISK])
        self._roots = {name: roots / name for name in (SQUASHFS, TARBALL, DISK)}
        self._products: dict[str, dict[str, Any]] = {}
        for release, fields in _RELEASES.items():
            for arch in _MACHINES:
                key = f"com.ubuntu.cloud:server:{fields['version']}:{arch}"
                self._products[key] = {
                    **fields,
                    "arch": arch,
                    "os": "ubuntu",
                    "release": release,
                    "versions": {},
                }

    def add_version(self, release: str, arch: str, serial: str) -> Path:
        """Add a version; return its directory.

        A version after another of the same release has a delta from that.
        """
        number = str(_RELEASES[release]["version"])
        product = self._products[f"com.ubuntu.cloud:server:{number}:{arch}"]
        stem = f"ubuntu-{number}-server-cloudimg-{arch}"
        top = f"server/releases/{release}/release-{serial}"
        directory = self._root / top
        directory.mkdir(parents=True, exist_ok=True)
        names = {
            "disk-kvm.img": f"{stem}-disk-kvm.img",
            "disk1.img": f"{stem}.img",
            "lxd.tar.xz": f"{stem}-lxd.tar.xz",
            "manifest": f"{stem}.manifest",
            "ova": f"{stem}.ova",
            "root.tar.xz": f"{stem}-root.tar.xz",
            "squashfs": f"{stem}.squashfs",
            "tar.gz": f"{stem}.tar.gz",
            "uefi1.img": f"{stem}-uefi1.img",
            "vmdk": f"{stem}.vmdk",
        }
        paths = {ftype: directory / name for ftype, name in names.items()}
        shutil.copy(self._roots[TARBALL], paths["root.tar.xz"])
        shutil.copy(self._roots[DISK], paths["disk1.img"])
        self._convert_disk(paths["uefi1.img"], "compat=0.10")
        self._convert_disk(paths["disk-kvm.img"], "lazy_refcounts=on")
        self._pack_squashfs(paths["squashfs"], f"{release} {arch} {serial}\n")
        self._pack_metadata(paths["lxd.tar.xz"], release, arch, serial)
        for ftype in ("manifest", "ova", "tar.gz", "vmdk"):
            paths[ftype].write_text(f"{ftype} of {release} {serial}\n")
        items = {ftype: _make_item(ftype, f"{top}/{names[ftype]}", paths[ftype]) for ftype in names}
        metadata = paths["lxd.tar.xz"]
        items["lxd.tar.xz"] |= {
            "combined_disk1-img_sha256": fingerprint(metadata, paths["disk1.img"]),
            "combined_rootxz_sha256": fingerprint(metadata, paths["root.tar.xz"]),
            "combined_sha256": fingerprint(metadata, paths["root.tar.xz"]),
            "combined_squashfs_sha256": fingerprint(metadata, paths["squashfs"]),
            "combined_uefi1-img_sha256": fingerprint(metadata, paths["uefi1.img"]),
        }
        for base in product["versions"]:
            name = f"{stem}.{base}.squashfs.vcdiff"
            before = self._root / product["versions"][base]["items"]["squashfs"]["path"]
            make_delta(before, paths["squashfs"], directory / name)
            item = _make_item("squashfs.vcdiff", f"{top}/{name}", directory / name)
            items[f"{base}.squashfs.vcdiff"] = {**item, "delta_base": base}
        pubname = f"ubuntu-{release}-{number}-{arch}-server-{serial}"
        product["versions"][serial] = {"items": items, "label": "release", "pubname": pubname}
        return directory

    def describe(self, release: str, arch: str, serial: str) -> dict[str, dict[str, Any]]:
        """Return the items of a version."""
        product = self._products[f"com.ubuntu.cloud:server:{_RELEASES[release]['version']}:{arch}"]
        items: dict[str, dict[str, Any]] = product["versions"][serial]["items"]
        return items

    def publish(self) -> list[Path]:
        """Write the catalogue; return its files of images."""
        products = {key: one for key, one in self._products.items() if one["versions"]}
        frame = {"creator": "stream-builder", "format": "products:1.0", "updated": _UPDATED}
        downloads = {**frame, "datatype": "image-downloads"}
        amazon = {**frame, "datatype": "image-ids", "content_id": _AMAZON, "products": {}}
        index = {
            "format": "index:1.0",
            "updated": _UPDATED,
            "index": {
                _AMAZON: _make_entry("image-ids", _AMAZON, []),
                "com.ubuntu.cloud:released:download": _make_entry(
                    "image-downloads", "com.ubuntu.cloud:released:download", list(products)
                ),
                "com.ubuntu.cloud:released:gce": _make_entry(
                    "image-ids", "com.ubuntu.cloud:released:gce", []
                ),
            },
        }
        (self._root / "streams/v1").mkdir(parents=True, exist_ok=True)
        content_id = "com.ubuntu.cloud:released:download"
        for path, document in (
            (INDEX, index),
            (PRODUCTS, {**downloads, "content_id": content_id, "products": products}),
            (f"streams/v1/{_AMAZON}.json", amazon),
        ):
            (self._root / path).write_text(json.dumps(document, indent=1), encoding="utf-8")
        return [self._root / INDEX, self._root / PRODUCTS]

    def _convert_disk(self, path: Path, option: str) -> None:
        qemu_img = needs("qemu-img", "apt-get install qemu-utils")
        _run(qemu_img, "convert", "-O", "qcow2", "-o", option, self._roots[DISK], path)

    def _pack_squashfs(self, path: Path, words: str) -> None:
        mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
        contents = self._workshop / "contents"
        (contents / "etc").mkdir(parents=True)
        (contents / "etc/issue").write_text(words)
        _run(mksquashfs, contents, path, "-all-root", "-noappend", "-no-progress")
        shutil.rmtree(contents)

    def _pack_metadata(self, path: Path, release: str, arch: str, serial: str) -> None:
        contents = self._workshop / "metadata"
        (contents / "templates").mkdir(parents=True)
        (contents / "templates/hostname.tpl").write_text("{{ container.name }}\n")
        text = _METADATA.format(
            machine=_MACHINES[arch],
            version=_RELEASES[release]["version"],
            release=release,
            serial=serial,
        )
        (contents / "metadata.yaml").write_text(text)
        packed: list[str | Path] = ["-cJf", path, "-C", contents, "metadata.yaml", "templates"]
        _run("tar", "--numeric-owner", "--owner=0", "--group=0", *packed)
        shutil.rmtree(contents)


def make_delta(base: Path, target: Path, path: Path) -> None:
    """Write the delta that makes ``target`` of ``base``."""
    xdelta3 = needs("xdelta3", "apt-get install xdelta3")
    _run(xdelta3, "-e", "-s", base, target, path)


def _make_entry(datatype: str, name: str, products: Sequence[str]) -> dict[str, Any]:
    return {
        "clouds": [{"endpoint": "https://ec2.example.org", "region": "us-east-1"}],
        "cloudname": "aws",
        "datatype": datatype,
        "format": "products:1.0",
        "path": f"streams/v1/{name}.json",
        "products": list(products),
        "updated": _UPDATED,
    }


def _make_item(ftype: str, path: str, file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(content).hexdigest()
    return {"ftype": ftype, "md5": md5, "path": path, "sha256": sha256, "size": len(content)}


def _run(*command: str | Path) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
