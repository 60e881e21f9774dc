"""``fastindex import``: from a builder's output into the tree, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastindex as package
from fastindex.cli.main import main
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import Staging
from tests.support.builders import METADATA, PRODUCT, VERSION, Workshop, age
from tests.support.command import COMMAND, Run
from tests.support.file_systems import file_system_of
from tests.support.hostile_yaml import BILLION_LAUGHS
from tests.support.tools import needs
from tests.support.trees import catalogue, published, sha256

IMAGE = f"{PRODUCT}/{VERSION}"


def rot(path: Path) -> None:
    """Change the last byte of a file, but not its stamp."""
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(path, ns=(stamp, stamp))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name[0] != "."}


def everything(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def items(root: Path, version: str = IMAGE) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / version / ".items.json").read_bytes())
    return found


@pytest.mark.parametrize("mode", ["--copy", "--move", "--link"])
def test_an_image_comes_into_its_place_whole(
    fastindex: Run, root: Path, source: Path, mode: str
) -> None:
    before = files(source)
    stamps = {path.name: path.stat().st_mtime_ns for path in source.iterdir()}
    result = fastindex("import", mode, source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert files(root / IMAGE) == before
    assert {name: (root / IMAGE / name).stat().st_mtime_ns for name in before} == stamps
    assert files(source) == ({} if mode == "--move" else before)
    assert everything(root / PRODUCT) == {
        VERSION,
        *(f"{VERSION}/{name}" for name in (".items.json", "incus.tar.xz", "rootfs.squashfs")),
    }
    links = (root / IMAGE / "rootfs.squashfs").stat().st_nlink
    assert links == (2 if mode == "--link" else 1)


def test_the_build_after_it_reads_nothing(fastindex: Run, root: Path, source: Path) -> None:
    metadata, squashfs = files(source)["incus.tar.xz"], files(source)["rootfs.squashfs"]
    assert fastindex("import", source, root).returncode == 0
    result = fastindex(root)
    assert "0 files hashed, 2 reused" in result.stderr
    found = catalogue(root)["products"]["debian:12:amd64:default"]["versions"][VERSION]["items"]
    assert found["incus.tar.xz"]["combined_squashfs_sha256"] == sha256(metadata, squashfs)
    assert found["rootfs.squashfs"]["sha256"] == sha256(squashfs)
    fresh = fastindex("--rehash", root)
    assert "2 files hashed" in fresh.stderr
    assert (
        found
        == (catalogue(root)["products"]["debian:12:amd64:default"]["versions"][VERSION]["items"])
    )


def test_a_quiet_import_prints_nothing(fastindex: Run, root: Path, source: Path) -> None:
    done = fastindex("import", "--quiet", "--index", source, root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert published(root)


def test_a_file_made_just_now_is_not_read_again_either(
    fastindex: Run, root: Path, source: Path
) -> None:
    os.utime(source / "rootfs.squashfs")
    assert fastindex("import", "--copy", source, root).returncode == 0
    assert "0 files hashed, 2 reused" in fastindex(root).stderr


def test_index_goes_on_to_build(fastindex: Run, root: Path, source: Path) -> None:
    result = fastindex("import", "--index", source, root)
    assert result.returncode == 0
    assert published(root) == {f"debian:12:amd64:default {VERSION}"}


def test_options_may_stand_between_the_sources_and_root(
    fastindex: Run, root: Path, source: Path
) -> None:
    words = (source / "incus.tar.xz", source / "rootfs.squashfs", "--copy", root)
    result = fastindex("import", *words)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert set(files(source)) == {"incus.tar.xz", "rootfs.squashfs"}


@pytest.mark.parametrize("options", [("-i",), ("-N", "-i"), ("-Ni",)])
def test_the_seed_tools_spelling(
    fastindex: Run, root: Path, source: Path, options: tuple[str, ...]
) -> None:
    result = fastindex(*options, source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert files(source) == {}
    assert set(files(root / IMAGE)) == {"incus.tar.xz", "rootfs.squashfs"}


def test_a_dry_run_prints_each_step_and_changes_nothing(
    fastindex: Run, root: Path, source: Path
) -> None:
    before = everything(source)
    result = fastindex("import", "--dry-run", "--copy", source, root)
    target = root / PRODUCT / VERSION
    hidden = root / PRODUCT / f".{VERSION}"
    assert result.returncode == 0
    assert [line.partition(" (")[0] for line in result.stdout.splitlines()] == [
        f"mkdir {hidden}",
        f"copy {source}/incus.tar.xz -> {hidden}/incus.tar.xz",
        f"copy {source}/rootfs.squashfs -> {hidden}/rootfs.squashfs",
        f"write {hidden}/.items.json",
        f"rename {hidden} -> {target}",
    ]
    assert (everything(source), everything(root)) == (before, set())


def test_a_dry_run_reads_no_image_through_and_its_help_says_so(
    fastindex: Run, root: Path, source: Path
) -> None:
    (source / "SHA256SUMS").write_text(f"{'0' * 64}  rootfs.squashfs\n")
    assert fastindex("import", "--dry-run", source, root).returncode == 0
    assert fastindex("import", source, root).returncode == 1
    said = " ".join(fastindex("import", "--help").stdout.split())
    assert "only a real run compares them with a SHA256SUMS" in said


def test_what_is_there_already_is_a_success_that_says_so(
    fastindex: Run, root: Path, source: Path
) -> None:
    assert fastindex("import", "--copy", "--index", source, root).returncode == 0
    dry = fastindex("import", "--dry-run", source, root)
    assert dry.stdout.splitlines()[0].startswith(f"compare {source}/incus.tar.xz -> ")
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (0, "")
    assert f"{IMAGE} exists already, with the same content" in result.stderr
    assert files(source) == {}  # it was a move


@pytest.mark.parametrize("has_cache", [True, False])
def test_what_is_there_with_other_content_is_an_error(
    fastindex: Run, root: Path, source: Path, has_cache: bool
) -> None:
    assert fastindex("import", "--copy", source, root).returncode == 0
    if not has_cache:
        (root / IMAGE / ".items.json").unlink()
    there = files(root / IMAGE)
    content = bytearray((source / "rootfs.squashfs").read_bytes())
    content[-1] ^= 1
    (source / "rootfs.squashfs").write_bytes(content)  # of equal size
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{IMAGE} exists already, with a different rootfs.squashfs" in result.stderr
    assert files(root / IMAGE) == there
    assert set(files(source)) == {"incus.tar.xz", "rootfs.squashfs"}


def test_more_files_than_are_there_is_an_error(
    fastindex: Run, root: Path, source: Path, workshop: Workshop
) -> None:
    assert fastindex("import", "--copy", source, root).returncode == 0
    workshop.put(workshop.disk, source / "disk.qcow2")
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert f"{IMAGE} exists already, without disk.qcow2" in result.stderr


def test_a_copy_does_not_believe_a_cache_about_what_is_known_to_be_damaged(
    fastindex: Run, root: Path, source: Path
) -> None:
    assert fastindex("import", "--copy", "--index", source, root).returncode == 0
    rot(root / IMAGE / "rootfs.squashfs")
    assert fastindex("--force", "--recheck", "1/1", root).returncode == 3
    result = fastindex("import", "--copy", source, root)
    assert result.returncode == 1
    assert f"{IMAGE} exists already, with a different rootfs.squashfs" in result.stderr


def test_a_move_believes_no_cache_about_the_copy_in_the_tree(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    """The copy has rotted, under an unchanged stamp: the source is the last good one."""
    kept = shutil.copytree(source, tmp_path / "kept")
    assert fastindex("import", "--index", source, root).returncode == 0
    rot(root / IMAGE / "rootfs.squashfs")
    before = files(kept)
    result = fastindex("import", kept, root)
    assert result.returncode == 1
    assert f"{IMAGE} exists already, with a different rootfs.squashfs" in result.stderr
    assert files(kept) == before


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("there", [None, "simplestream: {distro_name: Other}\n"])
def test_a_companion_that_the_version_lacks_or_has_otherwise_stays(
    fastindex: Run, root: Path, source: Path, tmp_path: Path, there: str | None, has_index: bool
) -> None:
    kept = shutil.copytree(source, tmp_path / "kept")
    if there is not None:
        (source / "image.yaml").write_text(there)
    index = ("--index",) if has_index else ()
    assert fastindex("import", *index, source, root).returncode == 0
    (kept / "image.yaml").write_text("simplestream: {distro_name: Debian}\n")
    result = fastindex("import", kept, root)
    assert result.returncode == 0
    assert f"{kept}/image.yaml: stays here" in result.stderr
    assert (kept / "image.yaml").read_text() == "simplestream: {distro_name: Debian}\n"
    names = {"incus.tar.xz", "rootfs.squashfs", "image.yaml"}
    assert set(files(kept)) == ({"image.yaml"} if has_index else names)
    at = root / IMAGE / "image.yaml"
    assert (at.read_text() if at.exists() else None) == there


def test_a_companion_that_is_equal_goes_along(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    (source / "image.yaml").write_text("simplestream: {distro_name: Debian}\n")
    kept = shutil.copytree(source, tmp_path / "kept")
    assert fastindex("import", "--index", source, root).returncode == 0
    assert fastindex("import", kept, root).returncode == 0
    assert files(kept) == {}


@pytest.mark.parametrize("link", ["version", "product", "file", "image.yaml", "hard link"])
@pytest.mark.parametrize("is_allowed", [False, True])
def test_what_the_tree_leads_to_through_links_is_not_removed(
    fastindex: Run, root: Path, source: Path, tmp_path: Path, link: str, is_allowed: bool
) -> None:
    """The source and what the version leads to are one file."""
    allowed = ("--allow-links", tmp_path) if is_allowed else ()
    (source / "image.yaml").write_text("simplestream: {}\n")
    builds = tmp_path / VERSION
    shutil.copytree(source, builds)
    before = files(builds)
    version = root / IMAGE
    if link == "product":
        version.parent.parent.mkdir(parents=True)
        version.parent.symlink_to(tmp_path)
    elif link == "version":
        version.parent.mkdir(parents=True)
        version.symlink_to(builds)
    else:
        shutil.copytree(source, version)
        name = "image.yaml" if link == "image.yaml" else "rootfs.squashfs"
        (version / name).unlink()
        if link == "hard link":
            (version / name).hardlink_to(builds / name)
        else:
            (version / name).symlink_to(builds / name)
    fastindex(*allowed, root)
    result = fastindex("import", *allowed, builds, root)
    if link == "hard link" and not is_allowed:
        assert result.returncode == 0
        assert files(builds) == {}
    else:
        assert result.returncode == 1
        told = "is in the mirror already" if is_allowed else "a symlink that leads elsewhere"
        assert told in result.stderr
        assert files(builds) == before
    assert files(version) == before


def test_a_link_from_one_version_to_another_is_followed(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    kept = shutil.copytree(source, tmp_path / "kept")
    assert fastindex("import", "--version-name", "20240101", source, root).returncode == 0
    (root / IMAGE).symlink_to("20240101")
    assert fastindex("import", "--copy", kept, root).returncode == 0
    (root / IMAGE).unlink()
    (root / IMAGE).mkdir()
    for path in (root / PRODUCT / "20240101").iterdir():
        (root / IMAGE / path.name).symlink_to(f"../20240101/{path.name}")
    result = fastindex("import", "--copy", kept, root)
    assert result.returncode == 0
    assert "exists already, with the same content" in result.stderr


def test_other_content_beside_checksums_does_not_stop_the_others(
    fastindex: Run, root: Path, source: Path, workshop: Workshop, tmp_path: Path
) -> None:
    assert fastindex("import", "--copy", source, root).returncode == 0
    with (source / "rootfs.squashfs").open("ab") as file:
        file.write(b"more")
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files(source).items())
    (source / "SHA256SUMS").write_text(sums)
    good = workshop.split(tmp_path / "good", METADATA.replace("release: 12", "release: 11"))
    result = fastindex("import", "--copy", source, good, root)
    assert result.returncode == 3
    assert f"{IMAGE} exists already, with a different rootfs.squashfs" in result.stderr
    assert result.stdout == f"images/debian/11/amd64/default/{VERSION}\n"


def test_a_move_that_was_killed_while_it_removed_the_sources_goes_on(
    fastindex: Run, root: Path, source: Path
) -> None:
    assert fastindex("import", "--copy", source, root).returncode == 0
    (root / IMAGE / ".importing").touch()
    (source / "rootfs.squashfs").unlink()
    result = fastindex("import", source, root)
    assert result.returncode == 0
    assert files(source) == {}
    assert not (root / IMAGE / ".importing").exists()


def test_checksums_are_checked(fastindex: Run, root: Path, source: Path) -> None:
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files(source).items())
    (source / "SHA256SUMS").write_text(sums)
    assert fastindex("import", "--copy", source, root).returncode == 0
    shutil.rmtree(root / "images")
    right = sha256((source / "rootfs.squashfs").read_bytes())
    (source / "SHA256SUMS").write_text(sums.replace(right, "0" * 64))
    before = files(source)
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"rootfs.squashfs: its SHA-256 is {right}, but SHA256SUMS says 000" in result.stderr
    assert files(source) == before
    assert not (root / IMAGE).exists()
    assert list((root / PRODUCT).iterdir()) == []


def test_checksums_beside_single_files_count_too(fastindex: Run, root: Path, source: Path) -> None:
    (source / "SHA256SUMS").write_text(f"{'0' * 64} *incus.tar.xz\n")
    result = fastindex("import", source / "incus.tar.xz", source / "rootfs.squashfs", root)
    assert result.returncode == 1
    assert "but SHA256SUMS says" in result.stderr


def test_a_file_of_no_image_is_named_and_left(fastindex: Run, root: Path, source: Path) -> None:
    (source / "notes.txt").write_text("hello")
    (source / ".hidden").write_text("hello")
    (source / "build.log").write_text("hello")
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    problem = "not an image file (text file; expected a squashfs, qcow2 or tarball); ignored"
    assert f"{source}/notes.txt: {problem}" in result.stderr
    assert "build.log" not in result.stderr
    assert everything(source) == {"notes.txt", ".hidden", "build.log"}


def test_names_can_be_given(fastindex: Run, root: Path, source: Path) -> None:
    names = ("--os", "alpine", "--release", "3.20", "--arch", "aarch64", "--variant", "cloud")
    result = fastindex("import", *names, "--version-name", "20240506", source, root)
    assert result.stdout == "images/alpine/3.20/arm64/cloud/20240506\n"


def test_the_serial_can_name_the_version(fastindex: Run, root: Path, source: Path) -> None:
    result = fastindex("import", "--serial", "--stream", "images-daily", source, root)
    assert result.stdout == "images-daily/debian/12/amd64/default/20240505_0524\n"


def test_what_lxd_imagebuilder_leaves(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop
) -> None:
    source = tmp_path / "build"
    workshop.metadata(source / "lxd.tar.xz")
    workshop.put(workshop.squashfs, source / "rootfs.squashfs")
    workshop.put(workshop.disk, source / "disk.qcow2")
    definition = "simplestream: {distro_name: Debian GNU, release_aliases: {12: bookworm}}\n"
    (source / "image.yaml").write_text(definition)
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files(source).items())
    (source / "SHA256SUMS").write_text(sums)
    result = fastindex("import", "--index", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    names = {"lxd.tar.xz", "rootfs.squashfs", "disk.qcow2", "image.yaml"}
    assert set(files(root / IMAGE)) == names
    assert everything(source) == {"SHA256SUMS"}
    product = catalogue(root)["products"]["debian:12:amd64:default"]
    assert product["os"] == "Debian GNU"
    assert product["aliases"].endswith("debian/bookworm/default,debian/bookworm")


def test_what_build_lxc_leaves(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop
) -> None:
    source = tmp_path / "build"
    workshop.metadata(source / "incus.tar.xz")
    workshop.put(workshop.tarball, source / "rootfs.tar.xz")
    (tmp_path / "config").write_text("lxc.include = x\n")
    subprocess.run(["tar", "-C", tmp_path, "-cJf", source / "meta.tar.xz", "config"], check=True)
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert set(files(root / IMAGE)) == {"incus.tar.xz", "rootfs.tar.xz"}
    assert everything(source) == {"meta.tar.xz"}
    assert "0 warnings" in result.stderr


@pytest.mark.parametrize("names", [("web", "web.root"), ("meta-12ab.tar.xz", "12ab.squashfs")])
def test_what_a_split_export_leaves(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop, names: tuple[str, str]
) -> None:
    workshop.metadata(tmp_path / names[0])
    workshop.put(workshop.squashfs, tmp_path / names[1])
    result = fastindex("import", tmp_path / names[0], tmp_path / names[1], root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert set(files(root / IMAGE)) == {"incus.tar.xz", "rootfs.squashfs"}


@pytest.mark.parametrize("vm", [False, True])
def test_what_a_unified_export_leaves(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop, vm: bool
) -> None:
    workshop.unified(tmp_path / "web.tar.gz", vm=vm)
    result = fastindex("import", "--index", tmp_path / "web.tar.gz", root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    expected = {"combined_type": "virtual-machine"} if vm else {}

    def found() -> dict[str, str]:
        product = catalogue(root)["products"]["debian:12:amd64:default"]
        item: dict[str, str] = product["versions"][VERSION]["items"]["incus_combined.tar.gz"]
        return {key: value for key, value in item.items() if key.startswith("combined")}

    assert found() == expected
    assert fastindex("--rehash", root).returncode == 0
    assert found() == expected


def test_several_images_in_one_directory_are_told_apart(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop
) -> None:
    for number in range(5):
        text = METADATA.replace("release: 12", f"release: {number}")
        workshop.unified(tmp_path / f"exports/v{number}.tar.gz", text)
    result = fastindex("import", "-j4", tmp_path / "exports", root)
    assert result.returncode == 0
    expected = {f"images/debian/{number}/amd64/default/{VERSION}" for number in range(5)}
    assert set(result.stdout.splitlines()) == expected


def test_one_that_fails_does_not_stop_the_others(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop
) -> None:
    good = [
        workshop.split(tmp_path / str(number), METADATA.replace(": 12", f": {number}"))
        for number in range(3)
    ]
    bad = workshop.split(tmp_path / "bad")
    (bad / "SHA256SUMS").write_text(f"{'0' * 64}  rootfs.squashfs\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    result = fastindex("import", "--index", *good, bad, empty, tmp_path / "none", root)
    assert result.returncode == 3
    assert len(result.stdout.splitlines()) == 3
    assert "3 versions imported, 0 existed already, 3 failed" in result.stderr
    assert len(published(root)) == 3


def test_two_sources_for_one_version_are_not_mixed(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop
) -> None:
    one, other = workshop.split(tmp_path / "one"), workshop.split(tmp_path / "other")
    result = fastindex("import", one, other, root)
    assert (result.returncode, result.stdout) == (3, f"{IMAGE}\n")
    assert "would become the same version as" in result.stderr
    assert set(files(other)) == {"incus.tar.xz", "rootfs.squashfs"}


def test_metadata_of_two_images_is_not_mixed(
    fastindex: Run, root: Path, source: Path, workshop: Workshop
) -> None:
    workshop.metadata(source / "lxd.tar.xz", METADATA.replace("os: debian", "os: ubuntu"))
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "belongs to ubuntu/12/amd64/default" in result.stderr


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["incus.tar.xz"], "no usable root file"),
        (["rootfs.squashfs"], "no metadata"),
        ([], "contains no image file"),
        (["incus.tar.xz", "rootfs.squashfs", "root.squashfs"], "would both be"),
    ],
)
def test_what_is_no_whole_image_is_refused(
    fastindex: Run,
    root: Path,
    tmp_path: Path,
    workshop: Workshop,
    names: list[str],
    problem: str,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in names:
        if name == "incus.tar.xz":
            workshop.metadata(source / name)
        else:
            workshop.put(workshop.squashfs, source / name)
    for options in ((), ("--dry-run",)):
        result = fastindex("import", *options, source, root)
        assert (result.returncode, result.stdout) == (1, "")
        assert problem in result.stderr
    assert set(files(source)) == set(names)
    assert everything(root) == set()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (METADATA.replace("os: debian", "os: ../../etc"), "contains the character '/'"),
        (METADATA.replace("os: debian", "os: .."), "starts with a dot"),
        (METADATA.replace("os: debian", 'os: "a\\e[2Jb"'), "contains the character '\\x1b'"),
        (METADATA.replace("release: 12", "release: 1%2"), "contains the character '%'"),
        (METADATA.replace("amd64", "../../x"), "contains the character '/'"),
        (BILLION_LAUGHS.decode(), "a YAML alias"),
        ("{" * 900, "too deep"),
        ("{" * 100_000, "nest"),  # newer libyaml says it in its own words
    ],
)
def test_hostile_metadata_is_refused(
    fastindex: Run, root: Path, tmp_path: Path, workshop: Workshop, text: str, problem: str
) -> None:
    source = workshop.split(tmp_path / "source", text)
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (1, "")
    assert problem in result.stderr
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr
    assert everything(root) == set()
    assert everything(tmp_path) == {"mirror", "source", "source/incus.tar.xz"} | {
        "source/rootfs.squashfs"
    }


def test_what_was_left_by_a_killed_import_is_cleaned_up(
    fastindex: Run, root: Path, source: Path
) -> None:
    hidden = root / PRODUCT / f".{VERSION}"
    hidden.mkdir(parents=True)
    for name in (".importing", "rootfs.squashfs", "junk"):
        (hidden / name).write_bytes(b"half")
    assert fastindex("import", source, root).returncode == 0
    assert not hidden.exists()
    assert set(files(root / IMAGE)) == {"incus.tar.xz", "rootfs.squashfs"}


def test_a_hidden_version_of_an_uploader_is_left_alone(
    fastindex: Run, root: Path, source: Path
) -> None:
    hidden = root / PRODUCT / f".{VERSION}"
    hidden.mkdir(parents=True)
    (hidden / "rootfs.squashfs").write_bytes(b"half")
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "is in the way: it contains files that no import put there" in result.stderr
    assert files(hidden) == {"rootfs.squashfs": b"half"}


def test_two_imports_of_one_version_do_not_meet(fastindex: Run, root: Path, source: Path) -> None:
    hidden = root / PRODUCT / f".{VERSION}"
    hidden.mkdir(parents=True)
    with (hidden / ".importing").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "another import of this version is running" in result.stderr
    assert fastindex("import", source, root).returncode == 0


@pytest.fixture
def withdrawn(fastindex: Run, root: Path, source: Path) -> Path:
    """Return a mirror in which the image of ``source``, imported by copy, is withdrawn."""
    assert fastindex("import", "--copy", "--index", source, root).returncode == 0
    assert fastindex("remove", "debian/12", root).returncode == 0
    assert published(root) == set()
    return root


def test_what_is_withdrawn_takes_no_source_along(
    fastindex: Run, withdrawn: Path, source: Path
) -> None:
    before = files(source)
    result = fastindex("import", "--move", source, withdrawn)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{IMAGE} exists but is withdrawn" in result.stderr
    assert files(source) == before


@pytest.fixture
def withdrawn_elsewhere(fastindex: Run, root: Path, source: Path, tmp_path: Path) -> Path:
    """Return the --output of a mirror in which the image of ``source`` is withdrawn."""
    output = tmp_path / "www"
    told = ("--output", output)
    assert fastindex("import", "--copy", "--index", *told, source, root).returncode == 0
    assert published(output) == {f"debian:12:amd64:default {VERSION}"}
    assert not (root / "streams").exists()
    assert fastindex("remove", *told, "debian/12", root).returncode == 0
    return output


def test_what_is_withdrawn_in_the_output_that_was_named_takes_no_source_along(
    fastindex: Run, withdrawn_elsewhere: Path, root: Path, source: Path
) -> None:
    before = files(source)
    result = fastindex("import", "--move", "--output", withdrawn_elsewhere, source, root)
    assert result.returncode == 1
    assert f"{IMAGE} exists but is withdrawn" in result.stderr
    assert files(source) == before


def test_what_may_be_withdrawn_in_another_output_takes_no_source_along(
    fastindex: Run, withdrawn_elsewhere: Path, root: Path, source: Path
) -> None:
    before = files(source)
    result = fastindex("import", "--move", source, root)
    assert (result.returncode, result.stdout) == (0, "")
    assert f"not removed: the version exists, but {root} does not publish it" in result.stderr
    assert files(source) == before
    told = ("--output", withdrawn_elsewhere)
    assert fastindex("prune", "--grace", "0", *told, root).returncode == 0
    assert not (root / IMAGE).exists()


def test_what_an_interrupted_move_left_is_removed_unless_the_version_is_withdrawn(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    told = ("--output", tmp_path / "www")
    assert fastindex("import", "--copy", "--index", *told, source, root).returncode == 0
    (root / IMAGE / ".importing").touch()
    kept = shutil.copytree(source, tmp_path / "kept")
    assert fastindex("import", "--move", source, root).returncode == 0
    assert files(source) == {}
    assert not (root / IMAGE / ".importing").exists()
    (root / IMAGE / ".importing").touch()
    assert fastindex("remove", *told, "debian/12", root).returncode == 0
    assert "not removed" in fastindex("import", "--move", kept, root).stderr
    assert set(files(kept)) == set(files(root / IMAGE))


def test_what_is_published_again_is_not_withdrawn_any_more(
    fastindex: Run, withdrawn_elsewhere: Path, root: Path, source: Path
) -> None:
    told = ("--output", withdrawn_elsewhere)
    assert fastindex("prune", "--undo", IMAGE, *told, root).returncode == 0
    assert published(withdrawn_elsewhere) == {f"debian:12:amd64:default {VERSION}"}
    assert fastindex("import", "--move", *told, source, root).returncode == 0
    assert files(source) == {}


def test_what_was_withdrawn_elsewhere_and_is_gone_can_be_imported_again(
    fastindex: Run, withdrawn_elsewhere: Path, root: Path, source: Path
) -> None:
    shutil.rmtree(root / IMAGE)
    told = ("--output", withdrawn_elsewhere)
    assert fastindex("import", "--move", "--index", *told, source, root).returncode == 0
    assert published(withdrawn_elsewhere) == {f"debian:12:amd64:default {VERSION}"}
    assert fastindex("prune", "--grace", "0", *told, root).returncode == 0
    assert (root / IMAGE / "rootfs.squashfs").exists()


def test_an_import_keeps_its_caches_where_the_build_does(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    caches, output = tmp_path / "caches", tmp_path / "www"
    told = ("--cache-dir", caches, "--output", output)
    result = fastindex("import", "--copy", "--index", *told, source, root)
    assert (result.returncode, "0 files hashed, 2 reused" in result.stderr) == (0, True)
    assert (caches / IMAGE / ".items.json").exists()
    assert not (root / IMAGE / ".items.json").exists()
    assert fastindex("import", "--copy", *told, source, root).returncode == 0


def test_a_cache_that_cannot_be_written_costs_no_image(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "caches").write_bytes(b"")
    before = files(source)
    result = fastindex("import", "--cache-dir", tmp_path / "caches", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert "its cache cannot be written (Not a directory)" in result.stderr
    assert "the next build will read the image again" in result.stderr
    assert files(root / IMAGE) == before


def test_what_was_withdrawn_and_is_gone_can_be_imported_again(
    fastindex: Run, withdrawn: Path, source: Path
) -> None:
    shutil.rmtree(withdrawn / IMAGE)
    before = files(source)
    assert fastindex("import", "--move", "--index", source, withdrawn).returncode == 0
    assert published(withdrawn) == {f"debian:12:amd64:default {VERSION}"}
    assert fastindex("prune", "--grace", "0", withdrawn).returncode == 0
    assert files(withdrawn / IMAGE) == before


def test_nothing_is_written_through_a_link_that_leads_out(
    fastindex: Run, root: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (root / "images").mkdir()
    (root / "images/debian").symlink_to(tmp_path / "outside")
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "a symlink that leads elsewhere" in result.stderr
    assert everything(tmp_path / "outside") == set()


def test_sources_in_the_mirror_are_not_moved(fastindex: Run, root: Path, source: Path) -> None:
    assert fastindex("import", source, root).returncode == 0
    for given in (root / IMAGE, root / IMAGE / "incus.tar.xz"):
        result = fastindex("import", given, root)
        assert result.returncode == 1
        assert "is in the mirror already" in result.stderr
    assert fastindex("import", "--copy", root / IMAGE, root).returncode == 0
    result = fastindex("import", "--link", "--release", "13", root / IMAGE, root)
    assert result.returncode == 0
    assert set(files(root / IMAGE)) == {"incus.tar.xz", "rootfs.squashfs"}


@pytest.mark.parametrize("is_on_another_disk", [False, True])
def test_sources_in_another_stream_are_not_moved(
    fastindex: Run, root: Path, source: Path, tmp_path: Path, *, is_on_another_disk: bool
) -> None:
    daily = IMAGE.replace("images/", "daily/", 1)
    if is_on_another_disk:
        (tmp_path / "disk2").mkdir()
        (root / "daily").symlink_to("../disk2")
    (root / "loop").symlink_to("loop")  # whose end nobody can find
    assert fastindex("import", "--stream", "daily", source, root).returncode == 0
    assert fastindex("--stream", "daily", root).returncode == 0
    before = files(root / daily)
    for given in {root / daily, (root / daily).resolve()}:
        result = fastindex("import", "--move", given, root)
        assert result.returncode == 1
        assert "is in the mirror already" in result.stderr
        assert files(root / daily) == before
    assert fastindex("verify", "--quick", root).returncode == 0
    assert fastindex("import", "--copy", root / daily, root).returncode == 0


def test_modes_do_not_depend_on_the_umask(root: Path, source: Path) -> None:
    for path in source.iterdir():
        path.chmod(0o600)
    command = f"umask 077; exec '{COMMAND}' import {{}} '{source}' '{root}'"
    for mode, expected in (("--copy", 0o644), ("--move", 0o644)):
        subprocess.run(["sh", "-c", command.format(mode)], check=True)
        version = root / IMAGE
        assert {path.stat().st_mode & 0o777 for path in version.iterdir()} == {expected}
        assert version.stat().st_mode & 0o777 == 0o755
        assert (root / "images").stat().st_mode & 0o777 == 0o755
        shutil.rmtree(root / "images")


def test_a_link_that_no_web_server_may_read_is_told(
    fastindex: Run, root: Path, source: Path
) -> None:
    (source / "rootfs.squashfs").chmod(0o600)
    result = fastindex("import", "--link", source, root)
    assert result.returncode == 0
    assert f"{IMAGE}/rootfs.squashfs: not readable by everyone" in result.stderr
    assert (source / "rootfs.squashfs").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MiB."""
    with file_system_of("1m", tmp_path / "small") as path:
        yield path


