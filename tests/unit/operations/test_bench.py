"""``fastindex bench``: what is measured, what is read, and what follows from the figures.

No test asks which contender is faster, or how long anything takes.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.cli.bench_tables import advice_lines, duration, lines_of
from fastindex.errors import FastindexError, TreeError, UsageError
from fastindex.events import Finding, Observer
from fastindex.hashing import engine
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench import memory, parts
from fastindex.operations.bench.advice import ENOUGH, advise, build_speeds, disk_speeds
from fastindex.operations.bench.disk import DiskTask, measure_disk, reader_counts
from fastindex.operations.bench.disk import prepare as prepare_disk
from fastindex.operations.bench.options import (
    BenchOptions,
    BenchReport,
    DiskFigure,
    DiskReport,
    HashFigure,
    HashTask,
)
from fastindex.operations.bench.parts import LEAST_BYTES, UNIT_BYTES, Offer, Part, offer
from fastindex.operations.bench.rounds import ROUNDS, Crew, Work
from fastindex.operations.bench.run import expected_seconds, measure
from fastindex.system import disks
from tests.conftest import COMMAND, UNMEASURED, Run

GB = 1e9
TINY = 0.0003
"""A ``--seconds`` with which each measurement is a piece or two."""
needs_lanes = pytest.mark.skipif(bool(engine.why_no_lanes()), reason=engine.why_no_lanes())


class Listener(Observer):
    """An observer that keeps what it is warned of."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def warn(self, finding: Finding) -> None:
        self.findings.append(finding)


