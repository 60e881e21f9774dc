from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support import client_model
from tests.support.command import AsNobody, Run
from tests.support.contents import make_content
from tests.support.trees import (
    catalogue,
    in_stream,
    published,
    sha256,
    stamps,
    version,
    write_file,
    write_tree,
)

VERSION = "images/debian/12/amd64/default/20240505_05:24"
KEY = "debian:12:amd64:default"


def items(root: Path, key: str = KEY, name: str = "20240505_05:24") -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = catalogue(root)["products"][key]["versions"][name]["items"]
    return found


def test_each_metadata_file_gives_each_root_a_fingerprint(fastindex: Run, tmp_path: Path) -> None:
    metadata = ("incus.tar.xz", "lxd.tar.xz")
    roots = ("rootfs.squashfs", "rootfs.tar.xz", "disk.qcow2", "disk1.img", "uefi1.img")
    made = {name: make_content(name, f"of {name}") for name in (*metadata, *roots)}
    write_tree(tmp_path, {f"{VERSION}/{name}": content for name, content in made.items()})
    assert fastindex(tmp_path).returncode == 0
    found = items(tmp_path)
    for name in metadata:
        item = found[name]
        of_roots = [sha256(made[name], made[root]) for root in roots]
        assert item["sha256"] == sha256(made[name])
        assert item["combined_squashfs_sha256"] == of_roots[0]
        assert item["combined_rootxz_sha256"] == item["combined_sha256"] == of_roots[1]
        assert item["combined_disk-kvm-img_sha256"] == of_roots[2]
        assert item["combined_disk1-img_sha256"] == of_roots[3]
        assert item["combined_uefi1-img_sha256"] == of_roots[4]
    assert found["rootfs.squashfs"] == {
        "ftype": "squashfs",
        "path": f"{VERSION}/rootfs.squashfs",
        "size": len(made["rootfs.squashfs"]),
        "sha256": sha256(made["rootfs.squashfs"]),
    }


@pytest.mark.parametrize("client", ["incus", "lxd"])
@pytest.mark.parametrize("present", ["incus", "lxd"])
def test_one_metadata_file_serves_both_clients(
    fastindex: Run, tmp_path: Path, client: str, present: str
) -> None:
    metadata, root = (make_content(name, "") for name in ("incus.tar.xz", "rootfs.squashfs"))
    write_tree(tmp_path, version(**{f"{present}_tar_xz": metadata, "rootfs_squashfs": root}))
    assert fastindex(tmp_path).returncode == 0
    (fingerprint,) = client_model.images(tmp_path, client)
    assert fingerprint == sha256(metadata, root)
    assert {item["path"] for item in items(tmp_path).values()} == {
        f"{VERSION}/{present}.tar.xz",
        f"{VERSION}/rootfs.squashfs",
    }


def test_it_serves_both_though_a_root_cannot_be_used(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), f"{VERSION}/disk.qcow2": "/etc/passwd"})
    assert fastindex(tmp_path).returncode == 3
    assert set(items(tmp_path)) == {"incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs"}


def test_unified_images_need_no_metadata(fastindex: Run, tmp_path: Path) -> None:
    names = ("incus_combined.tar.xz", "lxd_combined.tar.gz")
    for_incus, for_lxd = (make_content(name, name) for name in names)
    write_tree(tmp_path, {f"{VERSION}/{names[0]}": for_incus, f"{VERSION}/{names[1]}": for_lxd})
    assert fastindex(tmp_path).returncode == 0
    assert set(client_model.images(tmp_path, "incus")) == {sha256(for_incus)}
    assert set(client_model.images(tmp_path, "lxd")) == {sha256(for_lxd)}


