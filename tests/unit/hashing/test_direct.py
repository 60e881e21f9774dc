"""Reading past the page cache what is not in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastindex.hashing import digest, reader
from fastindex.hashing.ahead import choose_ring
from fastindex.hashing.tasks import Batch, Digested, FileRef, RootTask
from fastindex.system import disks
from fastindex.system.files import DIRECT_UNIT_BYTES, is_uncached
from fastindex.system.stamps import stamp_of
from tests.support.file_systems import drop_pages, xfs_file_system
from tests.support.trees import write_file

PIECE = digest.BUFFER_BYTES
SLOT = choose_ring(PIECE, DIRECT_UNIT_BYTES).slot_bytes


class Reads:
    """Counts the reads of pieces, and how each was done."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.most_bytes = 1 << 30
        """The most that a direct read returns."""
        self._preadv = os.preadv

    def preadv(
        self, descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0
    ) -> int:
        """Do what ``os.preadv`` does."""
        (buffer,) = buffers
        if len(buffer) == 1:  # is it in memory?
            return self._preadv(descriptor, buffers, offset, flags)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            self.counts["direct"] += 1
            count = self._preadv(descriptor, buffers, offset, flags)
            return min(count, self.most_bytes)
        self.counts["buffered"] += 1
        return self._preadv(descriptor, buffers, offset, flags)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Return what counts all reads from now on; each file system is read directly that can be."""
    reads = Reads()
    monkeypatch.setattr(os, "preadv", reads.preadv)
    monkeypatch.setattr(reader, "_is_measured", lambda _: True)
    monkeypatch.setattr(reader, "MIN_DIRECT_BYTES", 0)
    return reads


@pytest.fixture(params=["tmp_path", pytest.param("XFS", marks=pytest.mark.root)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk whose pages can be dropped."""
    if request.param == "XFS":
        with xfs_file_system(tmp_path / "xfs") as mounted:
            yield mounted
        return
    probe = tmp_path / "probe"
    write_file(probe, bytes(PIECE))
    drop_pages(probe)
    with probe.open("rb") as file:
        if not is_uncached(file.fileno(), 0):
            pytest.skip("the file system keeps all in memory")
    yield tmp_path


def check(*paths: Path) -> None:
    """Digest files side by side, and compare with hashlib."""
    tasks = tuple(RootTask(FileRef(str(path), stamp_of(path.stat()))) for path in paths)
    batch = Batch(tasks, 0, True, files_at_once=len(tasks))
    outcomes = digest.digest_batch(batch, lambda _: None)
    for path, outcome in zip(paths, outcomes, strict=True):
        assert isinstance(outcome, Digested)
        assert outcome.root.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


SIZES = [
    PIECE + 1,
    2 * PIECE,
    SLOT + 4095,
    SLOT + 4096,
    20 * PIECE + 4097,
]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_what_is_not_in_memory_is_read_past_it(place: Path, reads: Reads, size_bytes: int) -> None:
    path = place / "root"
    write_file(path, os.urandom(size_bytes))
    drop_pages(path)
    check(path)
    assert reads.counts["direct"] >= size_bytes / SLOT
    assert not reads.counts["buffered"]


def test_a_look_at_the_first_byte_does_not_make_a_file_hot(
    place: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of the run before, after which the kernel reads the first pages."""
    path = place / "root"
    size_bytes = 20 * PIECE
    write_file(path, os.urandom(size_bytes))
    drop_pages(path)
    with path.open("rb", buffering=0) as file:
        file.read(1)
        assert not is_uncached(file.fileno(), 0)
    monkeypatch.setattr(time, "monotonic_ns", lambda: size_bytes - 1)
    check(path)
    assert not reads.counts["buffered"]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_what_is_in_memory_is_taken_from_there(place: Path, reads: Reads, size_bytes: int) -> None:
    path = place / "root"
    write_file(path, os.urandom(size_bytes))
    check(path)
    assert reads.counts["buffered"] >= size_bytes / PIECE
    assert not reads.counts["direct"]


def test_a_small_file_is_read_through_the_page_cache(
    place: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MIN_DIRECT_BYTES", 4 * PIECE)
    for size_bytes in (4 * PIECE - 1, 4 * PIECE):
        path = place / "root"
        write_file(path, os.urandom(size_bytes))
        drop_pages(path)
        reads.counts.clear()
        check(path)
        assert bool(reads.counts["direct"]) == (size_bytes == 4 * PIECE)


@pytest.mark.parametrize("files", [1, 3, 7])
def test_files_of_which_a_part_is_in_memory(
    place: Path, reads: Reads, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side, their pieces are no multiples of what is aligned."""
    numbers = random.Random(files)
    paths = [place / f"root{number}" for number in range(files)]
    for path in paths:
        write_file(path, os.urandom(numbers.randrange(PIECE, 4 * PIECE)))
        with path.open("r+b") as file:
            os.ftruncate(file.fileno(), 6 * PIECE + numbers.randrange(5000))  # it ends in a hole
    monkeypatch.setattr(reader, "_is_uncached", lambda _, offset, __: offset >= 600_000)
    check(*paths)
    assert reads.counts["direct"]
    assert reads.counts["buffered"]


@pytest.mark.parametrize("most_bytes", [4096, 5000, 700_000])
def test_a_read_may_fall_short(place: Path, reads: Reads, most_bytes: int) -> None:
    """What is left is not aligned then, and the rest is read as usual."""
    path = place / "root"
    write_file(path, os.urandom(5 * PIECE + 7))
    drop_pages(path)
    reads.most_bytes = most_bytes
    check(path)
    assert reads.counts["direct"]
    assert bool(reads.counts["buffered"]) == (most_bytes % 4096 != 0)


def test_without_o_direct_it_is_read_as_usual(
    place: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(22, "Invalid argument")
        return real(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    path = place / "root"
    write_file(path, os.urandom(5 * PIECE + 7))
    drop_pages(path)
    check(path)
    assert not reads.counts["direct"]


@pytest.mark.parametrize(
    ("type_", "expected"), [("ext4", True), ("xfs", True), ("btrfs", False), ("nfs4", False)]
)
def test_only_where_it_was_measured_the_page_cache_is_passed_by(
    monkeypatch: pytest.MonkeyPatch, type_: str, expected: bool
) -> None:
    monkeypatch.setattr(reader, "find_file_system_type", lambda _: type_)
    assert reader._is_measured.__wrapped__(0) is expected


def test_the_file_system_of_the_tests_is_asked(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    is_measured = disks.find_file_system_type(device) in {"ext4", "xfs"}
    assert reader._is_measured(device) == is_measured
