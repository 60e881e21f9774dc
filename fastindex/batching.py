"""Pure: what must be read → batches for the workers, the largest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from fastindex.model import Batch, RootTask

BATCH_BYTES = 32 << 20
"""Roots at least this big are a batch of their own; smaller ones share one."""
BATCH_TASKS = 64
"""Most roots in a batch: what a killed worker can cost a second try."""


def grouped(
    tasks: Iterable[RootTask], *, wants_blake3: bool, wants_sha256: bool = True
) -> deque[Batch]:
    """Group ``tasks`` into batches, the largest first: big files alone, small ones together."""
    tasks = list(tasks)
    big = sorted((task for task in tasks if _size(task) >= BATCH_BYTES), key=_size, reverse=True)
    small = [task for task in tasks if _size(task) < BATCH_BYTES]
    groups: list[list[RootTask]] = [[task] for task in big]
    group: list[RootTask] = []
    group_bytes = 0
    for task in small:
        if group and (group_bytes + _size(task) > BATCH_BYTES or len(group) >= BATCH_TASKS):
            groups.append(group)
            group, group_bytes = [], 0
        group.append(task)
        group_bytes += _size(task)
    if group:
        groups.append(group)
    return deque(
        Batch(tuple(group), bytes_of(group), wants_blake3, wants_sha256) for group in groups
    )


def _size(task: RootTask) -> int:
    return task.root.size_bytes


def bytes_of(tasks: Iterable[RootTask]) -> int:
    """Return how many bytes there are to read; metadata that tasks share counts once."""
    files = {ref.id: ref.size_bytes for task in tasks for ref in (task.root, *task.metadata)}
    return sum(files.values())
