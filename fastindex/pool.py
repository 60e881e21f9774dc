"""Executors for batches: in this process, a process pool, or any one that is handed in.

Rules: the parent submits a few batches more than there are workers, so that a dead
worker takes little with it. When a worker dies, the batches in flight are tried once
more, one root at a time, each alone in a fresh one-worker pool: what dies there is the
culprit, and only that is given up. Workers read and never write, so on Ctrl-C they are
killed outright. A worker whose parent is gone ends by itself.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import msgspec

from fastindex import interrupt
from fastindex.digest import digest_batch
from fastindex.errors import FastindexError
from fastindex.interface import Observer
from fastindex.model import Batch, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import MutableSequence
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.context import ForkContext, SpawnContext

LITTLE_BYTES = 64 << 20
LITTLE_TASKS = 256
"""With less to read than either, starting workers (30 ms) costs more than they save."""

_POLL_SECONDS = 0.1
_IN_ADVANCE = 1

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
    observer.hashing_starts(sum(batch.size_bytes for batch in batches))
    progress = observer.bytes_done if observer.wants_progress else None
    try:
        with closing(run(batches, jobs, executor, progress)) as results:
            yield from results
    finally:
        observer.hashing_ends()


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
        interrupt.check()
        if progress is not None:
            progress(done_bytes)

    while batches:
        batch = batches.popleft()
        yield batch, digest_batch(batch, advance)


def _run_foreign(
    batches: deque[Batch], executor: Executor, progress: Progress | None
) -> Generator[Result, None, None]:
    done_bytes = 0
    futures: dict[Future[tuple[Outcome, ...]], Batch] = {}
    try:
        while batches:
            batch = batches.popleft()
            futures[executor.submit(digest_in_slot, batch, None)] = batch
        while futures:
            done, _ = wait(futures, interrupt.CHECK_SECONDS, FIRST_COMPLETED)
            interrupt.check()
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
    waiting: deque[Batch], workers: int, progress: Progress | None
) -> Generator[Result, None, None]:
    done_bytes = 0
    while waiting:
        suspects: list[Batch] = []
        with _Pool(workers, with_slots=progress is not None) as pool:
            while waiting or pool.in_flight:
                while waiting and len(pool.in_flight) < workers + _IN_ADVANCE:
                    if not pool.submit(waiting[0]):
                        break
                    waiting.popleft()
                for batch, outcomes in pool.finished():
                    if outcomes is None:
                        suspects.append(batch)
                    else:
                        done_bytes += batch.size_bytes
                        yield batch, outcomes
                if progress is not None:
                    progress(done_bytes + pool.bytes_in_flight())
                if pool.is_broken and not pool.in_flight:
                    break
        for batch in suspects:
            for task in batch.tasks:
                single = msgspec.structs.replace(
                    batch, tasks=(task,), size_bytes=task.root.size_bytes
                )
                yield single, _second_try(single)
            done_bytes += batch.size_bytes


def _second_try(batch: Batch) -> tuple[Outcome, ...]:
    with _Pool(1, with_slots=False) as pool:
        pool.submit(batch)
        while pool.in_flight:
            for _, outcomes in pool.finished():
                if outcomes is not None:
                    return outcomes
    return tuple(_DIED for _ in batch.tasks)


class _Pool:
    """A process pool that is killed, not awaited, when its context ends early."""

    def __init__(self, workers: int, *, with_slots: bool) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = worker_context()
        slots = workers + _IN_ADVANCE
        self._slots: MutableSequence[int] | None = None
        if with_slots:
            self._slots = context.RawArray("Q", slots)
        self._free = list(range(slots))
        self._others = set(multiprocessing.active_children())
        self._children = multiprocessing.active_children
        try:
            self._executor: ProcessPoolExecutor = ProcessPoolExecutor(
                workers, context, _start_worker, (self._slots,)
            )
        except (OSError, MemoryError) as error:
            raise no_workers(error) from error
        self.in_flight: dict[Future[tuple[Outcome, ...]], tuple[Batch, int]] = {}
        self.is_broken = False
        self._outer_hook = threading.excepthook
        self._thread_error: BaseException | None = None

    def __enter__(self) -> _Pool:
        threading.excepthook = self._take_note
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None or self.in_flight or self.is_broken:
            for child in set(self._children()) - self._others:
                child.kill()
        with suppress(RuntimeError):  # its thread could not be started, nor can it be joined
            self._executor.shutdown(wait=True, cancel_futures=True)
        threading.excepthook = self._outer_hook

    def _take_note(self, told: threading.ExceptHookArgs) -> None:
        """Keep what ended the executor's own thread, which then keeps its futures for ever."""
        if type(told.thread).__module__ == "concurrent.futures.process":
            self._thread_error = told.exc_value
        else:
            self._outer_hook(told)

    def submit(self, batch: Batch) -> bool:
        """Hand ``batch`` to the workers; return False where they are dead."""
        if self.is_broken:
            return False
        slot = self._free[-1]
        if self._slots is not None:
            self._slots[slot] = 0
        try:
            # This may fork, and a worker that is not deaf yet would die of a Ctrl-C.
            with interrupt.held():
                future = self._executor.submit(digest_in_slot, batch, slot)
        except BrokenExecutor:
            self.is_broken = True
            return False
        except (OSError, RuntimeError, MemoryError) as error:  # no process, or no thread
            self.is_broken = True
            raise no_workers(error) from error
        self._free.pop()
        self.in_flight[future] = (batch, slot)
        return True

    def finished(self) -> list[tuple[Batch, tuple[Outcome, ...] | None]]:
        """Wait a little; return batches that ended, with None where the worker died."""
        timeout = interrupt.CHECK_SECONDS if self._slots is None else _POLL_SECONDS
        done, _ = wait(self.in_flight, timeout, FIRST_COMPLETED)
        interrupt.check()
        if self._thread_error is not None:
            raise no_workers(self._thread_error) from self._thread_error
        ended: list[tuple[Batch, tuple[Outcome, ...] | None]] = []
        for future in done:
            batch, slot = self.in_flight.pop(future)
            self._free.append(slot)
            try:
                ended.append((batch, future.result()))
            except BrokenExecutor:
                self.is_broken = True
                ended.append((batch, None))
        return ended

    def bytes_in_flight(self) -> int:
        """Return how many bytes of the batches in flight have been read."""
        if self._slots is None:
            return 0
        return sum(self._slots[slot] for _, slot in self.in_flight.values())


