"""How a build's time grows with fewer jobs, and its time and memory with more versions.

    python benchmarks/scaling.py jobs                     8 × 512 MiB in memory
    python benchmarks/scaling.py versions                 1,000 to 1,000,000 versions
    python benchmarks/scaling.py jobs --files 2 --size 16M --rounds 1          a smoke run
    python benchmarks/scaling.py versions --real 200 --simulated 200 --rounds 1

*jobs*: a first build with 1 job to twice as many as CPUs, by engine.

*versions*: five tiny files a version. *every file read*: ``--rehash``; *all from the
caches*: without the snapshot that tells that nothing has changed; *nothing to do*: as every
night when nothing is new; *find* looks at the same files. Memory is that of the largest
process. What is *simulated* is on no disk: plan, catalogue, encoding, check and write of
what a scan and the caches would give, which is how far such counts can be taken on a small
machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from contenders import add_mirror_options, big_mirror, build, facts
from make_mirror import forget_state, make_tiny_mirror
from measure import (
    alternate,
    argument_parser,
    engines,
    fastindex_command,
    in_own_process,
    own_peak_mib,
    pinned_in_memory,
    seconds_and_mib,
    tell_lines,
)
from nightly import find
from simulated import ITEMS_A_VERSION, build_simulated

from fastindex.system.processes import count_usable_cpus

_Figures = dict[str, dict[int, list[tuple[float, float]]]]
"""What was done → versions → (seconds, MiB) of each run."""


def measure_jobs(arguments: argparse.Namespace) -> None:
    """Build with each number of jobs, by engine."""
    most = arguments.most_jobs or 2 * count_usable_cpus()
    with big_mirror(arguments.dir, arguments.files, arguments.size, metadata=2) as mirror:
        contenders = {
            (engine, jobs): partial(build, mirror, jobs, "--engine", engine)
            for jobs in range(1, most + 1)
            for engine in engines()
        }
        with pinned_in_memory(mirror.roots) as is_pinned:
            seconds = alternate(contenders, arguments.rounds)
    series = {
        f"fastindex --engine {engine}": {jobs: seconds[engine, jobs] for jobs in range(1, most + 1)}
        for engine in engines()
    }
    notes = facts(arguments)
    del notes["jobs"]
    tell_lines(
        "First build by number of jobs, files in memory",
        "jobs",
        {"seconds": series},
        {**notes, "pinned": is_pinned},
        arguments.record,
    )


def measure_versions(arguments: argparse.Namespace) -> None:
    """Build trees of each number of versions; simulate the greater ones."""
    figures: _Figures = {}
    for count in arguments.real:
        with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
            root = Path(directory)
            make_tiny_mirror(root, count, "squashfs", "disk", "tar")
            command: list[str | Path] = [fastindex_command(), "-q", root]
            seconds_and_mib(command)
            for name, runs in alternate(
                {
                    "every file read": partial(seconds_and_mib, [*command, "--rehash"]),
                    "all from the caches": partial(_without_state, command, root),
                    "nothing to do": partial(seconds_and_mib, command),
                    "find": partial(seconds_and_mib, find(root)),
                },
                arguments.rounds,
            ).items():
                figures.setdefault(name, {})[count] = runs
    for count in arguments.simulated:
        for _ in range(arguments.rounds):
            for name, run in _simulate(count, arguments.dir).items():
                figures.setdefault(f"simulated: {name}", {}).setdefault(count, []).append(run)
    panels = {
        unit: {
            name: {count: [run[place] for run in runs] for count, runs in points.items()}
            for name, points in figures.items()
        }
        for place, unit in enumerate(("seconds", "MiB, peak"))
    }
    tell_lines(
        f"Builds by number of versions, {ITEMS_A_VERSION} files each",
        "versions",
        panels,
        {"rounds": arguments.rounds, "jobs": count_usable_cpus()},
        arguments.record,
    )


def _without_state(command: list[str | Path], root: Path) -> tuple[float, float]:
    forget_state(root)
    return seconds_and_mib(command)


def _simulate(versions: int, directory: Path | None) -> dict[str, tuple[float, float]]:
    """Return the seconds and the peak MiB of three runs, one after the other."""
    runs: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(dir=directory) as output:
        for name, added in (("all from the caches", 0), ("nothing to do", 0), ("one more", 1)):
            runs[name] = in_own_process(_build_simulated, Path(output), versions, added)
            print(f"  {versions:,} versions, {name}: {runs[name][0]:.2f} s")
    return runs


def _build_simulated(root: Path, versions: int, added: int) -> tuple[float, float]:
    seconds, _ = build_simulated(root, versions, added)
    return seconds, own_peak_mib()


def _counts(words: str) -> list[int]:
    return [int(word) for word in words.split(",") if word]


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("part", choices=("jobs", "versions"))
    add_mirror_options(parser)
    parser.add_argument("--most-jobs", type=int, help="default: twice as many as CPUs")
    parser.add_argument(
        "--real", type=_counts, default="1000,10000,100000", help="versions of trees on disk"
    )
    parser.add_argument(
        "--simulated", type=_counts, default="1000,10000,100000,1000000", help="versions of others"
    )
    arguments = parser.parse_args()
    {"jobs": measure_jobs, "versions": measure_versions}[arguments.part](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
