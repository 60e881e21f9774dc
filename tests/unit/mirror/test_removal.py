"""What leaves the disk, and above all what does not."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.removal import (
    find_leftovers,
    is_abandoned,
    is_image_file,
    remove_file,
    remove_leftover,
    remove_version,
)
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.run import prune
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


def prune_later(root: Path) -> PruneReport:
    """Prune a few days later: nobody can make a change time older."""
    return prune(Mirror.at(root), PruneOptions(keep=9), clock=lambda: time.time() + 3 * 86_400)


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
        ".notes",
        ".notes.tmp",
    ],
)
def test_what_images_bring_along_is_image_file(name: str) -> None:
    assert is_image_file(name)


@pytest.mark.parametrize("name", ["notes.txt", ".bashrc", "incus.tar.xz.part", "items.json"])
def test_what_people_put_there_is_not(name: str) -> None:
    assert not is_image_file(name)


def test_a_removal_takes_a_free_hidden_name(root: Path) -> None:
    """What is left of a former version of that name is in nobody's way."""
    product = root / PRODUCT
    (product / f".{OLD}.pruned").mkdir()
    (product / f".{OLD}.pruned/notes.txt").write_text("mine")
    (product / f".{OLD}.pruned.1").write_text("a file")
    (product / f".{OLD}.pruned.2").symlink_to("nowhere")
    (product / OLD / "more.txt").write_text("mine, too")
    kept = remove_version(Mirror.at(root), f"{PRODUCT}/{OLD}")
    assert kept == [f"{PRODUCT}/.{OLD}.pruned.3/more.txt"]
    expected = {NEW, *(f".{OLD}.pruned{end}" for end in ("", ".1", ".2", ".3"))}
    assert names(product) == expected
    assert (product / f".{OLD}.pruned/notes.txt").read_text() == "mine"
    for number in ("", ".3"):
        assert f"{PRODUCT}/.{OLD}.pruned{number}" in find_leftovers(Mirror.at(root), PRODUCT, 0)


def test_a_removal_that_was_interrupted_is_finished(root: Path) -> None:
    product = root / PRODUCT
    (product / OLD).rename(product / f".{OLD}.pruned")
    (product / f".{OLD}.pruned.1").mkdir()
    (product / f".{OLD}.pruned.1/notes.txt").write_text("mine")
    (product / f".{OLD}.prunedx").mkdir()
    kept = remove_version(Mirror.at(root), f"{PRODUCT}/{OLD}")
    assert kept == [f"{PRODUCT}/.{OLD}.pruned.1/notes.txt"]
    assert names(product) == {NEW, f".{OLD}.pruned.1", f".{OLD}.prunedx"}


def test_a_product_without_a_visible_version_is_cleaned_up(root: Path) -> None:
    upload = root / "images/alpine/3/arm64/cloud/.20240404"
    upload.mkdir(parents=True)
    (upload / "incus.tar.xz").write_bytes(b"i")
    assert prune_later(root).deleted == ("images/alpine/3/arm64/cloud/.20240404",)
    assert names(upload.parent) == set()


def test_a_directory_in_a_version_stays(root: Path) -> None:
    (root / PRODUCT / OLD / "rootfs.tar.xz").mkdir()
    kept = remove_version(Mirror.at(root), f"{PRODUCT}/{OLD}")
    assert kept == [f"{PRODUCT}/.{OLD}.pruned/rootfs.tar.xz"]


def test_a_version_or_a_file_that_is_gone_already_is_none_the_worse(root: Path) -> None:
    product = root / PRODUCT
    remove_file(Mirror.at(root), f"{PRODUCT}/{OLD}/disk.qcow2")
    remove_file(Mirror.at(root), f"{PRODUCT}/20240101/disk.qcow2")
    assert remove_version(Mirror.at(root), f"{PRODUCT}/20240101") == []
    assert names(product / OLD) == WHOLE


def test_of_a_version_that_is_a_link_only_the_link_is_removed(root: Path) -> None:
    link = root / PRODUCT / "20240501"
    link.symlink_to(NEW)
    with pytest.raises(OSError, match=f"its version is a symlink to {NEW}"):
        remove_file(Mirror.at(root), f"{PRODUCT}/20240501/rootfs.squashfs")
    assert names(root / PRODUCT / NEW) == WHOLE
    assert remove_version(Mirror.at(root), f"{PRODUCT}/20240501") == []
    assert not link.is_symlink()
    assert names(root / PRODUCT / NEW) == WHOLE


