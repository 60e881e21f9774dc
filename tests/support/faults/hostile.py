"""What strangers upload: each case alone, with its time and its memory.

python -m tests.support.faults.hostile                 all, by time: some minutes
python -m tests.support.faults.hostile --by memory "link" "100,000"
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import COMMAND
from tests.support.faults.hostile_trees import CASES, OUTSIDE, VERSION, Case, plant_outside
from tests.support.faults.watched import Watched, watch
from tests.support.trees import catalogue, version, write_tree

GOOD = (
    "debian/12/amd64/default",
    "debian/12/arm64/default",
    "alpine/3.20/amd64/cloud",
    "zeta/1/amd64/default",
)
UPKEEP: dict[str, set[int]] = {
    "verify": {0},
    "list": {0},
    "diff": {0, 3},
    "prune --dry-run": {0, 3},
}
"""What is run after the build, and what it may end with."""
_UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f]")
_MOST_TOLD_BYTES = 64 << 20


@dataclass(frozen=True)
class Mirror:
    """A mirror of good products, published before anything was planted.

    Attributes:
        root: of the mirror.
        good: its product entries as published, in order.
    """

    root: Path
    good: list[tuple[str, str]]


def new_mirror(place: Path) -> Mirror:
    """Make and publish a mirror below ``place``, with what is out of bounds beside it."""
    plant_outside(place / OUTSIDE)
    root = place / "mirror"
    for product in GOOD:
        for name in (VERSION, "20240506_05:24"):
            write_tree(root, version(f"{product}/{name}"))
    settings = b'release_title = "12 (bookworm)"\naliases = ["stable"]\n'
    write_tree(root, {f"images/{GOOD[0]}/.product.toml": settings})
    done = watch([COMMAND, "-j1", root])
    assert done.code == 0, done.told
    return Mirror(root, entries(root))


def entries(root: Path) -> list[tuple[str, str]]:
    """Return each published product with all that is said of it, in order."""
    return [(key, json.dumps(entry)) for key, entry in catalogue(root)["products"].items()]


def check_build(mirror: Mirror, cases: Iterable[Case]) -> Watched:
    """Build a mirror with ``cases`` planted; raises AssertionError where a promise is broken."""
    done = watch([COMMAND, "-v", "-j2", mirror.root])
    _check_told(done, {0, 3}, mirror.root)
    for case in cases:
        named = [line for line in done.told.splitlines() if case.told in line and "warning" in line]
        assert named or not case.told, f"{case.name} is not named: {done.told[-2000:]}"
    keys = {key for key, _ in mirror.good}
    kept = [(key, entry) for key, entry in entries(mirror.root) if key in keys]
    assert kept == mirror.good
    index = json.loads((mirror.root / "streams/v1/index.json").read_bytes())
    listed = index["index"]["images"]["products"]
    assert [key for key in listed if key in keys] == [key for key, _ in mirror.good]
    return done


def check_upkeep(mirror: Mirror) -> list[Watched]:
    """Run the other commands; raises AssertionError where a promise is broken."""
    runs: list[Watched] = []
    for words, codes in UPKEEP.items():
        done = watch([COMMAND, *words.split(), mirror.root])
        _check_told(done, codes, mirror.root)
        runs.append(done)
    return runs


def _check_told(done: Watched, codes: set[int], root: Path) -> None:
    said = done.told[-4000:] + done.printed[-1000:]
    assert done.code in codes, said
    assert "Traceback" not in done.told, said
    assert len(done.told) + len(done.printed) <= _MOST_TOLD_BYTES
    unseen = _UNSEEN.search(done.told + done.printed)
    assert unseen is None, f"{unseen and unseen[0]!r} in {said}"
    assert not done.outside(root), f"outside: {sorted(done.outside(root))}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="cases with it in their names")
    parser.add_argument("--by", choices=("time", "memory"), default="time")
    arguments = parser.parse_args()
    rows: list[tuple[float, float, str]] = []
    lost = 0
    for case in CASES:
        if arguments.words and not any(word in case.name for word in arguments.words):
            continue
        with tempfile.TemporaryDirectory() as directory:
            mirror = new_mirror(Path(directory))
            case.plant(mirror.root / "images" / case.os_name)
            try:
                runs = [check_build(mirror, [case]), *check_upkeep(mirror)]
            except AssertionError as error:
                lost += 1
                print(f"LOST {case.name}: {error}", flush=True)
                continue
            peak = max(run.peak_bytes for run in runs) / (1 << 20)
            rows.append((max(run.seconds for run in runs), peak, case.name))
    by = 0 if arguments.by == "time" else 1
    print("seconds  MiB  case")
    for seconds, peak, name in sorted(rows, key=lambda row: row[by], reverse=True):
        print(f"{seconds:7.2f} {peak:4.0f}  {name}")
    print(f"{len(rows)} cases held, {lost} did not")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
