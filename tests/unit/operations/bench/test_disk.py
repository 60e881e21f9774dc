"""What the readers read."""

from __future__ import annotations

import itertools
import mmap
import os
from pathlib import Path

import pytest

from fastindex.errors import TreeError
from fastindex.events import Observer
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench import disk
from fastindex.operations.bench.disk import ReadTask, choose_reader_counts, measure_disk, prepare
from fastindex.operations.bench.options import Method
from fastindex.operations.bench.rounds import TimedWorkers
from fastindex.operations.bench.selection import File, Selection
from fastindex.system.files import DROP_BYTES, is_uncached, open_buffered
from tests.support.large_files import write_filled

TINY = 0.0003
"""Seconds in which a reader reads a piece or two."""


@pytest.mark.parametrize(
    ("jobs", "readers"), [(1, [1, 2, 4]), (3, [1, 2, 3, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_the_jobs_are_among_the_numbers_of_readers(jobs: int, readers: list[int]) -> None:
    assert choose_reader_counts(jobs) == readers


def test_a_reader_starts_in_the_middle_and_starts_over_at_the_end(
    disk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(
        File(str(write_filled(disk_path / name, 1 << 20)), 1 << 20, 0) for name in ("a", "b")
    )
    reads: list[tuple[str, int]] = []
    real = os.preadv

    def record(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        reads.append((name, offset // BUFFER_BYTES))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", record)
    step = prepare(ReadTask(files, (1 << 20) + BUFFER_BYTES, "direct"))
    assert [step() for _ in range(6)] == [BUFFER_BYTES] * 6
    assert reads == [("b", 1), ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 0)]


def test_the_content_is_read(disk_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_filled(disk_path / "file", 1 << 20)
    buffers: list[mmap.mmap] = []

    def new_buffer(descriptor: int, size_bytes: int) -> mmap.mmap:
        buffers.append(mmap.mmap(descriptor, size_bytes))
        return buffers[-1]

    monkeypatch.setattr(disk, "mmap", type("Module", (), {"mmap": staticmethod(new_buffer)}))
    prepare(ReadTask((File(str(path), 1 << 20, 0),), 0, "direct"))()
    assert bytes(buffers[0]) == path.read_bytes()[:BUFFER_BYTES]


@pytest.mark.parametrize("skip_bytes", [0, BUFFER_BYTES])
def test_pages_are_dropped_block_by_block_before_they_are_read(
    disk_path: Path, skip_bytes: int
) -> None:
    path = write_filled(disk_path / "file", 2 * DROP_BYTES)
    step = prepare(ReadTask((File(str(path), 2 * DROP_BYTES, 0),), skip_bytes, "dropped"))
    with open_buffered(str(path)) as stream:
        stream.read()
        first, second = DROP_BYTES - 1, 2 * DROP_BYTES - 1
        assert not is_uncached(stream.fileno(), first)
        step()
        assert is_uncached(stream.fileno(), first)
        assert not is_uncached(stream.fileno(), second)
        for _ in range(skip_bytes, DROP_BYTES, BUFFER_BYTES):
            step()
        assert is_uncached(stream.fileno(), second)


@pytest.mark.parametrize("method", ["direct", "dropped"])
@pytest.mark.parametrize("kind", ["absent", "fifo", "truncated"])
def test_a_file_that_changed_meanwhile_reads_as_nothing(
    disk_path: Path, kind: str, method: Method
) -> None:
    path = disk_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "truncated":
        path.touch()
    assert prepare(ReadTask((File(str(path), 1 << 20, 0),), 0, method))() == 0


def test_files_that_can_no_longer_be_read_are_an_error(disk_path: Path) -> None:
    gone = Selection(
        "images", (File(str(disk_path / "gone"), 4 << 20, 0),), "ext4", 4 << 20, "direct"
    )
    with (
        TimedWorkers(Observer()) as workers,
        pytest.raises(TreeError, match=r"^images: files could be opened but not read; run again"),
    ):
        measure_disk(gone, 1, workers, TINY)


class FakeWorkers(TimedWorkers):
    """Keeps the tasks; each reader reads as much as it is told to."""

    def __init__(self, bytes_per_reader: int) -> None:
        super().__init__(Observer())
        self.tasks: list[list[ReadTask]] = []
        self._bytes_per_reader = bytes_per_reader

    def measure(
        self, name: str, prepare: object, tasks: object, seconds: float
    ) -> tuple[float, int]:
        assert isinstance(tasks, list)
        self.tasks.append(tasks)
        return 1e9 * len(tasks), self._bytes_per_reader * len(tasks)


def test_readers_keep_apart_and_nothing_is_read_twice() -> None:
    files = tuple(File(f"/{number}", 100 << 20, 0) for number in range(10))
    workers = FakeWorkers(bytes_per_reader=10 << 20)
    report = measure_disk(Selection("/", files, "ext4", None, "direct"), 8, workers, 1.0)
    assert [len(tasks) for tasks in workers.tasks] == [1, 2, 4, 8]
    starts = sorted(task.start_bytes for tasks in workers.tasks for task in tasks)
    assert all(start % BUFFER_BYTES == 0 for start in starts)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert min(gaps) >= 10 << 20
    assert {figure.readers: figure.bytes_per_second for figure in report.figures} == {
        1: 1e9,
        2: 2e9,
        4: 4e9,
        8: 8e9,
    }
    assert report.bytes_read == 150 << 20
    assert report.offered_bytes == 1000 << 20
    assert {figure.buffer_bytes for figure in report.figures} == {BUFFER_BYTES}


def test_there_are_no_more_readers_than_pieces() -> None:
    files = (File("/file", 3 * BUFFER_BYTES, 0),)
    workers = FakeWorkers(bytes_per_reader=BUFFER_BYTES)
    report = measure_disk(Selection("/", files, "ext4", None, "direct"), 8, workers, 1.0)
    assert [figure.readers for figure in report.figures] == [1, 2]
