"""Members of tar streams: what tarfile sees of sound ones, within bounds of others."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.tar import Member, TarballError, read_members
from tests.fuzz.targets import Bytes, plain_tarballs
from tests.support.faults.hostile_deliveries import header

NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: not name.startswith("./") and not name.endswith("/"))


def seen(content: bytes) -> list[Member]:
    return list(read_members(Bytes(content)))


@given(
    files=st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=4),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_sound_tarballs_are_as_tarfile_sees_them(files: list[tuple[str, bytes]], form: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        theirs = [(member.name, member.size) for member in tar]
    assert [(member.name, member.size_bytes) for member in seen(packed.getvalue())] == theirs


def test_kinds_of_members_are_told_apart() -> None:
    for content in list(plain_tarballs())[:2]:
        kinds = {m.name: (m.is_regular_file, m.is_directory) for m in seen(content)}
        assert kinds["metadata.yaml"] == (True, False)
        assert kinds["/../special"] == (False, False)  # the last of that name has holes
    (sparse,) = seen(list(plain_tarballs())[-1])
    assert (sparse.name, sparse.is_regular_file) == ("rootfs", False)
    (directory,) = seen(header("d", 0, tarfile.DIRTYPE))
    assert directory.is_directory


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header("a", -1), "invalid number in a header"),
        (header("a", 5), "within a member"),
        (header("a", 0)[:100], "within a header"),
        (header("a", 0).replace(b"a", b"b", 1), "checksum"),
        (header("a", 5, tarfile.XHDTYPE) + b"5 a=b".ljust(512, b"\0"), "attributes"),
        (header("a", 9, tarfile.XHDTYPE) + b"2 2 2 2 =".ljust(512, b"\0"), "attributes"),
        (header("a", 9, tarfile.XHDTYPE) + b"00000000\n".ljust(512, b"\0"), "attributes"),
        (header("a", 11, tarfile.XHDTYPE) + b"11 size=-5\n".ljust(512, b"\0"), "size"),
        (header("a", 99, tarfile.XHDTYPE) + b"5 a", "within a header"),
    ],
)
def test_a_damaged_header_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(TarballError, match=reason):
        seen(content)


def test_signed_checksums_are_accepted() -> None:
    block = bytearray(header("\udcff", 0))
    signed = sum(memoryview(block).cast("b")) - sum(block[148:156]) + 8 * 0x20
    block[148:156] = b"%06o\0 " % signed
    assert [member.name for member in seen(bytes(block))] == ["\udcff"]


def test_attributes_of_a_megabyte_take_no_time(tmp_path: Path) -> None:
    for records in (b"0" * 1_000_000, b"2 " * 500_000 + b"=", b"5 a=\n" * 200_000):
        content = header("a", len(records), tarfile.XHDTYPE) + records.ljust(1_000_448, b"\0")
        try:
            assert [member.name for member in seen(content + header("b", 0))] == ["b"]
        except TarballError as error:
            assert "attributes" in str(error)  # noqa: PT017
