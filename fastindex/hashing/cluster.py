"""Hashing on a cluster of dask.distributed: the side that has the work.

The scheduler is told which worker each parcel is for. So it is known what a worker was doing when
it died, and no worker gets anything before it was examined: the same release of fastindex, the same
Python, and the same files at the same paths.

All of it happens in one event loop, which runs only while this process waits for results.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from fastindex.errors import Code, ResourceError, UsageError
from fastindex.events import Observer
from fastindex.formats import clusters
from fastindex.formats.clusters import (
    Introduction,
    Question,
)
from fastindex.formats.errors import FormatError
from fastindex.hashing import cluster_worker
from fastindex.hashing.cluster_answers import (
    OnlyThereError,
    check_failures,
    find_difference,
    has_failure,
    make_parcel,
    read_outcomes,
)
from fastindex.hashing.cluster_connection import connect, describe
from fastindex.hashing.distribution import Assignment, Distribution, choose_samples, list_tasks
from fastindex.hashing.hasher import Cluster
from fastindex.hashing.tasks import (
    Batch,
    Failed,
    FileRef,
    Outcome,
    RootTask,
)
from fastindex.system import signals
from fastindex.system.files import read_small_file

_SAMPLES = 16
"""Files by which a worker shows that it sees the same tree."""
_STEP_SECONDS = 0.25
"""How long to wait for results before signals are looked at."""
_LOOK_SECONDS = 1.0
"""How often to look which workers there are."""
_CLOSE_SECONDS = 3.0
_TELL_SECONDS = 10.0
"""How often a worker tells how far it is where nobody wants to see progress."""
_STUCK = 10
"""A worker that reads nothing for so many times the wait for an answer gets no more work."""
_CALL = "__import__('fastindex.hashing.cluster_worker', fromlist=['*']).{}(data)"
"""What a worker does. As source: a worker that lacks a function that it is sent breaks down."""

_IDLE_SECONDS = 2.0
"""After so long without a worker it is told that the run waits for one."""

_LOGGERS = (
    *("distributed", "distributed.client", "distributed.gc"),
    *("asyncio", "tornado", "tornado.application"),
)
"""What the library's own configuration lets speak."""

_Result = tuple[Batch, tuple[Outcome, ...]]


def digest_on_cluster(
    batches: deque[Batch],
    cluster: Cluster,
    progress: Callable[[int], None] | None,
    observer: Observer,
) -> Generator[_Result, None, None]:
    """Digest all batches on a cluster; yield parts of them with their outcomes, in any order.

    Close the generator if you leave it early: the workers stop within a second.

    Args:
        batches: the largest first; emptied.
        cluster: where.
        progress: called with the bytes read so far, in this thread; or None.
        observer: told what is waited for, which workers are lost, which get work, and which came
            too late to end the run and cannot be used.

    Raises:
        UsageError: the library is missing.
        ResourceError: the scheduler or all workers are gone, a worker cannot be used, or it is out
            of memory.
    """
    address = _find_scheduler(cluster.name)
    library = _import_library()
    samples = choose_samples(list(list_tasks(batches)), _SAMPLES)
    total_bytes = sum(batch.size_bytes for batch in batches)
    distribution = Distribution(batches, cluster.jobs)
    session = _Session(
        library, address, cluster, distribution, samples, observer, tells=progress is not None
    )
    done_bytes = told_bytes = 0
    with asyncio.Runner() as runner:
        try:
            runner.run(session.open())
            while not session.is_done:
                with signals.deferred():
                    results = runner.run(session.wait_for_results())
                signals.check()
                for batch, outcomes in results:
                    done_bytes += batch.size_bytes
                    yield batch, outcomes
                if progress is not None:
                    now_bytes = done_bytes + session.count_bytes_in_progress()
                    told_bytes = min(total_bytes, max(told_bytes, now_bytes))
                    progress(told_bytes)
        finally:
            with signals.deferred():
                runner.run(session.close())


def _find_scheduler(name: str) -> str:
    """Return the address of a scheduler; raises ResourceError if its file cannot be used."""
    if clusters.is_address(name):
        return name
    try:
        content = read_small_file(name, clusters.MAX_SCHEDULER_FILE_BYTES)
        return clusters.parse_scheduler_file(content)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except FormatError as error:
        problem = str(error)
    raise ResourceError(
        f"--cluster {name}: {problem}; name the file that dask scheduler --scheduler-file writes"
    )


