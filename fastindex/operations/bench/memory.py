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
from fastindex.hashing.digest import BUFFER_BYTES, MAX_SHARES, THREADED_BUFFER_BYTES, new_blake3
from fastindex.hashing.tasks import EngineSetup
from fastindex.operations.bench.options import BUILD_DIGESTS, HashFigure, HashTask
from fastindex.operations.bench.rounds import Step, TimedWorkers

_PATTERN = bytes(range(256))


def plan(jobs: int, build_engine: str, *, has_lanes: bool, wide_from: int = 0) -> list[HashTask]:
    """Return what to measure, in the order of the report.

    Each contender runs in one process and in ``jobs`` processes, BLAKE3 with several threads
    in one only; a build also runs in 2, 4, 8 … processes.

    Args:
        jobs: the maximum number of processes.
        build_engine: the name of the engine that a build uses.
        has_lanes: whether lanes work on this machine.
        wide_from: from how many lanes on a build uses the wide kernel; 0: never.
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
    files = count_files(wide_from)
    build = new_task(
        algorithm="build", engine=build_engine, lanes=BUILD_DIGESTS * files, wide_from=wide_from
    )
    builds = [structs.replace(build, jobs=count) for count in double_up_to(jobs)]
    return [*alone, *(together if jobs > 1 else []), *builds]


def count_files(wide_from: int) -> int:
    """Return how many big files a worker of a build reads side by side if there are many.

    Args:
        wide_from: from how many lanes on it uses the wide kernel; 0: never.
    """
    if not wide_from:
        return 1
    from fastindex.hashing import _lanes

    return _lanes.WIDE_LANES // BUILD_DIGESTS


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
    files = task.lanes // BUILD_DIGESTS if task.algorithm == "build" else 1
    part_bytes = task.buffer_bytes // min(files, MAX_SHARES)
    buffers = [_new_buffer(part_bytes) for _ in range(files)]
    used = engine.usable_engine(EngineSetup(task.engine or "hashlib", task.wide_from))
    if task.algorithm == "sha256" and task.lanes > used.lanes:
        used = engine.usable_engine(EngineSetup(used.name, wide_from=task.lanes))
    pieces = [buffer for buffer in buffers for _ in range(task.lanes // files)]
    states = [used.sha256(b"") for _ in pieces] if task.engine else []
    others = [
        (xxh3_64() if task.algorithm == "xxh3" else new_blake3(task.threads), buffer)
        for buffer in buffers
        if task.algorithm != "sha256"
    ]
    step_bytes = part_bytes * (task.lanes if task.algorithm == "sha256" else files)

    def step() -> int:
        if states:
            used.update(states, pieces)
        for other, buffer in others:
            other.update(buffer)
        return step_bytes

    return step


def _new_buffer(size_bytes: int) -> memoryview:
    buffer = memoryview(mmap.mmap(-1, size_bytes))
    buffer[:] = _PATTERN * (size_bytes // len(_PATTERN))
    return buffer
