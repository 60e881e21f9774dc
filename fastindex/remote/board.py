"""Who fetches which piece: the state that the threads of a download share.

Threads go to different files first; one that finds no new file joins a file that is under way.
What ends a file, or makes it begin again, happens when no thread works on it any more: so each sink
is used by one thread at a time, and by none after the file's outcome is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from fastindex.remote.addresses import Address
from fastindex.remote.health import Health
from fastindex.remote.options import RemoteOptions
from fastindex.remote.pieces import Piece, Pieces, choose_piece_bytes

SPARE_PIECES = 2
"""So many pieces more than connections may be in memory."""
_WAIT_SECONDS = 0.5
_MAX_RESTARTS = 1


class Source(Struct, frozen=True):
    """A file to fetch."""

    urls: tuple[str, ...]
    """Where it is, the best place first."""
    size_bytes: int
    """How long it is."""
    start: int = 0
    """How many bytes of it there are already."""
    validator: str = ""
    """``Fetched.validator`` of these bytes, if they came from the first URL; empty: unknown."""


class Sink(Protocol):
    """Where a file goes. One thread at a time calls it, and it may be another one each time.

    It should open its file when it gets the first bytes: there may be many files.
    """

    def begin(self, validator: str) -> None:
        """Learn which state of the file the next bytes belong to, and those before.

        Called before ``write`` when that is new: neither ``Source.validator`` nor what the last
        call said. Whoever keeps it beside the bytes can go on with both after having been killed.

        Args:
            validator: as in ``Fetched``.

        Raises:
            OSError: it cannot be kept; this ends the file.
        """

    def write(self, piece: memoryview) -> None:
        """Take the next bytes, from ``Source.start`` on; ``piece`` is valid during the call only.

        Raises:
            OSError: it cannot; this ends the file.
        """

    def restart(self) -> None:
        """Forget all bytes, those before ``Source.start`` too: the file comes from its beginning.

        Raises:
            OSError: it cannot; this ends the file.
        """


class Fetched(Struct, frozen=True):
    """A file that the sink has, whole."""

    validator: str
    """What tells this state of the file from another: the strong entity tag, or else the time of
    modification as the server sent it; empty: unknown."""
    last_modified: str
    """``Last-Modified``, as the server sent it; empty: unknown."""
    url: str
    """Where it came from, after redirects; of the last request."""
    bytes_received: int
    """How many bytes came, those that were of no use included."""


class Unfetched(Struct, frozen=True):
    """A file that cannot be had. The sink may have a part of it."""

    problem: str
    """What is wrong, with the URL."""
    remedy: str
    """What to do about it."""
    is_missing: bool = False
    """Whether each of the servers says that there is no such file."""
    error: OSError | None = None
    """What the sink raised."""
    validator: str = ""
    """As in ``Fetched``, of the bytes that the sink has; they came from ``url``."""
    url: str = ""
    """Which of the source's URLs was tried last."""
    bytes_received: int = 0
    """As in ``Fetched``."""


Outcome = Fetched | Unfetched


class Again(Struct, frozen=True):
    """A file must be begun again."""

    problem: str = ""
    """Why."""
    remedy: str = ""
    """What to do about it if that does not help."""
    is_next_url: bool = False
    """Whether it is to come from the next URL."""
    is_changed: bool = False
    """Whether the bytes that there are belong to another state of the file."""
    is_whole: bool = False
    """Whether the server sends whole files only."""
    is_missing: bool = False
    """Whether the server says that there is no such file."""


class Place(Struct, frozen=True):
    """Where a URL leads."""

    address: Address
    """What to ask."""
    is_redirected: bool
    """Whether that is another server than the URL's."""


