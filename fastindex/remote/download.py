"""Fetching many files side by side: threads, pieces, retries.

A thread receives a piece in chunks. When it is the piece's turn, each chunk goes to the sink at
once; before, the piece gathers in memory. No lock is held while a thread waits for a server or is
in a sink. The thread that iterates takes no lock that a signal could leave locked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue

from fastindex.errors import ResourceError, suggest_remedy
from fastindex.remote.addresses import Address, BadUrlError, parse_url, show_text, show_url
from fastindex.remote.answers import Asked, Body, interpret
from fastindex.remote.board import (
    Again,
    Board,
    Fetched,
    Outcome,
    Place,
    Sink,
    Source,
    Transfer,
    Unfetched,
)
from fastindex.remote.client import Client, Retry
from fastindex.remote.errors import ChangedError, NoRangesError, PermanentError, TransientError
from fastindex.remote.pieces import Piece
from fastindex.remote.rate import Rate
from fastindex.remote.retrying import CLOSED_EARLY, find_delay
from fastindex.remote.sessions import Reply, Request, Session
from fastindex.system import signals

__all__ = ["Fetched", "Sink", "Source", "Unfetched", "download"]

_CHUNK_BYTES = 1 << 20
_FLUSH_SECONDS = 0.25
"""What has come goes to the sink, and counts as progress, after no longer than this."""
_PROGRESS_SECONDS = 0.1
_ENOUGH_BYTES = 64 << 10
"""When so many have come, the server works, and retries count anew."""


def download(
    client: Client,
    sources: Sequence[tuple[Source, Sink]],
    advance: Callable[[int], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Fetch files; yield the number of each and what came of it, in the order in which they end.

    The files are begun in their order. A sink is not used any more when its outcome is yielded.
    Close the generator if you leave it early: then no sink is used any more, either.

    Args:
        client: asks the servers.
        sources: the files, the largest first, each with its sink.
        advance: called now and then, in this thread, with how many bytes have come since the last
            call; less than 0 if some turned out to be of no use. In the end the sum is what was
            missing of the files that were fetched, and what came of the others.
        stop: called at the end, before it is waited for threads that are in a sink: makes what
            sinks wait for fail, if they wait for one another.

    Raises:
        UsageError: the environment has a password or a proxy that cannot be used.
        ResourceError: there are no threads to be had.
    """
    if not sources:
        return
    crew = _Crew(client, sources)
    reported = ended_count = 0
    try:
        crew.start()
        while ended_count < len(sources):
            ended = crew.wait()
            progress = crew.board.progress
            if advance is not None and progress != reported:
                advance(progress - reported)
                reported = progress
            if ended is not None:
                ended_count += 1
                yield ended
    finally:
        crew.stop(stop)


