"""Threads for calls that wait outside of Python: for a disk, a server, or the kernel.

The thread that waits for a result works, too, so that a crew of one is no thread at all. A crew
may grow while it works. There is no lock that a signal could leave locked.
"""

from __future__ import annotations

import resource
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from fastindex.system import signals

_ADDRESS_SPACE_BYTES = 256 << 20
"""A thread reserves its stack (8 MiB or more) and a heap (64 MiB, twice that for a moment), used or
not; as much is left to everything else."""

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


class Task(Generic[_Result]):
    """Something to do, and what came of it.

    Args:
        work: does it. It gets the task, and returns the result; or None, and then somebody else
            finishes the task.
    """

    __slots__ = ("error", "is_done", "result", "then", "work")

    def __init__(self, work: Callable[[Task[_Result]], _Result | None]) -> None:
        self.work = work
        self.result: _Result | None = None
        self.error: BaseException | None = None
        self.is_done = False
        self.then: Callable[[], None] | None = None


class Crew:
    """The thread that makes it, and others.

    Args:
        size: how many threads work side by side, that one included. There are fewer where address
            space is limited (``ulimit -v``).
    """

    def __init__(self, size: int) -> None:
        self.size = _fit(size)
        """How many threads may work."""
        self.stop = bytearray(1)
        """Its byte is set when what is being done is wanted no more."""
        self._threads: list[threading.Thread] = []
        self._started = 0
        self._starting = threading.Lock()
        self._queue: deque[Task[Any]] = deque()
        self._wakings: SimpleQueue[None] = SimpleQueue()
        self._endings: SimpleQueue[None] = SimpleQueue()
        self._is_closed = False

    @property
    def working(self) -> int:
        """How many threads have worked, that of the caller included."""
        return 1 + self._started

    def grow(self, size: int) -> None:
        """Let ``size`` threads work from now on, if there is enough to do."""
        self.size = max(self.size, _fit(size))
        self._start_threads()

    def submit(self, work: Callable[[Task[_Result]], _Result | None]) -> Task[_Result]:
        """Have something done after all else; ``work`` is what ``Task`` takes."""
        task = Task(work)
        self._queue.append(task)
        if len(self._queue) > 1:  # one is for the caller
            self._start_threads()
        self._wakings.put(None)
        return task

    def split(
        self,
        task: Task[_Result],
        works: Sequence[Callable[[Task[_Part]], _Part | None]],
        join: Callable[[list[_Part]], _Result],
    ) -> None:
        """Have the parts of a task done before all else.

        Args:
            task: the task, whose own work returns None.
            works: at least one; each is what ``Task`` takes.
            join: makes the result of those of the parts, in their order.
        """
        parts = [Task(work) for work in works]
        ended = count(1)

        def end_part() -> None:
            if next(ended) == len(works):
                finished = list(parts)
                parts.clear()  # they hold this function
                self._complete(task, partial(_join_parts, finished, join))

        for part in reversed(parts):
            part.then = end_part
            self._queue.appendleft(part)
            self._wakings.put(None)
        self._start_threads()

    def wait(self, task: Task[_Result]) -> _Result:
        """Return what came of a task; work meanwhile.

        Raises:
            BaseException: what the task raised, or a part of it; or a signal.
        """
        while not task.is_done:
            signals.check()
            try:
                following = self._queue.popleft()
            except IndexError:
                with suppress(Empty):
                    self._endings.get(timeout=signals.CHECK_SECONDS)
                continue
            self._run(following)
            if following.error is not None:
                raise following.error
        if task.error is not None:
            raise task.error
        return cast("_Result", task.result)

    def close(self) -> None:
        """End all threads; what they have not begun is not done."""
        self.stop[0] = 1
        self._is_closed = True
        while self._threads:  # a thread may have started others, before it ended
            for _ in range(self.working):
                self._wakings.put(None)
            self._threads.pop().join()
        for task in self._queue:
            task.then = None  # it would keep what the other parts hold
        self._queue.clear()

    def _start_threads(self) -> None:
        if self.working >= self.size or not self._starting.acquire(blocking=False):
            return
        try:
            for _ in range(min(self.size - self.working, len(self._queue))):
                # Daemons: a second signal may end the wait for one that hangs in a dead file
                # system.
                thread = threading.Thread(target=self._work, name="fastindex-crew", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError):  # there may be no more: fewer do the work
                    self.size = self.working
                    return
                self._started += 1
                self._threads.append(thread)
        finally:
            self._starting.release()

    def _work(self) -> None:
        while not self._is_closed:
            try:
                task = self._queue.popleft()
            except IndexError:
                self._wakings.get()
            else:
                self._run(task)

    def _run(self, task: Task[Any]) -> None:
        self._complete(task, partial(task.work, task))

    def _complete(self, task: Task[_Result], work: Callable[[], _Result | None]) -> None:
        try:
            result = work()
            if result is None:  # another thread may have finished it already
                return
            task.result = result
        except BaseException as error:
            # Nobody waits for it after the end; what its traceback holds is to be free then.
            task.error = None if self._is_closed else error
        task.is_done = True
        if task.then is None:
            self._endings.put(None)
        else:
            task.then()
            task.then = None


def _fit(size: int) -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return size
    return max(1, min(size, limit // _ADDRESS_SPACE_BYTES))


def _join_parts(parts: list[Task[_Part]], join: Callable[[list[_Part]], _Result]) -> _Result:
    for part in parts:
        if part.error is not None:
            raise part.error
    return join([cast("_Part", part.result) for part in parts])
