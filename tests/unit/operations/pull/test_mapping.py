"""Where an upstream's products, versions and files get their place, and what has none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastindex.formats.filters import parse_filters
from fastindex.formats.names import ProductName, classify
from fastindex.formats.upstream import UpstreamProduct, parse_products
from fastindex.operations.pull.mapping import (
    MappedVersion,
    Place,
    find_name_fault,
    find_place,
    map_products,
    map_version,
)
from tests.support.upstreams import (
    FINGERPRINT,
    HEX,
    canonical_product,
    flat_product,
    item,
    parse,
    product_json,
)

PLACE = Place("images", ProductName("debian", "12", "amd64", "default"))
TOP = "images/debian/12/amd64/default/20240505_05:24"


def own_product(top: str = TOP, **names: str) -> UpstreamProduct:
    """Return a product as fastindex publishes it."""
    metadata = item("incus.tar.xz", f"{top}/incus.tar.xz", combined_squashfs_sha256=FINGERPRINT)
    items = {
        "incus.tar.xz": metadata,
        "lxd.tar.xz": {**metadata, "ftype": "lxd.tar.xz"},
        "root.squashfs": item("squashfs", f"{top}/root.squashfs"),
    }
    fields = {"os": "Debian", "release": "12", "arch": "amd64", "variant": "default", **names}
    versions = {"20240505_05:24": {"items": items}}
    (found,) = parse({"debian:12:amd64:default": {**fields, "versions": versions}})
    return found


def mapped(items: dict[str, dict[str, Any]], *filters: str) -> MappedVersion | str:
    """Return the place of a version that has ``items``."""
    wire = {"a": {"versions": {"20240505": {"items": items}}}}
    (found,) = parse_products(product_json(wire), "s", "f", parse_filters(filters)).products
    return map_version(PLACE, found.versions["20240505"])


def names(version: MappedVersion | str) -> list[str]:
    assert isinstance(version, MappedVersion)
    return [file.name for file in version.files]


def sources(product: UpstreamProduct) -> dict[str, str]:
    """Return name → source of the files of a product's only version."""
    place = find_place(product)
    assert isinstance(place, Place)
    (version,) = product.versions.values()
    found = map_version(place, version)
    assert isinstance(found, MappedVersion)
    assert found.path == f"{place.path}/{found.name}"
    return {file.name: file.path for file in found.files}


def test_our_own_paths_stay() -> None:
    product = own_product()
    assert find_place(product) == PLACE
    assert sources(product) == {
        "incus.tar.xz": f"{TOP}/incus.tar.xz",
        "root.squashfs": f"{TOP}/root.squashfs",
    }
    daily = replace(own_product(TOP.replace("images", "daily", 1)), stream="daily")
    assert find_place(daily) == Place("daily", PLACE.name)


def test_a_stream_of_ours_is_known_by_its_paths() -> None:
    assert find_place(replace(own_product(), stream="daily"), "mine") == Place("mine", PLACE.name)
    odd = replace(own_product("streams/debian/12/amd64/default/20240505_05:24"), stream="streams")
    assert find_place(odd) == PLACE


def test_flat_layouts_are_mapped_by_their_fields() -> None:
    (product,) = parse(dict([flat_product()]))
    assert find_place(product) == Place("images", ProductName("Debian", "12", "amd64", "default"))
    assert sources(product) == {
        "incus.tar.xz": f"images/{HEX}.incus.tar.xz",
        "disk.qcow2": f"images/{HEX}.qcow2",
        "rootfs.squashfs": f"images/{HEX}.squashfs",
    }


