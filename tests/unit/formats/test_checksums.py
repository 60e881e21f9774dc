"""``SHA256SUMS`` in the forms that tools write, and what cannot be understood."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from fastindex.formats.checksums import Checksums, parse_checksums
from tests.support.tools import needs

A, B = "a" * 64, "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"{A}  root.squashfs", "root.squashfs"),
        (f"{A} *root.squashfs", "root.squashfs"),
        (f"{A}  ./root.squashfs", "root.squashfs"),
        (f"{A} *././/root.squashfs", "root.squashfs"),
        (f"{A} root.squashfs", "root.squashfs"),
        (f"{A}\troot.squashfs", "root.squashfs"),
        (f"{A.upper()}  root.squashfs", "root.squashfs"),
        (f"{A}  with blanks.tar ", "with blanks.tar"),
        (f"{A}  build/root.squashfs", "build/root.squashfs"),
        (f"{A}  ./build/root.squashfs", "build/root.squashfs"),
        (f"{A}  ../root.squashfs", "../root.squashfs"),
        (f"{A}  /root.squashfs", "/root.squashfs"),
        (f"\\{A}  a\\\\b\\nc\\rd", "a\\b\nc\rd"),
        (f"{A}  a\\nb", "a\\nb"),
        (f"SHA256 (a (1)) = {A}", "a (1)"),
        (f"SHA256 (./a) = {A.upper()}", "a"),
        (f"SHA256(a)= {A}", "a"),
        (f"SHA2-256(a)= {A}", "a"),
        (f"\\SHA256 (a\\nb) = {A}", "a\nb"),
    ],
)
def test_each_form_of_a_line_is_understood(line: str, name: str) -> None:
    assert parse_checksums(f"# made by hand\n\n{line}\n".encode()) == Checksums({name: A})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_form_of_line_ends_is_understood(end: str) -> None:
    text = f"{A}  a{end}{B} *b{end}"
    assert parse_checksums(text.encode()) == Checksums({"a": A, "b": B})


@pytest.mark.parametrize("options", [(), ("--tag",), ("--binary",)])
def test_the_output_of_sha256sum_is_understood(tmp_path: Path, options: tuple[str, ...]) -> None:
    names = ("incus.tar.xz", "root (1).squashfs", "a\\b\nc")
    for name in names:
        (tmp_path / name).write_text(name)
    made = subprocess.run(
        ["sha256sum", *options, *(f"./{name}" for name in names)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert parse_checksums(made.stdout) == Checksums(digests)


@pytest.mark.parametrize("options", [(), ("-r",)])
def test_the_output_of_openssl_is_understood(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "incus.tar.xz").write_text("x")
    made = subprocess.run(
        [needs("openssl", "apt-get install openssl"), "dgst", "-sha256", *options, "incus.tar.xz"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    digest = hashlib.sha256(b"x").hexdigest()
    assert parse_checksums(made.stdout) == Checksums({"incus.tar.xz": digest})


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        A.encode(),
        A[:63].encode() + b"  short",
        (A + "0").encode() + b"  long",
        b"g" * 64 + b"  not hexadecimal",
        A.encode() + b"no_space",
        A.encode() + b"  ./",
        b"root.squashfs " + A.encode(),
        b"SHA256 (a) = " + A[:63].encode(),
        b"SHA256 (a) = " + A.encode() + b" b",
        b"SHA256 () = " + A.encode(),
        b"\\" + A.encode() + b"  a\\tb",
        b"\\" + A.encode() + b"  a\\",
        b"\\\\" + A.encode() + b"  a",
        b"-----BEGIN PGP SIGNED MESSAGE-----",
        b"\xff\xfe",
    ],
)
def test_a_line_that_cannot_be_understood_is_named(line: bytes) -> None:
    found = parse_checksums(B.encode() + b"  good\n" + line + b"\n")
    assert found.digests == {"good": B}
    assert "line 2" in found.problem


def test_digests_of_other_algorithms_are_skipped() -> None:
    text = f"SHA512 (a) = {A}{A}\nMD5 (a) = {A[:32]}\nSHA2-512(a)= {A}{A}\nSHA256 (a) = {B}\n"
    assert parse_checksums(text.encode()) == Checksums({"a": B})
    assert "no digest" in parse_checksums(f"SHA512 (a) = {A}{A}\n".encode()).problem


def test_two_digests_for_one_name_contradict_each_other() -> None:
    found = parse_checksums(f"{A}  a\n{B}  b\n{B}  ./a\n{A}  a\n".encode())
    assert found.digests == {"b": B}
    assert "two digests for a" in found.problem
    assert parse_checksums(f"{A}  a\n{A.upper()} *a\n".encode()) == Checksums({"a": A})


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"# only a comment\n"])
def test_an_empty_file_is_a_problem(content: bytes) -> None:
    found = parse_checksums(content)
    assert found.digests == {}
    assert "empty" in found.problem


def test_another_encoding_is_named() -> None:
    text = f"{A}  a\n"
    marked = parse_checksums(text.encode("utf-8-sig"))
    assert marked.digests == {"a": A}
    assert "BOM" in marked.problem
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert "UTF-16" in parse_checksums(text.encode(encoding)).problem
    assert "UTF-16" in parse_checksums(b"\xfe\xff" + text.encode("utf-16-be")).problem


def test_a_file_that_names_none_of_the_files_is_a_problem() -> None:
    found = parse_checksums(f"{A}  build/a\n{B}  b\n".encode())
    assert found.find_problem({"b", "c"}) == ""
    assert "none of the files" in found.find_problem(["a"])
    assert "line 1" in parse_checksums(b"hello\n").find_problem(["a"])