def fill(path: Path, size_bytes: int) -> Path:
    """Write a file without holes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(bytes(range(256)) * 4096)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with as much in it as a measurement needs, and what it must leave."""
    root = tmp_path_factory.mktemp("data")
    for number in range(4):
        fill(root / f"{number}" / "rootfs.squashfs", LEAST_BYTES // 4)
    (root / "0" / "incus.tar.xz").write_bytes(b"small")
    os.mkfifo(root / "fifo")
    (root / "again").hardlink_to(root / "0" / "rootfs.squashfs")
    outside = fill(tmp_path_factory.mktemp("outside") / "disk.qcow2", 8 << 20)
    (root / "file-link").symlink_to(outside)
    (root / "link").symlink_to(outside.parent)
    yield root
    for path in (*root.rglob("rootfs.squashfs"), root / "again", outside):
        path.unlink()


def files_below(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return name → what any write would change."""
    return {
        str(path): (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        for path in root.rglob("*")
        if (status := path.lstat())
    }


class TestAdvice:
    """Figures → advice."""

    def test_a_disk_slower_than_the_cpus_limits_and_fewer_jobs_are_enough(self) -> None:
        cpu = {1: 0.5 * GB, 2: 1.0 * GB, 4: 2.0 * GB, 8: 4.0 * GB}
        advice = advise(cpu, dict.fromkeys(cpu, 0.9 * GB), 8, 90 * 10**9)
        assert (advice.jobs, advice.limit) == (2, "disk")
        assert advice.bytes_per_second == advice.disk_bytes_per_second == 0.9 * GB
        assert advice.cpu_bytes_per_second == 1.0 * GB
        assert advice.run_seconds == pytest.approx(100)
        assert advice.all_seconds is None

    def test_where_the_cpu_limits_every_cpu_gets_a_job(self) -> None:
        cpu = {1: 0.5 * GB, 2: 1.0 * GB, 4: 2.0 * GB}
        advice = advise(cpu, dict.fromkeys(cpu, 6 * GB), 4, 10**11, 10**12)
        assert (advice.jobs, advice.limit) == (4, "cpu")
        assert advice.run_seconds == pytest.approx(50)
        assert advice.all_seconds == pytest.approx(500)

    def test_cpus_with_neighbours_are_not_taken_for_useless(self) -> None:
        cpu = {1: 1.0 * GB, 2: 1.01 * GB}
        assert advise(cpu, {}, 2, 1).jobs == 2
        assert advise(cpu, {1: 6 * GB, 2: 6 * GB, 4: 6 * GB}, 2, 1).jobs == 2

    def test_a_disk_that_delivers_more_to_more_readers_gets_more_jobs_than_cpus(self) -> None:
        cpu = {1: 1.0 * GB, 2: 2.0 * GB}
        disk = {1: 0.2 * GB, 2: 0.4 * GB, 4: 0.8 * GB, 8: 1.6 * GB}
        advice = advise(cpu, disk, 2, 1)
        assert (advice.jobs, advice.limit) == (8, "disk")

    def test_fewer_jobs_than_cpus_were_asked_for_and_no_more_are_advised(self) -> None:
        disk = {1: 0.2 * GB, 2: 0.4 * GB, 4: 0.8 * GB}
        assert advise({1: 1.0 * GB, 2: 2.0 * GB}, disk, 16, 1).jobs == 2

    def test_a_disk_that_more_readers_slow_down_gets_one(self) -> None:
        cpu = {1: 1.0 * GB, 2: 2.0 * GB, 4: 4.0 * GB}
        advice = advise(cpu, {1: 0.20 * GB, 2: 0.12 * GB, 4: 0.08 * GB}, 4, 1)
        assert (advice.jobs, advice.limit) == (1, "disk")

    def test_both_limit_where_they_are_alike(self) -> None:
        assert advise({1: 1.0 * GB}, {1: 0.95 * GB}, 1, 1).limit == "both"
        assert advise({1: 0.95 * GB}, {1: 1.0 * GB}, 1, 1).limit == "both"

    def test_without_a_disk_it_is_not_known_what_limits(self) -> None:
        advice = advise({1: 1.0 * GB}, {}, 1, 1)
        assert (advice.limit, advice.disk_bytes_per_second) == ("unknown", None)

    def test_readers_beyond_those_that_were_measured_get_no_more(self) -> None:
        cpu = {1: 1.0 * GB, 2: 2.0 * GB, 4: 4.0 * GB, 24: 9.0 * GB}
        advice = advise(cpu, {1: 3.0 * GB, 2: 3.0 * GB, 4: 3.0 * GB}, 24, 1)
        assert (advice.jobs, advice.limit, advice.bytes_per_second) == (4, "disk", 3.0 * GB)

    @given(
        st.integers(1, 200),
        st.integers(1, 200),
        st.lists(st.floats(1e6, 1e11), min_size=10, max_size=10),
        st.lists(st.floats(1e6, 1e11), min_size=10, max_size=10),
        st.booleans(),
    )
    def test_it_promises_no_more_than_cpu_and_disk_can(
        self, jobs: int, cpus: int, fast: list[float], read: list[float], has_disk: bool
    ) -> None:
        cpu = dict(zip(memory.doublings(jobs), fast, strict=False))
        disk = dict(zip(reader_counts(jobs), read, strict=False)) if has_disk else {}
        advice = advise(cpu, disk, cpus, 10**9)
        assert advice.jobs in {*cpu, *disk}
        assert advice.jobs <= jobs or (jobs >= cpus and advice.jobs in disk)
        assert advice.bytes_per_second <= advice.cpu_bytes_per_second
        if has_disk:
            assert advice.disk_bytes_per_second == disk[advice.jobs]
            assert advice.bytes_per_second <= disk[advice.jobs]
        assert advice.run_seconds == pytest.approx(1e9 / advice.bytes_per_second)
        if advice.limit == "disk":
            for other, hashed in cpu.items():
                assert advice.bytes_per_second >= ENOUGH * min(hashed, disk[other])
        else:
            assert advice.jobs >= min(jobs, cpus)

    def test_only_what_a_build_does_with_its_own_buffer_counts(self) -> None:
        figures = tuple(
            HashFigure(
                algorithm=algorithm,
                buffer_bytes=buffer,
                jobs=jobs,
                bytes_per_second=jobs * buffer * (1 if algorithm == "build" else 7),
            )
            for algorithm in ("build", "blake3")
            for jobs in (1, 2)
            for buffer in (4096, BUFFER_BYTES)
        )
        assert build_speeds(figures) == {1: BUFFER_BYTES, 2: 2 * BUFFER_BYTES}
        disk = report_of().disk
        assert disk is not None
        assert disk_speeds(disk) == {1: 0.5 * GB, 2: 0.75 * GB}
        assert disk_speeds(msgspec.structs.replace(disk, method="cached")) == {}
        assert disk_speeds(None) == {}


def report_of(**changes: object) -> BenchReport:
    """Return a report as ``measure`` could make it, with ``changes``."""
    hashing = tuple(
        HashFigure(
            algorithm="build",
            engine="lanes",
            lanes=3,
            buffer_bytes=buffer,
            jobs=jobs,
            bytes_per_second=jobs * 0.6 * GB,
        )
        for jobs in (1, 2)
        for buffer in (64 << 10, BUFFER_BYTES)
    )
    disk = DiskReport(
        path="/srv/images",
        method="direct",
        file_system="ext4",
        is_rotational=False,
        total_bytes=15 * 10**10,
        offered_bytes=10**9,
        bytes_read=10**8,
        figures=tuple(
            DiskFigure(readers=readers, buffer_bytes=buffer, bytes_per_second=speed * GB)
            for readers, speed in ((1, 0.5), (2, 0.75))
            for buffer in (BUFFER_BYTES, 1 << 20)
        ),
    )
    disk = msgspec.structs.replace(
        disk, **{name: value for name, value in changes.items() if name in disk.__struct_fields__}
    )
    has_disk = changes.get("has_disk", True)
    advice = advise(
        build_speeds(hashing),
        disk_speeds(disk) if has_disk else {},
        2,
        10**11,
        disk.total_bytes if has_disk else None,
    )
    report = BenchReport(
        cpus=2,
        jobs=2,
        engine="lanes",
        missing_for_lanes="",
        hashing=hashing,
        disk=disk if has_disk else None,
        advice=advice,
        seconds=1,
    )
    own = {name: value for name, value in changes.items() if name in report.__struct_fields__}
    return msgspec.structs.replace(report, **own)


class TestWords:
    """Figures → what people read."""

    def test_the_tables_and_the_advice(self) -> None:
        assert lines_of(report_of()) == [
            "in memory, GB/s, by buffer          64 KiB  512 KiB",
            "one process",
            "  a build: 3 SHA-256 and BLAKE3       0.60     0.60",
            "2 processes at once, in all",
            "  a build: 3 SHA-256 and BLAKE3       1.20     1.20",
            "",
            "the disk, GB/s, by buffer          512 KiB    1 MiB",
            "/srv/images, ext4: past the page cache (O_DIRECT)",
            "  1 reader                            0.50     0.50",
            "  2 readers                           0.75     0.75",
            "",
            *advice_lines(report_of()),
        ]
        assert " ".join(line.strip() for line in advice_lines(report_of())).startswith(
            "--jobs 2: with so many, SHA-256 (lanes) of roots with two metadata files, and "
            "BLAKE3, take in 1.2 GB/s; the disk delivers 750.0 MB/s. The disk limits: a faster "
            "one makes a run shorter, more CPUs do not. 100.0 GB take 2 min 13 s; all 150.0 GB "
            "there (--rehash), 3 min 20 s. Not known: "
        )

    def test_without_a_disk_it_says_what_is_missing(self) -> None:
        text = " ".join(line.strip() for line in lines_of(report_of(has_disk=False)))
        assert "the disk, GB/s" not in text
        assert "name a PATH" in text
        assert "take 1 min 23 s at the least." in text

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"method": "cached"}, "FROM THE PAGE CACHE"),
            ({"method": "cached"}, "and were not used"),
            ({"method": "dropped"}, "no O_DIRECT here"),
            ({"file_system": "nfs4"}, "its own memory or a server's"),
            ({"file_system": "fuse.sshfs"}, "its own memory or a server's"),
            ({"bytes_read": 2 * 10**9}, "were read more than once"),
            ({"is_rotational": True}, "says that it rotates"),
            ({"missing_for_lanes": "no such CPU"}, "no lanes: no such CPU"),
            ({"jobs": 8}, "8 would hardly be faster"),
            ({"cpus": 1}, "More jobs than CPUs"),
        ],
    )
    def test_it_tells_what_to_doubt(self, changes: dict[str, object], words: str) -> None:
        assert words in " ".join(map(str.strip, lines_of(report_of(**changes))))
        assert words not in " ".join(map(str.strip, lines_of(report_of())))

    def test_a_path_cannot_move_the_cursor(self) -> None:
        assert all(map(str.isprintable, lines_of(report_of(path="/srv/\x1b[2J"))))

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (91, "1 min 31 s"),
            (3599.6, "1 h 0 min"),
            (7500, "2 h 5 min"),
        ],
    )
    def test_durations_are_for_people(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text


class TestPlan:
    """What is measured."""

    @pytest.mark.parametrize(
        ("most", "numbers"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6])]
    )
    def test_numbers_double_up_to_the_most(self, most: int, numbers: list[int]) -> None:
        assert memory.doublings(most) == numbers

    @pytest.mark.parametrize(
        ("jobs", "readers"), [(1, [1, 2, 4]), (3, [1, 2, 3, 4]), (12, [1, 2, 4, 8, 12])]
    )
    def test_jobs_are_among_the_readers(self, jobs: int, readers: list[int]) -> None:
        assert reader_counts(jobs) == readers

    def test_every_contender_alone_and_with_all_jobs(self) -> None:
        planned = memory.plan(6, "hashlib", has_lanes=False)
        seen = {(task.algorithm, task.engine, task.threads, jobs) for task, jobs in planned}
        assert seen == {
            *(("sha256", "hashlib", 1, jobs) for jobs in (1, 6)),
            *(("blake3", "", 1, jobs) for jobs in (1, 6)),
            *(("xxh3", "", 1, jobs) for jobs in (1, 6)),
            *(("build", "hashlib", 1, jobs) for jobs in (1, 2, 4, 6)),
            ("blake3", "", 6, 1),
        }
        assert len(planned) == len(set(map(str, planned)))

    @needs_lanes
    def test_lanes_from_one_to_the_most(self) -> None:
        planned = memory.plan(1, "lanes", has_lanes=True)
        lanes = {task.lanes for task, _ in planned if task.engine == "lanes"}
        assert lanes == {1, 2, 3, 4}

    @pytest.mark.parametrize("algorithm", ["sha256", "blake3", "xxh3", "build"])
    def test_work_does_a_piece_even_when_time_is_up(self, algorithm: str) -> None:
        task = msgspec.convert(
            {"algorithm": algorithm, "engine": "hashlib", "lanes": 3, "buffer_bytes": 65536},
            HashTask,
        )
        work = memory.prepare(task)
        assert work(0.0) == 65536 * (3 if algorithm == "sha256" else 1)

    def test_what_is_expected_grows_with_what_is_asked_for(self) -> None:
        alone = expected_seconds(BenchOptions(jobs=1, seconds=1))
        more = expected_seconds(BenchOptions(jobs=2, seconds=1))
        most = expected_seconds(BenchOptions(jobs=2, seconds=1, path="."))
        assert alone < more < most


class TestParts:
    """What of a path is read."""

    def test_regular_files_once_and_no_symlinks(self, data: Path) -> None:
        listener = Listener()
        offered = offer(str(data), 4, listener)
        paths = {part.path for part in offered.parts}
        names = {os.path.relpath(path, data) for path in paths}
        assert {name for name in names if not name[0].isdigit()} <= {"again"}
        assert len(paths) == 4
        assert offered.total_bytes == LEAST_BYTES + len(b"small")
        assert not listener.findings

    def test_parts_are_apart_and_whole(self, data: Path) -> None:
        offered = offer(str(data), 4, Observer())
        assert sum(part.size_bytes for part in offered.parts) == LEAST_BYTES
        assert len({(part.path, part.offset) for part in offered.parts}) == len(offered.parts) >= 16
        assert all(part.offset % UNIT_BYTES == 0 for part in offered.parts)
        assert all(part.size_bytes % UNIT_BYTES == 0 for part in offered.parts)
        assert len({part.path for part in offered.parts[:4]}) == 4

    def test_a_single_file_will_do_also_by_a_symlink(self, tmp_path: Path) -> None:
        file = fill(tmp_path / "disk.qcow2", LEAST_BYTES + 12345)
        link = tmp_path / "link"
        link.symlink_to(file)
        for path in (file, link):
            offered = offer(str(path), 4, Observer())
            assert {part.path for part in offered.parts} == {str(file)}
            assert len(offered.parts) == 16
        file.unlink()

    def test_holes_are_left_out(self, tmp_path: Path) -> None:
        file = fill(tmp_path / "disk.qcow2", LEAST_BYTES)
        os.truncate(file, 1 << 40)
        offered = offer(str(file), 1, Observer())
        assert sum(part.size_bytes for part in offered.parts) <= LEAST_BYTES
        file.unlink()

    @pytest.mark.parametrize("kind", ["absent", "fifo", "device", "empty", "small", "hole"])
    def test_what_cannot_be_measured_is_told(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "it"
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "device":
                path = Path(os.devnull)
            case "empty":
                path.mkdir()
            case "small":
                fill(path / "file", LEAST_BYTES - (1 << 20))
            case "hole":
                path.touch()
                os.truncate(path, 1 << 40)
        with pytest.raises(TreeError, match=r"cannot be read|neither a regular|too little"):
            offer(str(path), 4, Observer())

    def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_measured(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad = fill(data / "4" / "rootfs.squashfs", 8 << 20)
        real = os.open

        def refuse(path: str, flags: int) -> int:
            if path == str(bad):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, flags)

        monkeypatch.setattr(os, "open", refuse)
        listener = Listener()
        offered = offer(str(data), 4, listener)
        bad.unlink()
        (finding,) = listener.findings
        assert finding.path == str(bad)
        assert finding.problem == "cannot be read (Permission denied)"
        assert bad not in {Path(part.path) for part in offered.parts}

    def test_other_file_systems_are_told_and_left(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = {0: 7, 1: 8, 2: 7}
        files = [
            parts.File(str(data / f"{n}/rootfs.squashfs"), LEAST_BYTES // 4, device)
            for n, device in devices.items()
        ]
        monkeypatch.setattr(parts, "_files", lambda *_: (files, False))
        monkeypatch.setattr(parts, "LEAST_BYTES", 1 << 20)
        listener = Listener()
        offered = offer(str(data), 1, listener)
        assert {part.path for part in offered.parts} == {files[0].path, files[2].path}
        assert offered.total_bytes is None
        assert "0.0 GB of it lie on other file systems" in listener.findings[0].problem

    def test_memory_is_not_taken_for_a_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tmpfs opens with O_DIRECT, too."""
        if disks.file_system(os.stat("/dev/shm").st_dev) != "tmpfs":
            pytest.skip("/dev/shm is no tmpfs")
        file = Path(f"/dev/shm/fastindex-test-{os.getpid()}")
        try:
            fill(file, 8 << 20)
            monkeypatch.setattr(parts, "LEAST_BYTES", 8 << 20)
            offered = offer(str(file), 1, Observer())
        finally:
            file.unlink(missing_ok=True)
        assert (offered.method, offered.file_system) == ("cached", "tmpfs")

    def test_without_o_direct_pages_are_dropped(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = data / "0" / "rootfs.squashfs"
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        monkeypatch.delattr(os, "O_DIRECT")
        if disks.file_system(file.stat().st_dev) not in {"ext4", "xfs"}:
            pytest.skip("whether pages can be dropped here is not known")
        monkeypatch.setattr(parts, "LEAST_BYTES", 8 << 20)
        for _ in range(50):  # a page that the kernel is busy with stays a little longer
            offered = offer(str(file), 1, Observer())
            if offered.method == "dropped":
                break
            os.sync()
        assert offered.method == "dropped"
        task = DiskTask(parts=offered.parts, buffer_bytes=1 << 20, method="dropped")
        assert prepare_disk(task)(0.0) == 1 << 20

    def test_what_cannot_be_dropped_is_not_taken_for_the_disk(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "O_DIRECT")
        monkeypatch.delattr(os, "posix_fadvise")
        assert offer(str(data), 1, Observer()).method == "cached"


class TestReaders:
    """What a reader does."""

    def test_it_reads_part_by_part_and_begins_anew(self, data: Path) -> None:
        parts = tuple(
            Part(str(data / f"{number}/rootfs.squashfs"), UNIT_BYTES, UNIT_BYTES)
            for number in range(2)
        )
        task = DiskTask(parts=parts, buffer_bytes=UNIT_BYTES, method="cached")
        work = prepare_disk(task)
        assert [work(0.0) for _ in range(5)] == [UNIT_BYTES] * 5

    def test_a_file_that_went_reads_as_nothing(self, tmp_path: Path) -> None:
        parts = (Part(str(tmp_path / "gone"), 0, UNIT_BYTES),)
        task = DiskTask(parts=parts, buffer_bytes=1 << 20, method="cached")
        assert prepare_disk(task)(0.0) == 0
        offered = Offer(
            parts=parts, method="cached", file_system="", device=0, total_bytes=UNIT_BYTES
        )
        with Crew() as crew, pytest.raises(TreeError, match="no more now"):
            measure_disk("gone", offered, crew, 1, TINY, Observer())

    def test_a_fifo_that_took_a_files_place_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        parts = (Part(str(tmp_path / "fifo"), 0, UNIT_BYTES),)
        task = DiskTask(parts=parts, buffer_bytes=1 << 20, method="cached")
        assert prepare_disk(task)(0.0) == 0


def _seven(task: int) -> Work:
    return lambda until: 7 * task


def _die(task: int) -> Work:
    os.kill(os.getpid(), signal.SIGKILL)
    return _seven(task)


class TestCrew:
    """Processes that begin at once."""

    def test_all_that_is_done_counts(self) -> None:
        with Crew() as crew:
            assert crew.measure(_seven, [1, 2], TINY).bytes_done == 21 * ROUNDS
            assert crew.measure(_seven, [1, 1, 1], TINY).bytes_done == 21 * ROUNDS

    @pytest.mark.parametrize("tries", [1, 2])
    def test_a_worker_that_dies_is_told(self, tries: int) -> None:
        with Crew() as crew:
            for _ in range(tries):
                with pytest.raises(FastindexError, match="died"):
                    crew.measure(_die, [1, 2], TINY)

    def test_none_is_left(self) -> None:
        with Crew() as crew:
            crew.measure(_seven, [1, 2], TINY)
            assert len(multiprocessing.active_children()) == 2
        assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "options",
    [
        BenchOptions(seconds=0),
        BenchOptions(seconds=float("nan")),
        BenchOptions(seconds=float("inf")),
        BenchOptions(run_bytes=0),
        BenchOptions(jobs=0),
        BenchOptions(engine="md5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: BenchOptions) -> None:
    with pytest.raises(UsageError):
        measure(options)


def test_without_the_extension_lanes_are_left_out_and_why_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.usable_engine.cache_clear()
    monkeypatch.setattr(engine, "why_no_lanes", lambda: "the moon is wrong")
    report = measure(BenchOptions(jobs=1, seconds=TINY))
    engine.usable_engine.cache_clear()
    assert {figure.engine for figure in report.hashing} == {"hashlib", ""}
    assert report.engine == "hashlib"
    assert "no lanes: the moon is wrong" in lines_of(report)


def test_the_table_and_the_advice_are_printed(fastindex: Run, data: Path) -> None:
    before = files_below(data)
    result = fastindex("bench", data, "--seconds", TINY, "--jobs", 2, "--gigabytes", "2.5")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    for begin in (
        "one process",
        "2 processes at once",
        "  SHA-256, hashlib ",
        "  BLAKE3, 1 thread ",
    ):
        assert any(line.startswith(begin) for line in lines)
    for begin in ("  BLAKE3, 2 threads ", "  xxh3 ", "  1 reader ", "  4 readers ", "--jobs "):
        assert any(line.startswith(begin) for line in lines)
    assert any(line.startswith("2.5 GB take ") for line in lines)
    assert files_below(data) == before


def test_json_is_the_whole_report(fastindex: Run, data: Path) -> None:
    result = fastindex("bench", "--json", "--jobs", 3, "--seconds", TINY, data)
    assert result.returncode == 0, result.stderr
    report = msgspec.json.decode(result.stdout, type=BenchReport)
    assert report.jobs == 3
    assert report.disk is not None
    assert {figure.readers for figure in report.disk.figures} == {1, 2, 3, 4}
    assert {figure.buffer_bytes >> 10 for figure in report.disk.figures} == {256, 512, 1024, 4096}
    assert all(figure.bytes_per_second > 0 for figure in report.disk.figures)
    assert all(figure.bytes_per_second > 0 for figure in report.hashing)
    assert report.advice.run_bytes == 100 * 10**9


def test_the_keys_of_the_json_stay(fastindex: Run, data: Path) -> None:
    """Whoever takes one away or renames one raises ``schema``, and changes this test."""
    document = json.loads(fastindex("bench", "--json", "--jobs", 1, "--seconds", TINY, data).stdout)
    assert document["schema"] == 1
    assert {name: " ".join(sorted(value)) for name, value in _objects(document)} == {
        "": "advice cpus disk engine hashing jobs missing_for_lanes schema seconds",
        "hashing": "algorithm buffer_bytes bytes_per_second engine jobs lanes threads",
        "disk": "bytes_read figures file_system is_rotational method offered_bytes path "
        "total_bytes",
        "figures": "buffer_bytes bytes_per_second readers",
        "advice": "all_seconds bytes_per_second cpu_bytes_per_second disk_bytes_per_second "
        "jobs limit run_bytes run_seconds",
    }


def _objects(value: object, name: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, name)
    elif isinstance(value, dict):
        yield name, value
        for key, each in value.items():
            yield from _objects(each, key)


def test_verbose_tells_each_figure(fastindex: Run) -> None:
    result = fastindex("bench", "-v", "--jobs", 1, "--seconds", TINY)
    figures = [line for line in result.stderr.splitlines() if line.endswith(" GB/s")]
    assert len(figures) == len(memory.plan(1, "hashlib", has_lanes=not engine.why_no_lanes()))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--seconds", "0"], 2),
        (["--seconds", "-1"], 2),
        (["--gigabytes", "0"], 2),
        (["--gigabytes", "nan"], 2),
        (["--gigabytes", "many"], 2),
        (["--jobs", "0"], 2),
        (["--engine", "md5"], 2),
        (["one", "two"], 2),
        (["no-such-path"], 1),
        (["."], 1),
    ],
)
def test_what_cannot_be_done_is_told(fastindex: Run, arguments: list[str], code: int) -> None:
    result = fastindex("bench", *arguments)
    assert result.returncode == code
    assert result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def _group_is_gone(group: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGINT, {130, -2}), (signal.SIGTERM, {143, -15}), (signal.SIGKILL, {-9})],
)
def test_a_signal_ends_it_and_all_its_workers(number: int, codes: set[int], data: Path) -> None:
    """SIGINT as a terminal sends it, to all; the others to the parent alone."""
    process = subprocess.Popen(
        [COMMAND, "bench", "-v", "--jobs", "2", "--seconds", "2", data],
        env=UNMEASURED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline()  # the first figure: the workers are at it
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode in codes
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert _group_is_gone(process.pid)
