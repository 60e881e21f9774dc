"""Digests and settings become products as clients see them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastindex.catalogue.assembly import assemble_items, assemble_product, bound_requirements
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import ProductName
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import CachedItem
from tests.support.catalogues import digest, item

NAME = ProductName("debian", "12", "amd64", "default")
PATH = "images/debian/12/amd64/default/20240505"
BOTH = frozenset(("incus.tar.xz", "lxd.tar.xz"))


def cached(ftype: str, **fields: str) -> CachedItem:
    known = CachedItem(ftype=ftype, path=f"{PATH}/{ftype}", size=1, sha256=digest(ftype), key="k")
    return replace(known, **fields)


def test_a_fingerprint_is_published_only_for_a_root_that_is_there() -> None:
    fields = {
        "combined_squashfs_sha256": digest("s"),
        "combined_rootxz_sha256": digest("r"),
        "combined_disk_kvm_img_sha256": digest("d"),
    }
    files = {
        "incus.tar.xz": cached("incus.tar.xz", **fields),
        "rootfs.tar.xz": cached("root.tar.xz"),
        "disk.qcow2": cached("disk-kvm.img"),
    }
    items = assemble_items(PATH, files, BOTH)
    assert not isinstance(items, Finding)
    assert list(items) == ["disk.qcow2", "incus.tar.xz", "rootfs.tar.xz"]
    metadata = items["incus.tar.xz"]
    assert metadata.combined_squashfs_sha256 == ""
    assert metadata.combined_rootxz_sha256 == metadata.combined_sha256 == digest("r")
    assert metadata.combined_disk_kvm_img_sha256 == digest("d")
    assert {type(one) for one in items.values()} == {type(item("x"))}  # no keys, no BLAKE3


@pytest.mark.parametrize(
    ("ftypes", "present", "names"),
    [
        (["incus.tar.xz", "squashfs"], {"incus.tar.xz"}, "incus.tar.xz lxd.tar.xz squashfs"),
        (["lxd.tar.xz", "squashfs"], {"lxd.tar.xz"}, "incus.tar.xz lxd.tar.xz squashfs"),
        (["lxd.tar.xz", "squashfs"], BOTH, "lxd.tar.xz squashfs"),  # the other is broken
        (["incus_combined.tar.gz"], set(), "incus_combined.tar.gz"),
        (["incus_combined.tar.gz", "squashfs"], set(), "incus_combined.tar.gz"),
        (["incus.tar.xz", "lxd_combined.tar.gz"], {"incus.tar.xz"}, "lxd_combined.tar.gz"),
    ],
)
def test_a_lone_metadata_file_is_for_both_clients(
    ftypes: list[str], present: set[str], names: str
) -> None:
    items = assemble_items(PATH, {ftype: cached(ftype) for ftype in ftypes}, present)
    assert not isinstance(items, Finding)
    assert sorted(items) == names.split()
    if "lxd.tar.xz" in items and present == {"incus.tar.xz"}:
        assert items["lxd.tar.xz"].path == items["incus.tar.xz"].path
        assert items["lxd.tar.xz"].ftype == "lxd.tar.xz"


@pytest.mark.parametrize("ftypes", [[], ["incus.tar.xz"], ["squashfs"], ["squashfs.vcdiff"]])
def test_a_version_without_an_image_is_a_finding(ftypes: list[str]) -> None:
    files = {ftype: cached(ftype, delta_base="20240101") for ftype in ftypes}
    told = assemble_items(PATH, files, BOTH)
    assert isinstance(told, Finding)
    assert (told.path, told.versions_left_out, told.files_left_out) == (PATH, 1, 0)


def test_a_delta_goes_with_an_image_and_names_its_base() -> None:
    files = {ftype: cached(ftype) for ftype in ("incus.tar.xz", "squashfs")}
    files["delta"] = cached("squashfs.vcdiff", delta_base="20240101")
    items = assemble_items(PATH, files, BOTH)
    assert not isinstance(items, Finding)
    assert items["delta"].delta_base == "20240101"


@pytest.mark.parametrize("known", ["", "virtual-machine", "something else"])
def test_a_unified_image_is_a_machine_or_a_container(known: str) -> None:
    items = assemble_items(PATH, {"f": cached("incus_combined.tar.gz", combined_type=known)}, BOTH)
    assert not isinstance(items, Finding)
    assert items["f"].combined_type == ("virtual-machine" if known == "virtual-machine" else "")


def test_a_products_fields_come_from_its_name_and_the_settings() -> None:
    plain = assemble_product(NAME, Settings(), ("debian/12/default", "debian/12"), {})
    assert (plain.os, plain.release, plain.release_title) == ("debian", "12", "12")
    assert (plain.arch, plain.variant, plain.aliases) == (
        "amd64",
        "default",
        "debian/12/default,debian/12",
    )
    settings = Settings(
        os="Debian",
        release_title="Bookworm",
        release_codename="bookworm",
        version="12.5",
        support_eol="2028-06-30",
        supported=True,
        label="daily",
        requirements={"secureboot": "false"},
        lxd_requirements={"nesting": "true"},
    )
    versions = {"20240506": {}, "20240505": {"f": item("squashfs")}}
    full = assemble_product(NAME, settings, (), versions)
    assert (full.os, full.release, full.release_title) == ("Debian", "12", "Bookworm")
    assert (full.release_codename, full.version) == ("bookworm", "12.5")
    assert (full.support_eol, full.supported) == ("2028-06-30", True)
    assert full.requirements == {"secureboot": "false"}
    assert full.lxd_requirements == {"nesting": "true"}
    assert list(full.versions) == ["20240505", "20240506"]
    assert {one.label for one in full.versions.values()} == {"daily"}


def test_requirements_are_bounded_and_unknown_ones_go_first() -> None:
    many = {f"a{number:02}": "x" for number in range(30)}
    known = {"secureboot": "false", "nesting": "true"}
    said = Settings(requirements={**many, **known}, lxd_requirements=known)
    bounded, (finding,) = bound_requirements("images/p", said)
    assert len(bounded.requirements) == 16
    assert bounded.requirements.items() >= known.items()
    assert bounded.lxd_requirements == known
    assert (finding.code, finding.path) == (Code.LIMIT_EXCEEDED, "images/p")
    assert finding.problem.startswith("16 of its requirements left out")
    assert bound_requirements("images/p", bounded) == (bounded, [])
    long = Settings(lxd_requirements={f"a{number}": "x" * 250 for number in range(16)})
    bounded, _ = bound_requirements("images/p", long)
    assert len(bounded.lxd_requirements) == 8