def worker_context() -> ForkContext | SpawnContext:
    """Return what to start workers with, the quickest that is safe here."""
    import multiprocessing

    # fork takes 2 ms a worker and forkserver 50, but is safe in one thread only.
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    is_alone = threading.active_count() == 1
    if can_fork and is_alone:
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")


def no_workers(error: BaseException) -> FastindexError:
    """Return what it means, for people, that the system starts no more workers."""
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return FastindexError(
        f"workers cannot be started ({reason}); "
        "use fewer --jobs, or raise the limits on processes, open files and memory"
    )


_worker_slots: list[MutableSequence[int]] = []
"""In a worker: the parent's progress slots, if it wants to know."""
_worker_trouble: list[FastindexError] = []
"""In a worker that cannot work: why. Raised here, it would be a traceback and a dead pool."""


def _start_worker(slots: MutableSequence[int] | None) -> None:
    if slots is not None:
        _worker_slots.append(slots)
    try:
        live_with_parent()
    except (RuntimeError, MemoryError) as error:  # no thread can be started
        _worker_trouble.append(no_workers(error))


def live_with_parent() -> None:
    """Make this process, a worker, deaf to Ctrl-C, and end it when its parent is gone."""
    interrupt.leave_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def digest_in_slot(batch: Batch, slot: int | None) -> tuple[Outcome, ...]:
    """Digest ``batch`` in a worker, telling the parent of each byte through ``slot``.

    Raises FastindexError where the system does not let this worker work.
    """
    if _worker_trouble:
        raise _worker_trouble[0]
    if not _worker_slots or slot is None:
        return digest_batch(batch, _ignore)
    slots = _worker_slots[0]
    done_bytes = 0

    def advance(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        slots[slot] = done_bytes

    return digest_batch(batch, advance)


def _ignore(count: int) -> None:
    """Take no note of progress."""
