"""How fast the lanes are on this CPU, and hence which kernel works on how many of them.

CPUs differ: on all that were measured a second lane of the narrow kernel is nearly free, on some a
fourth one gains nothing, and the wide kernel is worth it from nine lanes on, or never. Nothing
of that is assumed.
"""

from __future__ import annotations

import _thread
import itertools
import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from msgspec import Struct

from fastindex.hashing.engine import Engine, usable_engine
from fastindex.hashing.tasks import EngineSetup
from fastindex.system.cpus import list_core_cpus

_CALL_BYTES = 128 << 10
"""Of all lanes together: the second-level cache of a core has room for them, and a call takes much
longer than what surrounds it."""
_ROUNDS = 4
"""At most: two that agree are enough, and on a busy machine one must do."""
_AGREEMENT = 1.06
"""Two rounds agree if no step has taken longer than in the other by more than this factor."""
_MAX_SECONDS = 0.01
"""After these, no step is timed again."""
_CALLS = 3
"""In each round, of which the median counts."""
_PATIENCE_SECONDS = 5.0
"""A thread that has not ended after these never began."""
_COUNTS = range(1, 13)
"""Numbers of lanes that matter alike."""
_LEAST_LANES = 3
"""So many lanes of the narrow kernel go together: on all CPUs that were measured the third one
costs no more than if it were alone. For a moment, a busy machine can make it look otherwise."""


class Timings(Struct, frozen=True):
    """How long the kernels take for a byte of each lane, in seconds."""

    narrow: tuple[float, ...]
    """The narrow kernel, with 1, 2, … lanes."""
    wide: float = math.inf
    """The wide kernel, with as few or as many busy lanes as it has."""
    wide_lanes: int = 0
    """How many it has; 0: there is none."""


class Speeds(Struct, frozen=True):
    """Which kernel is to work on how many lanes, and how fast that is."""

    setup: EngineSetup
    """The engine with its kernels."""
    relative: tuple[float, ...]
    """Throughput with 1, 2, … SHA-256 states at once, relative to one state."""