class _Crew:
    """The threads of a download.

    Args:
        client: asks the servers.
        sources: the files.
    """

    def __init__(self, client: Client, sources: Sequence[tuple[Source, Sink]]) -> None:
        self._endings: SimpleQueue[tuple[int, Outcome] | Retry | BaseException] = SimpleQueue()
        self._client, self._sources = client, sources
        options = client.options
        self.board = Board(
            sources, options, lambda number, ended: self._endings.put((number, ended))
        )
        rate = Rate(options.limit_bytes_per_second)
        pieces = sum(1 + source.size_bytes // options.min_piece_bytes for source, _ in sources)
        self._workers = [
            _Worker(client, self.board, rate, self._endings.put)
            for _ in range(min(options.connections, pieces))
        ]

    def start(self) -> None:
        """Start the threads, or as many as can be had.

        Raises:
            ResourceError: there are none.
        """
        if not all(url.startswith("file:") for source, _ in self._sources for url in source.urls):
            self._client.find_trust()  # once, before the threads need it
        for number, worker in enumerate(self._workers):
            # Daemons: one may hang in the resolver, or a sink in a dead file system.
            thread = threading.Thread(
                target=self._run, args=(worker,), name="fastindex-download", daemon=True
            )
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not number:
                    raise ResourceError(
                        "no thread can be started; allow this user more of them"
                    ) from error
                return

    def wait(self) -> tuple[int, Outcome] | None:
        """Return what has ended; None: nothing has for a moment."""
        signals.check()
        try:
            ended = self._endings.get(timeout=_PROGRESS_SECONDS)
        except Empty:
            return None
        if isinstance(ended, BaseException):
            raise ended
        if isinstance(ended, Retry):
            self._client.tell_retry(ended)
            return None
        return ended

    def stop(self, stop: Callable[[], None] | None) -> None:
        """End the threads; wait until none is in a sink.

        Args:
            stop: makes what sinks wait for fail.
        """
        self.board.is_stopped = True
        for worker in self._workers:
            worker.abort()
        if stop is not None:
            stop()
        while any(worker.is_in_sink for worker in self._workers):
            time.sleep(0.005)

    def _run(self, worker: _Worker) -> None:
        try:
            worker.run()
        except BaseException as error:
            self._endings.put(error)


class _Stop(BaseException):
    """Nobody waits for the download any more."""


class _Worker:
    """Fetches pieces, in one thread.

    Args:
        client: asks the servers.
        board: knows what to fetch.
        rate: limits how fast.
        tell: called with what is asked for again.
    """

    def __init__(
        self, client: Client, board: Board, rate: Rate, tell: Callable[[Retry], None]
    ) -> None:
        self._options = client.options
        self._session: Session = client.open_session()
        self._board = board
        self._rate = rate
        self._tell = tell
        self._chunk = memoryview(bytearray(self._rate.bound(_CHUNK_BYTES)))
        self.is_in_sink = False
        """Whether it is using a sink. Set before it looks whether it should stop."""

    def run(self) -> None:
        """Fetch pieces until there are no more."""
        last: Transfer | None = None
        try:
            while (claimed := self._board.claim(last)) is not None:
                last, piece = claimed
                failure = self._fetch(last, piece)
                if piece.takes_slot and not piece.is_kept:
                    self._board.release(piece)
                self._board.leave(last, failure)
        except _Stop:
            pass
        finally:
            self._session.close()

    def abort(self) -> None:
        """Make whatever it waits for fail; any thread may call it."""
        self._session.abort()

    def _fetch(self, transfer: Transfer, piece: Piece) -> Again | Unfetched | None:
        """Fetch a piece, with retries; return what is to become of its file if it fails."""
        url = transfer.source.urls[transfer.url_number]
        try:
            address = parse_url(url)
        except BadUrlError as error:
            problem = f"{show_url(url)}: {error}"
            return Again(problem, "check the URL", is_next_url=True)
        failures = 0
        while self._board.is_wanted(transfer):
            retries = self._board.health.find_retries(address.origin)
            if retries < 0:
                problem = f"{address}: not tried, as its server has failed too often"
                return Again(problem, "try again later", is_next_url=True)
            before = piece.received_bytes
            try:
                self._receive(transfer, piece, address)
                self._board.health.note(address.origin, is_well=True)
                return None
            except TransientError as error:
                if piece.received_bytes - before >= _ENOUGH_BYTES:
                    failures = 0
                    self._board.health.note(address.origin, is_well=True)
                failures += 1
                if not self._board.is_wanted(transfer):
                    break
                if failures > retries:
                    self._board.health.note(address.origin, is_well=False)
                    problem = f"{address}: {error.problem}"
                    return Again(problem, error.remedy, is_next_url=True)
                transfer.place = None
                delay = find_delay(failures, self._options.first_delay_seconds, error.wait_seconds)
                self._tell(Retry(address, error.problem, delay))
                self._sleep(delay, transfer)
            except (PermanentError, ChangedError, NoRangesError, _SinkError) as error:
                return _conclude(error, address, transfer)
        return None

    def _receive(self, transfer: Transfer, piece: Piece, address: Address) -> None:
        """Ask for what is missing of a piece, and receive it."""
        if transfer.must_restart:
            self._use_sink(transfer.sink.restart)
            transfer.must_restart = False
            transfer.told_validator = ""
        start = piece.start + piece.received_bytes
        size_bytes = transfer.source.size_bytes
        is_ranged = not transfer.is_whole and (start, piece.end) != (0, size_bytes)
        validator = transfer.validator
        place = transfer.place or Place(address, is_redirected=False)
        request = Request(
            place.address,
            is_redirected=place.is_redirected,
            part=(start, piece.end) if is_ranged else None,
            if_range=validator if is_ranged else "",
        )
        reply = self._session.open(request)
        try:
            asked = Asked(start, piece.end, size_bytes, is_ranged, validator)
            body = self._interpret(transfer, piece, asked, reply)
            self._receive_body(transfer, piece, body, reply)
        finally:
            reply.close()

    def _interpret(self, transfer: Transfer, piece: Piece, asked: Asked, reply: Reply) -> Body:
        answered = reply.answered
        try:
            body = interpret(asked, answered)
        except NoRangesError:
            if transfer.is_probed:  # other threads may work on other parts
                raise
            body = Body(asked.start, asked.size_bytes)
        transfer.place = Place(reply.request.address, reply.request.is_redirected)
        transfer.url = reply.request.address.url
        transfer.validator = answered.validator or asked.validator
        transfer.last_modified = answered.last_modified or transfer.last_modified
        if asked.is_ranged:
            self._board.probe(transfer, piece, is_part=answered.status == 206)
        return body

    def _receive_body(self, transfer: Transfer, piece: Piece, body: Body, reply: Reply) -> None:
        self._skip(transfer, body.skipped_bytes, reply)
        left = body.end - piece.start - piece.received_bytes
        while left:
            view = self._find_room(piece)[:left]
            count = self._fill(reply, view)
            if not count:
                raise TransientError(CLOSED_EARLY)
            left -= count
            has_turn = self._board.count(transfer, piece, count)
            if piece.buffer is not None:
                if has_turn:
                    self._hand_over_gathered(transfer, piece)
            else:
                self._hand_over(transfer, piece, view[:count])
            if not self._board.is_wanted(transfer):
                return
        self._check_end(reply)
        if not piece.is_received:
            raise TransientError("the server sends less than it was asked for")
        if piece.buffer is not None:
            if not self._board.keep_or_take_turn(transfer, piece):
                return
            self._hand_over_gathered(transfer, piece)
        self._board.release(piece)
        while (waiting := self._board.take_next(transfer)) is not None:
            try:
                self._hand_over_gathered(transfer, waiting)
            finally:
                self._board.release(waiting)

    def _find_room(self, piece: Piece) -> memoryview:
        if piece.buffer is None:
            return self._chunk
        room = memoryview(piece.buffer)[piece.received_bytes :]
        return room[: len(self._chunk)]

    def _skip(self, transfer: Transfer, count: int, reply: Reply) -> None:
        """Receive what the sink has already."""
        while count:
            received = self._fill(reply, self._chunk[:count])
            if not received:
                raise TransientError(CLOSED_EARLY)
            count -= received
            transfer.received_bytes += received
            if not self._board.is_wanted(transfer):
                return

    def _check_end(self, reply: Reply) -> None:
        """Check that a body of unknown length ends where it should."""
        if reply.answered.length_bytes is None and reply.fill(self._chunk[:1], 0):
            raise ChangedError("the server's file is longer than it should be")

    def _fill(self, reply: Reply, view: memoryview) -> int:
        count = reply.fill(view, _FLUSH_SECONDS)
        if delay := self._rate.take(count, time.monotonic()):
            self._sleep(delay, None)
        return count

    def _hand_over_gathered(self, transfer: Transfer, piece: Piece) -> None:
        if piece.buffer is not None:
            gathered = memoryview(piece.buffer)[piece.handed_bytes : piece.received_bytes]
            while gathered:
                self._hand_over(transfer, piece, gathered[:_CHUNK_BYTES])
                gathered = gathered[_CHUNK_BYTES:]

    def _hand_over(self, transfer: Transfer, piece: Piece, data: memoryview) -> None:
        validator = transfer.validator
        if transfer.told_validator != validator:
            self._use_sink(lambda: transfer.sink.begin(validator))
            transfer.told_validator = validator
        self._use_sink(lambda: transfer.sink.write(data))
        self._board.deliver(transfer, piece, len(data))

    def _use_sink(self, use: Callable[[], None]) -> None:
        self.is_in_sink = True
        try:
            if self._board.is_stopped:
                raise _Stop
            use()
        except OSError as error:
            raise _SinkError(error) from error
        finally:
            self.is_in_sink = False

    def _sleep(self, seconds: float, transfer: Transfer | None) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._board.is_stopped:
                raise _Stop
            if transfer is not None and not self._board.is_wanted(transfer):
                return
            time.sleep(min(left, _PROGRESS_SECONDS))


class _SinkError(Exception):
    """A sink failed.

    Args:
        error: what it raised.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _conclude(
    error: PermanentError | ChangedError | NoRangesError | _SinkError,
    address: Address,
    transfer: Transfer,
) -> Again | Unfetched:
    """Return what becomes of a file if ``error`` ends the request for a piece of it."""
    if isinstance(error, NoRangesError):
        return Again(is_whole=True)
    if isinstance(error, _SinkError):
        failure = error.error
        return Unfetched(
            show_text(failure.strerror or str(failure)),
            suggest_remedy(failure),
            error=failure,
            validator=transfer.validator,
            url=transfer.source.urls[transfer.url_number],
            bytes_received=transfer.received_bytes,
        )
    is_changed = isinstance(error, ChangedError)
    return Again(
        f"{address}: {error.problem}",
        error.remedy,
        is_next_url=not is_changed,
        is_changed=is_changed,
        is_missing=isinstance(error, PermanentError) and error.is_missing,
    )
