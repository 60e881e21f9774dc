"""Processes that all begin at once, and what they did in a given time.

Each measurement is made in rounds, of which the one in the middle counts: others who use
the machine make some rounds slower, a moment's higher clock makes some faster. A round
lasts from the common start until the process has done the piece of work that it had begun
when time was up; one that gets no CPU meanwhile is slow by that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from fastindex.errors import FastindexError
from fastindex.system import signals
from fastindex.system.processes import DiedError, Worker, Workers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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


class Crew(Workers):
    """Workers that measure; started as there are tasks for them."""

    def __init__(self) -> None:
        super().__init__(_work)
        self._hands: list[Worker] = []

    def measure(
        self, prepare: Callable[[Task], Work], tasks: Sequence[Task], seconds: float
    ) -> Measured:
        """Let as many workers as ``tasks`` do one each, all at once.

        Args:
            prepare: a function of a module; in the worker it turns its task into work, and
                what that costs is not measured.
            tasks: what each is to do.
            seconds: how long, all rounds together.

        Raises:
            FastindexError: a worker died, or cannot be started.
        """
        while len(self._hands) < len(tasks):
            self._hands.append(self.start())
        hands = self._hands[: len(tasks)]
        for hand, task in zip(hands, tasks, strict=True):
            hand.send((prepare, task))
        self._answers(hands)
        speeds: list[float] = []
        bytes_done = 0
        for _ in range(ROUNDS):
            head_start = _HEAD_START_SECONDS + _HEAD_START_SECONDS_EACH * len(hands)
            begin = time.monotonic() + head_start
            for hand in hands:
                hand.send((begin, begin + seconds / ROUNDS))
            answers = self._answers(hands)
            speeds.append(sum(count / duration for count, duration in answers))
            bytes_done += sum(count for count, _ in answers)
        return Measured(statistics.median(speeds), bytes_done)

    def _answers(self, hands: Sequence[Worker]) -> list[tuple[int, float]]:
        """Return each worker's answer; comes back to ``interrupt.check`` while it waits."""
        answers: list[tuple[int, float]] = []
        for hand in hands:
            while not hand.pipe.poll(signals.CHECK_SECONDS):
                signals.check()
            try:
                answers.append(self.receive(hand))
            except DiedError as error:
                self._hands.clear()  # the others are in the midst of it
                raise FastindexError(
                    "a process that measured died (killed for lack of memory?); "
                    "look into the kernel's log, or use fewer --jobs"
                ) from error
        signals.check()
        return answers


def _work(pipe: Connection) -> None:
    """Be a worker: turn each task into work, and do that in rounds."""
    while (words := pipe.recv()) is not None:
        prepare, task = words
        work = prepare(task)
        pipe.send((0, 0.0))
        for _ in range(ROUNDS):
            begin, until = pipe.recv()
            time.sleep(max(0.0, begin - time.monotonic()))
            count = work(until)
            pipe.send((count, time.monotonic() - begin))
