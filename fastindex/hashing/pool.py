"""Where batches are digested: in this process, a pool of workers, or a foreign executor.

A worker has one batch in hand. When it dies, another takes its place, and in the end its
batch is tried once more, one root at a time, each with a worker of its own and no other
beside it: what dies there is the culprit, and only that is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, cast

import msgspec

from fastindex.errors import FastindexError
from fastindex.events import Observer
from fastindex.hashing.digest import digest_batch
from fastindex.mirror.tree import Batch, Failed, Outcome
from fastindex.system import signals
from fastindex.system.processes import DiedError, Worker, Workers, no_workers

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from ctypes import c_ulonglong
    from multiprocessing.connection import Connection

LITTLE_BYTES = 64 << 20
LITTLE_TASKS = 256
"""With less to read than either, starting workers (30 ms) costs more than they save."""

_POLL_SECONDS = 0.1

Progress = Callable[[int], None]
"""Told the number of bytes read so far, in all."""
Result = tuple[Batch, tuple[Outcome, ...]]

_DIED = Failed(
    "the worker that read it died twice (killed for lack of memory?)",
    "look into the kernel's log, use fewer --jobs, or remove the file",
    costs_version=True,
)


def observed(
    batches: deque[Batch], jobs: int, executor: Executor | None, observer: Observer
) -> Generator[Result, None, None]:
    """Do as ``run`` and tell ``observer``; to be closed, as that ends the workers at once."""
    observer.hashing_started(sum(batch.size_bytes for batch in batches))
    progress = observer.bytes_hashed if observer.wants_progress else None
    try:
        with closing(run(batches, jobs, executor, progress)) as results:
            yield from results
    finally:
        observer.hashing_finished()


def run(
    batches: deque[Batch],
    jobs: int,
    executor: Executor | None,
    progress: Progress | None,
) -> Generator[Result, None, None]:
    """Digest all batches; yield each with its outcomes as it is done, in any order.

    Args:
        batches: the largest first; emptied on the way, to free their memory.
        jobs: worker processes, where ``executor`` is None.
        executor: one to use instead of a pool of our own; it is left running.
        progress: called now and then from this thread, or None.

    Raises:
        FastindexError: the foreign ``executor`` broke, or workers cannot be started.
    """
    if executor is not None:
        yield from _run_foreign(batches, executor, progress)
        return
    workers = min(jobs, len(batches))
    tasks = sum(len(batch.tasks) for batch in batches)
    is_little = sum(batch.size_bytes for batch in batches) < LITTLE_BYTES and tasks < LITTLE_TASKS
    if workers <= 1 or is_little:
        yield from _run_here(batches, progress)
    else:
        yield from _run_pool(batches, workers, progress)


def _run_here(batches: deque[Batch], progress: Progress | None) -> Generator[Result, None, None]:
    done_bytes = 0

    def advance(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        signals.check()
        if progress is not None:
            progress(done_bytes)

    while batches:
        batch = batches.popleft()
        yield batch, digest_batch(batch, advance)


def _run_foreign(
    batches: deque[Batch], executor: Executor, progress: Progress | None
) -> Generator[Result, None, None]:
    from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait

    done_bytes = 0
    futures: dict[Future[tuple[Outcome, ...]], Batch] = {}
    try:
        while batches:
            batch = batches.popleft()
            futures[executor.submit(_digest_alone, batch)] = batch
        while futures:
            done, _ = wait(futures, signals.CHECK_SECONDS, FIRST_COMPLETED)
            signals.check()
            for future in done:
                batch = futures.pop(future)
                outcomes = future.result()
                done_bytes += batch.size_bytes
                if progress is not None:
                    progress(done_bytes)
                yield batch, outcomes
    except BrokenExecutor as error:
        raise FastindexError(f"the executor broke: {error}") from error
    finally:
        for future in futures:
            future.cancel()


def _run_pool(
    waiting: deque[Batch], jobs: int, progress: Progress | None
) -> Generator[Result, None, None]:
    done_bytes = 0
    suspects: list[Batch] = []
    with _Pool(jobs, counts=progress is not None) as crew:
        crew.hand_out(waiting)
        while crew.is_busy:
            ended = crew.ended()
            crew.hand_out(waiting)
            for batch, outcomes in ended:
                if outcomes is None:
                    suspects.append(batch)
                else:
                    done_bytes += batch.size_bytes
                    yield batch, outcomes
            if progress is not None:
                progress(done_bytes + crew.bytes_in_hand())
    for batch in suspects:
        for task in batch.tasks:
            single = msgspec.structs.replace(batch, tasks=(task,), size_bytes=task.root.size_bytes)
            yield single, _second_try(single)
        done_bytes += batch.size_bytes
        if progress is not None:
            progress(done_bytes)


def _second_try(batch: Batch) -> tuple[Outcome, ...]:
    with _Pool(1, counts=False) as crew:
        crew.hand_out(deque([batch]))
        while crew.is_busy:
            for _, outcomes in crew.ended():
                if outcomes is not None:
                    return outcomes
    return tuple(_DIED for _ in batch.tasks)


class _Pool(Workers):
    """Workers, and what each has in hand.

    Args:
        most: how many workers; they are started as there is something for them to do.
        counts: whether they count the bytes that they read.
    """

    def __init__(self, most: int, *, counts: bool) -> None:
        super().__init__(_digest_batches)
        self._most = most
        self._counts = counts
        self._idle: list[_Hand] = []
        self._busy: dict[Connection, _Hand] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a worker has a batch in hand."""
        return bool(self._busy)

    def hand_out(self, waiting: deque[Batch]) -> None:
        """Give each worker that is free, or yet to be started, one of ``waiting``."""
        while waiting and len(self._busy) < self._most:
            hand = self._idle.pop() if self._idle else self._another()
            hand.take(waiting.popleft())
            self._busy[hand.worker.pipe] = hand

    def _another(self) -> _Hand:
        count = _new_count() if self._counts else None
        return _Hand(self.start(count), count)

    def ended(self) -> list[tuple[Batch, tuple[Outcome, ...] | None]]:
        """Wait a little; return batches that ended, with None where the worker died."""
        from multiprocessing.connection import wait

        ready = wait(self._busy, _POLL_SECONDS if self._counts else signals.CHECK_SECONDS)
        signals.check()
        ended: list[tuple[Batch, tuple[Outcome, ...] | None]] = []
        for pipe in ready:
            hand = self._busy.pop(cast("Connection", pipe))
            try:
                ended.append((hand.batch, self.hear(hand.worker)))
            except DiedError:
                ended.append((hand.batch, None))
            else:
                self._idle.append(hand)
        return ended

    def bytes_in_hand(self) -> int:
        """Return how many bytes of the batches in hand have been read."""
        return sum(hand.count.value for hand in self._busy.values() if hand.count is not None)


