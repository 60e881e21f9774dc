"""An uploader's symlinks reach his own product only, unless the operator allows more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fastindex as package
from fastindex.errors import Code
from tests.support.command import Run
from tests.support.trees import published, version, write_tree

OLD, NEW = "20240505_05:24", "20240506_05:24"
VICTIM = "images/debian/12/amd64/default"
EVIL = "images/aaa/1/amd64/default"


def labels(*pairs: tuple[str, str]) -> set[str]:
    return {f"{os_name}:amd64:default {day}" for os_name, day in pairs}


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror of two uploaders, one version each, which is published."""
    tree = {
        **version(f"debian/12/amd64/default/{OLD}"),
        **version(f"aaa/1/amd64/default/{OLD}"),
    }
    made = write_tree(tmp_path / "root", tree)
    assert fastindex(made).returncode == 0
    return made


def add_versions(root: Path) -> Path:
    """Add a version of each; return the root of the stranger's, which is not there."""
    write_tree(root, version(f"debian/12/amd64/default/{NEW}"))
    write_tree(root, version(f"aaa/1/amd64/default/{NEW}"))
    mine = root / EVIL / NEW / "rootfs.squashfs"
    mine.unlink()
    return mine


@pytest.mark.parametrize("allows", [False, True])
@pytest.mark.parametrize("links", [1, 39, 41, 300])
@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_a_strangers_chain_of_links_does_not_take_a_new_image_out(
    fastindex: Run, root: Path, links: int, kind: str, allows: bool
) -> None:
    """The scan resolves more links than the system opens; both files are one task."""
    mine = add_versions(root)
    victim = root / VICTIM / NEW / "rootfs.squashfs"
    target = str(victim) if kind == "absolute" else os.path.relpath(victim, mine.parent)
    (mine.parent / f"link{links}").symlink_to(target)
    for number in range(links - 1, 0, -1):
        (mine.parent / f"link{number}").symlink_to(f"link{number + 1}")
    mine.symlink_to("link1")
    options = ("--allow-links", root) if allows else ()
    is_followed = allows and links < 40
    for _ in range(2):
        result = fastindex(*options, root)
        assert result.returncode == (0 if is_followed else 3), result.stderr
        assert ("debian:12:amd64:default " + NEW) in published(root)
        if not is_followed:
            assert f"warning: {EVIL}/{NEW}/rootfs.squashfs: a symlink that leads " in result.stderr
            assert ("--allow-links" in result.stderr) is (links < 40)
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize(
    ("place", "target"),
    [
        (f"{EVIL}/{NEW}", f"../../../../debian/12/amd64/default/{OLD}"),
        (f"{EVIL}/{NEW}/rootfs.squashfs", f"../../../../../debian/12/amd64/default/{OLD}/x"),
        ("images/aaa/2", "../debian/12"),
        ("images/bbb", "debian"),
        ("images/bbb", "/etc"),
        (f"{EVIL}/.product.toml", "/etc/passwd"),
        (f"{EVIL}/{OLD}/image.yaml", "/etc/passwd"),
    ],
)
def test_a_link_to_anothers_files_is_left_out_with_what_to_do(
    fastindex: Run, root: Path, place: str, target: str
) -> None:
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).symlink_to(target)
    result = fastindex(root)
    assert result.returncode == 3
    assert f"warning: {place}: a symlink that leads out of its product's directory" in result.stderr
    assert "allow where it leads with --allow-links DIR" in result.stderr
    assert "root:" not in result.stderr
    assert published(root) == labels(("debian:12", OLD), ("aaa:1", OLD))
    findings = package.Mirror(root).build().findings
    assert Code.LINK_LEADS_OUT in {finding.code for finding in findings}


def test_links_within_a_product_are_as_good_as_files(fastindex: Run, root: Path) -> None:
    """A builder may keep one root for several versions, or a ``latest`` beside them."""
    mine = add_versions(root)
    write_tree(root, {f"{EVIL}/.pool/root": (root / VICTIM / NEW / "rootfs.squashfs").read_bytes()})
    mine.symlink_to("../.pool/root")
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 4
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize("level", ["images", "images/debian", "images/debian/12/amd64", VICTIM])
def test_a_whole_disk_may_be_allowed(
    fastindex: Run, root: Path, tmp_path: Path, level: str
) -> None:
    disk = tmp_path / "mnt/disk2"
    disk.mkdir(parents=True)
    (root / level).symlink_to((root / level).rename(disk / "moved"))
    everything = labels(("debian:12", OLD), ("aaa:1", OLD))
    result = fastindex("--allow-links", tmp_path / "elsewhere", "--allow-links", disk, root)
    assert result.returncode == 0, result.stderr
    assert published(root) == everything
    write_tree(root, version(f"debian/12/amd64/default/{NEW}"))
    result = fastindex(f"--allow-links={tmp_path}/mnt", root)
    assert result.returncode == 0, result.stderr
    assert len(published(root)) == 3
    assert list((disk / "moved").rglob(".items.json"))
    assert fastindex("verify", "--allow-links", disk, root).returncode == 0
    without = fastindex(root)
    if level == "images":  # the operator's own
        assert without.returncode == 0
    else:
        assert without.returncode in (1, 3)
        assert f"warning: {level}: a symlink that leads out" in without.stderr


def test_the_api_allows_links_too(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (root / "images/debian").symlink_to((root / "images/debian").rename(disk))
    mirror = package.Mirror(root, allow_links=[disk])
    assert mirror.build(rehash=True).findings == ()
    assert len(published(root)) == 2


@pytest.mark.parametrize("target", ["rootfs.squashfs", "nowhere", ".", "/dev/zero"])
def test_a_link_that_is_no_image_costs_itself_only(fastindex: Run, root: Path, target: str) -> None:
    (root / EVIL / OLD / "disk.qcow2").symlink_to(target)
    result = fastindex(root)
    assert result.returncode == 3
    assert f"{EVIL}/{OLD}/disk.qcow2: " in result.stderr
    assert published(root) == labels(("debian:12", OLD), ("aaa:1", OLD))


def test_a_hard_link_that_cannot_be_opened_by_one_path_is_read_by_another(
    fastindex: Run, root: Path
) -> None:
    """The first path that comes to the root vanishes between the scan and the reading."""
    mine = add_versions(root)
    os.link(root / VICTIM / NEW / "rootfs.squashfs", mine)
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 4


@pytest.mark.parametrize("target", ["directory", "file"])
def test_an_import_does_not_take_what_a_link_publishes(
    fastindex: Run, tmp_path: Path, target: str
) -> None:
    """Although it is not told of --allow-links."""
    disk = tmp_path / "disk"
    write_tree(tmp_path / "root", version("debian/12/amd64/default/20240505_05:24"))
    place = tmp_path / "root/images/debian/12/amd64/default/20240505_05:24"
    if target == "directory":
        disk.mkdir()
        place = place.rename(disk / "V")
        (tmp_path / "root/images/debian/12/amd64/default/20240505_05:24").symlink_to(place)
    else:
        disk.mkdir()
        for file in list(place.iterdir()):
            file.symlink_to(file.rename(disk / file.name))
        place = disk
    root = tmp_path / "root"
    assert fastindex("--allow-links", disk, root).returncode == 0
    words = ("--os", "other", "--release", "1", "--arch", "amd64", "--version-name", "20240501")
    result = fastindex("import", *words, place, root)
    assert result.returncode == 1
    assert "is in the mirror already" in result.stderr
    assert fastindex("verify", "--allow-links", disk, root).returncode == 0
