"""A nightly run beside ``find`` over the same tree: time and memory; and the program's start.

    python benchmarks/unchanged_build.py                        20,000 versions of 4 files
    python benchmarks/unchanged_build.py --cold                 directories and inodes forgotten
    python benchmarks/unchanged_build.py --versions 200 --rounds 1             a smoke run

``--record NAME.json`` writes the peak memory (of the largest process, which is the parent)
to ``NAME_memory.json`` and the start of the program to ``NAME_start.json``. ``--cold`` drops
the kernel's dentries and inodes before each run, which only root may; then the contender
works on a tree of 10 versions, so that its own program is back in memory. Blocks of the
disk stay in memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from make_mirror import make_tiny_mirror
from measure import (
    alternate,
    argument_parser,
    drop_dentries,
    fastindex_command,
    seconds_and_mib,
    tell,
    wall_seconds,
)
from nightly import Command, build, find, with_new_version

_FEW_VERSIONS = 10
_NOTHING = "fastindex, nothing to do"
_ONE_JOB = "fastindex --jobs 1, nothing to do"


def measure_warm(many: Path, rounds: int, facts: Mapping[str, object], record: Path | None) -> None:
    """Tell the time and the memory of nightly runs over ``many``."""
    contenders: dict[str, Callable[[], tuple[float, float]]] = {
        "find": partial(seconds_and_mib, find(many)),
        _NOTHING: partial(seconds_and_mib, build(many)),
        _ONE_JOB: partial(seconds_and_mib, build(many, "--jobs", "1")),
        "fastindex, one version to add": partial(with_new_version, seconds_and_mib, many),
    }
    runs = {
        name: of_one[1:] or of_one for name, of_one in alternate(contenders, rounds + 1).items()
    }
    seconds = {name: [seconds for seconds, _ in of_one] for name, of_one in runs.items()}
    tell("Unchanged build, warm", seconds, "find", facts, record)
    memory = {name: [mib for _, mib in of_one] for name, of_one in runs.items()}
    tell("Peak memory", memory, _NOTHING, facts, _beside(record, "memory"), unit="MiB")


def measure_cold(
    many: Path, few: Path, rounds: int, facts: Mapping[str, object], record: Path | None
) -> None:
    """Tell the time of runs over ``many`` of which the kernel has forgotten all names."""
    commands: dict[str, Callable[[Path], Command]] = {
        "find": find,
        _NOTHING: build,
        _ONE_JOB: lambda root: build(root, "--jobs", "1"),
    }

    def cold(command: Callable[[Path], Command]) -> float:
        drop_dentries()
        wall_seconds(command(few))
        return wall_seconds(command(many))

    seconds = alternate({name: partial(cold, commands[name]) for name in commands}, rounds)
    tell("Unchanged build, dentries and inodes dropped", seconds, "find", facts, record)


def measure_start(few: Path, rounds: int, record: Path | None) -> None:
    """Tell how long the program takes to start, and over ``few``."""
    commands: dict[str, Command] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "fastindex --version": [fastindex_command(), "--version"],
        f"fastindex, {_FEW_VERSIONS} unchanged versions": build(few),
    }
    starts = {name: partial(wall_seconds, command) for name, command in commands.items()}
    tell(
        "Start of the program",
        alternate(starts, rounds),
        "python -c pass",
        {"rounds": rounds},
        _beside(record, "start"),
    )


def _beside(record: Path | None, word: str) -> Path | None:
    return record and record.with_stem(f"{record.stem}_{word}")


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--start-rounds", type=int, default=25, help="of the short runs, or 0")
    parser.add_argument("--cold", action="store_true", help="cold runs only (needs root)")
    arguments = parser.parse_args()
    if arguments.cold:
        drop_dentries()  # before long work that would be for nothing
    facts = {
        "versions": arguments.versions,
        "files": 4 * arguments.versions,
        "rounds": arguments.rounds,
    }
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        many, few = Path(directory, "many"), Path(directory, "few")
        for root, versions in ((many, arguments.versions), (few, _FEW_VERSIONS)):
            make_tiny_mirror(root, versions, "squashfs", "disk")
            wall_seconds(build(root))
        if arguments.cold:
            measure_cold(many, few, arguments.rounds, facts, arguments.record)
            return 0
        measure_warm(many, arguments.rounds, facts, arguments.record)
        if arguments.start_rounds:
            measure_start(few, arguments.start_rounds, arguments.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
