"""``SHA256SUMS`` in a version directory is held against what the build computes."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fastindex as package
from fastindex.errors import Code
from tests.support.command import Run
from tests.support.trees import OLD_NS, published, sha256, version, write_file, write_tree

PATH = "debian/12/amd64/default/20240505_05:24"
VERSION = f"images/{PATH}"
GOOD, LABEL = ("debian:13:amd64:default 20240505_05:24", "debian:12:amd64:default 20240505_05:24")
NAMES = ("incus.tar.xz", "rootfs.squashfs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "root", {**version(PATH), **version("debian/13/amd64/default/20240505_05:24")}
    )


def digests(root: Path) -> dict[str, str]:
    return {name: sha256((root / VERSION / name).read_bytes()) for name in NAMES}


def write_sums(root: Path, content: bytes, mtime_ns: int = OLD_NS) -> None:
    write_file(root / VERSION / "SHA256SUMS", content, mtime_ns)


def write_lines(root: Path, form: str, end: str = "\n", **changed: str) -> None:
    """Write a line of ``form`` for each file; ``changed`` replaces digests, ``_`` for ``.``."""
    right = digests(root) | {name.replace("_", "."): value for name, value in changed.items()}
    lines = (form.format(name=name, digest=digest) for name, digest in right.items())
    write_sums(root, "".join(line + end for line in lines).encode())


FORMS = {
    "sha256sum": "{digest}  {name}",
    "binary": "{digest} *{name}",
    "dots": "{digest}  ./{name}",
    "BSD": "SHA256 ({name}) = {digest}",
    "openssl": "SHA2-256({name})= {digest}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_digests_in_any_form_are_checked(fastindex: Run, root: Path, form: str, end: str) -> None:
    write_lines(root, form, end)
    result = fastindex(root)
    assert result.returncode == 0, result.stderr
    write_lines(root, form, end, rootfs_squashfs="0" * 64)
    os.utime(root / VERSION / "SHA256SUMS")
    result = fastindex(root)
    assert result.returncode == 3
    assert f"warning: {VERSION}/rootfs.squashfs: its SHA-256 is " in result.stderr
    assert f"SHA256SUMS says {'0' * 64}" in result.stderr
    assert published(root) == {GOOD}


def test_capitals_are_digests_too(fastindex: Run, root: Path) -> None:
    upper = {name: digest.upper() for name, digest in digests(root).items()}
    write_sums(root, "".join(f"{upper[name]}  {name}\n" for name in NAMES).encode())
    assert fastindex(root).returncode == 0


def test_what_the_real_tool_writes_is_understood(fastindex: Run, root: Path) -> None:
    for options in ([], ["--tag"], ["--binary"], ["--text"]):
        command = ["sha256sum", *options, *NAMES]
        done = subprocess.run(command, cwd=root / VERSION, check=True, capture_output=True)
        write_sums(root, done.stdout, OLD_NS + len(options) + len(done.stdout))
        assert fastindex(root).returncode == 0
    assert fastindex("--rehash", root).returncode == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["new", "published", "cached"])
def test_a_version_that_contradicts_its_checksums_is_left_out(
    fastindex: Run, root: Path, name: str, state: str
) -> None:
    """Whether its files are read now, or its cache knows them."""
    if state != "new":
        assert fastindex(root).returncode == 0
    if state == "cached":
        shutil.rmtree(root / "streams")
    write_lines(root, FORMS["sha256sum"], **{name.replace(".", "_"): "ab" * 32})
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert f"warning: {VERSION}/{name}: its SHA-256 is " in result.stderr
        assert "1 version left out" in result.stderr
        assert published(root) == {GOOD}
    report = package.Mirror(root).build()
    assert [finding.code for finding in report.findings] == [Code.CHECKSUM_MISMATCH]
    write_lines(root, FORMS["sha256sum"])
    os.utime(root / VERSION / "SHA256SUMS")
    result = fastindex(root)
    assert result.returncode == 0
    assert published(root) == {GOOD, LABEL}


def test_both_files_wrong_cost_one_version(fastindex: Run, root: Path) -> None:
    write_lines(root, FORMS["BSD"], rootfs_squashfs="0" * 64, incus_tar_xz="1" * 64)
    result = fastindex(root)
    assert result.stderr.endswith("2 warnings, 1 version left out\n")


def _lines(root: Path) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in digests(root).items()).encode()


USELESS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda root: b"", "is empty"),
    "a page": (lambda root: b"<html>404</html>\n", "cannot be understood: line 1"),
    "another line": (lambda root: _lines(root) + b"hello\n", "cannot be understood: line 3"),
    "MD5": (lambda root: b"0" * 32 + b"  rootfs.squashfs\n", "cannot be understood"),
    "two digests": (
        lambda root: _lines(root) + b"0" * 64 + b"  rootfs.squashfs\n",
        "contradicts itself: it has two digests for rootfs.squashfs",
    ),
    "others": (lambda root: b"0" * 64 + b"  other.iso\n", "names none of the files beside it"),
    "below": (lambda root: b"0" * 64 + b"  x/rootfs.squashfs\n", "names none of the files"),
    "UTF-16": (lambda root: _lines(root).decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without BOM": (lambda root: _lines(root).decode().encode("utf-16-le"), "UTF-16"),
    "BOM": (lambda root: codecs.BOM_UTF8 + _lines(root), "byte order mark"),
    "too large": (lambda root: _lines(root) * 20_000, "cannot be read"),
}


@pytest.mark.parametrize(("make", "words"), USELESS.values(), ids=USELESS)
def test_what_cannot_be_relied_on_is_told_and_costs_nothing(
    fastindex: Run, root: Path, make: Callable[[Path], bytes], words: str
) -> None:
    write_sums(root, make(root))
    for options in ((), (), ("--rehash",)):
        result = fastindex(*options, root)
        assert result.returncode == 0, result.stderr
        assert f"warning: {VERSION}/SHA256SUMS: " in result.stderr
        assert words in result.stderr
        assert "correct or remove it" in result.stderr
        assert published(root) == {GOOD, LABEL}
    assert [one.code for one in package.Mirror(root).build().findings] == [Code.BAD_CHECKSUMS]


def test_a_bom_does_not_hide_a_contradiction(fastindex: Run, root: Path) -> None:
    right = _lines(root)
    write_sums(root, codecs.BOM_UTF8 + b"0" * 64 + right[64:])
    result = fastindex(root)
    assert result.returncode == 3
    assert "byte order mark" in result.stderr
    assert "incus.tar.xz: its SHA-256 is" in result.stderr
    assert published(root) == {GOOD}


@pytest.mark.parametrize("kind", ["directory", "dangling", "outside"])
def test_checksums_that_cannot_be_read_are_told(fastindex: Run, root: Path, kind: str) -> None:
    path = root / VERSION / "SHA256SUMS"
    match kind:
        case "directory":
            path.mkdir()
        case "dangling":
            path.symlink_to("gone")
        case "outside":
            path.symlink_to("/etc/passwd")
    result = fastindex(root)
    assert f"warning: {VERSION}/SHA256SUMS: " in result.stderr
    assert "root:" not in result.stderr
    assert published(root) == {GOOD, LABEL}


def test_checksums_of_a_build_log_and_a_gone_file_do_no_harm(fastindex: Run, root: Path) -> None:
    write_sums(root, _lines(root) + b"0" * 64 + b"  build.log\n" + b"1" * 64 + b"  gone.qcow2\n")
    assert fastindex(root).returncode == 0


def test_a_file_that_takes_no_part_is_not_checked(fastindex: Run, root: Path) -> None:
    """``root.squashfs`` beside ``rootfs.squashfs``: only one is published."""
    write_tree(root, {f"{VERSION}/root.squashfs": b"the other"})
    write_sums(root, _lines(root) + b"0" * 64 + b"  root.squashfs\n")
    fastindex(root)
    assert published(root) == {GOOD, LABEL}
