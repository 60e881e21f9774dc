"""A tarball that ends early is noticed, mostly without decompressing it."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats import completeness
from fastindex.formats.completeness import check_completeness
from fastindex.formats.tar import TarballError
from tests.support.tools import needs

TOOLS = {
    "plain": ("", ["cat"]),
    "xz": ("xz", ["xz", "-0"]),
    "xz in blocks": ("xz", ["xz", "-0", "-T2", "--block-size=65536"]),
    "zstd": ("zst", ["zstd", "-q", "-c", "--no-check"]),
    "zstd with a checksum": ("zst", ["zstd", "-q", "-c", "--check"]),
    "lz4": ("lz4", ["lz4", "-q", "-c"]),
    "lz4 with checksums": ("lz4", ["lz4", "-q", "-c", "-BX", "-B4", "--content-size"]),
    "bzip2": ("bz2", ["bzip2", "-c"]),
    "gzip": ("gz", ["gzip", "-c"]),
    "lzma": ("lzma", ["xz", "--format=lzma", "-0", "-c"]),
}
PAD_BYTES = 9 << 10
"""What tar adds to the blocks of zeros at the end. To lose some of it harms nobody."""


def make_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (
            ("metadata.yaml", b"architecture: x86_64\n"),
            ("rootfs/noise", random.Random(1).randbytes(300_000)),
            ("rootfs/zeros", bytes(300_000)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def compress(name: str) -> tuple[str, bytes]:
    compression, command = TOOLS[name]
    needs(command[0], f"apt-get install {command[0]}")
    done = subprocess.run(command, input=make_tar(), capture_output=True, check=True)
    return compression, done.stdout


@pytest.mark.parametrize("name", TOOLS)
def test_a_tarball_that_is_cut_off_anywhere_is_noticed(tmp_path: Path, name: str) -> None:
    compression, whole = compress(name)
    path = tmp_path / "tarball"
    path.write_bytes(whole)
    check_completeness(str(path), compression)
    randomness = random.Random(name)
    cuts = [1, 2, 3, 4, 7, 8, 11, 12, 13, 100, len(whole) // 2]
    cuts += [randomness.randrange(1, len(whole) - 20) for _ in range(30)]
    for cut in cuts if compression else [cut + PAD_BYTES + 1 for cut in cuts[:-1]]:
        os.truncate(path, len(whole) - cut)
        with pytest.raises(TarballError, match="damaged"):
            check_completeness(str(path), compression)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name in TOOLS if name not in ("plain", "lzma")])
def test_several_streams_are_one(tmp_path: Path, name: str) -> None:
    compression, whole = compress(name)
    path = tmp_path / "tarball"
    gap = bytes(8) if compression == "xz" else b""
    path.write_bytes(whole + gap + whole + gap)
    check_completeness(str(path), compression)
    path.write_bytes(whole + whole[:-1])
    with pytest.raises(TarballError, match="damaged"):
        check_completeness(str(path), compression)


@pytest.mark.parametrize("compression", ["zst", "lz4"])
def test_skippable_frames_are_skipped(tmp_path: Path, compression: str) -> None:
    _, whole = compress({"zst": "zstd"}.get(compression, compression))
    path = tmp_path / "tarball"
    path.write_bytes(whole + b"\x5f\x2a\x4d\x18\4\0\0\0abcd")
    check_completeness(str(path), compression)
    for tail in (b"\x5f\x2a\x4d\x18\5\0\0\0abcd", b"more bytes"):
        path.write_bytes(whole + tail)
        with pytest.raises(TarballError, match="damaged"):
            check_completeness(str(path), compression)


def test_xz_parts_must_add_up(tmp_path: Path) -> None:
    _, whole = compress("xz")
    path = tmp_path / "tarball"
    for content in (whole[:1000] + whole[1004:], whole[:12] + whole[16:], bytes(24) + whole):
        path.write_bytes(content)
        with pytest.raises(TarballError, match="damaged"):
            check_completeness(str(path), "xz")


def test_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many").write_bytes(lzma.compress(b"") * 1000)
    monkeypatch.setattr(completeness, "MAX_CPU_SECONDS", 0.0)
    with pytest.raises(TarballError, match="took more than"):
        check_completeness(str(tmp_path / "many"), "xz")


def test_an_lzma_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(lzma.compress(bytes(64 << 20), lzma.FORMAT_ALONE))
    with pytest.raises(TarballError, match="more than 250 times"):
        check_completeness(str(tmp_path / "bomb"), "lzma")


@given(
    st.sampled_from(["", "xz", "zst", "lz4", "bz2", "gz", "lzma"]),
    st.sampled_from([b"", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18\x64\x40\xa7"]),
    st.binary(max_size=600),
)
def test_any_bytes_are_whole_or_not(
    tmp_path_factory: pytest.TempPathFactory, compression: str, magic: bytes, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(magic + content)
    with contextlib.suppress(TarballError):  # and no other error
        check_completeness(str(path), compression)