@pytest.mark.root
@pytest.mark.parametrize("mode", ["--copy", "--move", "--link"])
def test_across_file_systems_files_are_copied(
    fastindex: Run, source: Path, small_disk: Path, mode: str
) -> None:
    before = files(source)
    result = fastindex("import", mode, source, small_disk)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert files(small_disk / IMAGE) == before
    assert files(source) == ({} if mode == "--move" else before)


@pytest.mark.root
@pytest.mark.parametrize("mode", ["--copy", "--move"])
def test_a_full_disk_leaves_nothing_behind(
    fastindex: Run, source: Path, small_disk: Path, workshop: Workshop, mode: str
) -> None:
    with (source / "rootfs.squashfs").open("ab") as file:
        file.write(bytes(2 << 20))
    age(source / "rootfs.squashfs")
    before = files(source)
    result = fastindex("import", mode, source, small_disk)
    assert (result.returncode, result.stdout) == (1, "")
    assert "No space left on device" in result.stderr
    assert "free some space" in result.stderr
    assert list((small_disk / PRODUCT).iterdir()) == []
    assert files(source) == before


def test_hard_links_stay_hard_links(fastindex: Run, root: Path, source: Path) -> None:
    os.link(source / "incus.tar.xz", source / "lxd.tar.xz")
    before = files(source)
    assert fastindex("import", "--copy", source, root).returncode == 0
    version = root / IMAGE
    assert files(version) == before
    assert (version / "incus.tar.xz").samefile(version / "lxd.tar.xz")
    assert "0 files hashed, 3 reused" in fastindex(root).stderr


