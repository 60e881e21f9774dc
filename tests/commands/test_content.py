"""What is published can be used: content decides, not names."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import fastindex as package
from fastindex.errors import Code
from fastindex.hashing.reader import ChangedError
from fastindex.hashing.tasks import FileRef
from tests.support.command import Run
from tests.support.contents import make_content, make_qcow2, make_squashfs, make_tarball
from tests.support.tools import needs
from tests.support.trees import (
    OLD_NS,
    Files,
    catalogue,
    forget_state,
    published,
    stamps,
    version,
    write_tree,
)

GOOD = "debian:13:amd64:default 20240505_05:24"
PATH = "debian/12/amd64/default/20240505_05:24"
VERSION = f"images/{PATH}"
LABEL = "debian:12:amd64:default 20240505_05:24"
HTML = b"<!DOCTYPE html><title>404</title>\n"
SQUASHFS = make_squashfs(b"x" * 5000)

JUNK = {
    "empty": b"",
    "HTML": HTML,
    "zeros": bytes(5000),
    "one byte": b"x",
    "text": b"oops: the disk is full\n",
    "an XML error": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
}


def put(root: Path, name: str, content: bytes, path: str = VERSION) -> Path:
    """Write a file just as it is."""
    target = root / path / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    os.utime(target, ns=(OLD_NS, OLD_NS))
    return target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a tree of a good version, and another one to be spoilt."""
    return write_tree(
        tmp_path / "root", {**version(PATH), **version("debian/13/amd64/default/20240505_05:24")}
    )


def items(root: Path) -> dict[str, dict[str, object]]:
    versions = catalogue(root)["products"]["debian:12:amd64:default"]["versions"]
    found: dict[str, dict[str, object]] = versions["20240505_05:24"]["items"]
    return found


@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz"])
@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_a_version_of_junk_is_left_out_by_name_and_others_are_published(
    fastindex: Run, root: Path, name: str, content: bytes
) -> None:
    put(root, name, content)
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert f"warning: {VERSION}/{name}: is " in result.stderr
        assert "1 version left out" in result.stderr
        assert published(root) == {GOOD}
    report = package.Mirror(root).build()
    code = Code.WRONG_CONTENT if content else Code.EMPTY_FILE
    assert code in {finding.code for finding in report.findings}
    put(root, name, make_content(name, "right"))
    os.utime(root / VERSION / name)
    assert fastindex(root).returncode == 0
    assert published(root) == {GOOD, LABEL}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("disk.qcow2", HTML, "is not a qcow2 disk, judging by its first bytes (an HTML page)"),
        ("disk.qcow2", b"QFI\xfb" + b"\0" * 500, "is a qcow2 disk with a meaningless header"),
        ("disk.qcow2", make_qcow2(b"")[:50], "ends within its header"),
        ("disk.qcow2", SQUASHFS, "is not a qcow2 disk"),
        (
            "disk1.img",
            bytes(510) + b"\x55\xaa",
            "(a raw disk); convert it with qemu-img",
        ),
        ("rootfs.tar.xz", HTML, "is not a tarball, judging by its first bytes (an HTML page)"),
        ("rootfs.tar.xz", b"PK\3\4", "is not a tarball"),
        ("lxd.tar.xz", b"not a tarball", "is not a tarball"),
        ("uefi1.img", b"", "is empty"),
        ("lxd_combined.tar.gz", HTML, "is not a tarball"),
    ],
)
def test_beside_a_good_root_only_the_junk_is_left_out(
    fastindex: Run, root: Path, name: str, content: bytes, words: str
) -> None:
    put(root, name, content)
    result = fastindex(root)
    assert result.returncode == 3
    assert f"warning: {VERSION}/{name}: " in result.stderr
    assert words in result.stderr
    assert "0 versions left out, 1 file left out" in result.stderr
    assert name not in items(root)
    assert "combined_squashfs_sha256" in items(root)["incus.tar.xz"]
    assert published(root) == {GOOD, LABEL}


@pytest.mark.parametrize("bytes_there", [3, 4, 95, 96, 200, 5095])
def test_a_squashfs_that_ends_early_is_left_out(
    fastindex: Run, root: Path, bytes_there: int
) -> None:
    """As an upload that was cut off leaves it."""
    path = put(root, "rootfs.squashfs", SQUASHFS[:bytes_there])
    result = fastindex(root)
    assert result.returncode == 3
    assert f"{VERSION}/rootfs.squashfs: is " in result.stderr
    assert published(root) == {GOOD}
    with path.open("ab") as file:  # and goes on
        file.write(SQUASHFS[bytes_there:])
    assert fastindex(root).returncode == 0
    assert published(root) == {GOOD, LABEL}


