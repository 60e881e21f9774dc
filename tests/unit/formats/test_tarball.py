"""Looking into tarballs: those that builders make, and those that strangers do."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import resource
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats import tarball
from fastindex.formats.tar import TarballError
from fastindex.formats.tarball import inspect_tarball
from tests.support.tools import needs

METADATA = b"architecture: x86_64\ncreation_date: 1714886640\n"
ZEROS = bytes(64 << 20)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar header, whatever follows it."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def pack(directory: Path, tar: Path, *options: str, members: tuple[str, ...] = (".",)) -> Path:
    subprocess.run(["tar", "-C", directory, *options, "-cf", tar, *members], check=True)
    return tar


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """Return a directory as a builder packs it for a split image."""
    directory = tmp_path / "metadata"
    (directory / "templates").mkdir(parents=True)
    (directory / "metadata.yaml").write_bytes(METADATA)
    (directory / "templates/hostname.tpl").write_text("os: {{ container.name }}\n")
    return directory


@pytest.fixture
def unified(metadata: Path) -> Path:
    """Return a directory as it is packed for a unified container."""
    (metadata / "rootfs/etc").mkdir(parents=True)
    (metadata / "rootfs/etc/hostname").write_text("here\n")
    return metadata


@pytest.mark.parametrize(
    ("option", "compression"),
    [("--xz", "xz"), ("--gzip", "gz"), ("--bzip2", "bz2"), ("--zstd", "zst"), ("--", "")],
)
def test_any_compression_is_told_by_content(
    metadata: Path, tmp_path: Path, option: str, compression: str
) -> None:
    needs("zstd", "apt-get install zstd")
    options = () if option == "--" else (option,)
    contents = inspect_tarball(str(pack(metadata, tmp_path / "no.name", *options)))
    assert contents.compression == compression
    assert contents.metadata_yaml == METADATA
    assert (contents.has_rootfs, contents.has_disk, contents.is_root) == (False, False, False)


@pytest.mark.parametrize("members", [("metadata.yaml", "templates"), ("./metadata.yaml",), (".",)])
def test_metadata_is_found_with_and_without_a_dot(
    metadata: Path, tmp_path: Path, members: tuple[str, ...]
) -> None:
    contents = inspect_tarball(str(pack(metadata, tmp_path / "m.tar", members=members)))
    assert contents.metadata_yaml == METADATA


@pytest.mark.parametrize(
    "members", [(".",), ("metadata.yaml", "templates", "rootfs"), ("rootfs", "metadata.yaml")]
)
def test_a_unified_container_has_a_rootfs(
    unified: Path, tmp_path: Path, members: tuple[str, ...]
) -> None:
    contents = inspect_tarball(str(pack(unified, tmp_path / "u.tar.gz", "--gzip", members=members)))
    assert (contents.metadata_yaml, contents.has_rootfs) == (METADATA, True)
    assert not contents.has_disk


def test_a_unified_virtual_machine_has_a_disk(metadata: Path, tmp_path: Path) -> None:
    (metadata / "rootfs.img").write_bytes(b"QFI\xfb")
    packed = pack(metadata, tmp_path / "vm", members=("metadata.yaml", "rootfs.img"))
    assert inspect_tarball(str(packed)).has_disk
    assert tarball.is_virtual_machine(str(packed))


def test_a_root_file_system_is_told_from_its_first_members(unified: Path, tmp_path: Path) -> None:
    (unified / "rootfs/usr").mkdir()
    (unified / "rootfs/usr/big").write_bytes(os.urandom(1 << 20))
    packed = pack(unified / "rootfs", tmp_path / "root.tar.xz", "--xz")
    with packed.open("r+b") as file:
        file.truncate(packed.stat().st_size // 2)  # never read that far
    contents = inspect_tarball(str(packed))
    assert contents.is_root
    assert contents.metadata_yaml is None


@pytest.mark.parametrize(
    ("compress", "gap"), [(lzma.compress, b"\0" * 8), (bz2.compress, b""), (gzip.compress, b"")]
)
def test_several_streams_are_one(
    metadata: Path, tmp_path: Path, compress: Callable[[bytes], bytes], gap: bytes
) -> None:
    plain = pack(metadata, tmp_path / "m.tar").read_bytes()
    pieces = [plain[start : start + 700] for start in range(0, len(plain), 700)]
    packed = tmp_path / "packed"
    packed.write_bytes(gap.join(map(compress, pieces)) + gap)
    assert inspect_tarball(str(packed)).metadata_yaml == METADATA


def xz_bomb(path: Path) -> None:
    """10 GB of zeros in 1.5 MB."""
    stream = lzma.compress(ZEROS)
    path.write_bytes(lzma.compress(header("templates/a", 160 * len(ZEROS))) + stream * 160)


def gzip_bomb(path: Path) -> None:
    stream = gzip.compress(ZEROS)
    path.write_bytes(gzip.compress(header("templates/a", 160 * len(ZEROS))) + stream * 160)


def zstd_bomb(path: Path) -> None:
    compress = [needs("zstd", "apt-get install zstd"), "-q", "-c"]
    start = subprocess.run(
        compress, input=header("a", 160 << 26), capture_output=True, check=True
    ).stdout
    zeros = subprocess.run(compress, input=ZEROS, capture_output=True, check=True).stdout
    path.write_bytes(start + zeros * 160)


def long_window(path: Path) -> None:
    """A frame that asks for 2 GiB of memory."""
    zstd = needs("zstd", "apt-get install zstd")
    packed = subprocess.run(
        [zstd, "-q", "-1", "--long=31", "-c"], input=ZEROS, capture_output=True, check=True
    )
    path.write_bytes(packed.stdout)


def big_dictionary(path: Path) -> None:
    """A stream that asks for 3 GiB of memory: the size in its block header says so."""
    packed = bytearray(lzma.compress(header("a", 0)))
    length = (packed[12] + 1) * 4
    packed[16] = 39
    packed[12 + length - 4 : 12 + length] = zlib.crc32(packed[12 : 12 + length - 4]).to_bytes(
        4, "little"
    )
    path.write_bytes(packed)


def noise(path: Path) -> None:
    """A gigabyte that does not compress, of which nothing is metadata."""
    size = tarball.MAX_BYTES
    with path.open("wb") as file:
        file.write(header("templates/a", size))
        file.truncate(size + 4096)


def sparse_metadata(path: Path) -> None:
    """A metadata.yaml of 10 GB, all of it a hole."""
    (path.parent / "metadata.yaml").touch()
    os.truncate(path.parent / "metadata.yaml", 10 << 30)
    pack(path.parent, path, "--sparse", members=("metadata.yaml",))


def long_metadata(path: Path) -> None:
    (path.parent / "metadata.yaml").write_bytes(b"a: b\n" * 300_000)
    pack(path.parent, path, "--xz", members=("metadata.yaml",))


def symlink_metadata(path: Path) -> None:
    (path.parent / "metadata.yaml").symlink_to("/etc/passwd")
    pack(path.parent, path, members=("metadata.yaml",))


def hard_link_metadata(path: Path) -> None:
    path.write_bytes(header("metadata.yaml", 0, tarfile.LNKTYPE) + bytes(1024))


def fifo_metadata(path: Path) -> None:
    path.write_bytes(header("metadata.yaml", 0, tarfile.FIFOTYPE) + bytes(1024))


def many_members(path: Path) -> None:
    path.write_bytes(header("templates/a", 0) * (tarball.MAX_MEMBERS + 1))


def long_name(path: Path) -> None:
    path.write_bytes(header("a", 1 << 30, tarfile.GNUTYPE_LONGNAME) + bytes(2 << 20))


def long_attributes(path: Path) -> None:
    path.write_bytes(header("a", 1 << 30, tarfile.XHDTYPE) + bytes(2 << 20))


def long_sparse_map(path: Path) -> None:
    """A member whose map of holes has a billion entries."""
    member = tarfile.TarInfo("a")
    attributes = {"major": "1", "minor": "0", "name": "a", "realsize": "1"}
    member.pax_headers = {f"GNU.sparse.{key}": value for key, value in attributes.items()}
    member.size = 4 << 20
    content = b"1000000000\n" + b"0\n" * (2 << 20)
    path.write_bytes(member.tobuf(tarfile.PAX_FORMAT) + content)


def nested_attributes(path: Path) -> None:
    path.write_bytes((header("a", 512, tarfile.XHDTYPE) + b"6 a=b\n".ljust(512, b"\0")) * 5000)


def cut_off(path: Path) -> None:
    packed = lzma.compress(header("metadata.yaml", 100_000) + os.urandom(100_000))
    path.write_bytes(packed[: len(packed) // 2])


def flipped(path: Path) -> None:
    packed = bytearray(lzma.compress(header("a", 100_000) + os.urandom(100_000)))
    packed[5000] ^= 1
    path.write_bytes(packed)


def no_tar_within(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(5000)))


HOSTILE: dict[Callable[[Path], None], str] = {
    xz_bomb: "more than 250 times its size",
    gzip_bomb: "more than 250 times its size",
    zstd_bomb: "more than 250 times its size",
    long_window: "needs too much memory",
    big_dictionary: "needs too much memory",
    noise: "put metadata.yaml first",
    sparse_metadata: "not a regular file|larger than",
    long_metadata: "larger than 1,048,576 bytes",
    symlink_metadata: "not a regular file",
    hard_link_metadata: "not a regular file",
    fifo_metadata: "not a regular file",
    many_members: "its first 200,000 members do not show",
    long_name: "the name or attributes of a member are too long",
    long_attributes: "the name or attributes of a member are too long",
    nested_attributes: "the name or attributes of a member are too long",
    cut_off: "damaged",
    flipped: "damaged",
    no_tar_within: "not a tarball",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_tarball_is_refused_within_bounds(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "hostile"
    make(path)
    # In a process of its own, whose memory is bounded and can be measured.
    child = os.fork()
    if child == 0:
        os._exit(_refuses(path, HOSTILE[make]))
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert usage.ru_utime + usage.ru_stime < tarball.MAX_CPU_SECONDS


def _refuses(path: Path, reason: str) -> int:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), used + (512 << 20)))
    tarball.MAX_CPU_SECONDS = 1000.0  # another bound is to be seen, on a busy machine, too
    try:
        with pytest.raises(TarballError, match=reason):
            inspect_tarball(str(path))
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        return 1
    return 0


def test_time_is_bounded(metadata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_CPU_SECONDS", 0.0)
    with pytest.raises(TarballError, match="it took more than"):
        inspect_tarball(str(pack(metadata, tmp_path / "m.tar")))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        inspect_tarball(str(tmp_path / "fifo"))
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        inspect_tarball(str(tmp_path / "link"))


@given(st.binary(max_size=600), st.sampled_from([b"", b"\xfd7zXZ\0", b"\x1f\x8b\x08", b"BZh9"]))
def test_any_bytes_give_contents_or_a_tarball_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, magic: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(magic + content)
    with contextlib.suppress(TarballError):  # and no other error
        inspect_tarball(str(path))


@given(st.data())
def test_a_tarball_with_flipped_bytes_gives_contents_or_a_tarball_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("templates/é" + "x" * 120, "metadata.yaml"):
            member = tarfile.TarInfo(name)
            member.size = len(METADATA)
            tar.addfile(member, io.BytesIO(METADATA))
    content = bytearray(packed.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(content)
    with contextlib.suppress(TarballError):  # and no other error
        assert inspect_tarball(str(path)).compression == ""