class Transfer:
    """A file on its way. What is not fixed changes under the lock of the board only.

    Args:
        number: which of the sources it is.
        source: the source.
        sink: where it goes.
        options: the sizes of pieces.
    """

    def __init__(self, number: int, source: Source, sink: Sink, options: RemoteOptions) -> None:
        self.number = number
        self.source = source
        self.sink = sink
        piece_bytes = choose_piece_bytes(
            source.size_bytes, options.min_piece_bytes, options.max_piece_bytes
        )
        self.pieces = Pieces(source.size_bytes, source.start, piece_bytes)
        self.active = 0
        """How many threads work on it."""
        self.is_ended = False
        """Whether its outcome is known."""
        self.pending: Again | Unfetched | None = None
        """What happens when no thread works on it any more."""
        self.url_number = 0
        """Which of the URLs is tried."""
        self.place: Place | None = None
        """Where the URL leads; None: unknown."""
        self.is_probed = False
        """Whether the server has answered, and with a part."""
        self.is_whole = False
        """Whether the server sends whole files only."""
        self.must_restart = False
        """Whether the sink has bytes that it must forget."""
        self.validator = source.validator if source.start else ""
        """The validator of the bytes that the sink has, if it is known."""
        self.told_validator = self.validator
        """Which validator the sink knows of; only the thread that uses the sink touches it."""
        self.last_modified = ""
        """``Last-Modified``, as the server sent it."""
        self.url = ""
        """Where the last answer came from."""
        self.received_bytes = 0
        """How many bytes have come."""
        self.counted_bytes = 0
        """How many of them count as progress."""
        # Bytes of an earlier run may be outdated; that is not the server's fault.
        self.restarts_left = _MAX_RESTARTS + bool(source.start)
        self.failures: list[Again] = []
        """Why the URLs before the present one were given up."""