@pytest.mark.parametrize(
    ("offset", "value"),
    [(12, b"\0\0\1\0"), (20, b"\7\0"), (22, b"\x10\0"), (28, b"\3\0"), (64, b"\0" * 5 + b"\1\0\0")],
    ids=["block size", "compressor", "block_log", "version", "start of the inodes"],
)
def test_a_squashfs_whose_superblock_means_nothing_is_neither_published_nor_imported(
    fastindex: Run, root: Path, tmp_path: Path, offset: int, value: bytes
) -> None:
    content = SQUASHFS[:offset] + value + SQUASHFS[offset + len(value) :]
    put(root, "rootfs.squashfs", content)
    result = fastindex(root)
    assert result.returncode == 3
    problem = "rootfs.squashfs: is a squashfs with a meaningless superblock"
    assert f"{VERSION}/{problem}" in result.stderr
    assert published(root) == {GOOD}
    made = put(tmp_path, "rootfs.squashfs", content, "made")
    result = fastindex(
        "import", made.parent, root, "--os", "a", "--release", "1", "--arch", "amd64"
    )
    assert result.returncode == 1
    assert f"{made.parent}/{problem}" in result.stderr


def test_a_squashfs_with_its_padding_is_all_right(fastindex: Run, root: Path) -> None:
    put(root, "rootfs.squashfs", SQUASHFS + bytes(3000))
    assert fastindex(root).returncode == 0


@pytest.mark.parametrize("compression", ["xz", "plain", "gz", "zst", "bz2"])
def test_a_tarball_may_be_compressed_otherwise_than_its_name_says(
    fastindex: Run, root: Path, compression: str
) -> None:
    starts = {
        "xz": make_tarball({}),
        "plain": bytes(257) + b"ustar\0" + bytes(500),
        "gz": b"\x1f\x8b\x08" + bytes(100),
        "zst": b"\x28\xb5\x2f\xfd" + bytes(100),
        "bz2": b"BZh9" + bytes(100),
    }
    put(root, "incus.tar.xz", starts[compression])
    assert fastindex(root).returncode == 0
    assert published(root) == {GOOD, LABEL}


@pytest.mark.parametrize("metadata", ["incus.tar.xz", "lxd.tar.xz"])
def test_junk_beside_good_metadata_costs_itself_only(
    fastindex: Run, root: Path, metadata: str
) -> None:
    write_tree(root, {f"{VERSION}/lxd.tar.xz": b"lxd"})
    put(root, metadata, HTML)
    result = fastindex(root)
    assert result.returncode == 3
    assert f"{VERSION}/{metadata}: is not a tarball" in result.stderr
    assert "rootfs.squashfs: " not in result.stderr
    assert published(root) == {GOOD, LABEL}


def forget_checks(root: Path, *, is_of_the_seed_tool: bool) -> None:
    """Make the caches those of a release that did not look, or of the seed tool."""
    for path in root.rglob(".items.json"):
        cached = json.loads(path.read_bytes())
        for item in cached.values():
            item.pop("checked", None)
            if is_of_the_seed_tool:
                item.pop("key")
                item.pop("blake3")
        path.write_text(json.dumps(cached))
    shutil.rmtree(root / "streams")


@pytest.mark.parametrize("is_of_the_seed_tool", [False, True])
@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz", "disk.qcow2"])
def test_a_cache_that_vouches_for_junk_is_not_believed(
    fastindex: Run, root: Path, is_of_the_seed_tool: bool, name: str
) -> None:
    right = make_content(name, "right")
    path = put(root, name, right)
    assert fastindex(root).returncode == 0
    junk = HTML.ljust(len(right), b"\n")
    assert len(junk) == len(right)
    put(root, name, junk)
    cache = root / VERSION / ".items.json"
    forget_checks(root, is_of_the_seed_tool=is_of_the_seed_tool)
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert f"warning: {VERSION}/{name}: is not a " in result.stderr
        assert "(an HTML page)" in result.stderr
        expected = {GOOD, LABEL} if name == "disk.qcow2" else {GOOD}
        assert published(root) == expected
        forget_state(root)
    assert cache.exists()
    path.unlink()
    put(root, name, make_content(name, "other"))
    os.utime(path)
    assert fastindex(root).returncode == 0
    assert published(root) == {GOOD, LABEL}


@pytest.mark.parametrize("is_of_the_seed_tool", [False, True])
def test_good_files_of_an_old_cache_are_looked_at_once_and_not_hashed(
    fastindex: Run, root: Path, is_of_the_seed_tool: bool
) -> None:
    assert fastindex(root).returncode == 0
    before = catalogue(root)
    forget_checks(root, is_of_the_seed_tool=is_of_the_seed_tool)
    assert "0 files hashed, 4 reused; nothing read" in fastindex(root).stderr
    assert catalogue(root) == before
    cached = json.loads((root / VERSION / ".items.json").read_bytes())
    assert all(item["checked"] and item["key"] for item in cached.values())
    forget_state(root)
    kept = stamps(root / "images")
    assert fastindex(root).returncode == 0
    assert stamps(root / "images") == kept


