"""Asking what servers have, many files side by side, without fetching any: HEAD."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from msgspec import Struct

from fastindex.errors import ResourceError
from fastindex.remote.addresses import Address, BadUrlError, parse_url
from fastindex.remote.answers import IDENTITIES, Answered, find_total
from fastindex.remote.client import Client, Retry
from fastindex.remote.errors import FetchError, NoHeadError, PermanentError, TransientError
from fastindex.remote.health import Health
from fastindex.remote.retrying import find_delay
from fastindex.remote.sessions import Request, Session
from fastindex.system import signals

_WAIT_SECONDS = 0.1
_AHEAD = 16
"""So many files for each connection are asked for before an answer is looked at."""

_Tag = TypeVar("_Tag")


class Inspected(Struct, frozen=True):
    """What a server says of a file."""

    answered: Answered
    """What the headers say of the file as it is."""
    size_bytes: int | None
    """How long it is; None: the server does not say."""
    is_compressible: bool
    """Whether it is sent compressed to who can take that."""
    is_head_answered: bool
    """Whether the server answers HEAD; else the first byte was asked for."""


class Uninspected(Struct, frozen=True):
    """A file of which a server says nothing."""

    problem: str
    """What is wrong."""
    is_missing: bool = False
    """Whether the server says that there is no such file."""
    is_insecure: bool = False
    """Whether the server's certificate is not valid, or it redirects to plain HTTP."""


Inspection = Inspected | Uninspected


def inspect(
    client: Client, files: Iterable[tuple[_Tag, str]]
) -> Generator[tuple[_Tag, Inspection], None, None]:
    """Ask about files; yield each with what came of it, in the order of the answers.

    Close the generator if you leave it early.

    Args:
        client: asks the servers.
        files: what stands for each in the answers, and its URL. They are taken when it is their
            turn.

    Raises:
        FetchError: a server fails again and again.
        UsageError: the environment has a password or a proxy that cannot be used.
        ResourceError: there are no threads to be had.
    """
    crew: _Crew[_Tag] = _Crew(client)
    waiting = iter(files)
    in_flight = 0
    is_exhausted = False
    try:
        while True:
            while not is_exhausted and in_flight < client.options.connections * _AHEAD:
                file = next(waiting, None)
                if file is None:
                    is_exhausted = True
                    break
                crew.ask(file)
                in_flight += 1
            if not in_flight:
                return
            ended = crew.wait()
            if ended is not None:
                in_flight -= 1
                yield ended
    finally:
        crew.stop()


class _Crew(Generic[_Tag]):
    """The threads that ask."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._health = Health(client.options)
        self._todo: SimpleQueue[tuple[_Tag, str] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[_Tag, Inspection] | Retry | BaseException] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._stopped = threading.Event()

    def ask(self, file: tuple[_Tag, str]) -> None:
        """Have a thread ask about a file; start one more if there may be one.

        Raises:
            ResourceError: no thread can be started.
        """
        self._todo.put(file)
        if len(self._workers) < self._client.options.connections:
            if not self._workers and not file[1].startswith("file:"):
                self._client.find_trust()  # once, before the threads need it
            worker = _Worker(self._client, self._health, self._stopped, self._done.put)
            # A daemon: it may hang in the resolver.
            thread = threading.Thread(
                target=self._run, args=(worker,), name="fastindex-inspection", daemon=True
            )
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not self._workers:
                    raise ResourceError(
                        "no thread can be started; allow this user more of them"
                    ) from error
                return
            self._workers.append(worker)

    def wait(self) -> tuple[_Tag, Inspection] | None:
        """Return what has come; None: nothing has for a moment."""
        signals.check()
        try:
            ended = self._done.get(timeout=_WAIT_SECONDS)
        except Empty:
            return None
        if isinstance(ended, BaseException):
            raise ended
        if isinstance(ended, Retry):
            self._client.tell_retry(ended)
            return None
        return ended

    def stop(self) -> None:
        """End the threads."""
        self._stopped.set()
        for worker in self._workers:
            self._todo.put(None)
            worker.abort()

    def _run(self, worker: _Worker) -> None:
        try:
            while (file := self._todo.get()) is not None and not self._stopped.is_set():
                tag, url = file
                self._done.put((tag, worker.inspect(url)))
        except BaseException as error:
            self._done.put(error)
        finally:
            worker.close()


class _Worker:
    """Asks, in one thread."""

    def __init__(
        self,
        client: Client,
        health: Health,
        stopped: threading.Event,
        tell: Callable[[Retry], None],
    ) -> None:
        self._options = client.options
        self._session: Session = client.open_session()
        self._health = health
        self._stopped = stopped
        self._tell = tell
        self._has_no_head: set[tuple[str, str, int]] = set()

    def abort(self) -> None:
        """Make whatever it waits for fail; any thread may call it."""
        self._session.abort()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def inspect(self, url: str) -> Inspection:
        """Ask about a file, with retries.

        Raises:
            FetchError: its server fails again and again.
        """
        try:
            address = parse_url(url)
        except BadUrlError as error:
            return Uninspected(str(error))
        failures = 0
        while True:
            retries = self._health.find_retries(address.origin)
            if retries < 0:
                raise FetchError(f"{address}: its server has failed too often", "try again later")
            try:
                inspected = self._ask(address)
                self._health.note(address.origin, is_well=True)
                return inspected
            except TransientError as error:
                failures += 1
                if failures > retries or self._stopped.is_set():
                    self._health.note(address.origin, is_well=False)
                    return Uninspected(error.problem)
                delay = find_delay(failures, self._options.first_delay_seconds, error.wait_seconds)
                self._tell(Retry(address, error.problem, delay))
                self._stopped.wait(delay)
            except PermanentError as error:
                self._health.note(address.origin, is_well=True)
                return Uninspected(error.problem, error.is_missing, error.is_insecure)

    def _ask(self, address: Address) -> Inspected:
        is_compressible = False
        if address.origin not in self._has_no_head:
            try:
                # As clients ask. Those that get it compressed do not learn its size.
                answered = self._open(Request(address, method="HEAD", accept_encoding="gzip"))
                is_compressible = answered.encoding not in IDENTITIES
                if is_compressible:
                    answered = self._open(Request(address, method="HEAD"))
                if answered.length_bytes is not None:
                    is_whole = answered.encoding in IDENTITIES
                    size_bytes = answered.length_bytes if is_whole else None
                    return Inspected(answered, size_bytes, is_compressible, is_head_answered=True)
            except NoHeadError:
                self._has_no_head.add(address.origin)
        answered = self._open(Request(address, part=(0, 1)))
        is_compressible = is_compressible or answered.encoding not in IDENTITIES
        return Inspected(answered, find_total(answered), is_compressible, is_head_answered=False)

    def _open(self, request: Request) -> Answered:
        reply = self._session.open(request)
        reply.close()
        return reply.answered
