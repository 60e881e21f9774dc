"""How a client decodes and reads a catalogue, written anew from the contract.

Go's ``encoding/json`` into typed structs: one value of a wrong type and the file is
rejected. Nothing here comes from fastindex.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

_STRING = (str,)
_PRODUCT: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        (
            "aliases",
            "arch",
            "os",
            "release",
            "release_title",
            "release_codename",
            "support_eol",
            "variant",
            "version",
        ),
        _STRING,
    ),
    "supported": (bool,),
    "requirements": (dict,),
    "lxd_requirements": (dict,),
    "versions": (dict,),
}
_ITEM: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        (
            "combined_disk1-img_sha256",
            "combined_disk-kvm-img_sha256",
            "combined_uefi1-img_sha256",
            "combined_rootxz_sha256",
            "combined_sha256",
            "combined_squashfs_sha256",
            "combined_type",
            "delta_base",
            "ftype",
            "path",
            "sha256",
        ),
        _STRING,
    ),
    "size": (int,),
}
_FINGERPRINT = {
    "squashfs": "combined_squashfs_sha256",
    "root.tar.xz": "combined_rootxz_sha256",
    "disk-kvm.img": "combined_disk-kvm-img_sha256",
    "disk1.img": "combined_disk1-img_sha256",
    "uefi1.img": "combined_uefi1-img_sha256",
}


class RejectedError(Exception):
    """A client would reject the whole file."""


def images(root: Path, client: str) -> dict[str, list[dict[str, Any]]]:
    """Return what ``client`` (incus or lxd) sees below ``root``: fingerprint → images."""
    index = _object(root / "streams/v1/index.json")
    _expect(index, {"format": _STRING, "index": (dict,)})
    seen: dict[str, list[dict[str, Any]]] = {}
    for entry in index["index"].values():
        _expect(
            entry, {"datatype": _STRING, "format": _STRING, "path": _STRING, "products": (list,)}
        )
        if entry["datatype"] != "image-downloads" or not entry["products"]:
            continue
        document = _object(root / entry["path"])
        for image in _images(document, client):
            seen.setdefault(image["fingerprint"], []).append(image)
        if sorted(document["products"]) != sorted(entry["products"]):
            raise RejectedError("the index names other products than the product file")
    return seen


def _object(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        raise RejectedError(f"{path}: no final newline")
    document = json.loads(data.decode("utf-8"))
    if not isinstance(document, dict):
        raise RejectedError(f"{path}: no object")
    return document


def _expect(value: Any, fields: dict[str, tuple[type, ...]]) -> None:
    for key, item in value.items():
        if key not in fields:
            raise RejectedError(f"unknown field {key}")
        if type(item) not in fields[key]:
            raise RejectedError(f"{key} is {item!r}")


def _images(document: dict[str, Any], client: str) -> Iterator[dict[str, Any]]:
    _expect(
        document,
        {"content_id": _STRING, "datatype": _STRING, "format": _STRING, "products": (dict,)},
    )
    for key, product in document["products"].items():
        _expect(product, _PRODUCT)
        for kind in ("requirements", "lxd_requirements"):
            if any(type(value) is not str for value in product.get(kind, {}).values()):
                raise RejectedError(f"{key}: {kind}")
        for name, version in product["versions"].items():
            _expect(version, {"items": (dict,), "label": _STRING})
            for item in version["items"].values():
                _expect(item, _ITEM)
            datetime.strptime(name[:8], "%Y%m%d")
            yield from _version_images(key, name, version["items"].values(), client)


def _version_images(key: str, name: str, items: Any, client: str) -> Iterator[dict[str, Any]]:
    for meta in items:
        if meta["ftype"] == f"{client}_combined.tar.gz":
            yield {"fingerprint": meta["sha256"], "product": key, "version": name, "files": [meta]}
        if meta["ftype"] != f"{client}.tar.xz":
            continue
        for root in items:
            fingerprint = meta.get(_FINGERPRINT.get(root["ftype"], ""))
            if fingerprint:
                yield {
                    "fingerprint": fingerprint,
                    "product": key,
                    "version": name,
                    "files": [meta, root],
                }
