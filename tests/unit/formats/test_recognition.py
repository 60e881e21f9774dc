"""What builders make is recognised by content, whatever its name."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from fastindex.errors import Code
from fastindex.formats.recognition import BadFile, IgnoredFile, Part, recognise
from fastindex.operations.importer.grouping import group_files
from tests.support.builders import Workshop
from tests.support.contents import make_content, make_qcow2
from tests.support.tools import needs


def name_of(path: Path) -> str:
    found = recognise(str(path))
    assert isinstance(found, Part), found
    return found.name


def ignored(path: Path) -> IgnoredFile:
    found = recognise(str(path))
    assert isinstance(found, IgnoredFile), found
    return found


def bad(path: Path) -> BadFile:
    found = recognise(str(path))
    assert isinstance(found, BadFile), found
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
        ("image", "--use-compress-program=xz --format=lzma", "incus.tar.lzma"),
        ("image", "--use-compress-program=lz4", "incus.tar.lz4"),
        ("debian.lxd.tar.xz", "--xz", "lxd.tar.xz"),
        ("debian-lxd.tar.xz", "--xz", "lxd.tar.xz"),
        ("debian.incus.tar.xz", "--xz", "incus.tar.xz"),
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
        "disk.20240505_05:24.qcow2.vcdiff": True,
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
        ("disk.img", b"no disk" * 100),
        ("disk.raw", bytes(510) + b"\x55\xaa"),
        ("disk.qcow2.gz", gzip.compress(b"QFI\xfb" * 1000, mtime=0)),
        ("web", b"\xfd7zXZ\0 torn"),
    ],
)
def test_a_file_of_no_image_is_unexpected(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert ignored(tmp_path / name).is_unexpected


HTML = b"<!doctype html><title>404</title>"
SQUASHFS, QCOW2, XZ = (make_content(name, b"x") for name in ("a.squashfs", "a.qcow2", "a.tar.xz"))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("rootfs.squashfs", b"", Code.EMPTY_FILE),
        ("web.qcow2", b"", Code.EMPTY_FILE),
        ("incus.tar.xz", b"", Code.EMPTY_FILE),
        ("rootfs.squashfs", b"torn", Code.WRONG_CONTENT),
        ("rootfs.squashfs", b"\x01\x02" * 500, Code.WRONG_CONTENT),
        ("disk.qcow2", HTML, Code.WRONG_CONTENT),
        ("web.tar.gz", HTML, Code.WRONG_CONTENT),
        ("disk1.img", bytes(510) + b"\x55\xaa", Code.WRONG_CONTENT),
        ("rootfs.20240505_05:24.vcdiff", HTML, Code.WRONG_CONTENT),
        ("rootfs.squashfs", SQUASHFS[:-1], Code.TRUNCATED),
        ("web.root", SQUASHFS[:50], Code.TRUNCATED),
        ("disk.qcow2", make_qcow2(b"", version=1), Code.WRONG_CONTENT),
        ("web.root", make_qcow2(b"", cluster_bits=8), Code.WRONG_CONTENT),
        ("web.root", QCOW2[:60], Code.TRUNCATED),
        ("incus.tar.xz", b"\xfd7zXZ\0 torn", Code.TRUNCATED),
        ("incus.tar.xz", XZ[:-1], Code.TRUNCATED),
        ("rootfs.tar.zst", b"\x50\x2a\x4d\x18\4\0\0\0abcd\x28\xb5\x2f\xfd", Code.TRUNCATED),
    ],
)
def test_a_file_that_clients_could_not_use_is_a_bad_one(
    tmp_path: Path, name: str, content: bytes, code: Code
) -> None:
    (tmp_path / name).write_bytes(content)
    found = bad(tmp_path / name)
    assert (found.path, found.code) == (str(tmp_path / name), code)


def test_what_pzstd_writes_is_refused_with_a_hint(tmp_path: Path, workshop: Workshop) -> None:
    pzstd = needs("pzstd", "apt-get install zstd")
    workshop.metadata(tmp_path / "incus.tar", compression="")
    subprocess.run([pzstd, "-q", "--rm", tmp_path / "incus.tar"], check=True)
    assert "compress it with zstd" in bad(tmp_path / "incus.tar.zst").problem


ISO = bytes(0x8001) + b"CD001" + bytes(2000)


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"", "empty file"),
        (b"MZ" + ISO[2:510] + b"\x55\xaa" + ISO[512:], "ISO image"),
        (ISO, "ISO image"),
        (bytes(510) + b"\x55\xaa", "raw disk"),
        (bytes(0x438) + b"\x53\xef", "ext4 file system that no machine boots from"),
        (b"XFSB" + bytes(600), "XFS file system that no machine boots from"),
        (bytes(0x10040) + b"_BHRfS_M", "Btrfs file system that no machine boots from"),
        (b"\x7fELF\2\1\1", "ELF program"),
        (b"MZ\x90\0", "Windows program"),
        (b"PK\3\4\x14\0", "ZIP archive"),
        (b"\n<!DOCTYPE html>\n<html>", "HTML page"),
        (b"<html><head>", "HTML page"),
        ("# Größe\n".encode(), "text file"),
        (b"x" + "é".encode() * 40_000, "text file"),  # cut within a character
        (b"\0" * 600, "unknown format"),
        (b"a\xff\xfe", "unknown format"),
        (b"\x1b[31m", "unknown format"),
    ],
)
def test_a_file_of_no_image_is_described(tmp_path: Path, content: bytes, description: str) -> None:
    (tmp_path / "rootfs.squashfs").write_bytes(content)
    assert bad(tmp_path / "rootfs.squashfs").problem == (
        f"not an image file ({description}; expected a squashfs, qcow2 or tarball)"
    )


@pytest.mark.parametrize(
    ("options", "description"),
    [
        ("raw", "raw disk"),
        ("vmdk", "VMDK disk"),
        ("vmdk -o subformat=streamOptimized", "VMDK disk"),
        ("vmdk -o subformat=monolithicFlat", "VMDK disk"),
        ("vdi", "VDI disk"),
        ("vhdx", "VHDX disk"),
        ("vpc", "VHD disk"),
        ("vpc -o subformat=fixed", "raw disk"),
    ],
)
@pytest.mark.parametrize("name", ["disk.img", "my disk.qcow2"])
def test_a_disk_of_another_format_is_named_with_what_converts_it(
    tmp_path: Path, options: str, description: str, name: str
) -> None:
    qemu_img = needs("qemu-img", "apt-get install qemu-utils")
    raw, path = tmp_path / "raw", tmp_path / name
    raw.write_bytes(bytes(510) + b"\x55\xaa" + bytes((1 << 20) - 512))
    subprocess.run(
        [qemu_img, "convert", "-f", "raw", "-O", *options.split(), raw, path], check=True
    )
    found = recognise(str(path))
    assert isinstance(found, BadFile | IgnoredFile)
    problem = found.problem if isinstance(found, BadFile) else found.reason
    assert problem.startswith(f"not an image file ({description}; ")
    told, _, command = found.remedy.partition(": ")
    assert told == "put a qcow2 in its place"
    subprocess.run(["sh", "-c", command], check=True)  # it is for a shell
    (made,) = tmp_path.glob("*.qcow2" if name == "disk.img" else "*.qcow2.qcow2")
    assert name_of(made) == "disk.qcow2"


def test_other_tarballs_are_described(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    subprocess.run(
        ["tar", "-C", tmp_path, "-cJf", tmp_path / "notes.tar.xz", "notes.txt"], check=True
    )
    assert ignored(tmp_path / "notes.tar.xz").reason == (
        "not an image file (tarball with neither a metadata.yaml nor a root file system)"
    )


def test_what_is_not_a_regular_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rootfs.squashfs")
    (tmp_path / "incus.tar.xz").symlink_to("/etc/passwd")
    for name in ("rootfs.squashfs", "incus.tar.xz"):
        assert bad(tmp_path / name).problem == "not a regular file"


@pytest.mark.parametrize("name", ["rootfs.squashfs.part", "rootfs.squashfs.filepart", "a~"])
def test_an_unfinished_upload_is_ignored(workshop: Workshop, tmp_path: Path, name: str) -> None:
    assert "unfinished upload" in ignored(workshop.put(workshop.squashfs, tmp_path / name)).reason


@pytest.mark.parametrize(
    "name",
    ["SHA256SUMS", "SHA256SUMS.asc", "incus.tar.xz.asc", "build.log", "serial", "image.yaml"],
)
def test_files_that_accompany_images_are_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert not ignored(tmp_path / name).is_unexpected


def test_plain_lxc_metadata_is_ignored(workshop: Workshop, tmp_path: Path) -> None:
    """``distrobuilder build-lxc`` makes one, without a metadata.yaml."""
    contents = tmp_path / "contents"
    contents.mkdir()
    for name in ("config", "config-user", "create-message", "excludes-user", "templates"):
        (contents / name).write_text("x")
    subprocess.run(["tar", "-C", contents, "-cJf", tmp_path / "meta.tar.xz", "."], check=True)
    found = ignored(tmp_path / "meta.tar.xz")
    assert (found.reason, found.is_unexpected) == ("plain LXC metadata", False)


def parts(workshop: Workshop, directory: Path, *names: str) -> list[Part]:
    found: list[Part] = []
    for name in names:
        path = directory / name
        if name.endswith((".squashfs", ".root")):
            workshop.put(workshop.squashfs, path)
        elif name.endswith((".qcow2", ".img")):
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
        [["a.incus.tar.xz", "a.qcow2"], ["b.incus.tar.xz", "b.qcow2"]],
        [["a.lxd.tar.xz", "a.disk.qcow2"], ["b.incus.tar.xz", "b.squashfs"]],
        [["a-lxd.tar.xz", "a.img", "a.squashfs"], ["b-lxd.tar.xz", "b.img"]],
        [["12ab.incus.tar.xz", "12ab.squashfs"], ["34cd.incus.tar.xz", "34cd.qcow2"]],
        [["a.incus.tar.xz", "a.lxd.tar.xz", "a-rootfs.squashfs"], ["b-meta.tar.xz", "b.qcow2"]],
        [["lxd.tar.xz", "web.squashfs", "other.qcow2"]],
    ],
)
def test_the_files_of_one_image_are_found_together(
    workshop: Workshop, tmp_path: Path, groups: list[list[str]]
) -> None:
    names = [name for names in zip(*groups, strict=False) for name in names]
    names += [name for group in groups for name in group if name not in names]
    found = group_files(parts(workshop, tmp_path, *names))
    assert sorted(sorted(os.path.basename(p.path) for p in one.parts) for one in found) == sorted(
        sorted(names) for names in groups
    )
