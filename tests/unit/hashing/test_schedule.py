"""Which files a worker reads side by side."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.hashing import schedule
from fastindex.hashing.schedule import Desk, File, Plan, Rates, Waiting, deal, make_plan

SHA_NI = (1.0, 1.46, 1.77, 1.87)
"""Of a CPU with SHA extensions and nothing wider."""
ZEN_4, ZEN_5, XEON = (
    (*SHA_NI, *(max(1.8, wide * lanes / 16) for lanes in range(5, 17))) for wide in (2.2, 3.4, 3.9)
)
"""Of CPUs with 16 lanes, which pay when they are filled."""
CPUS = (SHA_NI, ZEN_4, ZEN_5, XEON)

MIB = 1 << 20
FILES = st.lists(
    st.tuples(st.one_of(st.integers(1, 8), st.integers(1, 4000)), st.integers(1, 5)),
    min_size=1,
    max_size=60,
).map(lambda files: [File(4 * MIB * size, lanes) for size, lanes in sorted(files, reverse=True)])
UNBOUNDED = float("inf")


def rates_of(speeds: tuple[float, ...], byte_cost: float = 0.2) -> Rates:
    return Rates(speeds, byte_cost, 5)


def time_by_neighbours(files: list[File], workers: int, rates: Rates, max_lanes: int) -> float:
    """Return how long the old way takes: neighbours in size, as many as are best everywhere."""
    durations: list[float] = []
    for width in range(1, max_lanes + 1):
        groups: list[list[File]] = []
        free = 0
        for file in files:
            if not groups or len(groups[-1]) == width or file.lanes > free:
                groups.append([])
                free = max_lanes
            groups[-1].append(file)
            free -= file.lanes
        ends = [0.0] * workers
        for group in groups:
            heapq.heapreplace(ends, ends[0] + time_of_group(group, rates))
        durations.append(max(ends))
    return min(durations)


def time_of_group(group: list[File], rates: Rates) -> float:
    duration, done_bytes = 0.0, 0
    lanes = sum(file.lanes for file in group)
    for number, file in enumerate(sorted(group)):
        duration += (file.size_bytes - done_bytes) * rates.cost(len(group) - number, lanes)
        done_bytes = file.size_bytes
        lanes -= file.lanes
    return duration


def carry_out(files: list[File], workers: int, rates: Rates, plan: Plan) -> tuple[float, list[int]]:
    """Let ``workers`` read ``files`` as ``plan`` says; return when they are done, and the order."""
    if plan.group_files:
        ends = [0.0] * workers
        for group in schedule.split(files, plan):
            heapq.heapreplace(ends, ends[0] + time_of_group(group, rates))
        return max(ends), list(range(len(files)))
    waiting = Waiting(files)
    desks = [Desk(rates) for _ in range(workers)]
    order = [number for _, number in deal(waiting, desks, plan)]
    while busy := [desk for desk in desks if desk.held]:
        first = min(busy, key=Desk.find_next_end)
        first.remove(first.held[0][1], was_read=True)
        order += [number for _, number in deal(waiting, [first], plan)]
    return max(desk.clock for desk in desks), order


@pytest.mark.parametrize("speeds", CPUS, ids=["SHA-NI", "Zen 4", "Zen 5", "Xeon"])
@given(files=FILES, workers=st.sampled_from([1, 2, 16]))
def test_a_plan_is_hardly_ever_slower_than_neighbours_in_size(
    speeds: tuple[float, ...], files: list[File], workers: int
) -> None:
    rates = rates_of(speeds)
    plan = make_plan(files, workers, rates)
    before = time_by_neighbours(files, workers, rates, 4)
    assert plan.duration <= 1.02 * before


@pytest.mark.parametrize("speeds", CPUS, ids=["SHA-NI", "Zen 4", "Zen 5", "Xeon"])
@given(files=FILES, workers=st.integers(1, 20))
def test_a_plan_takes_as_long_as_it_says_and_each_file_is_read_once(
    speeds: tuple[float, ...], files: list[File], workers: int
) -> None:
    rates = rates_of(speeds)
    plan = make_plan(files, workers, rates)
    duration, order = carry_out(files, workers, rates, plan)
    assert duration == pytest.approx(plan.duration)
    assert sorted(order) == list(range(len(files)))


@pytest.mark.parametrize(
    ("workers", "files", "lanes", "gain"),
    [(2, 200, 3, 1.6), (2, 200, 2, 1.55), (2, 200, 1, 1.4), (16, 1000, 3, 1.6), (1, 30, 2, 1.5)],
)
def test_many_files_fill_sixteen_lanes(workers: int, files: int, lanes: int, gain: float) -> None:
    made = [File((20 + number * 180 // files) * MIB, lanes) for number in reversed(range(files))]
    narrow = time_by_neighbours(made, workers, rates_of(SHA_NI), 4)
    assert narrow / make_plan(made, workers, rates_of(ZEN_5)).duration >= gain


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_file_that_sets_the_pace_is_left_alone(workers: int) -> None:
    files = [File(1000 * MIB, 1), *(File(MIB, 1) for _ in range(20))]
    rates = rates_of(ZEN_5)
    plan = make_plan(files, workers, rates)
    if workers == 1:
        assert plan.duration < time_of_group(files[:1], rates) + 20 * time_of_group(
            files[1:2], rates
        )
    else:
        assert plan.duration == pytest.approx(time_of_group(files[:1], rates), rel=0.02)


def test_other_work_fills_the_gaps() -> None:
    rates = rates_of(ZEN_5)
    files = [File(MIB, 1)] * 3
    alone = make_plan(files, 2, rates)
    assert make_plan(files, 2, rates, MIB / 10).duration <= alone.duration
    assert make_plan(files, 2, rates, 100 * MIB).duration == pytest.approx(
        (100 * MIB + 3 * MIB * rates.cost(3, 3) / 3) / 2, rel=0.02
    )


@given(
    held=st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 3)), min_size=1, max_size=4),
    lanes=st.integers(1, 4),
    deadline=st.floats(0, 10_000),
    done=st.integers(0, 2),
)
def test_room_is_what_still_ends_by_the_deadline(
    held: list[tuple[int, int]], lanes: int, deadline: float, done: int
) -> None:
    rates = rates_of(ZEN_5)

    def time_with(size_bytes: int) -> float:
        desk = Desk(rates)
        for number, file in enumerate(held):
            desk.add(number, File(*file))
        for _ in range(min(done, len(held) - 1)):
            desk.remove(desk.held[0][1], was_read=True)
        if size_bytes:
            desk.add(99, File(size_bytes, lanes))
        while desk.held:
            desk.remove(desk.held[0][1], was_read=True)
        return desk.clock

    desk = Desk(rates)
    for number, file in enumerate(held):
        desk.add(number, File(*file))
    for _ in range(min(done, len(held) - 1)):
        desk.remove(desk.held[0][1], was_read=True)
    room = desk.find_room(lanes, deadline, 1 << 40)
    if room < 0:
        assert time_with(0) > deadline - 1e-6
        return
    assert time_with(int(room)) <= deadline + 1e-6
    assert time_with(int(room) + 1) > deadline - 1e-6
    enough = desk.find_room(lanes, deadline, int(room) // 2)
    assert enough in (pytest.approx(room), int(room) // 2)


def test_a_worker_without_a_file_gets_the_largest_whatever_the_deadline() -> None:
    waiting = Waiting([File(9, 1), File(8, 40), File(7, 1)])
    desks = [Desk(rates_of(ZEN_5)) for _ in range(2)]
    never = Plan(0.0, 16, 0.0)
    assert [number for _, number in deal(waiting, desks, never)] == [0, 1]
    desks[1].remove(1, was_read=True)
    assert list(deal(waiting, desks, never)) == [(desks[1], 2)]
    desks[0].remove(0, was_read=True)
    assert list(deal(waiting, desks, never)) == []


def test_files_are_dealt_in_turn_to_those_who_hold_least() -> None:
    waiting = Waiting([File(10, 1)] * 8)
    desks = [Desk(rates_of(ZEN_5)) for _ in range(2)]
    for number in (100, 101):
        desks[0].add(number, File(10, 1))
    dealt = [desks.index(desk) for desk, _ in deal(waiting, desks, Plan(UNBOUNDED, 4, 0.0))]
    assert dealt == [1, 0, 1, 0, 1, 1]


def test_a_file_with_more_lanes_than_are_free_waits_and_smaller_ones_pass() -> None:
    waiting = Waiting([File(10, 3), File(9, 3), File(8, 1), File(7, 20)])
    desk = Desk(rates_of(SHA_NI))
    plan = Plan(UNBOUNDED, 4, 0.0)
    assert [number for _, number in deal(waiting, [desk], plan)] == [0, 2]
    desk.remove(0, was_read=True)
    assert [number for _, number in deal(waiting, [desk], plan)] == [1]


def test_a_file_that_fails_takes_no_time() -> None:
    desk = Desk(rates_of(SHA_NI))
    desk.add(0, File(10, 1))
    desk.add(1, File(20, 1))
    desk.remove(0, was_read=False)
    assert desk.clock == 0
    desk.remove(1, was_read=True)
    assert desk.clock == pytest.approx(20 * 1.2)


def test_the_search_for_a_plan_ends_early_where_there_is_little_to_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = schedule._Search._simulate
    simulated: list[float] = []

    def simulate(search: schedule._Search, deadline: float, max_lanes: int) -> Plan:
        simulated.append(deadline)
        return real(search, deadline, max_lanes)

    monkeypatch.setattr(schedule._Search, "_simulate", simulate)
    make_plan([File(MIB, 1)] * 100, 16, rates_of(ZEN_5))
    assert len(simulated) <= 2
    simulated.clear()
    make_plan([File(1000 * MIB, 1)] * 100, 16, rates_of(ZEN_5))
    assert 2 < len(simulated) < 40
