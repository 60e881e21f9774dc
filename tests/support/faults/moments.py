"""Killing a run at a moment of the clock: the parent, a worker, or all at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support.command import UNMEASURED
from tests.support.faults.scenarios import Place

VICTIMS = ("parent", "worker", "all")
PATIENCE_SECONDS = 20


def survives_moment(place: Place, victim: str, chance: random.Random) -> bool:
    """Kill ``victim`` of a run at some moment; raise AssertionError where something is lost.

    Returns:
        Whether it still lived then.
    """
    place.start_afresh()
    process = subprocess.Popen(
        place.scenario.command(place.root),
        env=UNMEASURED,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    was_alive = _strike(process, victim, chance.uniform(0.1, 1) * place.seconds, chance)
    code = process.wait(PATIENCE_SECONDS)
    # It had ended just before, or goes on without the worker.
    expected = {place.code} if victim == "worker" else {place.code, -signal.SIGKILL}
    expected |= {3} if place.scenario.is_deltas else set()
    assert code in expected, code
    _assert_nobody_stays(process.pid)
    place.check(is_left_out=code == 3)
    place.finish()
    return was_alive and (victim == "worker" or code != place.code)


def _strike(
    process: subprocess.Popen[bytes], victim: str, seconds: float, chance: random.Random
) -> bool:
    if victim != "worker":
        time.sleep(seconds)
        if process.poll() is not None:
            return False
        if victim == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        return True
    while process.poll() is None:
        workers = _children(process.pid)
        if workers:
            time.sleep(chance.uniform(0, 0.05))
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                return True
            return False
    return False


def _children(pid: int) -> list[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(word) for word in words]


def _assert_nobody_stays(group: int) -> None:
    """Workers whose parent is gone end by themselves."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("a worker stays when its parent is gone")