@pytest.fixture
def while_it_waits(source: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run an import in this process; what is handed in happens when it waits for a young stamp."""
    in_a_second_ns = time.time_ns() + 1_000_000_000
    os.utime(source / "incus.tar.xz", ns=(in_a_second_ns, in_a_second_ns))

    def run(happens: Callable[[], object], *arguments: object) -> int:
        def sleep(seconds: float) -> None:
            monkeypatch.undo()
            happens()
            time.sleep(seconds)

        monkeypatch.setattr(time, "time_ns", lambda: in_a_second_ns)
        monkeypatch.setattr(time, "sleep", sleep)
        return main(["import", *map(str, arguments)])

    return run


def test_a_source_that_changes_meanwhile_is_not_imported(
    root: Path,
    source: Path,
    while_it_waits: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change() -> None:
        (source / "rootfs.squashfs").write_bytes(b"hsqs other")

    assert while_it_waits(change, "--copy", source, root) == 1
    assert "changed while it was being read" in capsys.readouterr().err
    assert list((root / PRODUCT).iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [(), ("source",), ("--copy", "--move", "a", "b"), ("--jobs", "0", "a", "b")],
)
def test_wrong_usage(fastindex: Run, arguments: tuple[str, ...]) -> None:
    result = fastindex("import", *arguments)
    assert result.returncode == 2
    assert "fastindex import --help explains" in result.stderr


def test_a_root_that_is_not_there_is_not_made(fastindex: Run, source: Path, tmp_path: Path) -> None:
    result = fastindex("import", source, tmp_path / "mirrro")
    assert result.returncode == 1
    assert "no such directory" in result.stderr
    assert result.stdout == ""


def test_from_python(root: Path, source: Path) -> None:
    mirror = package.Mirror(root)
    report = mirror.import_images([source], mode="copy", os="d")
    assert report.imported == (f"images/d/12/amd64/default/{VERSION}",)
    assert report.exit_code == 0
    again = mirror.import_images([source], mode="copy", os="d")
    assert again.existing == report.imported
    assert items(root, report.imported[0]).keys() == {"incus.tar.xz", "lxd.tar.xz"} | {
        "rootfs.squashfs"
    }


def test_a_source_that_is_replaced_before_it_is_linked_is_copied_as_seen_or_not_at_all(
    root: Path,
    source: Path,
    while_it_waits: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is linked must be the very file that was looked at."""

    def replace() -> None:
        other = source / "other"
        other.write_bytes((source / "rootfs.squashfs").read_bytes())
        other.rename(source / "rootfs.squashfs")

    assert while_it_waits(replace, "--link", source, root) == 1
    assert "changed while it was being read" in capsys.readouterr().err
    assert list((root / PRODUCT).iterdir()) == []


def test_what_names_the_version_is_removed_last(
    root: Path, source: Path, workshop: Workshop
) -> None:
    """So that a move that is killed in between can be done again."""
    strace = needs("strace", "apt-get install strace")
    workshop.metadata(source / "lxd.tar.xz")
    trace = source.with_name("trace")
    traced = [strace, "-f", "-e", "trace=fsync,unlinkat,renameat", "-y", "-o", str(trace)]
    command = [*traced, str(COMMAND), "import", str(source), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    calls = trace.read_text()
    renamed = re.search(rf'renameat\(\d+<{root}/{PRODUCT}>, "\.{VERSION}"', calls)
    assert renamed is not None
    removed = {name: calls.index(f'<{source}>, "{name}", 0) = 0') for name in files(root / IMAGE)}
    order = sorted(removed, key=lambda name: removed[name])
    assert order[-1] == "incus.tar.xz"
    assert renamed.start() < min(removed.values())
    for name in files(root / IMAGE):  # all is on the disk before it is seen
        synced = rf"fsync\(\d+<{root}/{PRODUCT}/\.{VERSION}/{name}>\)"
        assert re.search(synced, calls[: renamed.start()])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"jobs": 0}, "--jobs must be"),
        ({"mode": "steal"}, "mode must be"),
        ({"sources": ()}, "name at least one SOURCE"),
    ],
)
def test_options_that_make_no_sense_are_refused_from_python_too(
    root: Path, source: Path, wrong: dict[str, Any], why: str
) -> None:
    options: dict[str, Any] = {"sources": (source,), **wrong}
    with pytest.raises(package.UsageError, match=why):
        package.Mirror(root).import_images(**options)
    assert not (root / PRODUCT / VERSION).exists()


