"""Digesting batches in this process, in worker processes, in threads, or in an executor.

A worker has one batch at a time. When it dies, another one takes its place. In the end its
batch is tried again, one root at a time, each in a new worker while no other is running. If
that worker dies, too, its root is the cause, and only that root is given up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import msgspec

from fastindex.errors import Code, ResourceError
from fastindex.events import Observer
from fastindex.hashing.digest import digest_batch
from fastindex.hashing.tasks import Batch, Failed, Outcome
from fastindex.system import signals
from fastindex.system.processes import (
    DiedError,
    Worker,
    Workers,
    can_have_children,
    worker_start_error,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from ctypes import c_ulonglong
    from multiprocessing.connection import Connection

LITTLE_BYTES = 64 << 20
LITTLE_TASKS = 256
"""With less to read than both, starting workers (30 ms) takes longer than they save."""

_POLL_SECONDS = 0.1

_Progress = Callable[[int], None]
"""Called with the number of bytes read so far, in total."""
Result = tuple[Batch, tuple[Outcome, ...]]
"""A batch, and the outcome of each of its tasks."""

_WORKER_DIED = Failed(
    Code.UNREADABLE,
    "the process that was reading it died twice (killed for lack of memory?)",
    "look into the kernel log, use fewer --jobs, or remove the file",
    costs_version=True,
)


def digest_observed(
    batches: deque[Batch], jobs: int, executor: Executor | None, observer: Observer
) -> Generator[Result, None, None]:
    """Digest all batches as ``digest_all`` does, and tell ``observer``.

    Close the generator if you leave it early: that ends the workers at once.

    Args:
        batches: as for ``digest_all``.
        jobs: as for ``digest_all``.
        executor: as for ``digest_all``.
        observer: told when hashing starts and ends, and of progress if it wants that.

    Raises:
        FastindexError: as for ``digest_all``.
        MemoryError: as for ``digest_all``.
    """
    observer.hashing_started(sum(batch.size_bytes for batch in batches))
    progress = observer.bytes_hashed if observer.wants_progress else None
    try:
        with closing(digest_all(batches, jobs, executor, progress)) as results:
            yield from results
    finally:
        observer.hashing_finished()


def digest_all(
    batches: deque[Batch],
    jobs: int,
    executor: Executor | None,
    progress: _Progress | None,
) -> Generator[Result, None, None]:
    """Digest all batches; yield each with its outcomes when it is done, in any order.

    Little work is done in this process. More is done in worker processes, or in threads if
    this process has several threads already or may not have children.

    Args:
        batches: the largest first; emptied on the way, to free their memory.
        jobs: how many batches to digest at once if ``executor`` is None.
        executor: an executor to use instead; it is not shut down.
        progress: called now and then, in this thread, with the bytes read so far; or None.

    Raises:
        ResourceError: the foreign ``executor`` takes no work, or workers cannot be started.
        MemoryError: this process or a worker is out of memory.
    """
    if executor is not None:
        yield from _digest_in_executor(batches, executor, progress)
        return
    workers = min(jobs, len(batches))
    tasks = sum(len(batch.tasks) for batch in batches)
    is_little = sum(batch.size_bytes for batch in batches) < LITTLE_BYTES and tasks < LITTLE_TASKS
    if workers <= 1 or is_little:
        yield from _digest_here(batches, progress)
    elif threading.active_count() > 1 or not can_have_children():
        yield from _digest_in_threads(batches, workers, progress)
    else:
        yield from _digest_in_workers(batches, workers, progress)


def raise_shortage(batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """Raise if a file failed because the system is out of something.

    Args:
        batch: the batch.
        outcomes: of its tasks.

    Raises:
        ResourceError: the system is out of descriptors or memory.
    """
    for task, outcome in zip(batch.tasks, outcomes, strict=True):
        parts = (outcome,) if isinstance(outcome, Failed) else outcome.metadata.values()
        for part in parts:
            if isinstance(part, Failed) and part.is_shortage:
                raise ResourceError(f"{task.root.path}: {part.problem}; {part.remedy}")


def _digest_here(
    batches: deque[Batch], progress: _Progress | None
) -> Generator[Result, None, None]:
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


def _digest_in_threads(
    batches: deque[Batch], jobs: int, progress: _Progress | None
) -> Generator[Result, None, None]:
    """Digest in threads of this process: it is not safe to fork a process with several threads.

    All slow work (reading, SHA-256, BLAKE3) releases the interpreter lock.
    """
    from concurrent.futures import ThreadPoolExecutor

    is_abandoned = threading.Event()

    def digest(batch: Batch) -> tuple[Outcome, ...]:
        return digest_batch(batch, stop_if_abandoned)

    def stop_if_abandoned(just_read: int) -> None:
        if is_abandoned.is_set():
            raise _AbandonedError

    with ThreadPoolExecutor(jobs, "fastindex") as executor:
        try:
            yield from _digest_in_executor(batches, executor, progress, digest)
        finally:
            is_abandoned.set()


class _AbandonedError(Exception):
    """Nobody is waiting for the batch any more."""


def _digest_in_executor(
    batches: deque[Batch],
    executor: Executor,
    progress: _Progress | None,
    digest: Callable[[Batch], tuple[Outcome, ...]] | None = None,
) -> Generator[Result, None, None]:
    from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, wait

    done_bytes = 0
    futures: dict[Future[tuple[Outcome, ...]], Batch] = {}
    try:
        while batches:
            batch = batches.popleft()
            try:
                future = executor.submit(digest or _digest_unobserved, batch)
            except RuntimeError as error:  # broken, shut down, or no thread to be had
                if digest is not None:
                    raise worker_start_error(error) from error
                raise ResourceError(f"the executor is broken or shut down: {error}") from error
            futures[future] = batch
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
    except (BrokenExecutor, CancelledError) as error:
        raise ResourceError(f"the executor failed: {error}") from error
    finally:
        for future in futures:
            future.cancel()


def _digest_in_workers(
    waiting: deque[Batch], jobs: int, progress: _Progress | None
) -> Generator[Result, None, None]:
    done_bytes = 0
    suspects: list[Batch] = []
    with _Pool(jobs, counts=progress is not None) as pool:
        pool.assign(waiting)
        while pool.is_busy:
            finished = pool.wait()
            pool.assign(waiting)
            for batch, outcomes in finished:
                if outcomes is None:
                    suspects.append(batch)
                else:
                    done_bytes += batch.size_bytes
                    yield batch, outcomes
            if progress is not None:
                progress(done_bytes + pool.count_bytes_in_progress())
    for batch in suspects:
        for task in batch.tasks:
            size_bytes = task.root.stamp.size_bytes
            single = msgspec.structs.replace(batch, tasks=(task,), size_bytes=size_bytes)
            yield single, _retry(single)
        done_bytes += batch.size_bytes
        if progress is not None:
            progress(done_bytes)


def _retry(batch: Batch) -> tuple[Outcome, ...]:
    with _Pool(1, counts=False) as pool:
        pool.assign(deque([batch]))
        while pool.is_busy:
            for _, outcomes in pool.wait():
                if outcomes is not None:
                    return outcomes
    return tuple(_WORKER_DIED for _ in batch.tasks)


class _Pool(Workers):
    """Worker processes, and the batch that each is digesting.

    Args:
        max_workers: the greatest number of workers; they are started when there is work.
        counts: whether they count the bytes that they read.
    """

    def __init__(self, max_workers: int, *, counts: bool) -> None:
        super().__init__(_digest_batches)
        self._max_workers = max_workers
        self._counts = counts
        self._idle: list[_Assignee] = []
        self._busy: dict[Connection, _Assignee] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a worker has a batch."""
        return bool(self._busy)

    def assign(self, waiting: deque[Batch]) -> None:
        """Give a batch of ``waiting`` to each worker that is idle or can still be started."""
        while waiting and len(self._busy) < self._max_workers:
            assignee = self._idle.pop() if self._idle else self._start_another()
            assignee.take(waiting.popleft())
            self._busy[assignee.worker.pipe] = assignee

    def _start_another(self) -> _Assignee:
        count = _new_count() if self._counts else None
        return _Assignee(self.start(count), count)

    def wait(self) -> list[tuple[Batch, tuple[Outcome, ...] | None]]:
        """Wait a little; return the batches that have ended, with None if the worker died."""
        from multiprocessing.connection import wait

        ready = wait(self._busy, _POLL_SECONDS if self._counts else signals.CHECK_SECONDS)
        signals.check()
        finished: list[tuple[Batch, tuple[Outcome, ...] | None]] = []
        for pipe in ready:
            assignee = self._busy.pop(cast("Connection", pipe))
            try:
                finished.append((assignee.batch, self.receive(assignee.worker)))
            except DiedError:
                finished.append((assignee.batch, None))
            else:
                self._idle.append(assignee)
        return finished

    def count_bytes_in_progress(self) -> int:
        """Return how many bytes of the unfinished batches have been read."""
        return sum(busy.count.value for busy in self._busy.values() if busy.count is not None)