@pytest.mark.parametrize("name", ["incus_combined.tar.xz", "lxd_combined.tar.gz"])
def test_a_unified_image_for_one_client_serves_both(
    fastindex: Run, tmp_path: Path, name: str
) -> None:
    content = make_content(name, "one")
    write_tree(tmp_path, {f"{VERSION}/{name}": content})
    assert fastindex(tmp_path).returncode == 0
    for client in ("incus", "lxd"):
        assert set(client_model.images(tmp_path, client)) == {sha256(content)}
    found = items(tmp_path)
    assert {item["ftype"] for item in found.values()} == {
        "incus_combined.tar.gz",
        "lxd_combined.tar.gz",
    }
    assert {item["path"] for item in found.values()} == {f"{VERSION}/{name}"}
    (row,) = json.loads(fastindex("list", "--json", tmp_path).stdout)
    assert row["file"] == name
    assert row["incus_fingerprint"] == row["lxd_fingerprint"] == sha256(content)
    for method in ("--sha256", "-q"):
        assert fastindex("verify", method, tmp_path).returncode == 0
    write_tree(tmp_path, version("debian/13/amd64/default/20240505_05:24"))
    assert fastindex(tmp_path).returncode == 0
    told = fastindex("remove", sha256(content)[:12], tmp_path)
    assert told.returncode == 0
    assert KEY not in catalogue(tmp_path)["products"]


def test_a_unified_image_beside_one_that_cannot_be_read_does_not_take_its_place(
    fastindex: Run, tmp_path: Path
) -> None:
    content = make_content("incus_combined.tar.gz", "one")
    write_tree(tmp_path, {f"{VERSION}/incus_combined.tar.gz": content})
    write_tree(tmp_path, {f"{VERSION}/lxd_combined.tar.gz": "/etc/passwd"})
    assert fastindex(tmp_path).returncode == 3
    assert client_model.images(tmp_path, "lxd") == {}
    assert set(client_model.images(tmp_path, "incus")) == {sha256(content)}


def test_a_delta_is_published_with_its_base(fastindex: Run, tmp_path: Path) -> None:
    new = "debian/12/amd64/default/20240506_05:24"
    write_tree(
        tmp_path,
        {
            **version(),
            **version(new),
            f"images/{new}/rootfs.20240505_05:24.vcdiff": b"delta",
            f"images/{new}/disk.20240505_05:24.qcow2.vcdiff": b"vm delta",
        },
    )
    assert fastindex(tmp_path).returncode == 0
    found = items(tmp_path, name="20240506_05:24")
    assert found["rootfs.20240505_05:24.vcdiff"]["delta_base"] == "20240505_05:24"
    assert found["rootfs.20240505_05:24.vcdiff"]["ftype"] == "squashfs.vcdiff"
    assert "disk.20240505_05:24.qcow2.vcdiff" not in found


def test_a_delta_whose_base_cannot_be_published_goes_too(fastindex: Run, tmp_path: Path) -> None:
    new = "debian/12/amd64/default/20240506_05:24"
    write_tree(
        tmp_path,
        {
            f"{VERSION}/rootfs.squashfs": b"a base without metadata",
            **version(new),
            f"images/{new}/rootfs.20240505_05:24.vcdiff": b"delta",
        },
    )
    assert fastindex(tmp_path).returncode == 3
    assert set(items(tmp_path, name="20240506_05:24")) == {
        "incus.tar.xz",
        "lxd.tar.xz",
        "rootfs.squashfs",
    }


SAME = {
    "incus_tar_xz": make_content("incus.tar.xz", "same"),
    "rootfs_squashfs": make_content("rootfs.squashfs", "same"),
}


def test_within_a_product_the_newest_keeps_a_fingerprint(fastindex: Run, tmp_path: Path) -> None:
    for day in ("20240505", "20240506"):
        write_tree(tmp_path, version(f"debian/12/amd64/default/{day}", **SAME))
    result = fastindex(tmp_path)
    assert result.returncode == 3
    assert published(tmp_path) == {f"{KEY} 20240506"}
    assert "default/20240505/rootfs.squashfs: the same image (fingerprint) as" in result.stderr
    assert "1 version left out" in result.stderr


def test_among_products_the_first_keeps_a_fingerprint(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version("debian/12/amd64/default/20240505", **SAME))
    write_tree(tmp_path, version("debian/12/amd64/cloud/20240506", **SAME))
    assert fastindex(tmp_path).returncode == 3
    assert published(tmp_path) == {"debian:12:amd64:cloud 20240506"}


