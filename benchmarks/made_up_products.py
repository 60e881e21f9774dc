"""Products as a large public mirror has them, made up; for the page, which shows what they say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from fastindex.formats.names import ProductName
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    INCUS_METADATA,
    LXD_METADATA,
    Item,
    Product,
    Version,
    fingerprint_fields,
)

Made = tuple[str, str, Product]
"""Stream, key, product."""
_SYSTEMS = {
    "AlmaLinux": ("10", "9", "8"),
    "Alpine": ("edge", "3.22", "3.21", "3.20", "3.19"),
    "Amazon Linux": ("2023",),
    "Arch Linux": ("current",),
    "CentOS Stream": ("10", "9"),
    "Debian": ("forky", "13", "12", "11"),
    "Devuan": ("excalibur", "daedalus"),
    "Fedora": ("43", "42", "41"),
    "Gentoo": ("openrc", "systemd"),
    "Kali": ("current",),
    "NixOS": ("unstable", "25.05"),
    "openSUSE": ("tumbleweed", "16.0", "15.6"),
    "OpenWrt": ("snapshot", "24.10", "23.05"),
    "Oracle Linux": ("9", "8"),
    "Rocky Linux": ("10", "9", "8"),
    "Ubuntu": ("questing", "plucky", "noble", "jammy"),
    "Void Linux": ("current",),
}
_TITLES = {"13": "13 (trixie)", "12": "12 (bookworm)", "noble": "24.04 LTS", "jammy": "22.04 LTS"}
_ARCHITECTURES = ("amd64", "arm64", "armhf", "ppc64el", "riscv64", "s390x")
_VARIANTS = ("default", "cloud", "desktop", "minimal", "systemd")
_LAST_DAY = datetime(2026, 11, 28, 5, 24, tzinfo=UTC)


def make_products(count: int, versions: int = 3) -> Iterator[Made]:
    """Yield products in the order of their names; the same for the same numbers.

    Args:
        count: how many products.
        versions: how many versions each has.
    """
    randomness = random.Random(17)
    made: list[Made] = []
    number = 0
    while len(made) < count:
        for title, releases in _SYSTEMS.items():
            for release in releases:
                for variant in _VARIANTS[: 2 + len(title) % 3]:
                    for arch in _ARCHITECTURES:
                        suffix = f"-{number}" if number else ""
                        name = ProductName(_shorten(title), release, arch, f"{variant}{suffix}")
                        product = make_product(name, title, versions, randomness)
                        made.append(("images", name.key, product))
        number += 1
    yield from sorted(made[:count], key=lambda one: one[1])


def _shorten(title: str) -> str:
    return title.split(maxsplit=1)[0].lower()


def make_product(
    name: ProductName, os: str, versions: int, randomness: random.Random, *, eol: str = ""
) -> Product:
    """Return a product: each version with a container, and most with a virtual machine."""
    has_machine = name.arch in ("amd64", "arm64") and name.variant != "minimal"
    age = int(randomness.expovariate(0.4))
    days = [_LAST_DAY - timedelta(days=age + number) for number in range(versions)]
    return Product(
        aliases=",".join(name.default_aliases),
        arch=name.arch,
        os=os,
        release=name.release,
        release_title=_TITLES.get(name.release, name.release),
        variant=name.variant,
        requirements={"secureboot": "false"} if os in ("Alpine", "Void Linux") else {},
        support_eol=eol or ("2028-06-30" if name.release in ("12", "noble") else ""),
        versions={
            f"{day:%Y%m%d_%H:%M}": make_version(
                name, f"{day:%Y%m%d_%H:%M}", has_machine, randomness
            )
            for day in reversed(days)
        },
    )


def make_version(
    name: ProductName, version: str, has_machine: bool, randomness: random.Random
) -> Version:
    """Return a version with metadata for both clients."""
    roots = {"rootfs.squashfs": "squashfs"} | (
        {"disk.qcow2": "disk-kvm.img"} if has_machine else {}
    )
    above = f"images/{name.directory}/{version}"
    combined = {COMBINED_FIELD[ftype]: _digest(randomness) for ftype in roots.values()}
    fields = fingerprint_fields(combined)
    sha256 = _digest(randomness)
    items = {
        ftype: Item(ftype=ftype, path=f"{above}/incus.tar.xz", size=892, sha256=sha256, **fields)
        for ftype in (INCUS_METADATA, LXD_METADATA)
    }
    for file, ftype in roots.items():
        size = randomness.randint(40_000_000, 180_000_000) * (1 if ftype == "squashfs" else 3)
        path = f"{above}/{file}"
        items[file] = Item(ftype=ftype, path=path, size=size, sha256=_digest(randomness))
    return Version(items=items)


def _digest(randomness: random.Random) -> str:
    return randomness.randbytes(32).hex()
