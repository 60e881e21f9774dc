"""What each client takes for an image's fingerprint."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastindex.catalogue.fingerprints import ImageFingerprints, find_images
from fastindex.formats.simplestreams import Item
from tests.support.catalogues import digest, item, metadata

INCUS = metadata("incus.tar.xz", "squashfs", "disk-kvm.img")
LXD = metadata("lxd.tar.xz", "squashfs")
SQUASHFS, DISK = item("squashfs"), item("disk-kvm.img")
INCUS_UNIFIED, LXD_UNIFIED = item("incus_combined.tar.gz"), item("lxd_combined.tar.gz")
UNIFIED = item("incus_combined.tar.gz", "unified")
LXD_COPY = replace(UNIFIED, path="p/lxd_combined.tar.gz", ftype="lxd_combined.tar.gz")
OF_INCUS, OF_LXD = digest("incus.tar.xz+squashfs"), digest("lxd.tar.xz+squashfs")


@pytest.mark.parametrize(
    ("items", "images"),
    [
        ([], []),
        ([INCUS, LXD], []),
        ([INCUS, SQUASHFS], [("squashfs", "squashfs", (OF_INCUS, ""))]),
        ([SQUASHFS, LXD], [("squashfs", "squashfs", ("", OF_LXD))]),
        ([INCUS, LXD, SQUASHFS], [("squashfs", "squashfs", (OF_INCUS, OF_LXD))]),
        ([SQUASHFS], [("squashfs", "squashfs", ("", ""))]),
        (
            [DISK, INCUS, LXD],
            [("disk-kvm.img", "disk-kvm.img", (digest("incus.tar.xz+disk-kvm.img"), ""))],
        ),
        (
            [INCUS_UNIFIED, LXD_UNIFIED],
            [
                ("incus_combined.tar.gz", "incus_combined.tar.gz", (INCUS_UNIFIED.sha256, "")),
                ("lxd_combined.tar.gz", "lxd_combined.tar.gz", ("", LXD_UNIFIED.sha256)),
            ],
        ),
        ([INCUS, item("squashfs.vcdiff"), item("root.squashfs")], []),
        (
            [UNIFIED, replace(UNIFIED, ftype="lxd_combined.tar.gz")],
            [("incus_combined.tar.gz", "incus_combined.tar.gz", (UNIFIED.sha256,) * 2)],
        ),
        (
            [replace(UNIFIED, path="p/lxd_combined.tar.gz"), LXD_COPY],
            [("lxd_combined.tar.gz", "lxd_combined.tar.gz", (UNIFIED.sha256,) * 2)],
        ),
    ],
)
def test_each_client_sees_its_own(items: list[Item], images: list[ImageFingerprints]) -> None:
    assert find_images({one.ftype: one for one in items}) == images