class _Assignee:
    """A worker and the batch that it is digesting.

    Args:
        worker: the worker, already started.
        count: shared memory with the bytes that it has read of its batch; None: not counted.
    """

    batch: Batch

    def __init__(self, worker: Worker, count: c_ulonglong | None) -> None:
        self.worker = worker
        self.count = count

    def take(self, batch: Batch) -> None:
        """Send ``batch`` to the worker."""
        self.batch = batch
        if self.count is not None:
            self.count.value = 0
        self.worker.send(batch)


def _new_count() -> c_ulonglong:
    """Return a number in memory that this process shares with a worker.

    Raises:
        ResourceError: there is no memory to share.
    """
    from multiprocessing.sharedctypes import RawValue

    try:
        count: c_ulonglong = RawValue("Q", 0)
    except (OSError, MemoryError) as error:
        raise worker_start_error(error) from error
    return count


def _digest_batches(pipe: Connection, count: c_ulonglong | None) -> None:
    """Run as a worker: receive batches and send their outcomes."""
    done_bytes = 0

    def advance(just_read: int) -> None:
        nonlocal done_bytes
        done_bytes += just_read
        if count is not None:
            count.value = done_bytes

    while (batch := pipe.recv()) is not None:
        done_bytes = 0
        pipe.send(digest_batch(batch, advance))


def _digest_unobserved(batch: Batch) -> tuple[Outcome, ...]:
    """Digest ``batch`` in a worker of a foreign executor."""
    return digest_batch(batch, _ignore)


def _ignore(just_read: int) -> None:
    """Ignore progress."""
