"""Which piece comes next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.remote.pieces import Piece, Pieces, choose_piece_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(0, 4 * MIB), (256 * MIB, 4 * MIB), (512 * MIB, 8 * MIB), (1 << 40, 16 * MIB)],
)
def test_a_piece_is_a_share_of_the_file_within_bounds(size_bytes: int, expected: int) -> None:
    assert choose_piece_bytes(size_bytes, 4 * MIB, 16 * MIB) == expected


def test_the_first_piece_has_its_turn_and_takes_no_slot() -> None:
    pieces = Pieces(100, 10, 40)
    first = pieces.claim()
    assert (first.start, first.end, first.takes_slot) == (10, 50, False)
    assert pieces.has_turn(first)


def test_without_a_slot_only_the_piece_whose_turn_it_is_can_be_claimed() -> None:
    pieces = Pieces(100, 0, 40)
    assert pieces.can_claim(has_slot=False)
    pieces.claim()
    assert not pieces.can_claim(has_slot=False)
    assert pieces.can_claim(has_slot=True)
    assert pieces.claim().takes_slot


def test_what_begins_again_claims_from_the_position_on() -> None:
    pieces = Pieces(100, 0, 40)
    first, second = pieces.claim(), pieces.claim()
    pieces.deliver(first, 15)
    second.received_bytes = 40
    pieces.keep(second)
    assert pieces.begin_again(15) == [second]
    assert pieces.claim().start == 15


@given(data=st.data())
def test_each_byte_is_delivered_once_in_order_and_nobody_waits_for_ever(
    data: st.DataObject,
) -> None:
    """Threads in any order: they claim, receive a little, hand over if it is their turn."""
    size_bytes = data.draw(st.integers(1, 60), label="size")
    start = data.draw(st.integers(0, size_bytes - 1), label="start")
    pieces = Pieces(size_bytes, start, data.draw(st.integers(1, 12), label="piece"))
    slots = all_slots = data.draw(st.integers(0, 4), label="slots")
    threads = data.draw(st.integers(1, 4), label="threads")
    working: list[Piece] = []
    delivered: list[int] = []

    def hand_over(piece: Piece) -> None:
        assert pieces.has_turn(piece)
        begin = piece.start + piece.handed_bytes
        delivered.extend(range(begin, piece.start + piece.received_bytes))
        pieces.deliver(piece, piece.received_bytes - piece.handed_bytes)

    def finish(piece: Piece) -> None:
        nonlocal slots
        hand_over(piece)
        slots += piece.takes_slot
        if (following := pieces.take_next()) is not None:
            finish(following)

    while not pieces.is_delivered:
        moves: list[Piece | None] = list(working)
        if len(working) < threads and pieces.can_claim(has_slot=slots > 0):
            moves.append(None)
        assert moves, "all threads wait"
        piece = data.draw(st.sampled_from(moves), label="next")
        if piece is None:
            claimed = pieces.claim()
            slots -= claimed.takes_slot
            assert slots >= 0
            working.append(claimed)
            continue
        left = piece.end - piece.start - piece.received_bytes
        piece.received_bytes += data.draw(st.integers(1, left), label="bytes")
        if pieces.has_turn(piece) and not piece.is_received:
            hand_over(piece)
        elif piece.is_received:
            working.remove(piece)
            if pieces.has_turn(piece):
                finish(piece)
            else:
                pieces.keep(piece)
    assert delivered == list(range(start, size_bytes))
    assert slots == all_slots
    assert working == []
