"""What leaves the disk, and above all what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.removal import is_image_file, remove_file, remove_version
from tests.support.command import Run
from tests.support.trees import published, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
OLD, NEW = "20240505", "20240506"
WHOLE = {".items.json", "incus.tar.xz", "rootfs.squashfs"}


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return an indexed mirror of two versions."""
    tree = version(f"debian/12/amd64/default/{OLD}") | version(f"debian/12/amd64/default/{NEW}")
    made = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", made).returncode == 0
    return made


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def give_up(path: Path) -> None:
    """Make a directory and all in it look as if nobody had worked there for years."""
    for one in (*path.iterdir(), path):
        os.utime(one, (1, 1), follow_symlinks=False)


@pytest.mark.parametrize(
    "name",
    [
        "incus.tar.xz",
        "rootfs.squashfs",
        "rootfs.20240504.vcdiff",
        "disk.20240504.qcow2.vcdiff",
        "SHA256SUMS.asc",
        "image.yaml",
        "build.log",
        "serial",
        "meta.tar.xz",
        ".items.json",
        ".items.json.tmp",
        ".importing",
    ],
)
def test_what_images_bring_along_is_image_file(name: str) -> None:
    assert is_image_file(name)


@pytest.mark.parametrize("name", ["notes.txt", ".bashrc", "incus.tar.xz.part", "items.json"])
def test_what_people_put_there_is_not(name: str) -> None:
    assert not is_image_file(name)


def test_a_removal_that_was_killed_is_ended_though_the_version_is_there_again(root: Path) -> None:
    product = root / PRODUCT
    hidden = product / f".{OLD}.pruned"
    hidden.mkdir()
    (hidden / "rootfs.squashfs").write_bytes(b"left")
    assert remove_version(Mirror.at(root), f"{PRODUCT}/{OLD}") == []
    assert names(product) == {NEW}


def test_a_version_or_a_file_that_is_gone_already_is_none_the_worse(root: Path) -> None:
    product = root / PRODUCT
    remove_file(Mirror.at(root), f"{PRODUCT}/{OLD}/disk.qcow2")
    remove_file(Mirror.at(root), f"{PRODUCT}/20240101/disk.qcow2")
    assert remove_version(Mirror.at(root), f"{PRODUCT}/20240101") == []
    assert names(product / OLD) == WHOLE


def test_a_version_that_is_a_link_is_not_removed(root: Path) -> None:
    link = root / PRODUCT / "20240501"
    link.symlink_to(NEW)
    with pytest.raises(OSError, match="not a directory"):
        remove_version(Mirror.at(root), f"{PRODUCT}/20240501")
    with pytest.raises(OSError, match="not a directory"):
        remove_file(Mirror.at(root), f"{PRODUCT}/20240501/rootfs.squashfs")
    assert link.is_symlink()
    assert names(root / PRODUCT / NEW) == WHOLE


def test_a_link_in_the_place_of_the_hidden_name_is_not_followed(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    """Who may upload to a product could otherwise have anything of these names deleted."""
    outside = write_tree(tmp_path / "outside", {"rootfs.squashfs": b"precious"})
    (root / PRODUCT / f".{OLD}.pruned").symlink_to(outside)
    (root / PRODUCT / ".20240404").symlink_to(outside)
    give_up(outside)
    os.utime(root / PRODUCT / ".20240404", (1, 1), follow_symlinks=False)
    for _ in range(2):
        result = fastindex("prune", "--keep", "1", "--grace", "0", root)
        assert "cannot be deleted (not a directory)" in result.stderr
    assert ".20240404" not in result.stderr  # it is no one's upload either
    assert names(outside) == {"rootfs.squashfs"}
    assert names(root / PRODUCT / OLD) == WHOLE


def test_a_withdrawn_version_that_somebody_removed_is_forgotten(fastindex: Run, root: Path) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    for path in (root / PRODUCT / OLD).iterdir():
        path.unlink()
    (root / PRODUCT / OLD).rmdir()
    result = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert result.returncode == 0
    assert "cannot be removed" not in result.stderr
    assert (root / "streams/.withdrawn.json").read_bytes() == b"{}\n"


@pytest.mark.parametrize("name", [".20240404", "20240404"])
@pytest.mark.parametrize("young", ["directory", "known file", "unknown file"])
def test_where_anything_is_young_an_upload_may_go_on(
    fastindex: Run, root: Path, name: str, young: str
) -> None:
    """It may give its files their old times, write to hidden ones, or have begun just now."""
    upload = root / PRODUCT / name
    upload.mkdir()
    (upload / "incus.tar.xz").write_bytes(b"i")
    (upload / ".rootfs.squashfs.Xa3b1c").write_bytes(b"half")
    give_up(upload)
    touched = {"known file": "incus.tar.xz", "unknown file": ".rootfs.squashfs.Xa3b1c"}
    os.utime(upload / touched.get(young, "."))
    before = names(upload)
    fastindex("prune", root)
    assert names(upload) == before


def test_an_empty_directory_is_not_given_up_at_once(fastindex: Run, root: Path) -> None:
    upload = root / PRODUCT / "20240404"
    upload.mkdir()
    fastindex("prune", root)
    assert upload.is_dir()
    give_up(upload)
    assert fastindex("prune", root).stdout == f"deleted {PRODUCT}/20240404\n"
    assert not upload.exists()


@pytest.mark.parametrize("name", ["incus.tar.xz", "rootfs.squashfs"])
def test_a_version_with_a_file_that_cannot_be_used_is_not_given_up(
    fastindex: Run, root: Path, tmp_path: Path, name: str
) -> None:
    """It is told each night; what the file is worth, only people know."""
    path = root / PRODUCT / OLD / name
    path.symlink_to(path.rename(tmp_path / "outside"))
    give_up(path.parent)
    result = fastindex("prune", root)
    assert "leads out of the mirror" in result.stderr
    assert names(path.parent) == WHOLE
    assert published(root) == {f"debian:12:amd64:default {NEW}"}
