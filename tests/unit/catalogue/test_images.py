"""The images that clients list, and what an alias or a prefix stands for."""

from __future__ import annotations

import pytest

from fastindex.catalogue.images import Image, find_named, list_images
from fastindex.formats.simplestreams import Version
from tests.support.catalogues import (
    KEY,
    container,
    digest,
    item,
    metadata,
    product,
    version,
)

INCUS = metadata("incus.tar.xz", "squashfs", "disk-kvm.img", size=10)
LXD = metadata("lxd.tar.xz", "squashfs", size=20)
SQUASHFS, DISK = item("squashfs", size=100), item("disk-kvm.img", size=1000)


def images(**versions: Version) -> list[Image]:
    """Return the images of a product with these versions (``v20240505``)."""
    named = {name[1:]: content for name, content in versions.items()}
    return list(list_images([("images", KEY, product(named, aliases="debian/12,d"))]))


def test_all_that_is_known_of_an_image() -> None:
    (image,) = images(v20240505=version(INCUS, LXD, SQUASHFS, path="images/v"))
    assert image == Image(
        aliases=("debian/12", "d"),
        fingerprint=digest("incus.tar.xz+squashfs"),
        incus_fingerprint=digest("incus.tar.xz+squashfs"),
        lxd_fingerprint=digest("lxd.tar.xz+squashfs"),
        os="debian",
        release="12",
        variant="default",
        arch="amd64",
        type="container",
        size=110,
        date="2024-05-05",
        serial="20240505",
        version="images/debian/12/amd64/default/20240505",
        file="squashfs",
        is_newest=True,
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (version(LXD, SQUASHFS), [("squashfs", "container", 120, "lxd")]),
        (version(INCUS, DISK), [("disk-kvm.img", "virtual-machine", 1010, "incus")]),
        (
            version(DISK, SQUASHFS, INCUS, LXD),
            [
                ("squashfs", "container", 110, "both"),
                ("disk-kvm.img", "virtual-machine", 1010, "incus"),
            ],
        ),
        (
            version(item("incus_combined.tar.gz", size=7)),
            [("incus_combined.tar.gz", "container", 7, "incus")],
        ),
        (
            version(item("lxd_combined.tar.gz", size=7, combined_type="virtual-machine")),
            [("lxd_combined.tar.gz", "virtual-machine", 7, "lxd")],
        ),
        (version(SQUASHFS), []),
        (version(INCUS, LXD), []),
    ],
)
def test_images_in_the_clients_order(
    content: Version, expected: list[tuple[str, str, int, str]]
) -> None:
    def seen_by(image: Image) -> str:
        if image.incus_fingerprint and image.lxd_fingerprint:
            return "both"
        return "incus" if image.incus_fingerprint else "lxd"

    found = [(i.file, i.type, i.size, seen_by(i)) for i in images(v20240505=content)]
    assert found == expected


def test_the_newest_is_so_by_client_and_type() -> None:
    found = images(
        v20240505=version(LXD, SQUASHFS),
        v20240506=version(INCUS, SQUASHFS),
        v20240507=version(INCUS, DISK),
        v20240504=version(INCUS, LXD, SQUASHFS, DISK),
    )
    assert [(i.serial, i.file, i.is_newest) for i in found] == [
        ("20240507", "disk-kvm.img", True),
        ("20240506", "squashfs", True),
        ("20240505", "squashfs", True),  # to LXD
        ("20240504", "squashfs", False),
        ("20240504", "disk-kvm.img", False),
    ]
    assert [i.serial for i in find_named(found, "d")] == ["20240507", "20240506"]


def test_a_second_root_of_the_newest_version_is_newest_too() -> None:
    known = metadata("incus.tar.xz", "squashfs", "root.tar.xz")
    both = version(known, item("root.tar.xz"), SQUASHFS)
    found = images(v20240505=both, v20240504=container())
    assert [(i.file, i.is_newest) for i in found] == [
        ("squashfs", True),
        ("root.tar.xz", True),
        ("squashfs", True),  # to LXD
    ]


FINGERPRINT = digest("two+squashfs")


@pytest.mark.parametrize(
    ("word", "serials"),
    [
        ("d", ["20240506"]),
        ("debian/12", ["20240506"]),
        (FINGERPRINT, ["20240506"]),
        (FINGERPRINT[:4], ["20240506"]),
        (FINGERPRINT[:9].upper(), ["20240506"]),
        (digest("one+squashfs"), ["20240505"]),
        (FINGERPRINT[:3], []),
        (FINGERPRINT[1:], []),
        ("debian", []),
        ("zzzz", []),
        ("", []),
    ],
)
def test_what_a_word_stands_for(word: str, serials: list[str]) -> None:
    found = images(v20240505=container("one"), v20240506=container("two"))
    assert [image.serial for image in find_named(found, word)] == serials


def test_a_product_without_aliases_has_no_empty_one() -> None:
    (image,) = list_images([("images", KEY, product({"20240505": container()}, aliases=""))])
    assert image.aliases == ()
    assert find_named([image], "") == []
