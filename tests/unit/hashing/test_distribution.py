"""Which worker of a cluster hashes what: every task once, whatever workers come and die."""

from __future__ import annotations

from collections import Counter, deque

import hypothesis.strategies as st
from hypothesis import given

from fastindex.hashing.distribution import (
    MAX_AHEAD_BYTES,
    MAX_PARCEL_BYTES,
    MAX_PARCEL_TASKS,
    MIN_PARCEL_BYTES,
    Assignment,
    Distribution,
    choose_samples,
    take_parcel,
)
from fastindex.hashing.tasks import Batch, FileRef, RootTask
from fastindex.system.stamps import Stamp

MIB = 1 << 20


def tasks_of(sizes: list[int], device: int = 1) -> list[RootTask]:
    """Return a task for each size; the path is its number."""
    return [
        RootTask(FileRef(str(number), Stamp(size, 0, device, number)))
        for number, size in enumerate(sizes)
    ]


def work_of(sizes: list[int], *, wants_blake3: bool = True) -> deque[Batch]:
    """Return batches, as a run makes them."""
    tasks = tasks_of(sizes)
    halves = (tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :])
    return deque(
        Batch(tuple(half), sum(task.root.stamp.size_bytes for task in half), wants_blake3)
        for half in halves
        if half
    )


def paths_of(batch: Batch) -> list[str]:
    return [task.root.path for task in batch.tasks]


sizes = st.lists(st.sampled_from([1, 300, MIB, 20 * MIB, 400 * MIB, 3 << 30]), max_size=60)


@given(sizes, st.integers(1, 4), st.integers(1, 3), st.data())
def test_each_task_is_hashed_once_or_given_up_once(
    all_sizes: list[int], workers: int, threads: int, data: st.DataObject
) -> None:
    distribution = Distribution(work_of(all_sizes), None)
    for number in range(workers):
        distribution.add_worker(f"w{number}", "m", threads)
    next_worker = workers
    under_way: dict[int, Assignment] = {}
    ended: Counter[str] = Counter()
    deaths = data.draw(st.integers(0, 6))
    sent = distribution.assign()
    while not distribution.is_done:
        under_way |= {assignment.number: assignment for assignment in sent}
        assert under_way, "nobody has anything to do"
        chosen = under_way[data.draw(st.sampled_from(sorted(under_way)))]
        if deaths and data.draw(st.booleans()):
            deaths -= 1
            if data.draw(st.booleans()):
                for number in distribution.dismiss_worker(chosen.worker):
                    del under_way[number]
            for number, given_up in distribution.remove_worker(chosen.worker):
                del under_way[number]
                if given_up is not None:
                    assert len(given_up.tasks) == 1
                    ended.update(paths_of(given_up))
            distribution.add_worker(f"w{next_worker}", "m", threads)
            next_worker += 1
            sent = distribution.assign()
            assert not distribution.finish(chosen)
        else:
            del under_way[chosen.number]
            assert distribution.finish(chosen)
            ended.update(paths_of(chosen.batch))
            sent = distribution.assign(chosen.worker)
    assert ended == {str(number): 1 for number in range(len(all_sizes))}


def kill_who_reads(killer: str, sizes: list[int]) -> tuple[int, list[str], set[str]]:
    """Run with one worker at a time, which dies of a file.

    Returns:
        How many died, what was given up, and what was hashed.
    """
    distribution = Distribution(work_of(sizes), None)
    died = 0
    given_up: list[str] = []
    hashed: set[str] = set()
    distribution.add_worker("w0", "m", 1)
    waiting = deque(distribution.assign())
    while not distribution.is_done:
        assignment = waiting.popleft()
        if killer not in paths_of(assignment.batch):
            assert distribution.finish(assignment)
            hashed.update(paths_of(assignment.batch))
        else:
            died += 1
            waiting.clear()
            for _, batch in distribution.remove_worker(assignment.worker):
                if batch is not None:
                    given_up += paths_of(batch)
                    deaths = distribution.list_deaths(batch.tasks[0])
                    assert deaths == [f"w{number}" for number in range(died)]
            distribution.add_worker(f"w{died}", "m", 1)
        waiting += distribution.assign()
    return died, given_up, hashed


def test_a_file_that_kills_its_worker_is_given_up_after_few() -> None:
    assert kill_who_reads("1", [1 << 30] * 6) == (2, ["1"], {"0", "2", "3", "4", "5"})
    died, given_up, hashed = kill_who_reads("70", [300] * 200)
    assert (died, given_up, len(hashed)) == (3, ["70"], 199)


