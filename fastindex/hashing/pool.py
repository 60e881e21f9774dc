"""Digesting batches in this process, in worker processes, in threads, or in an executor.

All workers are served from one queue, which this process holds: a worker that is done with one
of its batches reports it at once and gets another, if there is one to be read beside those that it
has. When it dies, another one takes its place. In the end its batches are tried again, one root at
a time, each in a new worker while no other is running. If that worker dies, too, its root is the
cause, and only that root is given up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import msgspec

from fastindex.errors import Code, ResourceError
from fastindex.events import Observer
from fastindex.hashing.batches import Queue, join_batches
from fastindex.hashing.digest import Digester, Finished, digest_batch, find_shortage
from fastindex.hashing.hasher import Cluster
from fastindex.hashing.tasks import Batch, Failed, Outcome
from fastindex.system import signals
from fastindex.system.processes import (
    DiedError,
    Worker,
    Workers,
    can_have_children,
    count_usable_cpus,
    worker_start_error,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from ctypes import c_ulonglong
    from multiprocessing.connection import Connection

    from fastindex.hashing.hasher import Hasher
    from fastindex.hashing.schedule import Desk

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
    batches: deque[Batch], jobs: int, hasher: Hasher, observer: Observer
) -> Generator[Result, None, None]:
    """Digest all batches as ``digest_all`` does, and tell ``observer``.

    Close the generator if you leave it early: that ends the workers at once.

    Args:
        batches: as for ``digest_all``.
        jobs: as for ``digest_all``.
        hasher: as for ``digest_all``.
        observer: told when hashing starts and ends, and of progress if it wants that.

    Raises:
        FastindexError: as for ``digest_all``.
        MemoryError: as for ``digest_all``.
    """
    observer.hashing_started(sum(batch.size_bytes for batch in batches))
    progress = observer.bytes_hashed if observer.wants_progress else None
    try:
        with closing(digest_all(batches, jobs, hasher, progress, observer)) as results:
            yield from results
    finally:
        observer.hashing_finished()


def digest_all(
    batches: deque[Batch],
    jobs: int,
    hasher: Hasher,
    progress: _Progress | None,
    observer: Observer | None = None,
) -> Generator[Result, None, None]:
    """Digest all batches; yield each with its outcomes when it is done, in any order.

    Little work is done in this process. More is done in worker processes, or in threads if
    this process has several threads already or may not have children. On a cluster, what is
    copied is read here all the same.

    Args:
        batches: the largest first; emptied on the way, to free their memory.
        jobs: number of workers; of an executor, too, it is the best guess.
        hasher: an executor to use instead, which is not shut down, or a cluster.
        progress: called now and then, in this thread, with the bytes read so far; or None.
        observer: told what is to be known of a cluster and its workers.

    Raises:
        UsageError: the library for clusters is missing.
        ResourceError: the foreign executor takes no work, workers cannot be started, or the
            cluster fails.
        MemoryError: this process or a worker is out of memory.
    """
    if isinstance(hasher, Cluster):
        yield from _digest_on_cluster(batches, hasher, progress, observer or Observer())
        return
    if hasher is not None:
        yield from _digest_in_executor(join_batches(batches, jobs), hasher, progress)
        return
    workers = min(jobs, len(batches))
    tasks = sum(len(batch.tasks) for batch in batches)
    is_little = sum(batch.size_bytes for batch in batches) < LITTLE_BYTES and tasks < LITTLE_TASKS
    if workers <= 1 or is_little:
        yield from _digest_here(batches, progress)
    elif threading.active_count() > 1 or not can_have_children():
        yield from _digest_in_threads(join_batches(batches, workers), workers, progress)
    else:
        yield from _digest_in_workers(batches, workers, progress)


def _digest_on_cluster(
    batches: deque[Batch],
    cluster: Cluster,
    progress: _Progress | None,
    observer: Observer,
) -> Generator[Result, None, None]:
    from fastindex.hashing.cluster import digest_on_cluster

    copied = deque(batch for batch in batches if _has_copies(batch))
    read = deque(batch for batch in batches if not _has_copies(batch))
    batches.clear()
    read_bytes = sum(batch.size_bytes for batch in read)

    def progress_of_copies(done_bytes: int) -> None:
        if progress is not None:
            progress(read_bytes + done_bytes)

    if read:
        with closing(digest_on_cluster(read, cluster, progress, observer)) as results:
            yield from results
    jobs = cluster.jobs or count_usable_cpus()
    yield from digest_all(copied, jobs, None, progress_of_copies)


def _has_copies(batch: Batch) -> bool:
    return any(ref.copy_to for task in batch.tasks for ref in (task.root, *task.metadata))


def raise_shortage(batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """Raise if a file failed because the system is out of something.

    Args:
        batch: the batch.
        outcomes: of its tasks.

    Raises:
        ResourceError: the system is out of descriptors or memory.
    """
    for task, outcome in zip(batch.tasks, outcomes, strict=True):
        failed = find_shortage(outcome)
        if failed is not None:
            raise ResourceError(f"{task.root.path}: {failed.problem}; {failed.remedy}")


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

    queue = Queue(batches, 1)
    desk = queue.new_desk()
    held: dict[int, Batch] = {}
    with closing(Digester(advance)) as digester:
        while queue or held:
            for _, number, batch in queue.deal([desk]):
                held[number] = batch
                digester.take(number, batch)
            for finished in digester.read_on():
                desk.remove(finished.number, was_read=finished.was_read)
                yield held.pop(finished.number), finished.outcomes


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
    batches: deque[Batch], workers: int, progress: _Progress | None
) -> Generator[Result, None, None]:
    total_bytes = sum(batch.size_bytes for batch in batches)
    suspects: list[Batch] = []
    with _Pool(workers, counts=progress is not None) as pool:
        pool.begin(batches)
        while pool.is_busy:
            for batch, outcomes in pool.wait():
                if outcomes is None:
                    suspects.append(batch)
                else:
                    yield batch, outcomes
            if progress is not None:
                progress(pool.count_bytes())
    for batch in suspects:
        for task in batch.tasks:
            size_bytes = task.root.stamp.size_bytes
            single = msgspec.structs.replace(batch, tasks=(task,), size_bytes=size_bytes)
            yield single, _retry(single)
    if suspects and progress is not None:
        progress(total_bytes)


def _retry(batch: Batch) -> tuple[Outcome, ...]:
    with _Pool(1, counts=False) as pool:
        pool.begin(deque([batch]))
        while pool.is_busy:
            for _, outcomes in pool.wait():
                if outcomes is not None:
                    return outcomes
    return tuple(_WORKER_DIED for _ in batch.tasks)


class _Pool(Workers):
    """Worker processes, and the batches that each is digesting.

    Args:
        workers: number of workers.
        counts: whether they count the bytes that they read.
    """

    def __init__(self, workers: int, *, counts: bool) -> None:
        super().__init__(_digest_batches)
        self._workers = workers
        self._counts = counts
        self._queue = Queue(deque(), workers)
        self._assignees: dict[Connection, _Assignee] = {}
        self._done_bytes = 0
        self._told_bytes = 0

    @property
    def is_busy(self) -> bool:
        """Whether a worker has a batch."""
        return any(assignee.held for assignee in self._assignees.values())

    def begin(self, batches: deque[Batch]) -> None:
        """Start the workers, and give them their first batches.

        Args:
            batches: the largest first; emptied.
        """
        started = [self._start_counting() for _ in range(self._workers)]
        self._queue = Queue(batches, self._workers)  # while they get ready
        self._assign([self._register(*worker_and_count) for worker_and_count in started])

    def _start_counting(self) -> tuple[Worker, c_ulonglong | None]:
        count = _new_count() if self._counts else None
        return self.start(count), count

    def _register(self, worker: Worker, count: c_ulonglong | None) -> _Assignee:
        assignee = _Assignee(worker, count, self._queue.new_desk())
        self._assignees[worker.pipe] = assignee
        return assignee

    def _assign(self, assignees: Iterable[_Assignee]) -> None:
        """Give batches, maybe none, to workers that wait for them."""
        owners = {id(assignee.desk): assignee for assignee in assignees}
        given: dict[int, dict[int, Batch]] = {owner: {} for owner in owners}
        for desk, number, batch in self._queue.deal(one.desk for one in owners.values()):
            given[id(desk)][number] = batch
        for owner, batches in given.items():
            owners[owner].take(batches)

    def wait(self) -> list[tuple[Batch, tuple[Outcome, ...] | None]]:
        """Wait a little; return the batches that have ended, with None if the worker died."""
        from multiprocessing.connection import wait

        busy = [pipe for pipe, assignee in self._assignees.items() if assignee.held]
        ready = wait(busy, _POLL_SECONDS if self._counts else signals.CHECK_SECONDS)
        signals.check()
        ended: list[tuple[Batch, tuple[Outcome, ...] | None]] = []
        still: list[_Assignee] = []
        for pipe in ready:
            assignee = self._assignees[cast("Connection", pipe)]
            try:
                ended += assignee.end(self.receive(assignee.worker))
            except DiedError:
                del self._assignees[cast("Connection", pipe)]
                ended += [(batch, None) for batch in assignee.held.values()]
            else:
                still.append(assignee)
        self._done_bytes += sum(
            batch.size_bytes for batch, outcomes in ended if outcomes is not None
        )
        while self._queue and len(self._assignees) < self._workers:
            still.append(self._register(*self._start_counting()))
        self._assign(still)
        return ended

    def count_bytes(self) -> int:
        """Return how many bytes have been read, those of unfinished batches included."""
        unfinished = sum(assignee.count_unfinished() for assignee in self._assignees.values())
        # Less was read of a batch that failed than it has, or more: it never goes back.
        self._told_bytes = max(self._told_bytes, self._done_bytes + unfinished)
        return self._told_bytes


class _Assignee:
    """A worker and the batches that it is digesting.

    Attributes:
        held: these batches, by number.

    Args:
        worker: the worker, already started.
        count: shared memory with the bytes that it has read; None: not counted.
        desk: decides what it gets.
    """

    def __init__(self, worker: Worker, count: c_ulonglong | None, desk: Desk) -> None:
        self.worker = worker
        self.desk = desk
        self.held: dict[int, Batch] = {}
        self._count = count
        self._finished_bytes = 0

    def take(self, batches: dict[int, Batch]) -> None:
        """Send ``batches``, each with its number, to the worker, which waits for them."""
        self.held |= batches
        self.worker.send(batches)

    def end(self, finished: Iterable[Finished]) -> list[Result]:
        """Return the batches that the worker has finished, and their outcomes."""
        results: list[Result] = []
        for one in finished:
            self.desk.remove(one.number, was_read=one.was_read)
            self._finished_bytes += one.bytes_read
            results.append((self.held.pop(one.number), one.outcomes))
        return results

    def count_unfinished(self) -> int:
        """Return how many bytes have been read of the batches that are not finished."""
        return self._count.value - self._finished_bytes if self._count is not None else 0


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
    """Run as a worker: receive batches and send what is finished of them.

    Each message is awaited by who receives it: two that send long ones at the same time would wait
    for each other for ever.
    """
    read_bytes = 0

    def advance(just_read: int) -> None:
        nonlocal read_bytes
        read_bytes += just_read
        if count is not None:
            count.value = read_bytes

    digester = Digester(advance)
    while (batches := pipe.recv()) is not None:
        for number, batch in batches.items():
            digester.take(number, batch)
        while digester.is_busy:
            finished = digester.read_on()
            if finished:
                pipe.send(finished)
                break


def _digest_unobserved(batch: Batch) -> tuple[Outcome, ...]:
    """Digest ``batch`` in a worker of a foreign executor."""
    return digest_batch(batch, _ignore)


def _ignore(just_read: int) -> None:
    """Ignore progress."""