def test_canonicals_layout_is_mapped_by_its_fields() -> None:
    (product,) = parse(dict([canonical_product()]), "com.ubuntu.cloud:released:download")
    name = ProductName("ubuntu", "jammy", "amd64", "default")
    assert find_place(product) == Place("images", name)
    top = "server/releases/jammy/release-20240505/ubuntu-22.04-server-cloudimg-amd64"
    assert sources(product) == {
        "lxd.tar.xz": f"{top}-lxd.tar.xz",
        "disk1.img": f"{top}.img",
        "rootfs.squashfs": f"{top}.squashfs",
        "rootfs.tar.xz": f"{top}-root.tar.xz",
        "delta-20240401.vcdiff": f"{top}.20240401.vcdiff",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"arch": "x86_64"}, "a/b/amd64/default"),
        ({"arch": "armv7l"}, "a/b/armhf/default"),
        ({"arch": "arm64_generic"}, "a/b/arm64/default"),
        ({"arch": "x86_64_v3"}, "a/b/x86_64_v3/default"),
        ({"variant": ""}, "a/b/amd64/default"),
        ({"os": " x/y:z,%\u200b "}, "x-y-z---/b/amd64/default"),
        ({"os": "e\u0301"}, "\u00e9/b/amd64/default"),
        ({"arch": "vax"}, "clients do not know its architecture 'vax'"),
        ({"os": ""}, "its os '' is empty"),
        ({"os": ".."}, "its os '..' starts with a dot"),
        ({"release": "12~"}, "its release '12~' is a name of unfinished uploads or of file"),
        ({"variant": "a" * 255}, "its variant '" + "a" * 100 + "' is too long for a file name"),
    ],
)
def test_a_product_has_a_place_or_a_reason(fields: dict[str, str], expected: str) -> None:
    plain = own_product(os="a", release="b", arch="amd64", variant="c")
    found = find_place(replace(plain, key="x", **{"variant": "default", **fields}))
    if isinstance(found, Place):
        assert found.path == f"images/{expected}"
    else:
        assert found.startswith(expected)


def test_names_of_ours_are_not_changed() -> None:
    product = replace(own_product(), arch="x86_64", key="e\u0301 :12:x86_64:default")
    found = find_place(product)
    assert isinstance(found, Place)
    assert found.name.directory == "e\u0301 /12/x86_64/default"
    told = find_place(replace(own_product(), key="a/b:12:amd64:default"))
    assert told == "its os 'a/b' contains the character '/'"


def test_of_two_with_one_place_the_second_is_refused() -> None:
    (flat,) = parse(dict([flat_product()]))
    same = replace(flat, key="another", arch="amd64")
    unknown = replace(flat, key="unknown", arch="vax")
    found, refusals = map_products([flat, unknown, same, replace(flat, stream="other")])
    assert [one.product for one in found] == [flat]
    place = "its place, images/Debian/12/amd64/default, is that of 'Debian:12:default:x86_64'"
    assert [(one.key, one.reason) for one in refusals] == [
        ("unknown", "clients do not know its architecture 'vax'"),
        ("another", place),
        ("Debian:12:default:x86_64", place),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("20240505", ""),
        ("20240505.1", ""),
        ("20240505_05:24", ""),
        ("20241305", "its name '20241305' is not a version name, which starts with a date"),
        ("latest", "is not a version name"),
        ("20240505/..", "contains the character '/'"),
        ("20240505.part", "is a name of unfinished uploads"),
        ("20240505\x1b[2J", "contains the character '\\x1b'"),
        ("20240505" + "0" * 250, "is too long for a file name"),
    ],
)
def test_a_version_has_a_name_of_ours_or_a_reason(name: str, reason: str) -> None:
    (version,) = own_product().versions.values()
    found = map_version(PLACE, replace(version, name=name))
    if isinstance(found, str):
        assert reason
        assert reason in found
        assert found.isprintable()
    else:
        assert (found.path, reason) == (f"{PLACE.path}/{name}", "")


def metadata(path: str = "m.tar.xz", **fields: object) -> dict[str, Any]:
    return item("incus.tar.xz", path, combined_squashfs_sha256=FINGERPRINT, **fields)


ROOT = item("squashfs", "r")


def test_tarballs_keep_their_compression() -> None:
    for path, name in (
        ("x-incus.tar.gz", "incus.tar.gz"),
        ("incus.tar.zst", "incus.tar.zst"),
        ("incus.tgz", "incus.tar.xz"),
        ("x.tar.exe", "incus.tar.xz"),
        ("x.tar.", "incus.tar.xz"),
    ):
        assert names(mapped({"m": metadata(path), "r": ROOT})) == [name, "rootfs.squashfs"]
    unified = {"u": item("lxd_combined.tar.gz", "a/b.tar.xz")}
    assert names(mapped(unified)) == ["lxd_combined.tar.xz"]