@pytest.mark.parametrize(
    "error", [ChangedError("x"), OSError(errno.EIO, "x"), OSError(errno.EMFILE, "x")]
)
def test_a_file_that_cannot_be_looked_at_is_looked_at_by_a_later_run(
    fastindex: Run, root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert fastindex(root).returncode == 0
    forget_checks(root, is_of_the_seed_tool=False)

    def fail(ref: FileRef, max_bytes: int) -> bytes:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("fastindex.operations.builder.planning.read_head", fail)
        if isinstance(error, OSError):
            # Where nothing can be looked at, nothing is published; what is published stays.
            is_shortage = error.errno == errno.EMFILE
            with pytest.raises(package.ResourceError if is_shortage else package.TreeError):
                package.Mirror(root).build()
        else:
            assert package.Mirror(root).build().exit_code == 0
    put(root, "rootfs.squashfs", HTML.ljust((root / VERSION / "rootfs.squashfs").stat().st_size))
    forget_state(root)
    assert fastindex(root).returncode == 3
    assert published(root) == {GOOD}


@pytest.mark.parametrize("name", ["disk.qcow2", "rootfs.tar.xz"])
def test_a_strangers_name_for_a_file_does_not_cost_its_owner_anything(
    fastindex: Run, root: Path, name: str
) -> None:
    """A hard link under a name that it does not fit."""
    mine = root / "images/aaa/1/amd64/default/20240505"
    write_tree(root, version("aaa/1/amd64/default/20240505"))
    (mine / "rootfs.squashfs").unlink()
    os.link(root / VERSION / "rootfs.squashfs", mine / name)
    for options in ((), ("--rehash",), ("--recheck", "1/1")):
        result = fastindex(*options, root)
        assert result.returncode == 3
        assert f"images/aaa/1/amd64/default/20240505/{name}: is not a" in result.stderr
        assert published(root) == {GOOD, LABEL}


def test_what_is_published_goes_when_its_file_becomes_junk(fastindex: Run, root: Path) -> None:
    assert fastindex(root).returncode == 0
    put(root, "rootfs.squashfs", HTML)
    result = fastindex(root)
    assert result.returncode == 3
    assert published(root) == {GOOD}


@pytest.mark.parametrize("name", ["disk.qcow2", "uefi1.img", "web"])
@pytest.mark.parametrize("options", [(), ("-c",)], ids=["plain", "compressed"])
def test_a_disk_that_ends_early_is_not_imported_whatever_its_name(
    fastindex: Run, root: Path, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    """As a download that was cut off leaves it. QEMU itself reads zeros, without a word."""
    qemu_img = needs("qemu-img", "apt-get install qemu-utils")
    raw, made = tmp_path / "raw", tmp_path / "made" / name
    raw.write_bytes(os.urandom(1 << 20) + b"text" * (1 << 16))
    made.parent.mkdir()
    subprocess.run([qemu_img, "convert", *options, "-O", "qcow2", raw, made], check=True)
    naming = ("--os", "a", "--release", "1", "--arch", "amd64")
    whole = made.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 200_000, 65_536):
        os.truncate(made, size)
        result = fastindex("import", "--move", made.parent, root, *naming)
        assert result.returncode == 1
        assert f"{made}: cannot be used (damaged: it ends at byte {size:,}, before" in result.stderr
        assert made.exists()
    assert not (root / "images/a").exists()
    made.write_bytes(whole)
    assert fastindex("import", "--move", made.parent, root, *naming).returncode == 0
    assert not made.exists()


def test_a_disk_of_nothing_but_its_header_is_published_and_imported(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    """It is shorter than a single cluster, so there is no table to be held against it."""
    put(root, "disk.qcow2", make_qcow2(b"salt"))
    assert fastindex(root).returncode == 0
    assert "disk.qcow2" in items(root)
    made = put(tmp_path, "disk.qcow2", make_qcow2(b"salt"), "made")
    naming = ("--os", "a", "--release", "1", "--arch", "amd64")
    assert fastindex("import", made.parent, root, *naming).returncode == 0


def test_verbose_tells_what_was_hashed_and_what_is_left_out(fastindex: Run, tmp_path: Path) -> None:
    good, bad, half, sums = (
        f"images/{name}/1/amd64/default/20240505" for name in ("good", "bad", "half", "sums")
    )
    tree: Files = {}
    for path in (good, bad, half, sums):
        tree |= version(path.removeprefix("images/"))
    tree[f"{half}/disk.qcow2"] = b"d"
    root = write_tree(tmp_path / "root", tree)
    (root / bad / "rootfs.squashfs").write_bytes(b"<html>" * 100)
    (root / half / "disk.qcow2").write_bytes(b"<html>" * 100)
    (root / sums / "SHA256SUMS").write_text(f"{'0' * 64}  rootfs.squashfs\n")
    told = {
        f"{good}: hashed",
        f"{bad}: left out",
        f"{half}: disk.qcow2 left out",
        f"{sums}: left out",
    }
    lines = fastindex("-v", root).stderr.splitlines()
    verbose = [line.removeprefix("fastindex: ") for line in lines if "warning:" not in line]
    assert {line for line in verbose if line.startswith("images/")} == told