def test_a_dry_run_tells_of_what_is_there_that_it_would_be_compared(
    fastindex: Run, root: Path, source: Path
) -> None:
    assert fastindex("import", "--copy", source, root).returncode == 0
    before = files(root / IMAGE)
    result = fastindex("import", "--dry-run", source, root)
    assert result.returncode == 0
    told = result.stdout.splitlines()
    assert [line.split()[0] for line in told] == ["compare", "compare"]
    assert f"{source}/rootfs.squashfs" in result.stdout
    assert files(root / IMAGE) == before


def test_a_link_that_cannot_be_looked_at_is_as_good_as_none(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging(Mirror.at(root), IMAGE)
    path = source / "rootfs.squashfs"
    status = path.stat()
    real = os.stat

    def fails(name: Any, **options: Any) -> os.stat_result:
        if name == path.name and "dir_fd" in options:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(name, **options)

    assert staging.link(str(path), "other", status)
    monkeypatch.setattr(os, "stat", fails)
    assert not staging.link(str(path), path.name, status)
    staging.close()


@pytest.mark.parametrize("given", ["", "images", IMAGE, f"{IMAGE}/rootfs.squashfs", ".."])
def test_sources_that_another_mirror_publishes_are_not_moved(
    fastindex: Run, tmp_path: Path, source: Path, given: str
) -> None:
    other, root = tmp_path / "above/other", tmp_path / "root"
    for directory in (other, root):
        directory.mkdir(parents=True, exist_ok=True)
    assert fastindex("import", "--index", source, other).returncode == 0
    result = fastindex("import", "--recursive", other / given, root)
    assert result.returncode == 1
    assert "a move would empty" in result.stderr
    assert "--copy or --link" in result.stderr
    assert fastindex("verify", "--sha256", other).returncode == 0
    assert fastindex("import", "--recursive", "--copy", other / IMAGE, root).returncode == 0


@pytest.mark.parametrize("option", ["--os", "--arch", "--version-name"])
def test_an_empty_name_is_refused(fastindex: Run, root: Path, source: Path, option: str) -> None:
    result = fastindex("import", option, "", source, root)
    assert result.returncode == 2
    assert f"{option}: must not be empty" in result.stderr
    assert set(files(source)) == {"incus.tar.xz", "rootfs.squashfs"}