def test_among_streams_the_first_named_keeps_a_fingerprint(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(**SAME))
    write_tree(tmp_path, {**in_stream("daily", version(**SAME)), **version("b/1/amd64/x/20240101")})
    write_tree(tmp_path, in_stream("daily", version("c/1/amd64/x/20240101")))
    result = fastindex("--stream", "daily", "--stream", "images", tmp_path)
    assert result.returncode == 3
    assert f"{KEY} 20240505_05:24" in published(tmp_path, "daily")
    assert published(tmp_path, "images") == {"b:1:amd64:x 20240101"}


def test_a_duplicate_root_goes_but_its_versions_other_image_stays(
    fastindex: Run, tmp_path: Path
) -> None:
    old_disk, new_disk = (make_content("disk.qcow2", salt) for salt in ("old", "new"))
    write_tree(tmp_path, version("debian/12/amd64/default/20240505", **SAME, disk_qcow2=old_disk))
    write_tree(tmp_path, version("debian/12/amd64/default/20240506", **SAME, disk_qcow2=new_disk))
    result = fastindex(tmp_path)
    assert result.returncode == 3
    assert "0 versions left out, 1 file left out" in result.stderr
    old = items(tmp_path, name="20240505")
    assert "rootfs.squashfs" not in old
    assert "combined_squashfs_sha256" not in old["incus.tar.xz"]
    assert old["incus.tar.xz"]["combined_disk-kvm-img_sha256"] == sha256(
        SAME["incus_tar_xz"], old_disk
    )
    seen = client_model.images(tmp_path, "incus")
    assert all(len(images) == 1 for images in seen.values())
    assert len(seen) == 3


def test_a_duplicate_tarball_takes_the_old_clients_fingerprint_along(
    fastindex: Run, tmp_path: Path
) -> None:
    same = {"incus_tar_xz": b"meta", "rootfs_tar_xz": b"root"}
    write_tree(tmp_path, version("debian/12/amd64/default/20240505", **same, disk_qcow2=b"old"))
    write_tree(tmp_path, version("debian/12/amd64/default/20240506", **same, disk_qcow2=b"new"))
    fastindex(tmp_path)
    assert "combined_sha256" not in items(tmp_path, name="20240505")["incus.tar.xz"]


def test_two_roots_of_the_same_bytes_are_one_image(fastindex: Run, tmp_path: Path) -> None:
    same = make_content("disk.qcow2", "same")
    write_tree(tmp_path, version(incus_tar_xz=b"m", disk_qcow2=same, uefi1_img=same))
    assert fastindex(tmp_path).returncode == 3
    assert len(client_model.images(tmp_path, "incus")) == 1


