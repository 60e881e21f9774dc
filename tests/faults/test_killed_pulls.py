"""Pulls that are killed: nothing is lost, clients see whole catalogues, little comes twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.clients.mirror_server import make_certificate
from tests.support.faults.killed_pulls import Tally, served
from tests.support.sizes import sized

kill_count = sized("--kills", short=20, full=200)


@pytest.mark.slow
def test_a_pull_survives_kills_at_any_moment(tmp_path: Path, kill_count: int) -> None:
    chance = random.Random(kill_count)
    tally = Tally()
    with served(tmp_path, make_certificate(tmp_path)) as place:
        while tally.killed < kill_count:
            place.survive(chance.choice((1, 1, 2, 3)), chance, tally)
    excess = sum(tally.excess) / len(tally.excess)
    print(
        f"{tally.killed} kills of {len(tally.excess)} pulls, {tally.looks} looks; sent beyond the "
        f"files: {100 * excess:.1f} % in the mean, {100 * max(tally.excess):.1f} % at most"
    )
    assert tally.looks > tally.killed