class Board:
    """What there is to do, who does what, and what has come of it.

    Args:
        sources: the files, each with its sink.
        options: how the caller wants servers to be asked.
        post: called with the number of a file and its outcome, by any thread.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, Sink]],
        options: RemoteOptions,
        post: Callable[[int, Outcome], None],
    ) -> None:
        self.progress = 0
        """How many bytes have come in all; it falls when bytes turn out to be of no use."""
        self.is_stopped = False
        """Whether nobody waits for any more."""
        self.health = Health(options)
        """Which servers work."""
        self._sources = sources
        self._options = options
        self._post = post
        self._next = 0
        self._open: list[Transfer] = []
        self._free_slots = options.connections + SPARE_PIECES
        self._buffers: list[bytearray] = []
        self._changed = threading.Condition(threading.Lock())

    # What a thread works on

    def claim(self, last: Transfer | None) -> tuple[Transfer, Piece] | None:
        """Return what to fetch next, or wait until there is something; None: all is done.

        Args:
            last: what this thread worked on before.
        """
        with self._changed:
            while not self.is_stopped:
                transfer = self._choose(last)
                if transfer is not None:
                    return transfer, self._begin(transfer)
                if not self._open and self._next == len(self._sources):
                    break
                self._changed.wait(_WAIT_SECONDS)
        return None

    def _choose(self, last: Transfer | None) -> Transfer | None:
        if last is not None and self._can_claim(last):
            return last
        while self._next < len(self._sources):
            number = self._next
            self._next += 1
            source, sink = self._sources[number]
            transfer = Transfer(number, source, sink, self._options)
            if not transfer.pieces.is_delivered:
                self._open.append(transfer)
                return transfer
            self._post(number, _conclude(transfer))
        joinable = [transfer for transfer in self._open if self._can_claim(transfer)]
        return max(joinable, key=_count_unclaimed, default=None)

    def _can_claim(self, transfer: Transfer) -> bool:
        if transfer.is_ended or transfer.pending is not None:
            return False
        if transfer.active and not transfer.is_probed:
            return False
        return transfer.pieces.can_claim(has_slot=self._free_slots > 0)

    def _begin(self, transfer: Transfer) -> Piece:
        transfer.active += 1
        piece = transfer.pieces.claim()
        if transfer.is_whole:
            transfer.pieces.extend(piece)
        if piece.takes_slot:
            self._free_slots -= 1
            piece.buffer = self._take_buffer(piece.end - piece.start)
        return piece

    def _take_buffer(self, count: int) -> bytearray:
        for index, buffer in enumerate(self._buffers):
            if len(buffer) >= count:
                return self._buffers.pop(index)
        if self._buffers:  # so that there are never more buffers than slots
            self._buffers.pop()
        return bytearray(count)

    def is_wanted(self, transfer: Transfer) -> bool:
        """Return whether to go on with a file."""
        return transfer.pending is None and not self.is_stopped

    def leave(self, transfer: Transfer, failure: Again | Unfetched | None) -> None:
        """Note that a thread works no more on a file.

        Args:
            transfer: the file.
            failure: why it stopped before the end of its piece; None: it did not, or no matter why.
        """
        with self._changed:
            if transfer.pending is None:
                transfer.pending = failure
            transfer.active -= 1
            if not transfer.active:
                self._settle(transfer)
            self._changed.notify_all()

    def _settle(self, transfer: Transfer) -> None:
        """Do what was put off until no thread works on a file."""
        if self.is_stopped:
            return
        pending, transfer.pending = transfer.pending, None
        outcome: Outcome | None = None
        if isinstance(pending, Again):
            outcome = self._begin_again(transfer, pending)
        elif pending is not None:
            outcome = pending
        elif transfer.pieces.is_delivered:
            outcome = _conclude(transfer)
        if outcome is not None:
            transfer.is_ended = True
            self._open.remove(transfer)
            self._forget(transfer, transfer.pieces.position)
            self._post(transfer.number, outcome)

    def _begin_again(self, transfer: Transfer, again: Again) -> Unfetched | None:
        must_restart, is_next_url = again.is_changed, again.is_next_url
        if again.is_changed:
            is_next_url = transfer.restarts_left == 0
            transfer.restarts_left -= 1
        if is_next_url:
            transfer.failures.append(again)
            transfer.url_number += 1
            transfer.restarts_left = _MAX_RESTARTS
            if transfer.url_number >= len(transfer.source.urls):
                return _give_up(transfer)
        if is_next_url or must_restart:
            transfer.validator = transfer.last_modified = ""
        transfer.is_whole = again.is_whole
        transfer.is_probed = False
        transfer.place = None
        transfer.must_restart = transfer.must_restart or must_restart
        self._forget(transfer, 0 if must_restart else transfer.pieces.position)
        return None

    def _forget(self, transfer: Transfer, position: int) -> None:
        """Forget what has come of a file and does not precede ``position``."""
        for piece in transfer.pieces.begin_again(position):
            self._release(piece)
        counted_bytes = position - transfer.source.start
        self.progress += counted_bytes - transfer.counted_bytes
        transfer.counted_bytes = counted_bytes

    # What comes of a piece

    def release(self, piece: Piece) -> None:
        """Note that a piece needs its slot no more."""
        with self._changed:
            self._release(piece)
            self._changed.notify_all()

    def _release(self, piece: Piece) -> None:
        if piece.takes_slot:
            piece.takes_slot = False
            self._free_slots += 1
            if piece.buffer is not None:
                self._buffers.append(piece.buffer)
                piece.buffer = None

    def probe(self, transfer: Transfer, piece: Piece, *, is_part: bool) -> None:
        """Note what a server has answered to the request for a part.

        Args:
            transfer: the file.
            piece: what was asked for.
            is_part: whether the server has sent a part. If not, the rest comes with ``piece``.
        """
        with self._changed:
            if not is_part:
                transfer.is_whole = True
                transfer.pieces.extend(piece)
            elif not transfer.is_probed:
                transfer.is_probed = True
                self._changed.notify_all()

    def count(self, transfer: Transfer, piece: Piece, count: int) -> bool:
        """Note that ``count`` bytes of a piece have come; return whether it is its turn."""
        with self._changed:
            piece.received_bytes += count
            transfer.received_bytes += count
            transfer.counted_bytes += count
            self.progress += count
            return transfer.pieces.has_turn(piece)

    def deliver(self, transfer: Transfer, piece: Piece, count: int) -> None:
        """Note that the sink has ``count`` more bytes of a piece."""
        with self._changed:
            transfer.pieces.deliver(piece, count)
            self._changed.notify_all()

    def keep_or_take_turn(self, transfer: Transfer, piece: Piece) -> bool:
        """Note that all of a piece is in memory; return whether it is its turn.

        If it is not, whoever delivers the piece before it delivers it, too.
        """
        with self._changed:
            if transfer.pieces.has_turn(piece):
                return True
            transfer.pieces.keep(piece)
            return False

    def take_next(self, transfer: Transfer) -> Piece | None:
        """Return the piece that waits in memory and whose turn it is, if there is one."""
        with self._changed:
            return transfer.pieces.take_next()


def _count_unclaimed(transfer: Transfer) -> int:
    return transfer.pieces.unclaimed_bytes


def _conclude(transfer: Transfer) -> Fetched:
    return Fetched(
        validator=transfer.validator,
        last_modified=transfer.last_modified,
        url=transfer.url,
        bytes_received=transfer.received_bytes,
    )


def _give_up(transfer: Transfer) -> Unfetched:
    """Return what is wrong at the first server, which is the one that the operator thinks of."""
    first = transfer.failures[0]
    others = len(transfer.failures) - 1
    suffix = f" (nor can it be had from {others} other)" if others else ""
    return Unfetched(
        first.problem + suffix,
        first.remedy,
        is_missing=all(failure.is_missing for failure in transfer.failures),
        validator=transfer.validator,
        url=transfer.source.urls[-1],
        bytes_received=transfer.received_bytes,
    )