def test_hard_linked_roots_with_metadata_of_their_own_are_two_images(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/cloud/20240505_05:24")})
    cloud = tmp_path / "images/debian/12/amd64/cloud/20240505_05:24"
    (cloud / "rootfs.squashfs").unlink()
    os.link(tmp_path / VERSION / "rootfs.squashfs", cloud / "rootfs.squashfs")
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert "3 files hashed" in result.stderr
    metadata = (cloud / "incus.tar.xz").read_bytes()
    root = (cloud / "rootfs.squashfs").read_bytes()
    assert sha256(metadata, root) in client_model.images(tmp_path, "lxd")


def test_equal_metadata_is_no_duplicate_between_the_two_clients(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version(incus_tar_xz=b"m", lxd_tar_xz=b"m", rootfs_squashfs=b"r"))
    assert fastindex(tmp_path).returncode == 0
    assert (
        client_model.images(tmp_path, "incus").keys() == client_model.images(tmp_path, "lxd").keys()
    )


def test_alias_collisions_are_told_without_loss(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/x86_64/default/20240505_05:24")})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert (
        "shares 2 aliases with images/debian/12/amd64/default, such as 'debian/12'" in result.stderr
    )
    assert len(published(tmp_path)) == 2


def test_a_squashfs_beside_a_unified_image_is_told_without_loss(
    fastindex: Run, tmp_path: Path
) -> None:
    older, newer = (f"debian/12/amd64/default/2024050{day}_05:24" for day in (5, 7))
    write_tree(tmp_path, {**version(older), **version(newer)})
    write_tree(tmp_path, {f"images/{older}/incus_combined.tar.gz": b"no alias leads there"})
    assert "now one" not in fastindex(tmp_path).stderr
    write_tree(tmp_path, {f"images/{newer}/incus_combined.tar.gz": b"the other"})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert f"warning: images/{newer}: has both a squashfs and a unified image" in result.stderr


def test_mixed_styles_of_version_names_are_told_without_loss(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/202405060524")})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert "version names of mixed styles (20240505_05:24, 202405060524)" in result.stderr


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("incus.tar.xz", "has no usable metadata file"),
        ("rootfs.squashfs", "has no usable root file"),
    ],
)
def test_an_incomplete_version_is_left_out_by_name(
    fastindex: Run, tmp_path: Path, missing: str, words: str
) -> None:
    good = "debian/13/amd64/default/20240505_05:24"
    write_tree(tmp_path, {**version(), **version(good)})
    (tmp_path / VERSION / missing).unlink()
    result = fastindex(tmp_path)
    assert result.returncode == 3
    assert f"warning: {VERSION}: {words}" in result.stderr
    assert published(tmp_path) == {"debian:13:amd64:default 20240505_05:24"}


def test_a_file_that_cannot_be_read_is_left_out_and_looked_at_again(
    tmp_path: Path, fastindex_as_nobody: AsNobody
) -> None:
    root = write_tree(tmp_path / "root", {**version(), f"{VERSION}/disk.qcow2": b"secret"})
    (root / VERSION / "disk.qcow2").chmod(0)
    for directory in (tmp_path, *tmp_path.rglob("*/")):
        directory.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o005)
    for _ in range(2):
        code, stderr = fastindex_as_nobody(root, "-v")
        assert code == 3, stderr
        assert f"{VERSION}/disk.qcow2: cannot be read (Permission denied)" in stderr
        assert "rootfs.squashfs" in items(root)
    (root / VERSION / "disk.qcow2").chmod(0o644)  # changes neither size nor mtime
    code, stderr = fastindex_as_nobody(root)
    assert code == 0, stderr
    assert "disk.qcow2" in items(root)


def test_a_directory_that_cannot_be_listed_is_left_out(
    tmp_path: Path, fastindex_as_nobody: AsNobody
) -> None:
    other = "images/alpine"
    root = write_tree(
        tmp_path / "root", {**version(), **version("alpine/3/amd64/default/20240505")}
    )
    for directory in (tmp_path, *tmp_path.rglob("*/")):
        directory.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o005)
    (root / other).chmod(0)
    code, stderr = fastindex_as_nobody(root)
    assert code == 3, stderr
    assert f"{other}: the directory cannot be listed (Permission denied)" in stderr
    assert published(root) == {f"{KEY} 20240505_05:24"}


def test_a_replaced_file_is_hashed_again(fastindex: Run, tmp_path: Path) -> None:
    metadata, two = make_content("incus.tar.xz", "m"), make_content("rootfs.squashfs", "two")
    write_tree(tmp_path, version(incus_tar_xz=metadata, rootfs_squashfs=b"one"))
    fastindex(tmp_path)
    write_file(tmp_path / VERSION / "rootfs.squashfs", two, 1_700_000_001_000_000_000)
    fastindex(tmp_path)
    assert items(tmp_path)["incus.tar.xz"]["combined_squashfs_sha256"] == sha256(metadata, two)


