"""Which piece of a file comes next, and whose turn it is: decisions without threads or sockets.

The pieces of a file are claimed in order and may arrive in any order; they go to the sink in
order. The piece that the sink waits for is the one whose *turn* it is. It needs no memory beyond a
buffer; each other piece waits in memory, and takes one of the *slots* that all files share.
"""

from __future__ import annotations

_SHARE = 64
"""A file has so many pieces, if that makes them neither too small nor too large."""


def choose_piece_bytes(size_bytes: int, min_bytes: int, max_bytes: int) -> int:
    """Return how large the pieces of a file are."""
    return max(min_bytes, min(size_bytes // _SHARE, max_bytes))


class Piece:
    """A piece of a file.

    Args:
        start: its first byte.
        end: where it ends; that byte is not in it.
        takes_slot: whether it may have to wait in memory.
    """

    __slots__ = (
        "buffer",
        "end",
        "handed_bytes",
        "is_kept",
        "received_bytes",
        "start",
        "takes_slot",
    )

    def __init__(self, start: int, end: int, *, takes_slot: bool) -> None:
        self.start = start
        self.end = end
        self.takes_slot = takes_slot
        self.received_bytes = 0
        """How many of its bytes have come."""
        self.handed_bytes = 0
        """How many of its bytes the sink has."""
        self.is_kept = False
        """Whether it has been left to whoever delivers the piece before it."""
        self.buffer: bytearray | None = None
        """Where it waits, if it takes a slot."""

    @property
    def is_received(self) -> bool:
        """Whether all of it has come."""
        return self.start + self.received_bytes == self.end


class Pieces:
    """What of a file is claimed and what is delivered. Not safe for threads.

    Args:
        size_bytes: how long the file is.
        position: how much of it there is already.
        piece_bytes: how large its pieces are.
    """

    def __init__(self, size_bytes: int, position: int, piece_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._piece_bytes = piece_bytes
        self._arrived: dict[int, Piece] = {}
        self.position = position
        """The byte that the sink gets next."""
        self.claimed = position
        """Where the part ends that is claimed."""

    @property
    def is_delivered(self) -> bool:
        """Whether the sink has all."""
        return self.position == self._size_bytes

    @property
    def unclaimed_bytes(self) -> int:
        """How much can still be claimed."""
        return self._size_bytes - self.claimed

    def can_claim(self, *, has_slot: bool) -> bool:
        """Return whether there is a piece to be claimed now.

        Args:
            has_slot: whether a slot is free.
        """
        return self.claimed < self._size_bytes and (has_slot or self.claimed == self.position)

    def claim(self) -> Piece:
        """Return the next piece."""
        start = self.claimed
        self.claimed = min(start + self._piece_bytes, self._size_bytes)
        return Piece(start, self.claimed, takes_slot=start != self.position)

    def extend(self, piece: Piece) -> None:
        """Let ``piece``, the last that was claimed, be all the rest of the file."""
        self.claimed = piece.end = self._size_bytes

    def has_turn(self, piece: Piece) -> bool:
        """Return whether the sink waits for ``piece``."""
        return piece.start + piece.handed_bytes == self.position

    def deliver(self, piece: Piece, count: int) -> None:
        """Note that the sink has ``count`` more bytes of ``piece``, whose turn it is."""
        piece.handed_bytes += count
        self.position += count

    def keep(self, piece: Piece) -> None:
        """Note that all of ``piece`` waits in memory for its turn."""
        piece.is_kept = True
        self._arrived[piece.start] = piece

    def take_next(self) -> Piece | None:
        """Return the piece that waits in memory and whose turn it is, if there is one."""
        return self._arrived.pop(self.position, None)

    def begin_again(self, position: int) -> list[Piece]:
        """Forget all claims; return the pieces that waited in memory.

        Args:
            position: the byte that the sink gets next.
        """
        waited = list(self._arrived.values())
        self._arrived.clear()
        self.position = self.claimed = position
        return waited
