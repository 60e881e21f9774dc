"""The load in a short form; the whole: ``python -m tests.support.faults.load``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients.mirror_server import make_certificate
from tests.support.faults.load import load, wrong_answers
from tests.support.faults.load_clients import IMAGES, INDEX, Answer
from tests.support.faults.load_publisher import Generation

GENERATIONS = (
    Generation(IMAGES, "a", 0, 10),
    Generation(IMAGES, "b", 9, 20),
    Generation(IMAGES, "a", 19, 30),
    Generation(INDEX, "i", 0, 30),
)


@pytest.mark.slow
def test_every_answer_is_one_whole_generation(tmp_path: Path) -> None:
    outcome = load(
        tmp_path / "load",
        make_certificate(tmp_path),
        versions=300,
        client_count=8,
        seconds=4,
        pause_seconds=0.2,
    )
    assert outcome.wrong == []
    for path in (INDEX, IMAGES):
        published = {digest for _, _, digest in outcome.record.changes[path]}
        given = {answer.digest for answer in outcome.answers if answer.path == path}
        assert len(published) > 2
        assert len(given) > 2
    assert {answer.status for answer in outcome.answers} == {200, 206, 304}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("", IMAGES, 200, "b", 11, 12), ""),
        (Answer("", IMAGES, 200, "b", 8, 9.5), ""),
        (Answer("", IMAGES, 304, "a", 20, 20), ""),
        (Answer("", IMAGES, 304, "a", 12, 13), "a generation of another time (gone for 2.00 s)"),
        (Answer("", IMAGES, 200, "b", 25, 26), "a generation of another time (gone for 5.00 s)"),
        (Answer("", IMAGES, 200, "b", 1, 2), "(not there yet)"),
        (Answer("", IMAGES, 200, "c", 1, 2), "no generation (c)"),
        (Answer("", INDEX, 200, "a", 1, 2), "no generation (a)"),
        (Answer("", INDEX, 0, "", 1, 2, problem="status 404"), "status 404"),
    ],
)
def test_a_wrong_answer_is_told(answer: Answer, told: str) -> None:
    wrong = wrong_answers([answer], GENERATIONS)
    assert len(wrong) == bool(told)
    assert told in "".join(wrong)
