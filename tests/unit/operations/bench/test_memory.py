"""What is measured in memory."""

from __future__ import annotations

import msgspec
import pytest

from fastindex.hashing import engine
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.hashing.tasks import EngineSetup
from fastindex.operations.bench import memory
from fastindex.operations.bench.options import HashTask

needs_lanes = pytest.mark.skipif(bool(engine.why_no_lanes()), reason=engine.why_no_lanes())


@pytest.mark.parametrize(
    ("maximum", "numbers"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])],
)
def test_numbers_double_up_to_the_maximum(maximum: int, numbers: list[int]) -> None:
    assert memory.double_up_to(maximum) == numbers


def test_every_contender_runs_alone_and_in_all_jobs() -> None:
    tasks = memory.plan(6, "hashlib", has_lanes=False)
    assert {(task.algorithm, task.engine, task.threads, task.jobs) for task in tasks} == {
        *(("sha256", "hashlib", 1, jobs) for jobs in (1, 6)),
        *(("blake3", "", 1, jobs) for jobs in (1, 6)),
        *(("xxh3", "", 1, jobs) for jobs in (1, 6)),
        *(("build", "hashlib", 1, jobs) for jobs in (1, 2, 4, 6)),
        ("blake3", "", 6, 1),
    }
    assert len(tasks) == len(set(map(str, tasks)))


def test_one_job_repeats_nothing() -> None:
    tasks = memory.plan(1, "hashlib", has_lanes=False)
    assert len(tasks) == len(set(map(str, tasks))) == 4


def test_the_buffer_is_that_of_a_build() -> None:
    tasks = memory.plan(2, "hashlib", has_lanes=False)
    assert {task.buffer_bytes for task in tasks if task.threads == 1} == {BUFFER_BYTES}


@needs_lanes
def test_lanes_run_from_one_to_the_maximum() -> None:
    tasks = memory.plan(1, "lanes", has_lanes=True)
    lanes = engine.usable_engine(EngineSetup("lanes"))
    counts = [task.lanes for task in tasks if task.engine == "lanes" and task.algorithm == "sha256"]
    wide = [lanes.wide_lanes] if lanes.wide_lanes else []
    assert counts == [*range(1, lanes.lanes + 1), *wide]
    assert all(task.kernel in memory.name_contender(task) for task in tasks)


@needs_lanes
def test_more_lanes_than_the_narrow_kernel_has_run_on_the_wide_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setups: list[EngineSetup] = []
    usable_engine = engine.usable_engine

    def note(setup: EngineSetup) -> engine.Engine:
        setups.append(setup)
        return usable_engine(setup)

    monkeypatch.setattr(engine, "usable_engine", note)
    for kernel, count in memory.list_kernels():
        task = HashTask(
            algorithm="sha256", engine="lanes", lanes=count, kernel=kernel, buffer_bytes=256, jobs=1
        )
        assert memory.prepare(task)() == 256 * count
        is_wide = count > usable_engine(EngineSetup("lanes")).lanes
        assert setups[-1] == EngineSetup("lanes", wide_from=count if is_wide else 0)


@needs_lanes
@pytest.mark.skipif(
    not engine.usable_engine(EngineSetup("lanes")).wide_lanes, reason="this CPU has no wide kernel"
)
def test_where_the_wide_kernel_pays_a_build_has_several_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = memory.plan(2, "lanes", has_lanes=True, wide_from=9)
    builds = [task for task in tasks if task.algorithm == "build"]
    assert {(task.lanes, task.wide_from) for task in builds} == {(15, 9)}
    updates: list[tuple[int, int]] = []
    real = engine.usable_engine(EngineSetup("lanes", 9))

    def update(states: list[engine.Sha256], pieces: list[memoryview]) -> None:
        updates.append((len(states), len({id(piece) for piece in pieces})))
        real.update(states, pieces)

    fake = engine.Engine("lanes", real.sha256, update, 4)  # type: ignore[arg-type]
    monkeypatch.setattr(engine, "usable_engine", lambda _: fake)
    step = memory.prepare(builds[0])
    assert step() == 5 * BUFFER_BYTES // 4
    assert updates == [(15, 5)]


@pytest.mark.parametrize("algorithm", ["sha256", "blake3", "xxh3", "build"])
def test_a_step_counts_a_buffer_for_each_lane_but_a_build_counts_it_once(algorithm: str) -> None:
    step = memory.prepare(_task(algorithm))
    assert [step(), step()] == [65536 * (3 if algorithm == "sha256" else 1)] * 2


@pytest.mark.parametrize(
    ("algorithm", "hashes"),
    [
        ("sha256", ["sha256"] * 3),
        ("blake3", ["blake3"]),
        ("build", ["sha256"] * 3 + ["blake3"]),
        ("xxh3", ["xxh3"]),
    ],
)
def test_a_step_updates_each_hash_once(
    algorithm: str, hashes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    updated: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def update(self, data: memoryview) -> None:
            assert data.nbytes == 65536
            updated.append(self.name)

    def update(states: list[Recorder], buffers: list[memoryview]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer)

    fake = engine.Engine("hashlib", lambda _: Recorder("sha256"), update, 1)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(engine, "usable_engine", lambda _: fake)
    monkeypatch.setattr(memory, "new_blake3", lambda threads: Recorder("blake3"))
    monkeypatch.setattr(memory, "xxh3_64", lambda: Recorder("xxh3"))
    memory.prepare(_task(algorithm))()
    assert updated == hashes


def _task(algorithm: str) -> HashTask:
    engine_name = "hashlib" if algorithm in {"sha256", "build"} else ""
    fields = {"algorithm": algorithm, "engine": engine_name, "lanes": 3 if engine_name else 1}
    return msgspec.convert({**fields, "buffer_bytes": 65536, "jobs": 1}, HashTask)
