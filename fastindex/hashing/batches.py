"""Pure: tasks → batches for the workers, the largest first."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable

from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, RootTask

BATCH_BYTES = 32 << 20
"""Smaller roots share a batch with others, up to this size."""
MAX_BATCH_TASKS = 64
"""Roots in a batch. When a worker is killed, all roots of its batch are read again."""

MIN_SPEEDUP = 1.1
"""Reading one more file at once must be faster by this factor, as it costs memory and seeks."""


def group_tasks(
    tasks: Iterable[RootTask], strategy: Strategy, *, wants_blake3: bool, wants_sha256: bool = True
) -> deque[Batch]:
    """Group ``tasks`` into batches, the largest first.

    A big file is a batch of its own; or several of similar size are a batch and are read side
    by side, if all the work is done sooner that way. Small files share batches.

    Args:
        tasks: what to read.
        strategy: how to hash.
        wants_blake3: compute BLAKE3.
        wants_sha256: compute SHA-256 and the fingerprints.
    """
    tasks = list(tasks)
    speeds = strategy.speeds if wants_sha256 else (1.0,)
    big = sorted((task for task in tasks if _size(task) >= BATCH_BYTES), key=_size, reverse=True)
    small = [task for task in tasks if _size(task) < BATCH_BYTES]
    groups = [(group, len(group)) for group in _group_big(big, strategy.jobs, speeds)]
    groups += [(group, choose_files_at_once(group, speeds)) for group in _group_small(small)]
    batches = (
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


def _group_small(small: list[RootTask]) -> list[list[RootTask]]:
    groups: list[list[RootTask]] = []
    group_bytes = 0
    for task in small:
        is_full = group_bytes + _size(task) > BATCH_BYTES
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


def _group_big(big: list[RootTask], jobs: int, speeds: tuple[float, ...]) -> list[list[RootTask]]:
    """Return groups of tasks of similar size, as wide as lets all the work end soonest.

    Args:
        big: the largest first.
        jobs: number of workers.
        speeds: as in ``Strategy``.
    """
    if not big:
        return []
    narrowest = min(big, key=_by_lanes)
    max_width = choose_files_at_once([narrowest] * len(big), speeds)
    choices = [_split(big, width, len(speeds)) for width in range(1, max_width + 1)]
    return min(choices, key=lambda groups: _estimate_duration(groups, jobs, speeds))


def _split(big: list[RootTask], width: int, max_lanes: int) -> list[list[RootTask]]:
    """Split ``big`` into groups of ``width`` tasks or less, of ``max_lanes`` together or less."""
    groups: list[list[RootTask]] = []
    free = 0
    for task in big:
        if not groups or len(groups[-1]) == width or task.lanes > free:
            groups.append([])
            free = max_lanes
        groups[-1].append(task)
        free -= task.lanes
    return groups


def _estimate_duration(groups: list[list[RootTask]], jobs: int, speeds: tuple[float, ...]) -> float:
    """Return when the last of ``jobs`` workers is done if each takes the next group when free.

    The unit is the time that one lane takes for a byte.
    """
    ends = [0.0] * jobs
    for group in groups:
        heapq.heapreplace(ends, ends[0] + _estimate_group(group, speeds))
    return max(ends)


def _estimate_group(group: list[RootTask], speeds: tuple[float, ...]) -> float:
    """Return how long ``group`` takes, side by side, in the same unit."""
    duration = 0.0
    done_bytes = 0
    lanes = sum(task.lanes for task in group)
    for task in sorted(group, key=_size):
        speed = speeds[min(lanes, len(speeds)) - 1]
        duration += (_size(task) - done_bytes) * lanes / speed
        done_bytes = _size(task)
        lanes -= task.lanes
    return duration


def _by_lanes(task: RootTask) -> int:
    return task.lanes


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
