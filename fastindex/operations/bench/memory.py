"""How fast the contenders hash what is in memory: a buffer, again and again.

The buffer is page-aligned, as a build's is, and filled: pages never written to would all
be the one page of zeros.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable

from fastindex.hashing import engine
from fastindex.hashing.digest import BUFFER_BYTES, new_blake3
from fastindex.operations.bench.options import BUILD_DIGESTS, Algorithm, HashTask
from fastindex.operations.bench.rounds import Work

BUFFER_SIZES = (64 << 10, 256 << 10, BUFFER_BYTES, 1 << 20, 4 << 20)

_PATTERN = bytes(range(256))

Planned = tuple[HashTask, int]
"""What is measured, and in how many processes at once."""


def plan(jobs: int, chosen: str, *, has_lanes: bool) -> list[Planned]:
    """Return what is to be measured, in the order in which it is shown.

    Each contender in one process and in ``jobs`` at once; BLAKE3's threads in one only;
    what a build does also in 2, 4, 8 … at once, with the buffer that it has.

    Args:
        jobs: the most processes at once.
        chosen: the engine that a build would use.
        has_lanes: whether lanes can be measured here.
    """
    lanes = range(1, engine.usable_engine("lanes").lanes + 1) if has_lanes else range(0)
    builds = _sizes("build", chosen, lanes=BUILD_DIGESTS)
    alone = [
        *_sizes("sha256", "hashlib"),
        *(task for count in lanes for task in _sizes("sha256", "lanes", lanes=count)),
        *_sizes("blake3"),
        *(_sizes("blake3", threads=jobs) if jobs > 1 else ()),
        *_sizes("xxh3"),
        *builds,
    ]
    own = [task for task in builds if task.buffer_bytes == BUFFER_BYTES]
    planned = [(task, 1) for task in alone]
    planned += [(task, count) for count in doublings(jobs)[1:-1] for task in own]
    if jobs > 1:
        planned += [(task, jobs) for task in alone if task.threads == 1]
    return planned


def doublings(most: int) -> list[int]:
    """Return 1, 2, 4 … below ``most``, and ``most``."""
    numbers = [1]
    while numbers[-1] * 2 < most:
        numbers.append(numbers[-1] * 2)
    return numbers if most == 1 else [*numbers, most]


def _sizes(
    algorithm: Algorithm, engine: str = "", *, lanes: int = 1, threads: int = 1
) -> list[HashTask]:
    return [
        HashTask(
            algorithm=algorithm, engine=engine, lanes=lanes, threads=threads, buffer_bytes=size
        )
        for size in BUFFER_SIZES
    ]


def prepare(task: HashTask) -> Work:
    """Return what does ``task`` until a moment and returns how many bytes that took in."""
    buffer = memoryview(mmap.mmap(-1, task.buffer_bytes))
    buffer[:] = _PATTERN * (task.buffer_bytes // len(_PATTERN))
    update = _update(task, buffer)
    taken = task.buffer_bytes * (task.lanes if task.algorithm == "sha256" else 1)

    def work(until: float) -> int:
        taken_bytes = 0
        while True:
            update()
            taken_bytes += taken
            if time.monotonic() >= until:
                return taken_bytes

    return work


def _update(task: HashTask, buffer: memoryview) -> Callable[[], object]:
    """Return what lets the states of ``task`` take in ``buffer`` once."""
    if task.algorithm == "xxh3":
        from xxhash import xxh3_64

        quickest = xxh3_64()
        return lambda: quickest.update(buffer)

    quick = new_blake3(task.threads)
    if task.algorithm == "blake3":
        return lambda: quick.update(buffer)
    chosen = engine.usable_engine(task.engine)
    states = [chosen.sha256(b"") for _ in range(task.lanes)]
    buffers = [buffer] * task.lanes
    if task.algorithm == "sha256":
        return lambda: chosen.update(states, buffers)

    def build() -> None:
        chosen.update(states, buffers)
        quick.update(buffer)

    return build
