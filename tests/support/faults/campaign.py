"""The whole campaign of kills and errors, with its figures.

python -m tests.support.faults.campaign                      an hour
python -m tests.support.faults.campaign --every-error        two more
python -m tests.support.faults.campaign --kills 50 --moments 20 --errors 50 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.builders import Workshop
from tests.support.faults.injection import Point, points, survives_error, survives_kill
from tests.support.faults.moments import VICTIMS, survives_moment
from tests.support.faults.scenarios import MORE_SCENARIOS, SCENARIOS, TORN, Place

ALL = (*SCENARIOS, *MORE_SCENARIOS)


def chosen(found: list[Point], count: int, chance: random.Random) -> list[Point]:
    """Return ``count`` of the points: half of them, where there are, may change something."""
    writes = [point for point in found if point.is_write]
    reads = [point for point in found if not point.is_write]
    chance.shuffle(writes)
    chance.shuffle(reads)
    half = writes[: max(count // 2, count - len(reads))]
    return half + reads[: count - len(half)]


def every_error_at(found: list[Point]) -> Iterator[tuple[Point, str]]:
    """Yield each point with each error that it may fail with."""
    for point in found:
        for error in point.errors:
            yield point, error


def errors_at(
    found: list[Point], count: int | None, chance: random.Random
) -> Iterator[tuple[Point, str]]:
    """Yield ``count`` points, each with an error; all errors in turn.

    Where ``count`` is None, each point once.
    """
    picked = found if count is None else chosen(found, min(count, len(found)), chance)
    turn = itertools.count(chance.randrange(9))
    for point in itertools.islice(itertools.cycle(picked), count or len(found)):
        yield point, point.errors[next(turn) % len(point.errors)]


def played(place: Place, arguments: argparse.Namespace, share: int, lost: list[str]) -> str:
    """Disturb one of ``share`` scenarios again and again; return the figures in a line."""
    scenario = place.scenario
    chance = random.Random(f"{arguments.seed} {scenario.name}")
    found = points(place)
    killed: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for point in chosen(found, arguments.kills // share, chance):
        with _noted(lost, f"{scenario.name}, killed at {point}"):
            if survives_kill(place, point):
                killed["a worker's call" if point.is_worker else "a call"] += 1
    victims = [victim for victim in VICTIMS if victim != "worker" or scenario.has_workers]
    for victim in itertools.islice(itertools.cycle(victims), arguments.moments // share):
        with _noted(lost, f"{scenario.name}, {victim} killed at a moment"):
            if survives_moment(place, victim, chance):
                killed[f"a moment ({victim})"] += 1
    if arguments.every_error:
        errors = every_error_at(found)
    else:
        errors = errors_at(found, arguments.errors, chance)
    with suppress(KeyboardInterrupt):  # then the figures are those of what was done
        for point, error in errors:
            with _noted(lost, scenario.name):
                code = survives_error(place, point, error)
                codes["elsewhere" if code is None else f"exit {code}"] += 1
    return (
        f"{scenario.name}: {len(found)} calls on the tree; {killed.total()} times killed "
        f"({_listed(killed)}); {codes.total()} errors ({_listed(codes)})"
    )


@contextmanager
def _noted(lost: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except TORN as error:
        lost.append(what)
        print(f"LOST {what}: {error}", flush=True)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="at system calls, in all")
    parser.add_argument("--moments", type=int, default=200, help="kills at random times, in all")
    parser.add_argument("--errors", type=int, help="of each scenario; without: one at each call")
    parser.add_argument("--every-error", action="store_true", help="each error at each call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="a part of one scenario's name", default="")
    arguments = parser.parse_args()
    lost: list[str] = []
    picked = [scenario for scenario in ALL if arguments.only in scenario.name]
    for scenario in picked:
        with tempfile.TemporaryDirectory() as directory:
            workshop = Workshop(Path(directory) / "workshop")
            place = Place(Path(directory) / "place", scenario, workshop)
            print(played(place, arguments, len(picked), lost), flush=True)
    print(f"seed {arguments.seed}: {len(lost)} times something was lost")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
