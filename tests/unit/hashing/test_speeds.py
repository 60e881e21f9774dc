"""Which kernel works on how many lanes follows from what was measured; and the measurement ends."""

from __future__ import annotations

import _thread
import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.hashing import engine, speeds
from fastindex.hashing.speeds import Timings, choose_kernels, time_steps
from fastindex.hashing.tasks import EngineSetup

ZEN_5 = (1 / 2.09, 2 / 3.05, 3 / 3.72, 4 / 3.9)
"""Seconds a gigabyte of each lane."""


def test_the_wide_kernel_is_used_from_its_break_even_on() -> None:
    chosen = choose_kernels(Timings(ZEN_5, 16 / 7.3, 16))
    assert chosen.setup == EngineSetup("lanes", wide_from=9, narrow_lanes=4)
    assert len(chosen.relative) == 16
    assert chosen.relative[15] == pytest.approx(7.3 / 2.09)
    assert chosen.relative[3] == pytest.approx(3.9 / 2.09)
    assert chosen.relative[4] == pytest.approx(5 / (2 / 3.05 + 3 / 3.72) / 2.09)  # 3 + 2, not 4 + 1


def test_a_wide_kernel_that_does_not_pay_is_never_used() -> None:
    chosen = choose_kernels(Timings(ZEN_5, 16 / 3.8, 16))
    assert chosen.setup == EngineSetup("lanes", wide_from=0, narrow_lanes=4)
    assert chosen.relative == choose_kernels(Timings(ZEN_5)).relative
    assert len(chosen.relative) == 4


def test_four_lanes_go_in_pairs_where_a_fourth_one_costs_more_than_it_gains() -> None:
    chosen = choose_kernels(Timings((1.0, 1.07, 1.51, 2.25)))
    assert chosen.setup.narrow_lanes == 3
    assert chosen.relative == pytest.approx((1.0, 2 / 1.07, 3 / 1.51, 2 / 1.07))


@pytest.mark.parametrize(
    "timings", [Timings((0.0, 0.0, 0.01)), Timings((1.0, 2.0), 0.0, 16), Timings((0.0,), 0.0, 16)]
)
def test_a_clock_with_long_ticks_tells_nothing(timings: Timings) -> None:
    assert choose_kernels(timings) == speeds.Speeds(EngineSetup("lanes"), (1.0,))


def test_three_lanes_are_not_split_even_if_that_looked_better_for_a_moment() -> None:
    chosen = choose_kernels(Timings((1.0, 1.07, 2.3, 2.9)))
    assert chosen.setup.narrow_lanes == 3
    assert chosen.relative[2] == pytest.approx(3 / 2.3)


TIMES = st.floats(0.1, 100.0)


@given(narrow=st.lists(TIMES, min_size=1, max_size=4), wide=TIMES)
def test_whatever_was_measured_the_choice_is_one(narrow: list[float], wide: float) -> None:
    chosen = choose_kernels(Timings(tuple(narrow), wide, 16))
    assert chosen.relative[0] == pytest.approx(1.0)
    assert 1 <= chosen.setup.narrow_lanes <= len(narrow)
    alone = choose_kernels(Timings(tuple(narrow)))
    assert chosen.setup.narrow_lanes == alone.setup.narrow_lanes
    assert alone.setup.wide_from == 0
    if chosen.setup.wide_from == 0:
        assert chosen == alone
    else:
        assert len(chosen.relative) == 16
        assert 1 <= chosen.setup.wide_from <= 16
        # Each more lane is free for the wide kernel.
        wide_ones = chosen.relative[chosen.setup.wide_from - 1 :]
        assert list(wide_ones) == sorted(wide_ones)


@pytest.mark.skipif(bool(engine.why_no_lanes()), reason=engine.why_no_lanes())
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("most", [0, 1, 3, 99])
def test_this_cpu_is_measured(jobs: int, most: int) -> None:
    speeds.measure_speeds.cache_clear()
    measured = speeds.measure_speeds(jobs, most)
    assert speeds.measure_speeds(jobs, most) is measured  # once is enough for a process
    lanes = engine.usable_engine(EngineSetup("lanes"))
    assert measured.setup.name == "lanes"
    assert 1 <= measured.setup.narrow_lanes <= lanes.lanes
    expected = {min(most, lanes.lanes)} if most else {lanes.lanes, lanes.wide_lanes}
    assert len(measured.relative) in expected
    assert all(speed > 0 for speed in measured.relative)


class Steps:
    """Steps that note in which threads they run, and on which CPUs those may."""

    def __init__(self) -> None:
        self.threads: list[set[int]] = [set(), set()]
        self.cpus: set[frozenset[int]] = set()

    def prepare(self) -> list[Callable[[], None]]:
        def step(number: int) -> None:
            self.threads[number].add(threading.get_ident())
            self.cpus.add(frozenset(os.sched_getaffinity(0)))

        return [lambda: step(0), lambda: step(1)]


def test_each_cpu_gets_a_thread_and_this_one_stays_where_it_was() -> None:
    before = os.sched_getaffinity(0)
    cpus = sorted(before)[:2]
    if len(cpus) < 2:
        pytest.skip("there is one CPU")
    steps = Steps()
    seconds = time_steps(steps.prepare, cpus)
    assert len(seconds) == 2
    assert [len(threads) for threads in steps.threads] == [2, 2]
    assert threading.get_ident() not in steps.threads[0]
    assert steps.cpus == {frozenset({cpu}) for cpu in cpus}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("cpus", [[], [0]])
def test_one_cpu_is_measured_in_this_thread(cpus: Sequence[int]) -> None:
    steps = Steps()
    assert len(time_steps(steps.prepare, cpus)) == 2
    assert steps.threads == [{threading.get_ident()}] * 2


def test_where_a_thread_may_not_run_on_a_cpu_it_is_measured_alone() -> None:
    steps = Steps()
    assert len(time_steps(steps.prepare, [min(os.sched_getaffinity(0)), 4000])) == 2
    assert steps.threads == [{threading.get_ident()}] * 2


def test_where_no_more_threads_start_it_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    start = _thread.start_new_thread
    started: list[int] = []

    def refuse(work: Callable[..., None], arguments: tuple[object, ...]) -> int:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(start(work, arguments))
        return started[0]

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    steps = Steps()
    assert len(time_steps(steps.prepare, sorted(os.sched_getaffinity(0))[:1] * 2)) == 2
    assert steps.threads == [{threading.get_ident()}] * 2


def test_a_thread_that_never_begins_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speeds, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: 0)
    steps = Steps()
    assert len(time_steps(steps.prepare, sorted(os.sched_getaffinity(0))[:1] * 2)) == 2
    assert steps.threads == [{threading.get_ident()}] * 2


def test_a_thread_that_fails_does_not_let_the_others_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    steps = Steps()
    calls = itertools.count()

    def prepare() -> list[Callable[[], None]]:
        if next(calls) == 1:  # in the first thread that is started
            raise ValueError("unforeseen")
        return steps.prepare()

    assert len(time_steps(prepare, sorted(os.sched_getaffinity(0))[:1] * 2)) == 2
    assert steps.threads == [{threading.get_ident()}] * 2
    assert len(told) == 1
