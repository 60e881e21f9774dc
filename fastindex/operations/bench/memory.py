"""How fast the contenders hash a buffer in memory, over and over.

The buffer is page-aligned, as in a build, and filled: untouched pages would all map to the
kernel's one page of zeros.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from functools import partial

from msgspec import structs
from xxhash import xxh3_64

from fastindex.hashing import engine
from fastindex.hashing.digest import BUFFER_BYTES, THREADED_BUFFER_BYTES, new_blake3
from fastindex.hashing.tasks import EngineSetup
from fastindex.operations.bench.options import BUILD_DIGESTS, HashFigure, HashTask
from fastindex.operations.bench.rounds import Step, TimedWorkers

_PATTERN = bytes(range(256))


def plan(jobs: int, build_engine: str, *, has_lanes: bool) -> list[HashTask]:
    """Return what to measure, in the order of the report.

    Each contender runs in one process and in ``jobs`` processes, BLAKE3 with several threads
    in one only; a build also runs in 2, 4, 8 … processes.

    Args:
        jobs: the maximum number of processes.
        build_engine: the name of the engine that a build uses.
        has_lanes: whether lanes work on this machine.
    """
    new_task = partial(HashTask, buffer_bytes=BUFFER_BYTES, jobs=1)
    lanes = list_kernels() if has_lanes else []
    threaded = new_task(algorithm="blake3", threads=jobs, buffer_bytes=THREADED_BUFFER_BYTES)
    alone = [
        new_task(algorithm="sha256", engine="hashlib"),
        *(
            new_task(algorithm="sha256", engine="lanes", lanes=count, kernel=kernel)
            for kernel, count in lanes
        ),
        new_task(algorithm="blake3"),
        *([threaded] if jobs > 1 else []),
        new_task(algorithm="xxh3"),
    ]
    together = [structs.replace(task, jobs=jobs) for task in alone if task.threads == 1]
    build = new_task(algorithm="build", engine=build_engine, lanes=BUILD_DIGESTS)
    builds = [structs.replace(build, jobs=count) for count in double_up_to(jobs)]
    return [*alone, *(together if jobs > 1 else []), *builds]


def list_kernels() -> list[tuple[str, int]]:
    """Return the kernels of lanes, which must be usable, each with numbers of lanes to measure."""
    from fastindex.hashing import _lanes

    narrow = [(_lanes.NARROW_KERNEL, count) for count in range(1, _lanes.NARROW_LANES + 1)]
    return [*narrow, (_lanes.WIDE_KERNEL, _lanes.WIDE_LANES)] if _lanes.WIDE_LANES else narrow


def double_up_to(maximum: int) -> list[int]:
    """Return 1, 2, 4 … below ``maximum``, and ``maximum``."""
    return [*(1 << bit for bit in range((maximum - 1).bit_length())), maximum]


def measure_memory(
    tasks: Iterable[HashTask], workers: TimedWorkers, seconds: float
) -> tuple[HashFigure, ...]:
    """Run each task in as many workers as it has jobs, for ``seconds`` each.

    Raises:
        FastindexError: a worker cannot be started, died, or ran out of memory.
    """
    figures: list[HashFigure] = []
    for task in tasks:
        name = f"{name_contender(task)}, {task.jobs} at once"
        speed, _ = workers.measure(name, prepare, [task] * task.jobs, seconds)
        figures.append(HashFigure(**structs.asdict(task), bytes_per_second=speed))
    return tuple(figures)


def name_contender(task: HashTask) -> str:
    """Return what ``task`` is called in tables."""
    match task.algorithm:
        case "sha256" if task.engine == "lanes":
            return f"SHA-256, {task.lanes} lane{'s' if task.lanes > 1 else ''} ({task.kernel})"
        case "sha256":
            return f"SHA-256, {task.engine}"
        case "blake3":
            return f"BLAKE3, {task.threads} thread{'s' if task.threads > 1 else ''}"
        case "xxh3":
            return "xxh3"
        case "build":
            return f"a build: {BUILD_DIGESTS} SHA-256 and BLAKE3"


def prepare(task: HashTask) -> Step:
    """Return a step that hashes a buffer into the states of ``task``."""
    buffer = memoryview(mmap.mmap(-1, task.buffer_bytes))
    buffer[:] = _PATTERN * (task.buffer_bytes // len(_PATTERN))
    buffers = [buffer] * task.lanes
    used = engine.usable_engine(EngineSetup(task.engine or "hashlib"))
    if task.lanes > used.lanes:
        used = engine.usable_engine(EngineSetup(used.name, wide_from=task.lanes))
    states = [used.sha256(b"") for _ in buffers] if task.engine else []
    other = xxh3_64() if task.algorithm == "xxh3" else new_blake3(task.threads)
    step_bytes = task.buffer_bytes * (task.lanes if task.algorithm == "sha256" else 1)

    def step() -> int:
        if states:
            used.update(states, buffers)
        if task.algorithm != "sha256":
            other.update(buffer)
        return step_bytes

    return step
