"""``fastindex list`` and ``fastindex diff``."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from fastindex.catalogue.images import Image, find_named, list_images
from fastindex.catalogue.published import open_catalogue
from fastindex.errors import TreeError
from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.trees import Files, in_stream, sha256, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
INCUS, LXD, SQUASHFS, UNIFIED = (
    make_content(name, name)
    for name in ("incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs", "lxd_combined.tar.gz")
)


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    tree = {
        **version(f"{PRODUCT}/20240505", incus_tar_xz=b"i1", lxd_tar_xz=b"l1", disk_qcow2=b"d1"),
        **version(
            f"{PRODUCT}/20240506",
            incus_tar_xz=INCUS,
            lxd_tar_xz=LXD,
            rootfs_squashfs=SQUASHFS,
        ),
        "images/alpine/3/arm64/cloud/20240507/lxd_combined.tar.gz": UNIFIED,
    }
    made = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", made).returncode == 0
    return made


def images(root: Path) -> list[Image]:
    with open_catalogue(str(root)) as published:
        return list(list_images(published.sorted_products()))


def test_a_row_an_image_as_clients_see_it(fastindex: Run, root: Path) -> None:
    result = fastindex("list", "--json", "--all", root)
    rows = json.loads(result.stdout)
    assert [(row["serial"], row["type"], row["is_newest"]) for row in rows] == [
        ("20240507", "container", True),
        ("20240506", "container", True),
        ("20240505", "virtual-machine", True),
    ]
    assert rows[1] == {
        "aliases": ["debian/12/default", "debian/12"],
        "fingerprint": sha256(INCUS, SQUASHFS),
        "incus_fingerprint": sha256(INCUS, SQUASHFS),
        "lxd_fingerprint": sha256(LXD, SQUASHFS),
        "os": "debian",
        "release": "12",
        "variant": "default",
        "arch": "amd64",
        "type": "container",
        "size": len(INCUS + SQUASHFS),
        "date": "2024-05-06",
        "serial": "20240506",
        "version": f"images/{PRODUCT}/20240506",
        "file": "rootfs.squashfs",
        "is_newest": True,
    }
    # A unified image for one client serves both, and is one image.
    assert rows[0]["file"] == "lxd_combined.tar.gz"
    assert rows[0]["fingerprint"] == rows[0]["lxd_fingerprint"] == sha256(UNIFIED)
    assert rows[0]["incus_fingerprint"] == sha256(UNIFIED)


def test_only_the_newest_of_each_type_unless_all(fastindex: Run, root: Path) -> None:
    write_tree(root, version(f"{PRODUCT}/20240507"))
    assert fastindex("-q", root).returncode == 0
    newest = fastindex("list", root).stdout.splitlines()
    heads = "ALIAS FINGERPRINT OS RELEASE VARIANT ARCH TYPE SIZE DATE SERIAL"
    assert " ".join(newest[0].split()) == heads
    assert [line.split()[-1] for line in newest[1:]] == ["20240507", "20240507", "20240505"]
    assert len(fastindex("list", "--all", root).stdout.splitlines()) == 5


def test_the_stream_is_a_column_if_there_are_several(fastindex: Run, root: Path) -> None:
    assert "STREAM" not in fastindex("list", root).stdout
    write_tree(root, in_stream("daily", version("fedora/40/amd64/default/20240507")))
    assert fastindex("-q", "--stream", "daily", root).returncode == 0
    head, *rows = fastindex("list", root).stdout.splitlines()
    heads = "ALIAS FINGERPRINT STREAM OS RELEASE VARIANT ARCH TYPE SIZE DATE SERIAL"
    assert " ".join(head.split()) == heads
    told = sorted(tuple(row.split()[2:4]) for row in rows)
    assert told == [("daily", "fedora"), ("images", "alpine"), *[("images", "debian")] * 2]
    listed = json.loads(fastindex("list", "--json", root).stdout)
    assert {image["version"].split("/")[0] for image in listed} == {"daily", "images"}


def test_the_newest_of_each_client_but_an_alias_means_the_newer(root: Path, fastindex: Run) -> None:
    write_tree(root, {"images/alpine/3/arm64/cloud/20240508/incus_combined.tar.gz": b"i"})
    assert fastindex("-q", root).returncode == 0
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    (one,) = document["products"]["alpine:3:arm64:cloud"]["versions"]["20240508"].values()
    del one["lxd_combined.tar.gz"]  # as fastindex wrote it once
    path.write_text(json.dumps(document))
    rows = json.loads(fastindex("list", "--json", root).stdout)
    assert [row["serial"] for row in rows if row["os"] == "alpine"] == ["20240508", "20240507"]
    assert [image.serial for image in find_named(images(root), "alpine/3/cloud")] == ["20240508"]


def test_an_image_is_found_by_alias_and_by_prefix(root: Path) -> None:
    every = images(root)
    assert [image.serial for image in find_named(every, "debian/12")] == ["20240506", "20240505"]
    fingerprint = sha256(LXD, SQUASHFS)
    for word in (fingerprint, fingerprint[:12], fingerprint[:4].upper()):
        assert [image.serial for image in find_named(every, word)] == ["20240506"]
    for word in (fingerprint[:3], "zzzz", "", "debian"):
        assert find_named(every, word) == []


def test_no_word_names_a_product_without_aliases(fastindex: Run, root: Path) -> None:
    """As ``remove ""`` of a script whose variable is empty would."""
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    for product in document["products"].values():
        product["requirements"] = {"secureboot": False}  # so that clients read no aliases
    path.write_text(json.dumps(document))
    every = images(root)
    assert len(every) == 3
    assert find_named(every, "") == []
    assert fastindex("remove", "", root).returncode == 2
    assert fastindex("list", root).returncode == 4


def test_all_images_of_the_newest_version_answer_to_the_alias(
    fastindex: Run, tmp_path: Path
) -> None:
    def files(day: str) -> Files:
        every = ("incus.tar.xz", "rootfs.squashfs", "rootfs.tar.xz", "incus_combined.tar.gz")
        return {f"images/{PRODUCT}/{day}/{name}": f"{name} {day}".encode() for name in every}

    root = write_tree(tmp_path / "root", files("20240505") | files("20240506"))
    assert fastindex("-q", root).returncode == 0
    found = {image.file: image for image in find_named(images(root), "debian/12")}
    assert {image.serial for image in found.values()} == {"20240506"}
    directory = root / f"images/{PRODUCT}/20240506"
    size = {name: (directory / name).stat().st_size for name in found}
    metadata = (directory / "incus.tar.xz").stat().st_size
    assert {name: image.size for name, image in found.items()} == {
        "incus_combined.tar.gz": size["incus_combined.tar.gz"],  # with its own metadata
        "rootfs.squashfs": size["rootfs.squashfs"] + metadata,
        "rootfs.tar.xz": size["rootfs.tar.xz"] + metadata,
    }


def test_what_clients_do_not_show_is_not_listed_and_a_unified_machine_is_one(root: Path) -> None:
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    products = document["products"]
    for item in products["debian:12:amd64:default"]["versions"]["20240506"]["items"].values():
        item.pop("combined_squashfs_sha256", None)
    for unified in products["alpine:3:arm64:cloud"]["versions"]["20240507"]["items"].values():
        unified["combined_type"] = "virtual-machine"
    path.write_text(json.dumps(document))
    assert [(image.serial, image.type) for image in images(root)] == [
        ("20240507", "virtual-machine"),
        ("20240505", "virtual-machine"),
    ]


def test_nothing_published_is_told(fastindex: Run, tmp_path: Path) -> None:
    result = fastindex("list", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    told = f"error: nothing is published in {tmp_path}; run fastindex ROOT to publish it\n"
    assert told in result.stderr


def test_a_catalogue_that_lost_its_index_is_told(fastindex: Run, root: Path) -> None:
    (root / "streams/v1/index.json").unlink()
    result = fastindex("list", root)
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot read the catalogue" in result.stderr
    assert "run fastindex ROOT to write it" in result.stderr


def test_what_the_index_names_and_the_file_lacks_is_told(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "products": {}}))
    result = fastindex("list", root)
    assert (result.returncode, result.stdout.count("\n")) == (4, 1)
    assert "this catalogue is damaged; run fastindex verify to see what is wrong" in result.stderr
    told = fastindex("verify", "-q", root)
    assert told.returncode == 4
    lost = "lacks 2 products that the index names, such as alpine:3:arm64:cloud"
    assert told.stdout.splitlines() == [
        "streams/v1/images.json",
        f"  {lost}; run fastindex ROOT to write it",
    ]


def test_what_only_the_file_has_is_listed_with_a_warning(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/index.json"
    document = json.loads(path.read_bytes())
    del document["index"]["images"]["products"][1:]
    path.write_text(json.dumps(document))
    for command in (("list",), ("verify", "--quick")):
        result = fastindex(*command, root)
        assert result.returncode == 0
        assert "has the product debian:12:amd64:default, which the index does not" in result.stderr


def test_a_catalogue_that_may_not_be_read_is_not_to_be_built_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, _: int) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("fastindex.catalogue.published.read_small_file", refuse)
    with pytest.raises(TreeError, match=r"\(Permission denied\); give this user read permission"):
        images(root)


def test_diff_tells_what_the_next_build_would_change(fastindex: Run, root: Path) -> None:
    result = fastindex("diff", root)
    assert (result.returncode, result.stdout) == (0, "")
    write_tree(root, version(f"{PRODUCT}/20240507", incus_tar_xz=b"i3", disk_qcow2=b"d" * 2000))
    gone, new = root / f"images/{PRODUCT}/20240505", root / f"images/{PRODUCT}/20240507"
    gone_bytes = sum(path.stat().st_size for path in gone.glob("[!.]*"))
    new_bytes = sum(path.stat().st_size for path in new.iterdir())
    assert gone_bytes < 1000
    assert 2000 < new_bytes < 3000
    (gone / "disk.qcow2").unlink()
    before = (root / "streams/v1/images.json").read_bytes()
    result = fastindex("diff", root)
    assert result.returncode == 3
    assert result.stdout.splitlines() == [
        f"- images debian:12:amd64:default 20240505 ({gone_bytes} B)",
        f"+ images debian:12:amd64:default 20240507 ({new_bytes / 1000:.1f} kB)",
    ]
    assert (root / "streams/v1/images.json").read_bytes() == before
    assert not (root / f"images/{PRODUCT}/20240507/.items.json").exists()


@pytest.mark.parametrize("content", [None, b"{}", b"torn"])
def test_diff_tells_that_the_index_would_be_written(
    fastindex: Run, root: Path, content: bytes | None
) -> None:
    index = root / "streams/v1/index.json"
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    result = fastindex("diff", root)
    assert result.returncode == 3
    assert result.stdout == "~ streams/v1/index.json (missing, or not as it would be written)\n"
    assert (index.read_bytes() if index.exists() else None) == content
    assert fastindex("-q", root).returncode == 0
    result = fastindex("diff", root)
    assert (result.returncode, result.stdout) == (0, "")


def test_diff_tells_that_a_product_file_would_be_written(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/images.json"
    before = path.read_bytes()
    path.write_text(json.dumps(json.loads(before), indent=2))
    result = fastindex("diff", root)
    assert result.returncode == 3
    assert result.stdout == "~ streams/v1/images.json (missing, or not as it would be written)\n"
    assert fastindex("-q", root).returncode == 0
    assert path.read_bytes() == before


def test_diff_fails_where_the_build_would_refuse(fastindex: Run, root: Path) -> None:
    for path in (root / "images").rglob("*.*"):
        path.unlink()
    result = fastindex("diff", root)
    assert result.returncode == 1
    assert "so nothing was published" in result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_diff_looks_where_the_build_does(fastindex: Run, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", in_stream("other", version()))
    where = ("--stream", "other", "--cache-dir", tmp_path / "caches", "--output", tmp_path / "out")
    assert fastindex("-q", *where, root).returncode == 0
    path = root / "other/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
    # Seen only by who has no cache.
    write_file(path, make_content(path.name, b"?" * (path.stat().st_size - 96)))
    result = fastindex("diff", *where, root)
    assert (result.returncode, result.stdout) == (0, "")


def test_diff_goes_by_what_changes_not_by_what_is_left_out(fastindex: Run, root: Path) -> None:
    write_tree(root, {f"images/{PRODUCT}/20240507/incus.tar.xz": b"alone"})
    result = fastindex("diff", root)
    assert (result.returncode, result.stdout) == (0, "")
    assert "no usable root file" in result.stderr
    write_tree(root, version(f"{PRODUCT}/20240507", rootfs_squashfs=b"s3"))
    assert fastindex("diff", root).returncode == 3


def listed(fastindex: Run, root: Path, *filters: str) -> tuple[list[str], str]:
    """Return the directories and types of the images that the filters accept, and the messages."""
    words = [word for text in filters for word in ("--filter", text)]
    result = fastindex("list", "--all", "--json", *words, root)
    assert result.returncode == 0
    rows = json.loads(result.stdout)
    return [f"{row['version'].split('/')[1]} {row['serial']}" for row in rows], result.stderr


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["os=debian"], ["debian 20240506", "debian 20240505"]),
        (["os=Debian,ALPINE type=vm"], ["debian 20240505"]),
        (["arch=aarch64"], ["alpine 20240507"]),
        (["variant!=cloud version~06$"], ["debian 20240506"]),
        (["alias=debian/12", "type=container version=20240507"], None),
        (["release=3", "type=virtual-machine"], ["alpine 20240507", "debian 20240505"]),
        (["label~."], []),
    ],
)
def test_only_what_a_filter_accepts(
    fastindex: Run, root: Path, filters: list[str], found: list[str] | None
) -> None:
    everything = ["alpine 20240507", "debian 20240506", "debian 20240505"]
    rows, said = listed(fastindex, root, *filters)
    assert rows == (everything if found is None else found)
    assert said == ""


def test_a_wrong_filter_is_wrong_usage(fastindex: Run, root: Path) -> None:
    result = fastindex("list", "--filter", "oss=debian", root)
    assert (result.returncode, result.stdout) == (2, "")
    assert "'oss' is not a key; did you mean os?" in result.stderr


def test_a_value_that_nothing_has_is_told(fastindex: Run, root: Path) -> None:
    rows, said = listed(fastindex, root, "os=debain,alpine version=x")
    assert rows == []
    assert said.splitlines() == [
        "fastindex: warning: filter os=debain: nothing has the os 'debain'; did you mean debian?",
        "fastindex: warning: filter version=x: nothing has the version 'x'; "
        "correct it, or leave it out",
    ]


def test_a_filter_for_an_older_version_needs_all(fastindex: Run, root: Path) -> None:
    write_tree(root, version(f"{PRODUCT}/20240507"))
    assert fastindex("-q", root).returncode == 0
    result = fastindex("list", "--filter", "version=20240506", root)
    assert (result.returncode, len(result.stdout.splitlines()), result.stderr) == (0, 1, "")
    assert listed(fastindex, root, "version=20240506")[0] == ["debian 20240506"]


def test_digests_as_sha256sum_reads_them(fastindex: Run, tmp_path: Path) -> None:
    old, new = "debian/12/amd64/default/20240505_05:24", "debian/12/amd64/default/20240506_05:24"
    write_tree(tmp_path, version(old) | version(new) | version("alpine/3/amd64/default/20240101"))
    fastindex(tmp_path)
    done = fastindex("list", "--all", "--sha256sums", "--filter", "os=debian", tmp_path)
    check = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input=done.stdout,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    checked = {line.rpartition(": ")[0] for line in check.stdout.splitlines()}
    files = (path for one in (old, new) for path in (tmp_path / "images" / one).glob("[!.]*"))
    assert checked == {str(path.relative_to(tmp_path)) for path in files}
    newest = fastindex("list", "--sha256sums", tmp_path).stdout
    assert old not in newest
    assert new in newest