def choose_kernels(timings: Timings) -> Speeds:
    """Return the setup of lanes that is the quickest for each number of states.

    The wide kernel is used from the least number on from which it is at least as quick at every
    greater number. If there is none, the speeds are those of the narrow kernel alone. If a time is
    0, because the ticks of the CPU's clock are longer, nothing is known, and nothing gained.
    """
    if min(*timings.narrow, timings.wide) <= 0:
        return Speeds(EngineSetup("lanes"), (1.0,))

    def narrow_seconds(count: int, most: int) -> float:
        groups = -(-count // most)
        width, wider = divmod(count, groups)  # as _lanes splits them
        longer = wider * timings.narrow[width] if wider else 0.0
        return longer + (groups - wider) * timings.narrow[width - 1]

    def mean_seconds(most: int) -> float:
        return sum(narrow_seconds(count, most) / count for count in _COUNTS)

    most_lanes = len(timings.narrow)
    narrow_lanes = min(range(min(most_lanes, _LEAST_LANES), most_lanes + 1), key=mean_seconds)
    lost = [
        n
        for n in range(1, timings.wide_lanes + 1)
        if timings.wide > narrow_seconds(n, narrow_lanes)
    ]
    wide_from = max(lost, default=0) + 1
    if wide_from > timings.wide_lanes:
        wide_from = 0
    seconds = [
        timings.wide if wide_from and count >= wide_from else narrow_seconds(count, narrow_lanes)
        for count in range(1, (timings.wide_lanes if wide_from else len(timings.narrow)) + 1)
    ]
    relative = tuple(count * seconds[0] / taken for count, taken in enumerate(seconds, 1))
    return Speeds(EngineSetup("lanes", wide_from, narrow_lanes), relative)


@cache
def measure_speeds(jobs: int, most_lanes: int = 0) -> Speeds:
    """Measure lanes, which must be usable, on this CPU. Takes a few milliseconds, once.

    Args:
        jobs: how many workers are going to hash. If they keep both hyper-threads of a core busy,
            so does this: they share the units that hash.
        most_lanes: measure the narrow kernel only, with up to so many lanes; 0: all there is.
    """
    narrow = usable_engine(EngineSetup("lanes"))
    counts = range(1, min(most_lanes or narrow.lanes, narrow.lanes) + 1)
    wide_lanes = 0 if most_lanes else narrow.wide_lanes

    def prepare() -> list[Callable[[], None]]:
        """Return what is to be timed, with states of its own."""
        steps = [_new_step(narrow, count) for count in counts]
        if wide_lanes:
            steps.append(_new_step(usable_engine(EngineSetup("lanes", wide_from=1)), wide_lanes))
        return steps

    lanes = [*counts, *([wide_lanes] if wide_lanes else [])]
    times = [
        seconds / (_CALL_BYTES // count)
        for count, seconds in zip(lanes, time_steps(prepare, list_core_cpus(jobs)), strict=True)
    ]
    narrow_times = tuple(times[: len(counts)])
    return choose_kernels(
        Timings(narrow_times, times[-1], wide_lanes) if wide_lanes else Timings(narrow_times)
    )


def _new_step(engine: Engine, count: int) -> Callable[[], None]:
    memory = memoryview(mmap.mmap(-1, _CALL_BYTES))  # aligned, as when files are read
    piece_bytes = _CALL_BYTES // count
    states = [engine.sha256(b"") for _ in range(count)]
    pieces = [memory[piece_bytes * number :][:piece_bytes] for number in range(count)]
    return lambda: engine.update(states, pieces)


def time_steps(prepare: Callable[[], list[Callable[[], None]]], cpus: Sequence[int]) -> list[float]:
    """Return how many seconds of a CPU each step takes in the least disturbed of some rounds.

    Args:
        prepare: returns the steps, for one thread.
        cpus: where the steps run at the same time, a thread each; with fewer than two, they run
            in this thread. They do so, too, if the system denies the threads.
    """
    steps = prepare()
    if len(cpus) > 1:
        crew = _Crew(len(cpus), len(steps))
        started = 0
        try:
            for cpu in cpus:
                # Not threading.Thread: its start() waits for ever if the new thread gets no memory.
                _thread.start_new_thread(crew.work, (prepare, cpu))
                started += 1
        except RuntimeError:  # no more threads
            crew.barrier.abort()
        if crew.wait(started):
            return crew.least_seconds()
    crew = _Crew(1, len(steps))
    crew.time(steps)
    return crew.least_seconds()


class _Crew:
    """Threads that time each step together.

    Args:
        threads: how many.
        steps: how many.
    """

    def __init__(self, threads: int, steps: int) -> None:
        self.barrier = threading.Barrier(threads, self._begin_turn)
        self._ended = threading.Semaphore(0)
        self._threads = threads
        self._steps = steps
        self._deadline = time.perf_counter() + _MAX_SECONDS
        self._is_over = False
        self._turns: list[list[float]] = []

    def work(self, prepare: Callable[[], list[Callable[[], None]]], cpu: int) -> None:
        """Time the steps in this thread, on ``cpu``; give up if that cannot be."""
        is_done = False
        try:
            with suppress(OSError, MemoryError, threading.BrokenBarrierError):
                os.sched_setaffinity(0, {cpu})  # of this thread
                self.time(prepare())
                is_done = True
        finally:
            if not is_done:
                self.barrier.abort()  # the others would wait for ever
            self._ended.release()

    def wait(self, started: int) -> bool:
        """Wait for so many threads, but not for ever; return whether all did their work."""
        until = time.perf_counter() + _PATIENCE_SECONDS
        for _ in range(started):
            if not self._ended.acquire(timeout=max(0, until - time.perf_counter())):
                self.barrier.abort()
        return not self.barrier.broken

    def time(self, steps: list[Callable[[], None]]) -> None:
        """Time the steps at the same time as the other threads do."""
        for step in itertools.chain(*itertools.repeat(steps, _ROUNDS)):
            self.barrier.wait()
            if self._is_over:
                return
            taken = self._turns[-1]
            step()
            seconds = []
            for _ in range(_CALLS):
                began = time.thread_time()
                step()
                seconds.append(time.thread_time() - began)
            taken.append(sorted(seconds)[_CALLS // 2])
            # The others' units must be busy until they are done, too.
            while len(taken) < self._threads and not self.barrier.broken:
                step()

    def _begin_turn(self) -> None:
        """Run by one thread while the others wait: decide whether there is to be another turn."""
        round_number, step = divmod(len(self._turns), self._steps)
        is_late = round_number > 0 and time.perf_counter() > self._deadline
        self._is_over = is_late or (step == 0 and round_number > 1 and self._have_agreed())
        if not self._is_over:
            self._turns.append([])

    def _have_agreed(self) -> bool:
        """Return whether the last two rounds agree, and so have not been disturbed."""
        seconds = [max(turn) for turn in self._turns[-2 * self._steps :]]
        pairs = zip(seconds[: self._steps], seconds[self._steps :], strict=True)
        return all(max(pair) <= min(pair) * _AGREEMENT for pair in pairs)

    def least_seconds(self) -> list[float]:
        """Return what each of the steps has taken: the slowest thread in the quickest round."""
        return [min(map(max, self._turns[step :: self._steps])) for step in range(self._steps)]
