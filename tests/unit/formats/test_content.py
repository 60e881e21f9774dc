"""What a file can be, judging by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import Code
from fastindex.formats.content import HEAD_BYTES, Fault, detect_compression, find_fault
from fastindex.formats.names import classify
from tests.fuzz.targets import zstd
from tests.support.contents import make_content, make_qcow2, make_squashfs, make_tarball
from tests.support.tools import needs

NAMES = (
    *("incus.tar.xz", "lxd.tar.gz", "rootfs.squashfs", "root.squashfs", "rootfs.tar.xz"),
    *("disk.qcow2", "disk1.img", "uefi1.img", "incus_combined.tar.gz", "lxd_combined.tar.xz"),
    *("rootfs.20240505.vcdiff", "delta-20240505.vcdiff"),
)
HTML = b"<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n"
PLAIN = lzma.decompress(make_tarball({"metadata.yaml": b"a: b\n"}))
QCOW2, SQUASHFS = make_qcow2(b"x" * 1000), make_squashfs(b"x" * 1000)


def fault_of(name: str, content: bytes) -> Fault | None:
    role = classify(name)
    assert role is not None
    return find_fault(role, content[:HEAD_BYTES], len(content))


def code_of(name: str, content: bytes) -> Code | None:
    fault = fault_of(name, content)
    return None if fault is None else fault.code


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_what_its_name_says_has_no_fault(name: str) -> None:
    assert fault_of(name, make_content(name, "x")) is None
    assert fault_of(name, make_content(name, b"x" * 5000)) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", Code.EMPTY_FILE, "is empty"),
        (HTML, Code.WRONG_CONTENT, "(an HTML page)"),
        (b"\n\n  <html lang=en>", Code.WRONG_CONTENT, "(an HTML page)"),
        (bytes(1), Code.WRONG_CONTENT, "(zeros)"),
        (bytes(5000), Code.WRONG_CONTENT, "(zeros)"),
        (b"x", Code.WRONG_CONTENT, "first bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), Code.WRONG_CONTENT, "first bytes"),
        (b'{"error": "not found"}', Code.WRONG_CONTENT, "first bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", Code.WRONG_CONTENT, "first bytes"),
    ],
)
def test_what_no_image_starts_with_is_told(
    name: str, content: bytes, code: Code, words: str
) -> None:
    fault = fault_of(name, content)
    assert fault is not None
    assert fault.code is code
    assert fault.problem.endswith(words) or words == "first bytes"
    assert words in fault.problem
    assert fault.remedy == "upload it again, or remove it"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"KDMV" + bytes(600), "VMDK disk"), (bytes(510) + b"\x55\xaa", "raw disk")],
)
def test_a_disk_of_another_format_can_be_converted(name: str, content: bytes, kind: str) -> None:
    fault = fault_of(name, content)
    assert fault is not None
    assert fault.problem.endswith(f" (a {kind})")
    assert ("qemu-img convert" in fault.remedy) is name.endswith((".qcow2", ".img"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_one_kind_under_the_name_of_another_is_wrong(name: str, other: str) -> None:
    def kind(name: str) -> str:
        return name.rpartition(".")[2] if "tar" not in name else "tar"

    same = kind(name) == kind(other) or {kind(name), kind(other)} <= {"qcow2", "img"}
    assert code_of(name, make_content(other, "x")) == (None if same else Code.WRONG_CONTENT)


@pytest.mark.parametrize(
    ("content", "compression"),
    [
        (PLAIN, ""),
        (lzma.compress(PLAIN), "xz"),
        (gzip.compress(PLAIN, mtime=0), "gz"),
        (bz2.compress(PLAIN), "bz2"),
        (lzma.compress(PLAIN, lzma.FORMAT_ALONE), "lzma"),
        (b"\x04\x22\x4d\x18" + PLAIN, "lz4"),
        (PLAIN[:256], None),
        (PLAIN[:261], None),
        (PLAIN[:262], ""),
        (b"", None),
        (b"\xfd7zXZ", None),
        (b"PK\x03\x04", None),
        (b"BZ", None),
    ],
)
@pytest.mark.parametrize("name", ["incus.tar.xz", "rootfs.tar.gz", "lxd_combined.tar.gz"])
def test_a_tarball_is_one_however_it_is_compressed(
    content: bytes, compression: str | None, name: str
) -> None:
    """The name may say another compression: daemons do not look at it."""
    assert detect_compression(content[:HEAD_BYTES]) == compression
    has_fault = fault_of(name, content) is not None
    assert has_fault is (compression is None)


def test_a_tarball_of_zstd_and_of_any_tar_is_one() -> None:
    assert detect_compression(zstd(PLAIN)) == "zst"
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
            tar.addfile(tarfile.TarInfo("ä" * 40))
        assert detect_compression(packed.getvalue()[:HEAD_BYTES]) == ""


@pytest.mark.parametrize("name", ["rootfs.squashfs", "root.squashfs"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (SQUASHFS, None),
        (SQUASHFS + bytes(4096), None),  # mksquashfs pads to 4 KiB
        (SQUASHFS[:-1], Code.TRUNCATED),
        (SQUASHFS[:97], Code.TRUNCATED),
        (SQUASHFS[:96], Code.TRUNCATED),
        (SQUASHFS[:95], Code.TRUNCATED),
        (SQUASHFS[:4], Code.TRUNCATED),
        (SQUASHFS[:3], Code.WRONG_CONTENT),
        (make_squashfs(b""), None),
        (make_squashfs(b"", 1), Code.TRUNCATED),
        (make_squashfs(b"", -1), Code.WRONG_CONTENT),
        (b"hsqs" + bytes(5000), Code.WRONG_CONTENT),
        (b"hsqs" + b"\xff" * 5000, Code.TRUNCATED),
        (b"sqsh" + SQUASHFS[4:], Code.WRONG_CONTENT),  # of the other byte order
    ],
)
def test_a_squashfs_is_as_long_as_its_superblock_says(
    name: str, content: bytes, code: Code | None
) -> None:
    assert code_of(name, content) == code


def test_a_squashfs_that_ends_early_says_how_much_is_there() -> None:
    fault = fault_of("rootfs.squashfs", make_squashfs(bytes(904), 1_000_000))
    assert fault is not None
    assert fault.problem == "is a squashfs of 1,001,000 bytes, of which only 1,000 are there"


@pytest.mark.parametrize("name", ["rootfs.squashfs", "root.squashfs"])
@pytest.mark.parametrize(
    ("offset", "format_", "value", "is_sound"),
    [
        *((12, "<I", block, False) for block in (0, 1, 131071, 131073, 1 << 16, (1 << 32) - 1)),
        *((20, "<H", compressor, 1 <= compressor <= 6) for compressor in range(9)),
        *((22, "<H", block_log, block_log == 17) for block_log in (0, 12, 16, 17, 18, 49, 65535)),
        *((28, "<H", major, major == 4) for major in (0, 1, 3, 4, 5)),
        *((30, "<H", minor, minor == 0) for minor in (0, 1, 65535)),
        *((table, "<Q", 96, True) for table in (48, 56, 64, 72, 80, 88)),
        *((table, "<Q", len(SQUASHFS), True) for table in (48, 56, 64, 72, 80, 88)),
        *((table, "<Q", len(SQUASHFS) + 1, False) for table in (48, 56, 64, 72, 80, 88)),
        *((table, "<Q", 95, False) for table in (48, 64, 72)),
        *((table, "<Q", (1 << 64) - 1, False) for table in (48, 64, 72)),
        *((table, "<Q", (1 << 64) - 1, True) for table in (56, 80, 88)),  # there may be none
    ],
)
def test_a_squashfs_has_a_superblock_that_means_something(
    name: str, offset: int, format_: str, value: int, is_sound: bool
) -> None:
    content = bytearray(SQUASHFS)
    struct.pack_into(format_, content, offset, value)
    code = None if is_sound else Code.WRONG_CONTENT
    assert code_of(name, bytes(content)) == code
    content += bytes(len(SQUASHFS))  # as mksquashfs pads it: not what the superblock counts
    assert code_of(name, bytes(content)) == code


@pytest.mark.parametrize("block_log", range(10, 23))
def test_the_blocks_of_a_squashfs_have_4_kib_to_1_mib(block_log: int) -> None:
    content = bytearray(SQUASHFS)
    struct.pack_into("<I", content, 12, 1 << block_log)
    struct.pack_into("<H", content, 22, block_log)
    expected = None if 12 <= block_log <= 20 else Code.WRONG_CONTENT
    assert code_of("rootfs.squashfs", bytes(content)) == expected


def patched(offset: int, value: bytes) -> bytes:
    return QCOW2[:offset] + value + QCOW2[offset + len(value) :]


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


@pytest.mark.parametrize("name", ["disk.qcow2", "disk1.img", "uefi1.img"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (QCOW2, None),
        (make_qcow2(b"", version=2), None),
        (make_qcow2(b"", version=2)[:72], None),
        (make_qcow2(b"", version=2)[:71], Code.TRUNCATED),
        (QCOW2[:104], None),
        (QCOW2[:103], Code.TRUNCATED),
        (QCOW2[:72], Code.TRUNCATED),
        (QCOW2[:31], Code.TRUNCATED),
        (QCOW2[:4], Code.TRUNCATED),
        (QCOW2[:3], Code.WRONG_CONTENT),
        (b"QFI\xfb" + bytes(1000), Code.WRONG_CONTENT),
        (b"QFI\xfb" + b"\xff" * 1000, Code.WRONG_CONTENT),
        (b"QFI\xfb" + b"x" * 1000, Code.WRONG_CONTENT),
        (patched(4, u32(1)), Code.WRONG_CONTENT),  # the version
        (patched(4, u32(4)), Code.WRONG_CONTENT),
        (make_qcow2(b"", cluster_bits=8), Code.WRONG_CONTENT),
        (make_qcow2(b"", cluster_bits=9), None),
        (make_qcow2(b"", cluster_bits=21), None),
        (make_qcow2(b"", cluster_bits=22), Code.WRONG_CONTENT),
        (patched(24, u64(0)), Code.WRONG_CONTENT),  # the length of the disk
        (patched(24, u64(1 << 56)), None),
        (patched(24, u64((1 << 56) + 1)), Code.WRONG_CONTENT),
        (patched(100, u32(103)), Code.WRONG_CONTENT),  # the length of the header
        (patched(100, u32(112)), None),
        (patched(8, u64(104)), Code.WRONG_CONTENT),  # the name of a backing file
    ],
)
def test_a_qcow2_has_a_header_that_means_something(
    name: str, content: bytes, code: Code | None
) -> None:
    assert code_of(name, content) == code


def test_a_disk_that_needs_another_file_says_so() -> None:
    fault = fault_of("disk.qcow2", patched(8, u64(104)))
    assert fault is not None
    assert "needs another file" in fault.problem


@given(st.sampled_from(NAMES), st.binary(max_size=600))
def test_no_bytes_make_it_raise(name: str, content: bytes) -> None:
    for start in (b"", b"hsqs", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"\xfd7zXZ\0"):
        assert isinstance(fault_of(name, start + content), Fault | None)


@pytest.mark.parametrize(
    "options",
    [
        *(f"-comp {name}" for name in ("gzip", "lzma", "lzo", "xz", "lz4", "zstd")),
        *("-no-fragments", "-always-use-fragments", "-no-xattrs", "-no-exports", "-nopad"),
        *("-noI -noD -noF -noX", "-b 4K", "-b 64K", "-b 1M"),
    ],
)
@pytest.mark.parametrize("file_bytes", [0, 100_000])
def test_what_mksquashfs_writes_has_no_fault(tmp_path: Path, options: str, file_bytes: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    if file_bytes:
        (tree / "file").write_bytes(os.urandom(file_bytes))
    mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
    made = tmp_path / "made.squashfs"
    command = [mksquashfs, str(tree), str(made), *options.split(), "-quiet", "-no-progress"]
    done = subprocess.run(command, capture_output=True, check=False)
    if b"is not a valid compressor" in done.stderr or b"not supported" in done.stderr:
        pytest.skip(f"this mksquashfs has no {options}")
    assert done.returncode == 0
    content = made.read_bytes()
    assert fault_of("rootfs.squashfs", content) is None
    if file_bytes:
        assert code_of("rootfs.squashfs", content[: len(content) // 2]) is Code.TRUNCATED


def test_what_qemu_img_writes_has_no_fault(tmp_path: Path) -> None:
    qemu_img = needs("qemu-img", "apt-get install qemu-utils")
    for number, options in enumerate(("compat=0.10", "compat=1.1", "cluster_size=2M")):
        disk = tmp_path / f"{number}.qcow2"
        create = [qemu_img, "create", "-q", "-f", "qcow2", "-o", options]
        subprocess.run([*create, disk, "10G"], check=True)
        assert fault_of("disk.qcow2", disk.read_bytes()) is None
        overlay = tmp_path / f"{number}.overlay"
        subprocess.run([*create, "-b", disk, "-F", "qcow2", overlay], check=True)
        assert code_of("disk.qcow2", overlay.read_bytes()) is Code.WRONG_CONTENT


@pytest.mark.parametrize(
    ("offset", "value", "told"),
    [(72, 1 << 2, "data file"), (72, 1 << 0, ""), (32, 2, "encrypted"), (32, 1, "encrypted")],
)
def test_a_qcow2_that_no_daemon_can_open_alone_is_none(offset: int, value: int, told: str) -> None:
    head = bytearray(make_qcow2(b""))
    size = 8 if offset == 72 else 4
    head[offset : offset + size] = value.to_bytes(size, "big")
    fault = fault_of("disk.qcow2", bytes(head))
    assert (fault is None) is (told == "")
    assert told in (fault.problem if fault is not None else "")
