"""After random sequences of changes, a mirror publishes what a run from nothing publishes.

The reference has no caches: nothing that it publishes comes from an earlier run.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.faults.sequences import Step, play, sequences
from tests.support.sizes import sized

sequence_count = sized("--sequences", short=100, full=20_000)


@pytest.mark.slow
def test_a_run_publishes_what_a_run_from_nothing_does(sequence_count: int) -> None:
    @settings(
        max_examples=sequence_count,
        phases=set(Phase) - {Phase.explain},
        suppress_health_check=[*HealthCheck],
    )
    @given(steps=sequences(keeps_caches=False))
    def check(steps: tuple[Step, ...]) -> None:
        play(steps, keeps_caches=False)

    check()
