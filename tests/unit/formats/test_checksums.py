"""``SHA256SUMS`` in the forms that tools write."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from fastindex.formats.checksums import parse_checksums

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


@pytest.mark.parametrize("options", [(), ("--tag",), ("--binary",)])
def test_the_output_of_sha256sum_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    for name in ("incus.tar.xz", "root (1).squashfs"):
        (tmp_path / name).write_text(name)
    made = subprocess.run(
        ["sha256sum", *options, "incus.tar.xz", "./root (1).squashfs"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert parse_checksums(made.stdout) == {
        name: hashlib.sha256(name.encode()).hexdigest()
        for name in ("incus.tar.xz", "root (1).squashfs")
    }


@pytest.mark.parametrize(
    "line",
    [
        b"",
        A[:63].encode() + b"  short",
        (A + "0").encode() + b"  long",
        b"g" * 64 + b"  not hexadecimal",
        A.encode() + b"no_space",
        b"SHA512 (a) = " + A.encode(),
        b"SHA256 (a) = " + A.encode() + b" b",
        b"\0" * 100,
    ],
)
def test_other_lines_are_ignored(line: bytes) -> None:
    assert parse_checksums(line + b"\n" + B.encode() + b"  good\n") == {"good": B}


def test_the_last_of_two_lines_for_one_file_counts() -> None:
    assert parse_checksums(f"{A}  a\n{B}  ./a\n".encode()) == {"a": B}
