"""After random sequences of changes, a mirror publishes what one with nothing but caches does.

What the caches know makes a difference here: disks that change bytes but no times, versions that
have not settled, and what is removed and comes back.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.faults.sequences import Step, play, sequences
from tests.support.sizes import sized

sequence_count = sized("--sequences", short=100, full=20_000)


@pytest.mark.slow
def test_a_run_publishes_what_one_with_caches_alone_does(sequence_count: int) -> None:
    @settings(
        max_examples=sequence_count,
        phases=set(Phase) - {Phase.explain},
        suppress_health_check=[*HealthCheck],
    )
    @given(steps=sequences(keeps_caches=True))
    def check(steps: tuple[Step, ...]) -> None:
        play(steps, keeps_caches=True)

    check()
