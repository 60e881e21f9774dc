"""Hashing options are checked before anything is done."""

from __future__ import annotations

import pytest

from fastindex.errors import UsageError
from fastindex.hashing.options import HashingOptions


@pytest.mark.parametrize("jobs", [None, 1, 1000])
def test_sensible_options_pass(jobs: int | None) -> None:
    HashingOptions(jobs=jobs, engine="hashlib").check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (HashingOptions(jobs=0), "--jobs must be an integer of at least 1"),
        (HashingOptions(jobs=-1), "--jobs must be an integer of at least 1"),
        (HashingOptions(engine="quick"), "'quick'"),
        (HashingOptions(engine=""), "''"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options: HashingOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options.check()
