"""Findings are told in one order, each once."""

from __future__ import annotations

import random

from fastindex.errors import Code
from fastindex.events import Finding, sort_findings


def test_findings_are_sorted_by_path_then_code_then_problem_each_once() -> None:
    expected = (
        Finding(Code.UNREADABLE, "a", "x", "r"),
        Finding(Code.BAD_NAME, "b", "x", "r"),
        Finding(Code.UNREADABLE, "b", "w", "r"),
        Finding(Code.UNREADABLE, "b", "x", "r"),
        Finding(Code.BAD_NAME, "c", "x", "r"),
    )
    for seed in range(20):
        shuffled = [*expected, *expected]
        random.Random(seed).shuffle(shuffled)
        assert sort_findings(iter(shuffled)) == expected
    assert sort_findings([]) == ()


def test_findings_that_differ_in_anything_stay() -> None:
    one = Finding(Code.UNREADABLE, "a", "x", "r")
    others = [
        Finding(Code.UNREADABLE, "a", "x", "other"),
        Finding(Code.UNREADABLE, "a", "x", "r", versions_left_out=1),
        Finding(Code.UNREADABLE, "a", "x", "r", files_left_out=1),
    ]
    assert sort_findings([one, *others, one]) == (one, *others)  # equal keys keep their order