class _Hand:
    """A worker and what it has in hand.

    Args:
        worker: started.
        count: where it counts the bytes that it has read of its batch, if it does.
    """

    batch: Batch

    def __init__(self, worker: Worker, count: c_ulonglong | None) -> None:
        self.worker = worker
        self.count = count

    def take(self, batch: Batch) -> None:
        """Tell the worker to digest ``batch``."""
        self.batch = batch
        if self.count is not None:
            self.count.value = 0
        self.worker.tell(batch)


def _new_count() -> c_ulonglong:
    """Return a number that is in this process and in a worker.

    Raises FastindexError where there is no memory to share.
    """
    from multiprocessing.sharedctypes import RawValue

    try:
        count: c_ulonglong = RawValue("Q", 0)
    except (OSError, MemoryError) as error:
        raise no_workers(error) from error
    return count


def _digest_batches(pipe: Connection, count: c_ulonglong | None) -> None:
    """Be a worker: answer each batch with its outcomes."""
    done_bytes = 0

    def advance(just_read: int) -> None:
        nonlocal done_bytes
        done_bytes += just_read
        if count is not None:
            count.value = done_bytes

    while (batch := pipe.recv()) is not None:
        done_bytes = 0
        pipe.send(digest_batch(batch, advance))


def _digest_alone(batch: Batch) -> tuple[Outcome, ...]:
    """Digest ``batch`` in somebody else's worker."""
    return digest_batch(batch, _ignore)


def _ignore(just_read: int) -> None:
    """Take no note of progress."""