def test_a_level_that_is_forgotten_is_named_and_the_rest_published(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version())
    for path in (
        "images/flat",
        "images/debian/12/amd64/20240505_05:24",
        "images/debian/12/amd64/x",
    ):
        write_tree(tmp_path, {f"{path}/incus.tar.xz": b"x", f"{path}/rootfs.squashfs": b"x"})
    result = fastindex(tmp_path)
    assert result.returncode == 3
    assert (
        "images/flat: has image files, but the levels RELEASE/ARCH/VARIANT/VERSION" in result.stderr
    )
    assert "amd64/20240505_05:24: has image files, but the level VARIANT is" in result.stderr
    assert "amd64/x: has image files, but the level VERSION is missing" in result.stderr
    assert "3 versions left out" in result.stderr
    assert published(tmp_path) == {f"{KEY} 20240505_05:24"}


def test_a_flat_tree_says_how_to_import_it_and_never_proposes_force(
    fastindex: Run, tmp_path: Path
) -> None:
    """That of incus-simplestreams, which has an index of its own, too."""
    for number in range(2):
        write_tree(tmp_path, {f"images/{number:064x}.incus.tar.xz": b"i"})
        write_tree(tmp_path, {f"images/{number:064x}.squashfs": b"s"})
    index = b'{"index":{},"format":"index:1.0"}'
    write_tree(tmp_path, {"streams/v1/index.json": index, "streams/v1/images.json": b"{}"})
    before = stamps(tmp_path)
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "the flat tree of incus-simplestreams" in result.stderr
    assert f"fastindex import --copy {tmp_path}/images NEW_ROOT" in result.stderr
    assert "--force" not in result.stderr
    assert {path: stamps(tmp_path)[path] for path in before} == before


def test_a_file_that_only_its_owner_can_read_is_published_with_a_warning(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version())
    (tmp_path / VERSION / "rootfs.squashfs").chmod(0o600)
    for _ in range(2):
        result = fastindex(tmp_path)
        assert result.returncode == 0
        assert f"{VERSION}/rootfs.squashfs: only its owner can read it" in result.stderr
    assert len(published(tmp_path)) == 1
    (tmp_path / VERSION / "rootfs.squashfs").chmod(0o644)
    assert "1 warning" not in fastindex(tmp_path).stderr


def test_a_sparse_file_is_left_out_by_name(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    write_tree(tmp_path, {f"{VERSION}/disk.qcow2": b"disk"})
    os.truncate(tmp_path / VERSION / "disk.qcow2", 1 << 30)
    result = fastindex(tmp_path)
    assert result.returncode == 3
    assert f"{VERSION}/disk.qcow2: not an image: nearly all of its 1,073,741,824" in result.stderr
    assert "disk.qcow2" not in items(tmp_path)


def test_a_level_too_many_is_named(fastindex: Run, tmp_path: Path) -> None:
    good = version("debian/12/amd64/default/20240505_05:24")
    deep = version("debian/13/amd64/default/extra/20240505_05:24")
    root = write_tree(tmp_path / "root", good | deep)
    result = fastindex(root)
    assert result.returncode == 3
    assert (
        "default/extra: not a version name, but has versions in it (20240505_05:24)"
        in result.stderr
    )
    assert "move them to images/debian/13/amd64/default," in result.stderr


@pytest.mark.parametrize(
    "aliases",
    [b"", b"aliases = []", b'aliases = ["a b,c"]', b'aliases = ["alpine/3"]'],
    ids=["none", "an empty list", "refused", "of another product"],
)
def test_a_product_that_is_left_without_an_alias_is_told(
    fastindex: Run, tmp_path: Path, aliases: bytes
) -> None:
    tree = version("debian/12/amd64/default/20240505") | version("alpine/3/amd64/default/20240505")
    said = b"replace_aliases = true\n" + aliases
    root = write_tree(tmp_path / "root", {**tree, "images/debian/.product.toml": said})
    told = (
        "warning: images/debian/12/amd64/default: has no alias: clients find its images by "
        "fingerprint only; name other aliases in .product.toml, or set replace_aliases to false"
    )
    for command in ((), (), ("verify", "--quick")):
        result = fastindex(*command, root)
        assert result.returncode == 0
        assert result.stderr.count(told) == 1
        assert "images/alpine/3/amd64/default: has no alias" not in result.stderr
    write_tree(root, {"images/debian/.product.toml": b""})
    assert "has no alias" not in fastindex(root).stderr
