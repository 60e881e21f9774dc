"""Pure: tasks → batches, and which batches a worker gets."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Generator, Iterable

import msgspec

from fastindex.hashing import schedule
from fastindex.hashing.schedule import BLAKE3_COST, READ_COST, Desk, File, Plan, Rates, Waiting
from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, RootTask

BATCH_BYTES = 32 << 20
"""Smaller roots share a batch with others, up to this size."""
MAX_BATCH_TASKS = 64
"""Roots in a batch. When a worker is killed, all roots of its batch are read again."""

TINY_BYTES = 256 << 10
"""Of files below this size, hashing is the smaller part of the time. They are read as they come."""

_MIN_BATCH_BYTES = 4 << 20
_BATCHES_A_PLACE = 4
"""Where little is to be read, batches are smaller, down to ``_MIN_BATCH_BYTES``, so that there are
enough of them to fill the lanes of all workers some times."""

MIN_SPEEDUP = 1.1
"""Reading one more file at once must be faster by this factor, as it costs memory and seeks."""


def group_tasks(
    tasks: Iterable[RootTask], strategy: Strategy, *, wants_blake3: bool, wants_sha256: bool = True
) -> deque[Batch]:
    """Group ``tasks`` into batches, the largest first.

    A big file is a batch of its own. Others share batches. A worker may read several batches side
    by side, but no tiny files beside others.

    Args:
        tasks: what to read.
        strategy: how to hash.
        wants_blake3: compute BLAKE3.
        wants_sha256: compute SHA-256 and the fingerprints.
    """
    tasks = list(tasks)
    speeds = strategy.speeds if wants_sha256 else (1.0,)
    min_bytes = TINY_BYTES if len(speeds) > 1 else BATCH_BYTES
    tiny = [task for task in tasks if _size(task) < min_bytes]
    others = [task for task in tasks if _size(task) >= min_bytes]
    places = strategy.jobs * len(speeds)
    share_bytes = sum(map(_size, others)) // (places * _BATCHES_A_PLACE)
    group_bytes = min(BATCH_BYTES, max(_MIN_BATCH_BYTES, share_bytes))

    def make(group: list[RootTask], files_at_once: int, speeds: tuple[float, ...]) -> Batch:
        return Batch(
            tuple(group),
            count_bytes(group),
            wants_blake3,
            wants_sha256,
            1,
            strategy.engine,
            files_at_once,
            speeds,
        )

    batches = [make(group, 1, speeds) for group in _group(others, group_bytes)]
    batches += [
        make(group, choose_files_at_once(group, speeds), (1.0,))
        for group in _group(tiny, BATCH_BYTES)
    ]
    return deque(sorted(batches, key=_by_batch_size, reverse=True))


def batch_together(tasks: tuple[RootTask, ...], strategy: Strategy, *, wants_blake3: bool) -> Batch:
    """Return one batch of all ``tasks``, in their order.

    Args:
        tasks: what to read, at least one.
        strategy: how to hash.
        wants_blake3: compute BLAKE3, too.
    """
    at_once = choose_files_at_once(tasks, strategy.speeds)
    return Batch(
        tasks, count_bytes(tasks), wants_blake3, engine=strategy.engine, files_at_once=at_once
    )


def _group(tasks: list[RootTask], max_bytes: int) -> list[list[RootTask]]:
    """Group ``tasks``, in their order; a group has ``max_bytes`` or less, or one task."""
    groups: list[list[RootTask]] = []
    group_bytes = 0
    for task in tasks:
        is_full = group_bytes + _size(task) > max_bytes
        if not groups or is_full or len(groups[-1]) == MAX_BATCH_TASKS:
            groups.append([])
            group_bytes = 0
        groups[-1].append(task)
        group_bytes += _size(task)
    return groups


def choose_files_at_once(tasks: Collection[RootTask], speeds: tuple[float, ...]) -> int:
    """Return how many of ``tasks`` to read side by side.

    Args:
        tasks: at least one. The one with the most lanes limits the number.
        speeds: as in ``Strategy``.
    """
    lanes = max(task.lanes for task in tasks)
    best = 1
    for count in range(2, min(len(tasks), len(speeds) // lanes) + 1):
        if speeds[count * lanes - 1] >= MIN_SPEEDUP * speeds[best * lanes - 1]:
            best = count
    return best


def join_batches(batches: Iterable[Batch], workers: int) -> deque[Batch]:
    """Join batches of big files for workers that get no batch beside another.

    Files of similar size are read side by side, as many as lets all the work end soonest.

    Args:
        batches: the largest first.
        workers: number of workers.
    """
    joined: list[Batch] = []
    for _, group in itertools.groupby(batches, key=_find_company):
        alike = list(group)
        joined += _join(alike, workers) if _is_shared(alike[0]) else alike
    return deque(joined)


def _find_company(batch: Batch) -> tuple[object, ...]:
    """Return what is equal of batches that can be joined."""
    return batch.speeds, batch.engine, batch.wants_blake3


def _join(batches: list[Batch], workers: int) -> list[Batch]:
    files = [_as_file(batch) for batch in batches]
    plan = schedule.plan_groups(files, workers, _choose_rates(batches))
    remaining = iter(batches)
    return [
        _merge(list(itertools.islice(remaining, len(group))))
        for group in schedule.split(files, plan)
    ]


def _merge(batches: list[Batch]) -> Batch:
    return msgspec.structs.replace(
        batches[0],
        tasks=tuple(task for batch in batches for task in batch.tasks),
        size_bytes=sum(batch.size_bytes for batch in batches),
        files_at_once=len(batches),
        speeds=(1.0,),
    )


class Queue:
    """Batches that wait for workers that can read several of them side by side.

    It takes some milliseconds to plan which these are.

    Attributes:
        plan: the plan.

    Args:
        batches: the largest first; emptied, to free their memory on the way.
        workers: number of workers.
    """

    def __init__(self, batches: deque[Batch], workers: int) -> None:
        waiting = list(batches)
        batches.clear()
        self._rates = _choose_rates(waiting)
        self.plan = _make_plan(waiting, workers, self._rates)
        if self.plan.group_files:
            waiting = list(join_batches(waiting, workers))
        self._batches = dict(enumerate(waiting))
        self._waiting = Waiting([_as_file(batch) for batch in waiting])

    def __bool__(self) -> bool:
        """Return whether any batch waits."""
        return bool(self._batches)

    def new_desk(self) -> Desk:
        """Return the desk of another worker."""
        return Desk(self._rates)

    def deal(self, desks: Iterable[Desk]) -> Generator[tuple[Desk, int, Batch], None, None]:
        """Give batches to workers as the plan says: the largest to one that has none.

        Args:
            desks: those of the workers, who get batches in turn.

        Yields:
            A desk, and the batch that it has got, with its number there.
        """
        for desk, number in schedule.deal(self._waiting, desks, self.plan):
            yield desk, number, self._batches.pop(number)


def _make_plan(batches: list[Batch], workers: int, rates: Rates) -> Plan:
    shared = [_as_file(batch) for batch in batches if _is_shared(batch)]
    if not shared:
        return Plan(0.0, 0, 0.0)
    alone_cost = sum(_estimate_alone(batch, rates) for batch in batches if not _is_shared(batch))
    return schedule.make_plan(shared, workers, rates, alone_cost)


def _is_shared(batch: Batch) -> bool:
    """Return whether a worker may read ``batch`` beside others."""
    return len(batch.speeds) > 1


_ALONE = 1 << 30
"""The lanes of a batch that is read beside no other: more than any CPU has."""


def _as_file(batch: Batch) -> File:
    return File(batch.size_bytes, _count_lanes(batch) if _is_shared(batch) else _ALONE)


def _count_lanes(batch: Batch) -> int:
    return max(task.lanes for task in batch.tasks)


def _choose_rates(batches: Iterable[Batch]) -> Rates:
    """Return how quickly a worker reads those of ``batches`` that are read beside others."""
    shared = list(filter(_is_shared, batches))
    if not shared:
        return Rates((1.0,), READ_COST)
    byte_cost = READ_COST + BLAKE3_COST * shared[0].wants_blake3
    return Rates(shared[0].speeds, byte_cost, max(map(_count_lanes, shared)))


def _estimate_alone(batch: Batch, rates: Rates) -> float:
    """Return the cost of ``batch`` if it is read beside no other."""
    lanes = batch.tasks[0].lanes if batch.wants_sha256 else 0
    return (
        batch.size_bytes
        * rates.cost(batch.files_at_once, batch.files_at_once * lanes)
        / batch.files_at_once
    )


def _size(task: RootTask) -> int:
    return task.root.stamp.size_bytes


def _by_batch_size(batch: Batch) -> int:
    return batch.size_bytes


def count_bytes(tasks: Iterable[RootTask]) -> int:
    """Return how many bytes must be read for ``tasks``; shared metadata counts once."""
    files = {
        ref.stamp: ref.stamp.size_bytes for task in tasks for ref in (task.root, *task.metadata)
    }
    return sum(files.values())
