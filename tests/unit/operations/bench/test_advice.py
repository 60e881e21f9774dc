"""From figures to advice; no test asks which contender is faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.operations.bench.advice import SUFFICIENT_SHARE, advise, build_speeds, disk_speeds
from fastindex.operations.bench.disk import choose_reader_counts
from fastindex.operations.bench.memory import double_up_to
from fastindex.operations.bench.options import DiskFigure, DiskReport, HashFigure

GB = 1e9


def test_if_the_disk_is_slower_than_the_cpus_it_is_the_limit_and_fewer_jobs_suffice() -> None:
    cpu = {1: 0.5 * GB, 2: 1.0 * GB, 4: 2.0 * GB, 8: 4.0 * GB}
    advice = advise(cpu, dict.fromkeys(cpu, 0.9 * GB), 8, 90 * 10**9)
    assert (advice.jobs, advice.limit) == (2, "disk")
    assert advice.bytes_per_second == advice.disk_bytes_per_second == 0.9 * GB
    assert advice.cpu_bytes_per_second == 1.0 * GB
    assert advice.run_seconds == pytest.approx(100)
    assert advice.all_seconds is None


def test_if_the_cpu_is_the_limit_every_cpu_gets_a_job() -> None:
    cpu = {1: 0.5 * GB, 2: 1.0 * GB, 4: 2.0 * GB}
    advice = advise(cpu, dict.fromkeys(cpu, 6 * GB), 4, 10**11, 10**12)
    assert (advice.jobs, advice.limit) == (4, "cpu")
    assert advice.run_seconds == pytest.approx(50)
    assert advice.all_seconds == pytest.approx(500)


def test_cpus_that_are_busy_otherwise_get_a_job_too() -> None:
    cpu = {1: 1.0 * GB, 2: 1.01 * GB}
    assert advise(cpu, {}, 2, 1).jobs == 2
    assert advise(cpu, {1: 6 * GB, 2: 6 * GB, 4: 6 * GB}, 2, 1).jobs == 2


def test_a_disk_that_delivers_more_to_more_readers_gets_more_jobs_than_cpus() -> None:
    cpu = {1: 1.0 * GB, 2: 2.0 * GB}
    disk = {1: 0.2 * GB, 2: 0.4 * GB, 4: 0.8 * GB, 8: 1.6 * GB}
    advice = advise(cpu, disk, 2, 1)
    assert (advice.jobs, advice.limit) == (8, "disk")


def test_with_fewer_jobs_than_cpus_in_the_options_no_more_are_advised() -> None:
    disk = {1: 0.2 * GB, 2: 0.4 * GB, 4: 0.8 * GB}
    assert advise({1: 1.0 * GB, 2: 2.0 * GB}, disk, 16, 1).jobs == 2


def test_a_disk_that_more_readers_slow_down_gets_one() -> None:
    cpu = {1: 1.0 * GB, 2: 2.0 * GB, 4: 4.0 * GB}
    advice = advise(cpu, {1: 0.20 * GB, 2: 0.12 * GB, 4: 0.08 * GB}, 4, 1)
    assert (advice.jobs, advice.limit) == (1, "disk")


def test_similar_speeds_are_both_the_limit() -> None:
    assert advise({1: 1.0 * GB}, {1: 0.95 * GB}, 1, 1).limit == "both"
    assert advise({1: 0.95 * GB}, {1: 1.0 * GB}, 1, 1).limit == "both"


def test_without_a_disk_the_limit_is_unknown() -> None:
    advice = advise({1: 1.0 * GB}, {}, 1, 1)
    assert (advice.limit, advice.disk_bytes_per_second) == ("unknown", None)


def test_more_readers_than_were_measured_get_no_more() -> None:
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
def test_it_promises_no_more_than_cpu_and_disk_can_do(
    jobs: int, cpus: int, hashed: list[float], read: list[float], has_disk: bool
) -> None:
    cpu = dict(zip(double_up_to(jobs), hashed, strict=False))
    disk = dict(zip(choose_reader_counts(jobs), read, strict=False)) if has_disk else {}
    advice = advise(cpu, disk, cpus, 10**9)
    assert advice.jobs in {*cpu, *disk}
    assert advice.jobs <= jobs or (jobs >= cpus and advice.jobs in disk)
    assert advice.bytes_per_second <= advice.cpu_bytes_per_second
    if has_disk:
        assert advice.disk_bytes_per_second == disk[advice.jobs]
        assert advice.bytes_per_second <= disk[advice.jobs]
    assert advice.run_seconds == pytest.approx(1e9 / advice.bytes_per_second)
    if advice.limit == "disk":
        for other, speed in cpu.items():
            assert advice.bytes_per_second >= SUFFICIENT_SHARE * min(speed, disk[other])
    else:
        assert advice.jobs >= min(jobs, cpus)


def test_of_the_contenders_only_the_build_counts() -> None:
    figures = [
        HashFigure(algorithm="build", buffer_bytes=1, jobs=1, bytes_per_second=5),
        HashFigure(algorithm="blake3", buffer_bytes=1, jobs=1, bytes_per_second=7),
        HashFigure(algorithm="build", buffer_bytes=1, jobs=2, bytes_per_second=10),
        HashFigure(algorithm="blake3", buffer_bytes=1, jobs=2, bytes_per_second=14),
    ]
    assert build_speeds(figures) == {1: 5, 2: 10}


def test_the_speed_of_the_disk_is_by_number_of_readers() -> None:
    figures = tuple(
        DiskFigure(readers=readers, buffer_bytes=1, bytes_per_second=speed)
        for readers, speed in ((1, 3.0), (2, 4.0))
    )
    disk = DiskReport(
        path="/srv/images",
        method="direct",
        file_system="ext4",
        is_rotational=False,
        total_bytes=None,
        offered_bytes=1,
        bytes_read=1,
        figures=figures,
    )
    assert disk_speeds(disk) == {1: 3.0, 2: 4.0}
    assert disk_speeds(None) == {}
