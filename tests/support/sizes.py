"""Tests in a short form, and at full length in campaigns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest


def sized(option: str, *, short: int, full: int) -> Callable[..., int]:
    """Return a fixture: how much a test does, ``short``, and ``full`` where campaigns run.

    Args:
        option: of pytest's command line; replaces both.
        short: what each run of the tests does.
        full: what ``-m campaign`` does.
    """

    @pytest.fixture(
        params=[
            pytest.param(short, id="short"),
            pytest.param(full, id="full", marks=pytest.mark.campaign),
        ]
    )
    def size(request: pytest.FixtureRequest) -> int:
        usual: int = request.param
        asked: int | None = request.config.getoption(option)
        return usual if asked is None else asked

    return size


def spread(count: int, chance: random.Random) -> Iterator[float]:
    """Yield ``count`` numbers from 0 to 1 in order, one by chance in each of as many parts."""
    for number in range(count):
        yield (number + chance.random()) / count