def test_a_file_is_removed_from_the_hidden_directory_of_its_version(root: Path) -> None:
    product = root / PRODUCT
    (product / OLD).rename(product / f".{OLD}")
    (product / OLD).symlink_to(f".{OLD}")
    remove_file(Mirror.at(root), f"{PRODUCT}/{OLD}/rootfs.squashfs")
    assert names(product / f".{OLD}") == WHOLE - {"rootfs.squashfs"}


@pytest.mark.parametrize("target", ["..", ".", "../cloud", "/", f".{OLD}/.."])
def test_a_file_is_not_removed_elsewhere(root: Path, target: str) -> None:
    (root / PRODUCT / "20240501").symlink_to(target)
    with pytest.raises(OSError, match=r"a symlink|not a directory"):
        remove_file(Mirror.at(root), f"{PRODUCT}/20240501/rootfs.squashfs")


def test_a_link_in_the_place_of_the_hidden_name_is_not_followed(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    """Who may upload to a product could otherwise have anything of these names deleted."""
    outside = write_tree(tmp_path / "outside", {"rootfs.squashfs": b"precious"})
    (root / PRODUCT / f".{OLD}.pruned").symlink_to(outside)
    (root / PRODUCT / ".20240404").symlink_to(outside)
    give_up(outside)
    os.utime(root / PRODUCT / ".20240404", (1, 1), follow_symlinks=False)
    result = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert (result.returncode, result.stdout.count("deleted")) == (0, 1)
    assert names(outside) == {"rootfs.squashfs"}
    assert names(root / PRODUCT) == {NEW, f".{OLD}.pruned", ".20240404"}


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
    give_up(upload)  # as far as anybody can
    fastindex("prune", root)
    assert upload.is_dir()
    assert prune_later(root).deleted == (f"{PRODUCT}/20240404",)
    assert not upload.exists()


def test_what_changes_deep_inside_is_not_abandoned(root: Path) -> None:
    """``rsync -a`` and ``cp -a`` set the times of what they have written, but not this one."""
    upload = root / PRODUCT / ".20240404"
    (upload / "parts/more").mkdir(parents=True)
    (upload / "parts/more/rootfs.squashfs.part").write_bytes(b"half")
    now = time.time_ns()
    os.utime(upload / "parts/more/rootfs.squashfs.part", ns=(now, now + 10**15))
    for path in (upload / "parts/more", upload / "parts", upload):
        os.utime(path, (1, 1))
    assert not is_abandoned(str(upload), now + 10**14)
    assert is_abandoned(str(upload), now + 10**16)


def test_a_directory_of_too_many_files_is_not_abandoned(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_abandoned(str(root / PRODUCT / OLD), 1 << 62)
    monkeypatch.setattr("fastindex.mirror.removal.MAX_ENTRIES", 3)
    assert not is_abandoned(str(root / PRODUCT / OLD), 1 << 62)


@pytest.mark.parametrize("name", [".20240404", "20240404"])
def test_a_running_import_is_never_abandoned(root: Path, name: str) -> None:
    upload = root / PRODUCT / name
    upload.mkdir()
    (upload / "incus.tar.xz").write_bytes(b"i")
    with (upload / ".importing").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        report = prune_later(root)
        assert (report.deleted, names(upload)) == ((), {".importing", "incus.tar.xz"})
        if name[0] != ".":
            with pytest.raises(OSError, match="an import is working in it"):
                remove_version(Mirror.at(root), f"{PRODUCT}/{name}")
    assert prune_later(root).deleted == (f"{PRODUCT}/{name}",)


def test_a_leftover_that_is_gone_or_used_again_is_left_alone(root: Path) -> None:
    mirror = Mirror.at(root)
    with pytest.raises(FileNotFoundError):
        remove_leftover(mirror, f"{PRODUCT}/.20240404", 1 << 62)
    upload = root / PRODUCT / ".20240404"
    upload.mkdir()
    with pytest.raises(OSError, match="somebody is working in it"):
        remove_leftover(mirror, f"{PRODUCT}/.20240404", 1)
    assert upload.is_dir()


@pytest.mark.parametrize("name", ["incus.tar.xz", "rootfs.squashfs"])
def test_a_version_with_a_file_that_cannot_be_used_is_not_given_up(
    fastindex: Run, root: Path, tmp_path: Path, name: str
) -> None:
    """It is told each night; what the file is worth, only people know."""
    path = root / PRODUCT / OLD / name
    path.symlink_to(path.rename(tmp_path / "outside"))
    assert "leads out of its product's directory" in fastindex("prune", root).stderr
    assert prune_later(root).deleted == ()
    assert names(path.parent) == WHOLE
    assert published(root) == {f"debian:12:amd64:default {NEW}"}
