"""Which CPUs share a core is told by the system; what it does not tell is not taken for granted."""

from __future__ import annotations

import os
from collections.abc import Collection

import pytest

from fastindex.system import cpus
from fastindex.system.cpus import list_core_cpus


@pytest.mark.parametrize(
    ("usable", "siblings", "jobs", "expected"),
    [
        (range(8), "0,4", 8, [0, 4]),
        (range(8), "0,4\n", 4, [0]),
        (range(8), "0,4", 5, [0, 4]),
        (range(8), "0-1", 8, [0, 1]),
        (range(8), "0-3", 8, [0, 1, 2, 3]),
        (range(8), "0-3", 4, [0, 1]),
        (range(1, 4), "1,5", 8, [1, 2]),
        (range(2), "0", 2, [0, 1]),
        (range(2), "0", 1, [0]),
        (range(2), None, 2, [0, 1]),
        (range(2), "", 2, [0, 1]),
        (range(2), "nonsense", 2, [0, 1]),
        ([3], "3,7", 16, [3]),
    ],
)
def test_as_many_cpus_of_a_core_as_the_workers_keep_busy(
    monkeypatch: pytest.MonkeyPatch,
    usable: Collection[int],
    siblings: str | None,
    jobs: int,
    expected: list[int],
) -> None:
    def read(path: str, most_bytes: int) -> bytes:
        assert path == f"/sys/devices/system/cpu/cpu{min(usable)}/topology/thread_siblings_list"
        if siblings is None:
            raise FileNotFoundError(2, "No such file", path)
        return siblings.encode()

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(usable))
    monkeypatch.setattr(cpus, "read_small_file", read)
    assert list_core_cpus(jobs) == expected


def test_this_machine_has_at_least_one() -> None:
    assert set(list_core_cpus(1)) <= os.sched_getaffinity(0)
    assert list_core_cpus(1)


def test_a_system_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert list_core_cpus(4) == []