def test_only_what_the_wanted_types_need() -> None:
    items = {
        "m": metadata(**{"combined_disk-kvm-img_sha256": HEX}),
        "r": ROOT,
        "d": item("disk-kvm.img", "d"),
        "v": item("squashfs.vcdiff", "v", delta_base="20240401"),
        "w": item("squashfs.vcdiff", "w", delta_base="../x"),
        "x": item("squashfs.vcdiff", "x", delta_base="20240401/../../../x"),
        "y": item("squashfs.vcdiff", "y", delta_base="20240401" + "0" * 250),
        "z": item("squashfs.vcdiff", "z", delta_base="20240401\0"),
        "u": item("incus_combined.tar.gz", "u", combined_type="virtual-machine"),
    }
    assert names(mapped(items, "type=container")) == [
        *("incus.tar.xz", "rootfs.squashfs", "delta-20240401.vcdiff")
    ]
    assert names(mapped(items, "type=vm")) == [
        *("incus.tar.xz", "disk.qcow2", "incus_combined.tar.gz")
    ]
    del items["d"]
    assert names(mapped(items, "type=vm")) == ["incus_combined.tar.gz"]


def test_of_one_ftype_the_first_is_taken() -> None:
    items = {
        "m": metadata(),
        "a": item("squashfs", "x/root.squashfs"),
        "b": item("squashfs", "x/rootfs.squashfs"),
        "c": item("squashfs", "x/rootfs.squashfs"),
    }
    found = mapped(items)
    assert isinstance(found, MappedVersion)
    assert [file.path for file in found.files] == ["m.tar.xz", "x/rootfs.squashfs"]


def test_both_clients_share_a_file_or_have_their_own() -> None:
    lxd = {**metadata(), "ftype": "lxd.tar.xz", "combined_disk1-img_sha256": HEX}
    found = mapped({"m": metadata(), "l": lxd, "r": ROOT})
    assert isinstance(found, MappedVersion)
    (file, _) = found.files
    assert (file.name, file.role.ftype) == ("incus.tar.xz", "incus.tar.xz")
    assert file.role.kind == "metadata"
    assert file.fingerprints == {"squashfs": FINGERPRINT, "disk1.img": HEX}
    lone = {"m": metadata("x/lxd.tar.xz"), "l": {**lxd, "path": "x/lxd.tar.xz"}, "r": ROOT}
    assert names(mapped(lone)) == ["lxd.tar.xz", "rootfs.squashfs"]
    apart = {"m": metadata(), "l": {**lxd, "path": "other"}, "r": ROOT}
    assert names(mapped(apart)) == ["incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs"]


@pytest.mark.parametrize(
    "other",
    [
        {**metadata(), "ftype": "lxd.tar.xz", "size": 6},
        {**metadata(), "ftype": "lxd.tar.xz", "sha256": HEX[::-1]},
        {**metadata(), "ftype": "lxd.tar.xz", "combined_squashfs_sha256": HEX},
        {**ROOT, "path": "m.tar.xz"},
    ],
)
def test_items_must_not_contradict_each_other(other: dict[str, Any]) -> None:
    items = {"m": metadata(), "other": other, "r2": ROOT}
    assert mapped(items) == "its items contradict each other about 'm.tar.xz'"


def test_two_files_have_two_names() -> None:
    delta = item("squashfs.vcdiff", "v", delta_base="20240401")
    items = {"m": metadata(), "r": ROOT, "v": delta, "w": {**delta, "path": "w"}}
    assert mapped(items) == "two of its files would be delta-20240401.vcdiff"


@given(st.text(max_size=300))
def test_a_name_without_a_fault_stays_in_its_directory(name: str) -> None:
    if not find_name_fault(name, allowed=":"):
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert name.encode()
        assert "\0" not in name


@given(st.text(max_size=60), st.sampled_from(["squashfs", "incus.tar.xz", "root.tar.xz"]))
def test_every_path_gets_a_name_of_its_ftype(path: str, ftype: str) -> None:
    (version,) = own_product().versions.values()
    first, _, root = version.items
    items = (
        replace(first, ftype="incus.tar.xz", fingerprints={"squashfs": HEX, "root.tar.xz": HEX}),
        replace(root, ftype="squashfs"),
        replace(root, ftype="root.tar.xz", path="other"),
    )
    changed = tuple(replace(one, path=path) if one.ftype == ftype else one for one in items)
    found = map_version(PLACE, replace(version, items=changed))
    if isinstance(found, str):
        assert "contradict" in found
        return
    assert len(found.files) == len(changed)
    for file in found.files:
        role = classify(file.name)
        assert role is not None
        assert (role.ftype, role.kind) == (file.role.ftype, file.role.kind)
