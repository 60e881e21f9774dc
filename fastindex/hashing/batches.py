"""Pure: what must be read → batches for the workers, the largest first."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable

from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, RootTask

BATCH_BYTES = 32 << 20
"""Smaller roots share a batch with others."""
BATCH_TASKS = 64
"""Most roots in a batch: what a killed worker can cost a second try."""

WORTHWHILE = 1.1
"""So much faster it must be to read a file more at once: it costs memory and seeks."""


def group_tasks(
    tasks: Iterable[RootTask], strategy: Strategy, *, wants_blake3: bool, wants_sha256: bool = True
) -> deque[Batch]:
    """Group ``tasks`` into batches, the largest first.

    Big files are a batch each; or several of a size together, to be read side by side,
    where that is the quicker for the whole. Small ones share batches.
    """
    tasks = list(tasks)
    speeds = strategy.speeds if wants_sha256 else (1.0,)
    big = sorted((task for task in tasks if _size(task) >= BATCH_BYTES), key=_size, reverse=True)
    small = [task for task in tasks if _size(task) < BATCH_BYTES]
    groups = [(group, len(group)) for group in _side_by_side(big, strategy.jobs, speeds)]
    groups += [(group, files_at_once(group, speeds)) for group in _shared(small)]
    made = (
        Batch(
            tuple(group),
            count_bytes(group),
            wants_blake3,
            wants_sha256,
            1,
            strategy.engine,
            at_once,
        )
        for group, at_once in groups
    )
    return deque(sorted(made, key=_batch_size, reverse=True))


def batch_together(tasks: tuple[RootTask, ...], strategy: Strategy, *, wants_blake3: bool) -> Batch:
    """Return one batch of ``tasks``, in their order."""
    at_once = files_at_once(tasks, strategy.speeds)
    return Batch(
        tasks, count_bytes(tasks), wants_blake3, engine=strategy.engine, files_at_once=at_once
    )


def _shared(small: list[RootTask]) -> list[list[RootTask]]:
    groups: list[list[RootTask]] = []
    group_bytes = 0
    for task in small:
        is_full = group_bytes + _size(task) > BATCH_BYTES
        if not groups or is_full or len(groups[-1]) == BATCH_TASKS:
            groups.append([])
            group_bytes = 0
        groups[-1].append(task)
        group_bytes += _size(task)
    return groups


def files_at_once(tasks: Collection[RootTask], speeds: tuple[float, ...]) -> int:
    """Return how many of ``tasks`` are best read side by side: each brings its lanes."""
    lanes = max(task.lanes for task in tasks)
    best = 1
    for count in range(2, min(len(tasks), len(speeds) // lanes) + 1):
        if speeds[count * lanes - 1] >= WORTHWHILE * speeds[best * lanes - 1]:
            best = count
    return best


def _side_by_side(
    big: list[RootTask], jobs: int, speeds: tuple[float, ...]
) -> list[list[RootTask]]:
    """Return groups of neighbours in size, of as many as end the whole soonest."""
    if not big:
        return []
    fewest_lanes = min(big, key=_lanes)
    widest = files_at_once([fewest_lanes] * len(big), speeds)
    ways = [_in_groups(big, width, len(speeds)) for width in range(1, widest + 1)]
    return min(ways, key=lambda groups: _estimate(groups, jobs, speeds))


def _in_groups(big: list[RootTask], width: int, most_lanes: int) -> list[list[RootTask]]:
    groups: list[list[RootTask]] = []
    free = 0
    for task in big:
        if not groups or len(groups[-1]) == width or task.lanes > free:
            groups.append([])
            free = most_lanes
        groups[-1].append(task)
        free -= task.lanes
    return groups


def _estimate(groups: list[list[RootTask]], jobs: int, speeds: tuple[float, ...]) -> float:
    """Return when ``jobs`` workers are done, if each takes the next group as it is free."""
    ends = [0.0] * jobs
    for group in groups:
        heapq.heapreplace(ends, ends[0] + _duration(group, speeds))
    return max(ends)


def _duration(group: list[RootTask], speeds: tuple[float, ...]) -> float:
    """Return the time that ``group`` takes side by side, in that of a byte on one lane."""
    duration = 0.0
    done_bytes = 0
    lanes = sum(task.lanes for task in group)
    for task in sorted(group, key=_size):
        speed = speeds[min(lanes, len(speeds)) - 1]
        duration += (_size(task) - done_bytes) * lanes / speed
        done_bytes = _size(task)
        lanes -= task.lanes
    return duration


def _lanes(task: RootTask) -> int:
    return task.lanes


def _size(task: RootTask) -> int:
    return task.root.stamp.size_bytes


def _batch_size(batch: Batch) -> int:
    return batch.size_bytes


def count_bytes(tasks: Iterable[RootTask]) -> int:
    """Return how many bytes there are to read; metadata that tasks share counts once."""
    files = {
        ref.stamp: ref.stamp.size_bytes for task in tasks for ref in (task.root, *task.metadata)
    }
    return sum(files.values())
