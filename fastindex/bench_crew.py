"""Processes that all begin at once, and what they did in a given time.

Each measurement is made in rounds, of which the one in the middle counts: others who use
the machine make some rounds slower, a moment's higher clock makes some faster. A round
lasts from the common start until the process has done the piece of work that it had begun
when time was up; one that gets no CPU meanwhile is slow by that.

Workers read and never write, so that they are killed outright; one whose parent is gone
ends by itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from fastindex import interrupt
from fastindex.errors import FastindexError
from fastindex.pool import live_with_parent, no_workers, worker_context

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

ROUNDS = 3

_HEAD_START_SECONDS = 0.001
_HEAD_START_SECONDS_EACH = 0.00005
"""From the word to the start: what it takes a process to wake up, and to tell each one."""

Task = TypeVar("Task")
Work = Callable[[float], int]
"""Works until a moment of ``time.monotonic``; returns how many bytes that were."""


class Measured(Struct, frozen=True):
    """What came out of a measurement."""

    bytes_per_second: float
    """Of all workers together, in the round in the middle."""
    bytes_done: int
    """Of all workers, in all rounds."""


class Crew:
    """Workers that wait for a task; killed when the context ends, however it ends.

    Args:
        workers: how many; a measurement may take fewer.

    Raises:
        FastindexError: they cannot be started.
    """

    def __init__(self, workers: int) -> None:
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._workers = workers

    def __enter__(self) -> Crew:
        context = worker_context()
        try:
            for _ in range(self._workers):
                ours, theirs = Pipe()
                self._pipes.append(ours)
                process = context.Process(target=_work, args=(theirs,), daemon=True)
                # A worker that is not deaf yet would die of a Ctrl-C.
                with interrupt.held():
                    process.start()
                    self._processes.append(process)
                theirs.close()
        except OSError as error:
            self._end()
            raise no_workers(error) from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def measure(
        self, prepare: Callable[[Task], Work], tasks: Sequence[Task], seconds: float
    ) -> Measured:
        """Let as many workers as ``tasks`` do one each, all at once.

        Args:
            prepare: a function of a module; in the worker it turns its task into work, and
                what that costs is not measured.
            tasks: no more than there are workers.
            seconds: how long, all rounds together.

        Raises:
            FastindexError: a worker died.
        """
        pipes = self._pipes[: len(tasks)]
        for pipe, task in zip(pipes, tasks, strict=True):
            _tell(pipe, (prepare, task))
        _answers(pipes)
        speeds: list[float] = []
        bytes_done = 0
        for _ in range(ROUNDS):
            head_start = _HEAD_START_SECONDS + _HEAD_START_SECONDS_EACH * len(pipes)
            begin = time.monotonic() + head_start
            for pipe in pipes:
                _tell(pipe, (begin, begin + seconds / ROUNDS))
            answers = _answers(pipes)
            speeds.append(sum(count / duration for count, duration in answers))
            bytes_done += sum(count for count, _ in answers)
        return Measured(statistics.median(speeds), bytes_done)


def _tell(pipe: Connection, words: object) -> None:
    try:
        pipe.send(words)
    except OSError as error:
        raise _died() from error


def _answers(pipes: Sequence[Connection]) -> list[tuple[int, float]]:
    """Return each worker's answer; comes back to ``interrupt.check`` while it waits."""
    answers: list[tuple[int, float]] = []
    for pipe in pipes:
        while not pipe.poll(interrupt.CHECK_SECONDS):
            interrupt.check()
        try:
            answers.append(pipe.recv())
        except (EOFError, OSError) as error:
            raise _died() from error
    interrupt.check()
    return answers


def _died() -> FastindexError:
    return FastindexError(
        "a process that measured died (killed for lack of memory?); "
        "look into the kernel's log, or use fewer --jobs"
    )


def _work(pipe: Connection) -> None:
    """Be a worker: take tasks until the parent is gone."""
    live_with_parent()
    with suppress(EOFError, OSError):
        while True:
            prepare, task = pipe.recv()
            work = prepare(task)
            pipe.send((0, 0.0))
            for _ in range(ROUNDS):
                begin, until = pipe.recv()
                time.sleep(max(0.0, begin - time.monotonic()))
                count = work(until)
                pipe.send((count, time.monotonic() - begin))
