"""Pure: which worker of a cluster hashes what, and what becomes of the work of those that die.

Work goes out in parcels: many small files, or some big ones. They are large while much is left, so
that a scheduler has little to do, and the last are small, so that all workers end together. So are
the first of each worker, as others may be about to come. When a worker dies, each parcel that it
had is suspected: it goes to a worker that has nothing else. If that dies, too, its files are
suspected one by one. A file that is alone when a worker dies is given up.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from fastindex.hashing.batches import count_bytes
from fastindex.hashing.tasks import Batch, FileRef, RootTask

MAX_PARCEL_TASKS = 512
MIN_PARCEL_TASKS = 16
MAX_PARCEL_BYTES = 32 << 30
MIN_PARCEL_BYTES = 32 << 20
SHARE = 2
"""A parcel is at most the part of what is left that each slot would get SHARE times."""
MAX_AHEAD_BYTES = 128 << 20
"""A worker gets its next parcel before it is done with the last if both together are no larger for
each slot: it does not wait for the network then. More might be done sooner elsewhere."""


class Assignment(Struct, frozen=True):
    """A parcel on its way."""

    number: int
    """Its number; a parcel that is sent again gets another one."""
    worker: str
    """The worker that it is for."""
    batch: Batch
    """What to hash."""


class _Worker(Struct):
    """A worker that may be given work."""

    machine: str
    threads: int
    slots: int = 0
    assigned: dict[int, Batch] = {}
    done_bytes: int = 0
    has_suspect: bool = False


class _Queue(Struct):
    """What is to be hashed in one way."""

    pattern: Batch
    tasks: deque[RootTask]
    left_bytes: int


class Distribution:
    """The work of a run, and the workers that do it.

    Args:
        batches: the work, the largest first; emptied.
        max_slots: how many parcels may be hashed at a time on each machine; None: as many as its
            workers have threads.
    """

    def __init__(self, batches: deque[Batch], max_slots: int | None) -> None:
        self._queues = _make_queues(batches)
        self._max_slots = max_slots or math.inf
        self._workers: dict[str, _Worker] = {}
        self._suspects: deque[Batch] = deque()
        self._deaths: dict[str, list[str]] = {}
        self._next_number = 0
        self._slots = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, and nothing under way."""
        is_idle = not any(worker.assigned for worker in self._workers.values())
        return is_idle and not self._suspects and not self._queues

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that may be given work."""
        return tuple(self._workers)

    def add_worker(self, address: str, machine: str, threads: int) -> None:
        """Give work to another worker.

        Args:
            address: its address.
            machine: the machine that it runs on; the workers of one share the slots.
            threads: how many parcels it can hash at a time.
        """
        self._workers[address] = _Worker(machine, threads, assigned={})
        self._share_slots()

    def count_slots(self, address: str) -> int:
        """Return how many parcels a worker hashes at a time; 0: others of its machine do."""
        return self._workers[address].slots

    def list_deaths(self, task: RootTask) -> list[str]:
        """Return the workers that died while they had ``task``, in the order of their deaths."""
        return self._deaths.get(task.root.path, [])

    def remove_worker(self, address: str) -> list[tuple[int, Batch | None]]:
        """Give nothing more to a worker, which has died.

        Returns:
            The numbers of its parcels. With each the batch if its only file is given up, else None:
            others will get it.
        """
        worker = self._workers.pop(address, None)
        if worker is None:
            return []
        self._share_slots()
        was_alone = worker.has_suspect
        for batch in worker.assigned.values():
            for task in batch.tasks:
                self._deaths.setdefault(task.root.path, []).append(address)
        return [
            (number, self._suspect(batch, was_alone=was_alone))
            for number, batch in worker.assigned.items()
        ]

    def dismiss_worker(self, address: str) -> list[int]:
        """Give nothing more to a worker that is not to be believed; others get what it has.

        Returns:
            The numbers of its parcels.
        """
        worker = self._workers.pop(address, None)
        if worker is None:
            return []
        self._share_slots()
        for batch in worker.assigned.values():
            if worker.has_suspect:
                self._suspects.append(batch)
            else:
                self._put_back(batch)
        return list(worker.assigned)

    def finish(self, assignment: Assignment) -> bool:
        """Note that a parcel is done; return whether it is one that somebody waits for."""
        worker = self._workers.get(assignment.worker)
        if worker is None or worker.assigned.pop(assignment.number, None) is None:
            return False
        worker.done_bytes += assignment.batch.size_bytes
        worker.has_suspect = False
        return True

    def assign(self, address: str = "") -> list[Assignment]:
        """Return parcels for a worker that can take more; for all of them if none is named."""
        workers = {address: self._workers[address]} if address else self._workers
        assignments = []
        for name, worker in workers.items():
            if self._suspects and worker.slots and not worker.assigned:
                worker.has_suspect = True
                assignments.append(self._assign(name, worker, self._suspects.popleft()))
        for is_ahead in (False, True):
            for name, worker in workers.items():
                while (batch := self._take_for(worker, is_ahead=is_ahead)) is not None:
                    assignments.append(self._assign(name, worker, batch))
        return assignments

    def _take_for(self, worker: _Worker, *, is_ahead: bool) -> Batch | None:
        """Return the next parcel for a worker; None: it has enough."""
        has_enough = len(worker.assigned) >= worker.slots * (1 + is_ahead)
        if has_enough or worker.has_suspect or not self._queues:
            return None
        assigned_bytes = sum(batch.size_bytes for batch in worker.assigned.values())
        free_bytes = MAX_AHEAD_BYTES * worker.slots - assigned_bytes
        return self._take(worker.done_bytes // worker.slots, free_bytes if is_ahead else math.inf)

    def _assign(self, address: str, worker: _Worker, batch: Batch) -> Assignment:
        self._next_number += 1
        worker.assigned[self._next_number] = batch
        return Assignment(self._next_number, address, batch)

    def _take(self, done_bytes: int, max_bytes: float) -> Batch | None:
        """Return the next parcel; None: it would be larger than ``max_bytes``."""
        queue = self._queues[0]
        batch = take_parcel(
            queue.tasks, queue.pattern, queue.left_bytes, self._slots, done_bytes, max_bytes
        )
        if batch is None:
            return None
        queue.left_bytes -= batch.size_bytes
        if not queue.tasks:
            self._queues.popleft()
        return batch

    def _put_back(self, batch: Batch) -> None:
        for queue in self._queues:
            if _find_way(queue.pattern) == _find_way(batch):
                queue.tasks.extendleft(reversed(batch.tasks))
                queue.left_bytes += batch.size_bytes
                return
        self._queues += _make_queues(deque([batch]))

    def _suspect(self, batch: Batch, *, was_alone: bool) -> Batch | None:
        if not was_alone:
            self._suspects.append(batch)
        elif len(batch.tasks) == 1:
            return batch
        else:
            self._suspects += [_make_batch(batch, (task,)) for task in batch.tasks]
        return None

    def _share_slots(self) -> None:
        left: dict[str, float] = {}
        for worker in self._workers.values():
            free = left.get(worker.machine, self._max_slots)
            worker.slots = int(min(worker.threads, free))
            left[worker.machine] = free - worker.slots
        self._slots = sum(worker.slots for worker in self._workers.values())


def take_parcel(
    tasks: deque[RootTask],
    pattern: Batch,
    left_bytes: int,
    slots: int,
    done_bytes: int,
    max_bytes: float = math.inf,
) -> Batch | None:
    """Take the next parcel off ``tasks``.

    Args:
        tasks: what is left, not empty; the tasks of the parcel leave.
        pattern: how to hash them.
        left_bytes: how much they are to read, about.
        slots: how many parcels are hashed at a time.
        done_bytes: how much a slot of the worker has hashed already. Beyond MIN_PARCEL_BYTES, a
            parcel of several files is no larger, and so takes no longer than that has.
        max_bytes: leave a parcel that would be larger.

    Returns:
        At least one task; None: there would be more than ``max_bytes`` to read.
    """
    parts = SHARE * max(1, slots)
    fair_bytes = max(MIN_PARCEL_BYTES, min(MAX_PARCEL_BYTES, left_bytes // parts, done_bytes))
    fair_tasks = min(MAX_PARCEL_TASKS, max(MIN_PARCEL_TASKS, len(tasks) // parts))
    taken: list[RootTask] = []
    size_bytes = 0
    for task in tasks:
        more_bytes = task.root.stamp.size_bytes
        if taken and (size_bytes + more_bytes > fair_bytes or len(taken) == fair_tasks):
            break
        taken.append(task)
        size_bytes += more_bytes
    if size_bytes > max_bytes:
        return None
    for _ in taken:
        tasks.popleft()
    return _make_batch(pattern, tuple(taken))


def _make_batch(pattern: Batch, tasks: tuple[RootTask, ...]) -> Batch:
    return msgspec.structs.replace(pattern, tasks=tasks, size_bytes=count_bytes(tasks))


def _make_queues(batches: deque[Batch]) -> deque[_Queue]:
    queues: dict[tuple[bool, bool], _Queue] = {}
    while batches:
        batch = batches.popleft()
        way = _find_way(batch)
        if way not in queues:
            queues[way] = _Queue(msgspec.structs.replace(batch, tasks=()), deque(), 0)
        queues[way].tasks += batch.tasks
        queues[way].left_bytes += batch.size_bytes
    return deque(queues.values())


def _find_way(batch: Batch) -> tuple[bool, bool]:
    return batch.wants_blake3, batch.wants_sha256


def choose_samples(tasks: Sequence[RootTask], count: int) -> list[FileRef]:
    """Return files by which to tell whether another machine sees the same tree.

    Args:
        tasks: the work.
        count: how many files at most, besides one of each file system.
    """
    step = max(1, len(tasks) // count)
    spread = [task.root for task in tasks[::step]][:count]
    of_each_device = {task.root.stamp.device: task.root for task in tasks}
    return list(dict.fromkeys([*spread, *of_each_device.values()]))


def list_tasks(batches: Iterable[Batch]) -> Iterator[RootTask]:
    """Yield the tasks of all batches."""
    for batch in batches:
        yield from batch.tasks
