"""What builders emit is told by content, whatever its name."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from fastindex.formats.checksums import parse_checksums
from fastindex.formats.recognition import Part, Rest, recognise
from fastindex.operations.importer.grouping import group
from tests.support.builders import Workshop


def name_of(path: Path) -> str:
    found = recognise(str(path))
    assert isinstance(found, Part), found
    return found.name


def rest(path: Path) -> Rest:
    found = recognise(str(path))
    assert isinstance(found, Rest), found
    return found


@pytest.mark.parametrize(
    ("made", "given", "stored"),
    [
        ("squashfs", "rootfs.squashfs", "rootfs.squashfs"),
        ("squashfs", "root.squashfs", "root.squashfs"),
        ("squashfs", "image.root", "rootfs.squashfs"),
        ("squashfs", "0123abcd.squashfs", "rootfs.squashfs"),
        ("squashfs", "disk.qcow2", "rootfs.squashfs"),
        ("squashfs", "incus.tar.xz", "rootfs.squashfs"),
        ("tarball", "rootfs.tar.xz", "rootfs.tar.xz"),
        ("tarball", "root.tar.xz", "root.tar.xz"),
        ("tarball", "rootfs.tar.gz", "rootfs.tar.xz"),
        ("tarball", "image.root", "rootfs.tar.xz"),
        ("tarball", "lxd.tar.xz", "rootfs.tar.xz"),
        ("disk", "disk.qcow2", "disk.qcow2"),
        ("disk", "image.root", "disk.qcow2"),
        ("disk", "disk1.img", "disk1.img"),
        ("disk", "uefi1.img", "uefi1.img"),
        ("raw", "disk1.img", "disk1.img"),
    ],
)
def test_a_root_is_told_by_its_content(
    workshop: Workshop, tmp_path: Path, made: str, given: str, stored: str
) -> None:
    assert name_of(workshop.put(getattr(workshop, made), tmp_path / given)) == stored


@pytest.mark.parametrize(
    ("given", "compression", "stored"),
    [
        ("incus.tar.xz", "--xz", "incus.tar.xz"),
        ("lxd.tar.xz", "--xz", "lxd.tar.xz"),
        ("lxd.tar.xz", "--gzip", "lxd.tar.gz"),
        ("meta-0123.tar.xz", "--xz", "incus.tar.xz"),
        ("image", "--zstd", "incus.tar.zst"),
        ("image", "--bzip2", "incus.tar.bz2"),
        ("image", "", "incus.tar"),
        ("rootfs.squashfs", "--xz", "incus.tar.xz"),
        ("meta.tar.xz", "--xz", "incus.tar.xz"),
    ],
)
def test_metadata_is_told_by_its_content(
    workshop: Workshop, tmp_path: Path, given: str, compression: str, stored: str
) -> None:
    assert name_of(workshop.metadata(tmp_path / given, compression=compression)) == stored


@pytest.mark.parametrize("vm", [False, True])
def test_a_unified_image_is_told_by_its_content(
    workshop: Workshop, tmp_path: Path, vm: bool
) -> None:
    made = workshop.unified(tmp_path / "web.tar.gz", vm=vm)
    assert name_of(made) == "incus_combined.tar.gz"
    assert name_of(made.rename(tmp_path / "incus.tar.xz")) == "incus_combined.tar.gz"
    made = workshop.unified(tmp_path / "lxd_combined.tar.gz", vm=vm)
    assert name_of(made) == "lxd_combined.tar.gz"


def test_a_delta_keeps_the_name_that_tells_its_base(tmp_path: Path) -> None:
    for name, stored in {
        "rootfs.20240505_05:24.vcdiff": True,
        "delta-20240505_0524.vcdiff": True,
        "delta.vcdiff": False,
        "disk.20240505_05:24.qcow2.vcdiff": False,
    }.items():
        (tmp_path / name).write_bytes(b"\xd6\xc3\xc4\0")
        found = recognise(str(tmp_path / name))
        assert isinstance(found, Part) is stored
        if isinstance(found, Part):
            assert found.name == name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"hello"),
        ("empty", b""),
        ("disk1.img", b"no disk" * 100),
        ("disk.qcow2", bytes(510) + b"\x55\xaa"),
        ("disk.qcow2.gz", gzip.compress(b"QFI\xfb" * 1000, mtime=0)),
        ("rootfs.squashfs", b"torn"),
        ("incus.tar.xz", b"\xfd7zXZ\0 torn"),
    ],
)
def test_an_alien_file_is_one(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert rest(tmp_path / name).is_alien


def test_what_is_no_file_is_alien(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rootfs.squashfs")
    (tmp_path / "incus.tar.xz").symlink_to("/etc/passwd")
    assert rest(tmp_path / "rootfs.squashfs").what == "no regular file"
    assert rest(tmp_path / "incus.tar.xz").what == "no regular file"


@pytest.mark.parametrize("name", ["rootfs.squashfs.part", "rootfs.squashfs.filepart", "a~"])
def test_an_upload_that_has_not_ended_is_left(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    assert "not ended" in rest(workshop.put(workshop.squashfs, tmp_path / name)).what


@pytest.mark.parametrize(
    "name",
    ["SHA256SUMS", "SHA256SUMS.asc", "incus.tar.xz.asc", "build.log", "serial", "image.yaml"],
)
def test_what_stands_beside_images_alarms_nobody(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert not rest(tmp_path / name).is_alien


def test_plain_lxc_metadata_is_ignored(workshop: Workshop, tmp_path: Path) -> None:
    """``distrobuilder build-lxc`` makes one, without a metadata.yaml."""
    contents = tmp_path / "contents"
    contents.mkdir()
    for name in ("config", "config-user", "create-message", "excludes-user", "templates"):
        (contents / name).write_text("x")
    subprocess.run(["tar", "-C", contents, "-cJf", tmp_path / "meta.tar.xz", "."], check=True)
    found = rest(tmp_path / "meta.tar.xz")
    assert (found.what, found.is_alien) == ("plain LXC metadata", False)


def parts(workshop: Workshop, directory: Path, *names: str) -> list[Part]:
    found: list[Part] = []
    for name in names:
        path = directory / name
        if name.endswith((".squashfs", ".root")):
            workshop.put(workshop.squashfs, path)
        elif name.endswith(".qcow2"):
            workshop.put(workshop.disk, path)
        elif name.endswith(".tar.gz"):
            workshop.unified(path)
        else:
            workshop.metadata(path)
        part = recognise(str(path))
        assert isinstance(part, Part)
        found.append(part)
    return found


@pytest.mark.parametrize(
    "groups",
    [
        [["incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs", "disk.qcow2"]],
        [["image", "image.root"]],
        [["image", "other.root"]],
        [["meta-12ab.tar.xz", "12ab.squashfs"]],
        [["a", "a.root"], ["b", "b.root"]],
        [["meta-12ab.tar.xz", "12ab.squashfs"], ["meta-34cd.tar.xz", "34cd.qcow2"]],
        [["a.tar.gz"], ["b.tar.gz"], ["c", "c.root"]],
        [["debian-12.5", "debian-12.5.root"], ["debian-12.4", "debian-12.4.root"]],
    ],
)
def test_the_files_of_one_image_are_found_together(
    workshop: Workshop, tmp_path: Path, groups: list[list[str]]
) -> None:
    names = [name for names in zip(*groups, strict=False) for name in names]
    names += [name for group in groups for name in group if name not in names]
    found = group(parts(workshop, tmp_path, *names))
    assert sorted(sorted(os.path.basename(p.path) for p in files) for files in found) == sorted(
        sorted(names) for names in groups
    )


A, B = "a" * 64, "0123456789abcdef" * 4


def test_checksums_in_both_forms() -> None:
    text = (
        f"{A}  incus.tar.xz\n{B.upper()} *rootfs.squashfs\r\n{A}  ./disk.qcow2\n"
        f"SHA256 (a file) = {B}\n\n# comment\n{A}\nshort  name\n{A}  with blanks.tar \n"
    )
    assert parse_checksums(text.encode() + b"\xff\xfe\n") == {
        "incus.tar.xz": A,
        "rootfs.squashfs": B,
        "disk.qcow2": A,
        "a file": B,
        "with blanks.tar": A,
    }
