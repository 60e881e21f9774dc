"""Worker processes that start at the same moment, timed in rounds.

A measurement takes three rounds and reports the median speed: other work on the machine
slows some rounds down, a short boost of the clock speeds some up. A worker finishes the
piece it has in hand at the end of a round and is timed until then, so one that gets no CPU
in the meantime counts as slow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fastindex.errors import FastindexError
from fastindex.events import Observer
from fastindex.system import signals
from fastindex.system.processes import DiedError, Worker, Workers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ROUNDS = 3

_LEAD_SECONDS = 0.001
_LEAD_SECONDS_PER_WORKER = 0.00005
"""How far ahead the common start is set, so that all workers are told and awake by then."""

Task = TypeVar("Task")
Step = Callable[[], int]
"""Processes one piece; returns its size in bytes."""


class TimedWorkers(Workers):
    """Worker processes that are measured; started as tasks need them.

    Args:
        observer: told about each figure.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__(_run_rounds)
        self._observer = observer
        self._workers: list[Worker] = []

    def measure(
        self, name: str, prepare: Callable[[Task], Step], tasks: Sequence[Task], seconds: float
    ) -> tuple[float, int]:
        """Run one worker for each task, all at once.

        Args:
            name: what is measured, for the observer.
            prepare: a module-level function that turns a task into a step, which is repeated;
                it runs in the worker and is not timed.
            tasks: one for each worker.
            seconds: the duration of all rounds together.

        Returns:
            Bytes per second of all workers in the median round; bytes of all rounds.

        Raises:
            FastindexError: a worker cannot be started, died, or ran out of memory.
        """
        while len(self._workers) < len(tasks):
            self._workers.append(self.start())
        workers = self._workers[: len(tasks)]
        for worker, task in zip(workers, tasks, strict=True):
            worker.send((prepare, task))
        self._collect(workers)  # all are ready
        start = time.monotonic() + _LEAD_SECONDS + _LEAD_SECONDS_PER_WORKER * len(workers)
        for worker in workers:
            worker.send((start, seconds / ROUNDS))
        rounds = list(zip(*self._collect(workers), strict=True))
        speed = statistics.median(sum(size / duration for size, duration in r) for r in rounds)
        self._observer.log(f"{name}: {speed / 1e9:.2f} GB/s")
        return speed, sum(size for results in rounds for size, _ in results)

    def _collect(self, workers: Sequence[Worker]) -> list[Any]:
        """Return the answer of each worker; check for signals in the meantime."""
        answers = []
        for worker in workers:
            while not worker.pipe.poll(signals.CHECK_SECONDS):
                signals.check()
            try:
                answers.append(self.receive(worker))
            except (DiedError, MemoryError, OSError) as error:
                raise FastindexError(
                    "a measuring process died or ran out of memory; "
                    "check the kernel log, or use fewer --jobs"
                ) from error
        signals.check()
        return answers


def _run_rounds(pipe: Connection) -> None:
    """Be a worker: prepare each task, wait for the common start, time the rounds."""
    while (message := pipe.recv()) is not None:
        prepare, task = message
        step = prepare(task)
        pipe.send("ready")
        start, round_seconds = pipe.recv()
        time.sleep(max(0.0, start - time.monotonic()))
        results: list[tuple[int, float]] = []
        end = start
        for number in range(ROUNDS):
            begin, size_bytes = end, 0
            while end == begin or end < start + round_seconds * (number + 1):
                size_bytes += step()
                end = time.monotonic()
            results.append((size_bytes, end - begin))
        pipe.send(results)
