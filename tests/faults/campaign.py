"""The whole campaign of faults, with its figures.

python -m tests.faults.campaign                            500 kills, 500 errors: half an hour
python -m tests.faults.campaign --kills 50 --errors 50 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.builders import Workshop
from tests.faults.injection import ERRORS, Point, points, survives_error, survives_kill
from tests.faults.scenarios import SCENARIOS, Place


def chosen(found: list[Point], count: int, chance: random.Random) -> list[Point]:
    """Return ``count`` of the points: half of them, where there are, may change something."""
    writes = [point for point in found if point.is_write]
    reads = [point for point in found if not point.is_write]
    chance.shuffle(writes)
    chance.shuffle(reads)
    half = writes[: max(count // 2, count - len(reads))]
    return half + reads[: count - len(half)]


def errors_at(found: list[Point], count: int, chance: random.Random) -> Iterator[tuple[Point, str]]:
    """Yield ``count`` points, each with an error; all errors in turn."""
    errors = itertools.cycle(ERRORS)
    picked = itertools.cycle(chosen(found, min(count, len(found)), chance))
    return itertools.islice(zip(picked, errors, strict=False), count)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--errors", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    lost: list[str] = []
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as directory:
            workshop = Workshop(Path(directory) / "workshop")
            place = Place(Path(directory) / "place", scenario, workshop)
            found = points(place)
            kills = errors = 0
            codes: Counter[int] = Counter()
            for point in chosen(found, arguments.kills // len(SCENARIOS), chance):
                kills += 1
                try:
                    survives_kill(place, point)
                except AssertionError as error:
                    lost.append(f"{scenario.name}, killed at {point.call} {point.number}: {error}")
            for point, name in errors_at(found, arguments.errors // len(SCENARIOS), chance):
                errors += 1
                try:
                    codes[survives_error(place, point, name)] += 1
                except AssertionError as error:
                    lost.append(f"{scenario.name}: {error}")
            told = ", ".join(f"{count} × exit {code}" for code, count in sorted(codes.items()))
            print(
                f"{scenario.name}: {len(found)} calls on the tree; {kills} kills, {errors} errors "
                f"({told})",
                flush=True,
            )
    for what in lost:
        print(f"LOST {what}")
    print(f"seed {arguments.seed}: {len(lost)} times something was lost")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