def test_a_file_is_not_given_up_for_workers_that_are_dismissed() -> None:
    distribution = Distribution(work_of([1 << 30] * 3), None)
    for number in range(5):
        distribution.add_worker(f"w{number}", "m", 1)
        assert [paths_of(sent.batch) for sent in distribution.assign()] == [["0"]]
        assert len(distribution.dismiss_worker(f"w{number}")) == 1
        assert distribution.dismiss_worker(f"w{number}") == []
    assert not distribution.is_done


def test_the_workers_of_a_machine_share_its_jobs() -> None:
    distribution = Distribution(work_of([1 << 30] * 20), 3)
    for address, machine in (("a", "m"), ("b", "m"), ("c", "n")):
        distribution.add_worker(address, machine, 2)
    sent = Counter(assignment.worker for assignment in distribution.assign())
    assert sent == {"a": 2, "b": 1, "c": 2}
    assert sent == {address: distribution.count_slots(address) for address in "abc"}
    distribution.remove_worker("a")
    assert [assignment.worker for assignment in distribution.assign("b")] == ["b"]


def test_a_parcel_is_no_larger_than_what_its_worker_has_done() -> None:
    """Workers come one by one: the first one must not take half of it all."""
    distribution = Distribution(work_of([100 * MIB] * 100), None)
    distribution.add_worker("a", "m", 1)
    sizes = []
    for _ in range(6):
        (sent,) = distribution.assign("a")
        sizes.append(len(sent.batch.tasks))
        distribution.finish(sent)
    assert sizes == [1, 1, 2, 4, 8, 16]


def test_the_threads_of_a_worker_share_what_it_has_done() -> None:
    distribution = Distribution(work_of([200 * MIB] * 100), None)
    distribution.add_worker("a", "m", 4)
    sent = distribution.assign("a")
    assert [len(one.batch.tasks) for one in sent] == [1, 1, 1, 1]
    for one in sent:
        distribution.finish(one)
    assert [len(one.batch.tasks) for one in distribution.assign("a")] == [1, 1, 1, 1]


def test_a_worker_gets_work_ahead_only_if_it_is_soon_done() -> None:
    distribution = Distribution(work_of([1 << 30, 1 << 30, 300, 300]), None)
    distribution.add_worker("a", "m", 1)
    assert [paths_of(sent.batch) for sent in distribution.assign()] == [["0"]]
    distribution = Distribution(work_of([300] * 2000), None)
    distribution.add_worker("a", "m", 1)
    assert len(distribution.assign()) == 2


def test_work_of_two_kinds_is_not_mixed() -> None:
    batches = work_of([300] * 4)
    batches += [Batch(tuple(tasks_of([300] * 4)), 1200, True, False)]
    distribution = Distribution(batches, None)
    distribution.add_worker("a", "m", 4)
    assert {(sent.batch.wants_sha256, len(sent.batch.tasks)) for sent in distribution.assign()} == {
        (True, 4),
        (False, 4),
    }


@given(
    st.lists(st.integers(0, 1 << 33), min_size=1, max_size=2000),
    st.integers(1, 50),
    st.integers(0, 1 << 36),
)
def test_parcels_are_bounded(all_sizes: list[int], slots: int, done_bytes: int) -> None:
    tasks = deque(tasks_of(all_sizes))
    left = sum(all_sizes)
    pattern = Batch((), 0, wants_blake3=True)
    for limit in (MAX_AHEAD_BYTES, MAX_PARCEL_BYTES * 2):
        before = len(tasks)
        batch = take_parcel(tasks, pattern, left, slots, done_bytes, limit)
        if batch is None:
            assert len(tasks) == before
            continue
        assert len(tasks) == before - len(batch.tasks)
        assert 1 <= len(batch.tasks) <= MAX_PARCEL_TASKS
        assert batch.size_bytes <= limit
        fair = max(MIN_PARCEL_BYTES, min(left // slots, done_bytes))
        assert len(batch.tasks) == 1 or batch.size_bytes <= fair
        break


def test_samples_are_spread_and_of_each_device() -> None:
    tasks = [*tasks_of([1] * 1000), *tasks_of([2], device=2)]
    samples = choose_samples(tasks, 10)
    assert len(samples) == 12
    assert {sample.stamp.device for sample in samples} == {1, 2}
    assert {int(sample.path) // 100 for sample in samples} >= set(range(10))
    assert choose_samples(tasks[:3], 10) == [task.root for task in tasks[:3]]
