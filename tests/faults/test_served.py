"""All kinds of clients, in a short form; the whole: ``python -m tests.support.faults.served``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients.mirror_server import make_certificate
from tests.support.deltas import find_xdelta3
from tests.support.faults.served import (
    find_wrong_answers,
    find_wrong_losses,
    list_pushed,
    load,
)
from tests.support.faults.served_clients import KINDS, Answer, Lost
from tests.support.faults.served_record import IMAGES, INDEX, Generation

GENERATIONS = {
    IMAGES: [Generation("a", 0, 10), Generation("b", 9, 20), Generation("a", 19, 30)],
    INDEX: [Generation("i", 0, 30)],
}
BEFORE = float("-inf")


@pytest.mark.slow
def test_each_kind_of_client_is_given_whole_generations(tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    find_xdelta3()
    outcome = load(
        tmp_path / "load",
        make_certificate(tmp_path),
        client_count=2,
        seconds=8,
        grace_seconds=4,
    )
    assert outcome.wrong == []
    assert outcome.seen.keys() == {*KINDS}
    for kind, seen in outcome.seen.items():
        given = {answer.digest for answer in seen.answers if answer.path.startswith(IMAGES[:-5])}
        assert len(given) > 2, kind
        assert seen.visits, kind
        assert seen.files, kind
    assert outcome.record.count_deltas()
    assert outcome.record.withdrawn
    assert outcome.pushes > 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("", IMAGES, "b", 11, 12), ""),
        (Answer("", IMAGES, "b", 8, 9.5), ""),
        (Answer("", IMAGES, "a", 12, 13), "a generation of another time (gone for 2.00 s)"),
        (Answer("", IMAGES, "a", BEFORE, 13), ""),
        (Answer("", IMAGES, "b", BEFORE, 8), "(not there yet)"),
        (Answer("", IMAGES, "b", 1, 2), "(not there yet)"),
        (Answer("", IMAGES, "c", 1, 2), "of no generation (c)"),
        (Answer("", INDEX, "a", 1, 2), "of no generation (a)"),
        (Answer("", "index.html", "a", 1, 2), "of no generation (a)"),
    ],
)
def test_a_wrong_answer_is_told(answer: Answer, told: str) -> None:
    wrong = find_wrong_answers([answer], GENERATIONS)
    assert len(wrong) == bool(told)
    assert told in "".join(wrong)


@pytest.mark.parametrize(
    ("lost", "count"), [(Lost("", "a", 4), 1), (Lost("", "a", 6), 0), (Lost("", "b", 6), 1)]
)
def test_a_product_is_lost_unless_it_was_withdrawn_before(lost: Lost, count: int) -> None:
    assert len(find_wrong_losses([lost], {"a": 5})) == count


def test_what_a_push_replaces_is_there_until_it_has_ended() -> None:
    pushed = [(INDEX, "a", 1.0, 2.0), (IMAGES, "b", 1.0, 2.0), (INDEX, "c", 3.0, 4.0)]
    assert list_pushed(pushed) == {
        INDEX: [Generation("a", 1.0, 4.0), Generation("c", 3.0, float("inf"))],
        IMAGES: [Generation("b", 1.0, float("inf"))],
    }