def _import_library() -> Any:
    """Return the library, which takes a second, and prints nothing; what is wrong is told here."""
    try:
        import dask.config

        dask.config.set({"logging": dict.fromkeys(_LOGGERS, "critical")})
        import distributed
    except ImportError as error:
        raise UsageError(
            f"--cluster needs the library distributed ({error}); install it in the environment "
            "of fastindex: pip install distributed"
        ) from error
    return distributed


class _Session:
    """A connection to a scheduler, and what its workers are doing for this run."""

    def __init__(
        self,
        library: Any,
        address: str,
        cluster: Cluster,
        distribution: Distribution,
        samples: Sequence[FileRef],
        observer: Observer,
        *,
        tells: bool,
    ) -> None:
        self._name = os.urandom(8).hex()
        self._reading: dict[str, _Reading] = {}  # name of a parcel → how it goes
        self._library = library
        self._address = address
        self._cluster = cluster
        self._distribution = distribution
        self._samples = samples
        self._observer = observer
        self._client: Any = None
        self._patience = _read_patience()
        self._tell_seconds = 0.0 if tells else min(_TELL_SECONDS, self._patience)
        self._seen: dict[str, _Seen] = {}
        self._refused: set[str] = set()
        self._hosts: dict[str, str] = {}
        self._has_told_of_waiting = False
        self._running: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._results: list[_Result] = []
        self._calls: dict[str, _Call] = {}
        self._is_closing = False
        self._has_news = asyncio.Event()
        self._error: BaseException | None = None
        self._idle_since = time.monotonic()

    @property
    def is_done(self) -> bool:
        """Whether all results have been given."""
        return self._distribution.is_done and not self._results

    async def open(self) -> None:
        """Begin to work; ``wait_for_results`` tells how it goes."""
        self._start(self._work)

    async def _work(self) -> None:
        """Connect, then look again and again which workers there are.

        Raises:
            ResourceError: the run cannot go on.
        """
        await self._connect()
        is_first = True
        while True:
            self._update(await self._ask_scheduler(), is_first=is_first)
            self._send_parcels()
            await self._end_lost_calls()
            self._refuse_stuck()
            self._wait_for_workers()
            is_first = is_first and not self._seen
            await asyncio.sleep(_LOOK_SECONDS)

    def _wait_for_workers(self) -> None:
        """Raise ResourceError if there has been no worker for too long; say once that it waits."""
        now = time.monotonic()
        if self._distribution.workers:
            self._idle_since, self._has_told_of_waiting = now, False
        elif now - self._idle_since > self._patience:
            raise ResourceError(self._explain_idleness())
        elif now - self._idle_since > _IDLE_SECONDS and not self._has_told_of_waiting:
            self._has_told_of_waiting = True
            asked = self._list_asked()
            what = f"the worker {asked[0]}" if asked else f"workers of {self._address}"
            self._observer.note(f"waiting for {what}, at most {self._patience:g} s")

    def _list_asked(self) -> list[str]:
        """Return the workers that have been asked what they are, and not been refused."""
        return [address for address in self._seen if address not in self._refused]

    async def _connect(self) -> None:
        self._client = await connect(
            self._library, self._address, self._patience, self._observer.note
        )
        self._idle_since = time.monotonic()
        self._client.subscribe_topic(clusters.PROGRESS, self._hear)

    def _hear(self, event: Any) -> None:
        """Note how much of a parcel has been read; of one of another run, nothing."""
        match event:
            case (_, (str(name), int(read_bytes))) if name in self._reading:
                reading = self._reading[name]
                reading.read_bytes = read_bytes
                self._note_work(reading.worker)

    def count_bytes_in_progress(self) -> int:
        """Return how many bytes of the unfinished parcels have been read, as far as known."""
        return sum(reading.read_bytes for reading in self._reading.values())

    def _note_work(self, address: str) -> None:
        """Note that a worker does something."""
        seen = self._seen.get(address)
        if seen is not None:
            seen.worked_at = time.monotonic()

    def _refuse_stuck(self) -> None:
        """Refuse the workers that have not read anything for long, though they live."""
        now = time.monotonic()
        longest = _STUCK * self._patience
        for address in {reading.worker for reading in self._reading.values()}:
            seen = self._seen.get(address)
            if seen is not None and now - seen.worked_at > longest:
                self._refuse(
                    address, f"it read nothing for {longest:g} s; look whether a mount hangs there"
                )

    async def close(self) -> None:
        """End all that is under way; the workers notice."""
        self._is_closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._client.close(_CLOSE_SECONDS)

    async def wait_for_results(self) -> list[_Result]:
        """Return the results that are there, or none after a moment.

        Raises:
            ResourceError: the run cannot go on.
        """
        if not self._results and self._error is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STEP_SECONDS):
                    await self._has_news.wait()
        self._has_news.clear()
        results, self._results = self._results, []
        if self._error is not None and not results:
            raise self._error
        return results

    def _start(
        self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object
    ) -> asyncio.Task[None]:
        """Do ``work`` beside; if it raises, the run ends."""
        task = asyncio.create_task(self._do(work, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        try:
            await work(*arguments)
        except Exception as error:
            self._error = self._error or error
        self._has_news.set()

    async def _ask_scheduler(self) -> dict[str, Any]:
        """Return address → description of each worker.

        Raises:
            ResourceError: the scheduler does not answer.
        """
        problem = "the connection broke"
        for _ in range(2):  # this process may have been stopped for a while
            if self._client.status != "running":
                break
            try:
                async with asyncio.timeout(self._patience / 2):
                    identity = await self._client.scheduler.identity()
                return dict(identity["workers"])
            except TimeoutError:
                problem = f"no answer for {self._patience:g} s"
            except Exception as error:
                problem = describe(error)
        raise self._make_lost_error(problem)

    def _make_lost_error(self, problem: str) -> ResourceError:
        return ResourceError(
            f"lost the scheduler {self._address} ({problem}); what was hashed is kept, and nothing "
            "was published; start the scheduler and its workers again, then run again"
        )

    def _explain_idleness(self) -> str:
        kept = "what was hashed is kept, and nothing was published"
        asked = self._list_asked()
        if asked:
            return (
                f"the worker {asked[0]} does not answer for {self._patience:g} s; {kept}; look "
                "into its log, or restart it"
            )
        none = "has no worker" if not self._seen else "has no worker left that can be used"
        return (
            f"the scheduler {self._address} {none}, for {self._patience:g} s; {kept}; start "
            f"some with dask worker {self._address} --nthreads 1"
        )

    def _update(self, workers: dict[str, Any], *, is_first: bool) -> None:
        """Examine workers that are new; forget those that are gone, or as silent as if they were.

        A scheduler hears of each worker every few seconds, and waits for minutes before it gives
        one up.
        """
        now = time.monotonic()
        silence = 2 * self._patience
        for address, worker in workers.items():
            seen = self._seen.get(address)
            if seen is not None and seen.id == worker.get("id"):
                if seen.last_sign != worker.get("last_seen"):
                    seen.last_sign, seen.at = worker.get("last_seen"), now
                continue
            if seen is not None:
                self._forget(address)
            self._seen[address] = _Seen(worker.get("id"), worker.get("last_seen"), now)
            self._idle_since = now
            self._start(self._examine, address, worker, is_first)
        for address in self._seen.keys() - workers.keys():
            self._forget(address)
        for address in [at for at, seen in self._seen.items() if now - seen.at > silence]:
            self._forget(address, f", which was silent for {silence:g} s")

    def _forget(self, address: str, how: str = "") -> None:
        """Give what a worker had to others.

        Args:
            address: the worker.
            how: more about its end, for people.
        """
        self._seen.pop(address, None)
        self._refused.discard(address)
        was_used = address in self._distribution.workers
        parcels = self._distribution.remove_worker(address)
        for number, given_up in parcels:
            task = self._running.pop(number, None)
            if task is not None:
                task.cancel()
            if given_up is not None:
                self._results.append((given_up, tuple(map(self._give_up, given_up.tasks))))
        if was_used:
            is_left = any(given_up is None for _, given_up in parcels)
            rest = "; others hash what it had" if is_left else ""
            self._observer.note(f"lost the worker {self._name_worker(address)}{how}{rest}")
        self._has_news.set()

    def _name_worker(self, address: str) -> str:
        return f"{address} on {self._hosts.get(address, '?')}"

    def _give_up(self, task: RootTask) -> Failed:
        """Return that a file is not read any more, as workers died of it."""
        died = ", ".join(map(self._name_worker, self._distribution.list_deaths(task)))
        return Failed(
            Code.UNREADABLE,
            "the workers that were reading it died, one after the other (killed for lack of "
            f"memory?): {died}",
            "look into the logs of the workers, use fewer --jobs, or remove the file",
            costs_version=True,
        )

    async def _examine(self, address: str, worker: dict[str, Any], is_first: bool) -> None:
        """Let a worker introduce itself; give it work if it can be used.

        Raises:
            ResourceError: it cannot, and has been there from the start.
        """
        seen = self._seen[address]
        question = Question(
            tuple(os.fsencode(ref.path) for ref in self._samples),
            self._cluster.engine,
        )
        introduction: Introduction | None = None
        try:
            answer = await self._call(address, "introduce", clusters.encode(question))
            introduction = clusters.decode_introduction(answer)
            problem = find_difference(introduction, self._samples)
        except _LostWorkerError:
            return  # it will be seen that it is gone
        except (_WorkerError, _UnreadableError, FormatError) as error:
            problem = f"does not introduce itself ({error}); install fastindex there as here"
        if self._seen.get(address) is not seen:
            return
        if introduction is None or problem:
            self._refused.add(address)
            host = introduction.host if introduction is not None else worker.get("host", "")
            name = f"the worker {address} on {host}"
            if is_first:
                raise ResourceError(f"{name} {problem}")
            self._observer.log(f"{name} gets no work: it {problem}")
            return
        seen.process = introduction.process
        self._hosts[address] = introduction.host
        machine = clusters.find_host(address) or introduction.host
        threads = max(1, int(worker.get("nthreads", 1)))
        self._distribution.add_worker(address, machine, threads)
        slots = self._distribution.count_slots(address)
        name = f"the worker {self._name_worker(address)}"
        self._observer.log(
            f"{name} hashes, {slots} at a time, SHA-256 by {introduction.setup}"
            if slots
            else f"{name} stands by: others on its machine hash as many as --jobs says"
        )
        self._send_parcels()

    def _send_parcels(self, address: str = "") -> None:
        """Send parcels to a worker; to all that can take more if none is named."""
        for assignment in self._distribution.assign(address):
            self._running[assignment.number] = self._start(self._digest, assignment)

    async def _digest(self, assignment: Assignment) -> None:
        """Have a parcel hashed, and send the next ones."""
        address, outcomes, problem = assignment.worker, None, ""
        try:
            outcomes = await self._have_digested(assignment)
        except (_UnreadableError, OnlyThereError) as error:
            problem = str(error)
        except _WorkerError as error:
            problem = f"it failed ({error}); look into its log"
        except _LostWorkerError:
            pass
        except FormatError as error:
            raise ResourceError(
                f"the worker {address} gave an answer that cannot be right ({error}); nothing was "
                "published; look what runs there"
            ) from error
        self._running.pop(assignment.number, None)  # or it would be cancelled with the others
        if problem:
            self._refuse(address, problem)
        elif outcomes is None:
            self._forget(address)
        elif self._distribution.finish(assignment):
            self._results.append((assignment.batch, outcomes))
            self._send_parcels(address)

    async def _have_digested(self, assignment: Assignment) -> tuple[Outcome, ...]:
        """Return what a worker makes of a parcel.

        Raises:
            ResourceError: the scheduler is gone.
            FormatError: its answer cannot be right.
            OnlyThereError: what cannot be digested there is all right here.
            _WorkerError, _UnreadableError, _LostWorkerError: as ``_call``.
        """
        batch, address = assignment.batch, assignment.worker
        process = self._seen[address].process
        name = f"{self._name}-{assignment.number}"
        parcel = make_parcel(batch, process, self._cluster.engine, name, self._tell_seconds)
        began_ns = time.time_ns()
        if not any(reading.worker == address for reading in self._reading.values()):
            self._note_work(address)
        self._reading[name] = _Reading(address)
        try:
            answer = await self._call(address, "digest", parcel)
            self._note_work(address)
        finally:
            del self._reading[name]
        message = clusters.decode_answer(answer)
        if message.is_other_process:
            raise _LostWorkerError
        if message.problem:
            raise _WorkerError(message.problem)
        outcomes = read_outcomes(batch, message.outcomes, began_ns)
        if any(map(has_failure, outcomes)):
            return await asyncio.to_thread(check_failures, batch, outcomes, self._stop_if_closing)
        return outcomes

    def _refuse(self, address: str, problem: str) -> None:
        """Give a worker nothing more, and what it had to others."""
        self._refused.add(address)
        for number in self._distribution.dismiss_worker(address):
            task = self._running.pop(number, None)
            if task is not None:
                task.cancel()
        self._observer.note(f"the worker {self._name_worker(address)} gets no more work: {problem}")
        self._send_parcels()

    def _stop_if_closing(self, just_read: int) -> None:
        if self._is_closing:
            raise cluster_worker.AbandonedError

    async def _call(self, address: str, function: str, data: bytes) -> object:
        """Call a function of ``cluster_worker`` on a worker.

        Raises:
            ResourceError: the scheduler is gone.
            _WorkerError: it failed there.
            _UnreadableError: nobody can read here what it answered.
            _LostWorkerError: the worker died of it.
        """
        future = self._client.submit(
            eval,
            _CALL.format(function),
            {"data": data},
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        waiting = asyncio.ensure_future(future.result())
        call = self._calls[future.key] = _Call(waiting, time.monotonic())
        try:
            return await waiting
        except asyncio.CancelledError:
            if call.is_lost:
                raise _UnreadableError("its answer cannot be read; look into its log") from None
            raise
        except self._library.scheduler.KilledWorker as error:
            raise _LostWorkerError from error
        except self._library.CancelledError as error:
            raise self._make_lost_error("the connection broke") from error
        except Exception as error:
            raise _WorkerError(describe(error)) from error
        finally:
            del self._calls[future.key]
            future.release()

    async def _end_lost_calls(self) -> None:
        """End the calls that the scheduler says have failed, if that never gets here."""
        now = time.monotonic()
        late = [key for key, call in self._calls.items() if now - call.at > self._patience]
        if not late:
            return
        try:
            async with asyncio.timeout(self._patience):
                states = await self._client.scheduler.get_task_status(keys=late)
        except Exception:
            return  # the next question to the scheduler tells what is wrong
        for key in late:
            call = self._calls.get(key)
            if call is None:
                continue
            if states.get(key) not in (None, "erred"):
                call.at = now
            elif call.is_doubted:  # the message may have been on its way
                call.is_lost = True
                call.waiting.cancel()
            call.is_doubted = states.get(key) in (None, "erred")


class _Call(msgspec.Struct, eq=False):
    """A call that is under way."""

    waiting: asyncio.Future[object]
    at: float
    """When it was last known to be under way, by the monotonic clock."""
    is_doubted: bool = False
    is_lost: bool = False


class _Seen(msgspec.Struct, eq=False):
    """A worker that the scheduler knows."""

    id: object
    last_sign: object
    at: float
    """When the last sign of it was new, by the monotonic clock."""
    process: str = ""
    """The process that was examined."""
    worked_at: float = 0.0
    """When it was last known to get on with what it has, by the monotonic clock."""


class _Reading(msgspec.Struct, eq=False):
    """How a parcel goes."""

    worker: str
    read_bytes: int = 0


class _UnreadableError(Exception):
    """A worker answered what nobody can read here; the message is for people."""


class _LostWorkerError(Exception):
    """A worker died while it worked for this run."""


class _WorkerError(Exception):
    """A worker raised what it should not; the message is for people."""


def _read_patience() -> float:
    """Return for how many seconds to wait for an answer: what dask's configuration says."""
    import dask.config
    import dask.utils

    value = dask.config.get("distributed.comm.timeouts.connect", "30s")
    return float(dask.utils.parse_timedelta(value, default="seconds"))
