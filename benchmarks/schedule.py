"""Files of many sizes: how long they take beside what the plan for the workers says.

    python benchmarks/schedule.py                       this installation, thirteen sets of files
    python benchmarks/schedule.py OLD NEW               two installed programs in turn
    python benchmarks/schedule.py --dir /dev/shm        the files in memory, half an hour
    python benchmarks/schedule.py --only lognormal,few  some of the sets
    python benchmarks/schedule.py --bytes 4M --main-bytes 8M --rounds 1 --only tiny   a smoke run

Of each set a first build with one metadata file and with two (2 and 3 digests a file) and
``verify --sha256`` (2 digests, no BLAKE3). Both programs must write the same catalogue. The
prediction is the plan's, in seconds: in each round its unit is measured by lanes in as many
processes as jobs, and the start of the program and its workers by a run with little to read.
"""

from __future__ import annotations

import math
import mmap
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from make_mirror import make_mirror, size_argument
from measure import alternate, argument_parser, fastindex_command, in_workers, tell

from fastindex.events import Observer
from fastindex.hashing.batches import Queue, group_tasks
from fastindex.hashing.engine import usable_engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.pool import LITTLE_BYTES
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import FileRef, RootTask
from fastindex.system.stamps import stamp_of

_METADATA = ("incus", "lxd")
_MAIN = "lognormal"
_LANE_BYTES = 64 << 20
_PIECE_BYTES = 128 << 10


def _lognormal(files: int, sigma: float, low: float, high: float) -> list[float]:
    randomness = random.Random(files)
    return [min(high, max(low, math.exp(randomness.gauss(0, sigma)))) for _ in range(files)]


SETS: dict[str, Sequence[float]] = {
    _MAIN: _lognormal(200, 0.8, 0.4, 4),
    "few": [5, 3, 2, 1],
    "two": [1, 1],
    "one_big": [1],
    "three_equal": [1, 1, 1],
    "equal": [1] * 32,
    "two_sizes": [8] * 4 + [1] * 40,
    "steps": [float(size) for size in range(1, 13)],
    "thirty": _lognormal(30, 0.6, 0.3, 3),
    "uniform": [random.Random(7).uniform(1, 10) for _ in range(60)],
    "wide": _lognormal(100, 1.5, 0.02, 30),
    "huge_and_small": [60, *[1.0] * 60],
    "tiny": [1] * 2000,
}
"""Name → the sizes of its files, in parts of all its bytes."""


def _scale(sizes: Sequence[float], total_bytes: int) -> list[int]:
    return [max(4096, round(size * total_bytes / sum(sizes))) for size in sizes]


class _Case:
    """A command on a mirror.

    Args:
        root: the mirror.
        jobs: number of workers.
        options: of ``fastindex``.
    """

    def __init__(self, root: Path, jobs: int, *options: str) -> None:
        self._root = root
        self.jobs = jobs
        self._options = (*options, "--jobs", str(jobs))
        self.is_build = "verify" not in options

    def run(self, program: Path) -> tuple[float, float, bytes]:
        """Return how long ``program`` takes, in wall and in CPU seconds, and what is published."""
        if self.is_build:
            shutil.rmtree(self._root / "streams", ignore_errors=True)
        command: list[str | Path] = [
            program,
            *self._options,
            "-q",
            "--jobs",
            str(self.jobs),
            self._root,
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seconds, used, (self._root / "streams/v1/images.json").read_bytes()

    def plan(self) -> tuple[float, Strategy]:
        """Return how long reading and hashing takes by the plan, in its unit, and by which one."""
        tasks = [
            RootTask(_ref(path), tuple(map(_ref, sorted(path.parent.glob("*.tar.xz")))))
            for path in sorted(self._root.glob("images/**/rootfs.squashfs"))
        ]
        options = HashingOptions(jobs=self.jobs)
        strategy = choose_strategy(options, [task.root for task in tasks], Observer())
        batches = group_tasks(tasks, strategy, wants_blake3=self.is_build)
        return Queue(deque(batches), self.jobs).plan.duration, strategy


def _ref(path: Path) -> FileRef:
    return FileRef(str(path), stamp_of(path.stat()))


def _seconds_a_byte(jobs: int, strategy: Strategy) -> float:
    """Return how long one lane takes for a byte if as many processes as jobs hash.

    It is measured with all the lanes that are of use, as the work is done by them, and their speed
    relative to one lane is that of the plan.
    """
    lanes = len(strategy.speeds)

    def hash_pieces(_: list[Path]) -> None:
        engine = usable_engine(strategy.engine)
        states = [engine.sha256(b"") for _ in range(lanes)]
        pieces = [mmap.mmap(-1, _PIECE_BYTES)] * lanes
        for _count in range(_LANE_BYTES // _PIECE_BYTES):
            engine.update(states, pieces)

    def do_nothing(_: list[Path]) -> None:
        pass

    work = {"hash": hash_pieces, "start": do_nothing}
    taken = alternate(
        {name: partial(in_workers, one, [Path()] * jobs, jobs) for name, one in work.items()}, 3
    )
    seconds = statistics.median(taken["hash"]) - statistics.median(taken["start"])
    return seconds / _LANE_BYTES * strategy.speeds[-1] / lanes


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("programs", nargs="*", type=Path, metavar="PROGRAM", help="OLD and NEW")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--bytes", type=size_argument, default="1G", help="of a set")
    parser.add_argument("--main-bytes", type=size_argument, default="5G", help=f"of {_MAIN}")
    parser.add_argument("--only", default=",".join(SETS), help="sets, by commas")
    arguments = parser.parse_args()
    programs = arguments.programs or [fastindex_command()]
    if unknown := set(arguments.only.split(",")) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    ratios: dict[str, list[float]] = {}
    for name in arguments.only.split(","):
        total_bytes = arguments.main_bytes if name == _MAIN else arguments.bytes
        sizes = _scale(SETS[name], total_bytes)
        for metadata in (1, 2):
            with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
                little, root = Path(directory, "little"), Path(directory, "mirror")
                files = min(arguments.jobs, len(sizes))
                _make(little, [LITTLE_BYTES // files + 1] * files, metadata)
                _make(root, sizes, metadata)
                for title, options in _commands(metadata).items():
                    words = f"{name}, {title}"
                    start = _Case(little, arguments.jobs, *options)
                    case = _Case(root, arguments.jobs, *options)
                    ratios[words] = _compare(words, start, case, programs, arguments.rounds)
    tell(
        "Time beside that of the plan, by sizes of files",
        ratios,
        next(iter(ratios)),
        {
            "jobs": arguments.jobs,
            "MiB of a set": arguments.bytes >> 20,
            f"MiB of {_MAIN}": arguments.main_bytes >> 20,
            "rounds": arguments.rounds,
        },
        arguments.record,
        unit="× the plan",
    )
    return 0


def _make(root: Path, sizes: list[int], metadata: int) -> None:
    make_mirror(
        root,
        versions=len(sizes),
        per_product=10,
        size_bytes=sizes,
        roots=("squashfs",),
        metadata=_METADATA[:metadata],
        seed=1,
    )


def _commands(metadata: int) -> dict[str, tuple[str, ...]]:
    """Return title → command, the builds first."""
    commands: dict[str, tuple[str, ...]] = {f"build, {metadata + 1} digests": ("--rehash",)}
    return commands | ({"verify --sha256": ("verify", "--sha256")} if metadata == 1 else {})


def _compare(
    title: str, start: _Case, case: _Case, programs: list[Path], rounds: int
) -> list[float]:
    """Let ``programs`` run in turn; print medians, of ratios too.

    Returns:
        The time of the last one beside what the plan says, of each round.
    """
    duration, strategy = case.plan()
    duration -= start.plan()[0]  # the rest of it is what starting takes
    runs: dict[Path, list[tuple[float, float, bytes]]] = {program: [] for program in programs}
    predicted: list[float] = []
    for _ in range(rounds):
        start_seconds = start.run(programs[-1])[0]
        predicted.append(start_seconds + duration * _seconds_a_byte(case.jobs, strategy))
        for program in programs:
            runs[program].append(case.run(program))
    published = {run[2] for of_one in runs.values() for run in of_one}
    if len(published) > 1:
        raise SystemExit(f"{title}: the catalogues differ")
    last = runs[programs[-1]]
    words = [f"wall {statistics.median(run[0] for run in last):.3f} s"]
    words.append(f"CPU {statistics.median(run[1] for run in last):.3f} s")
    words.append(f"predicted {statistics.median(predicted):.3f} s")
    for number, what in enumerate(("speed", "CPU")) if len(programs) > 1 else ():
        pairs = zip(runs[programs[0]], last, strict=True)
        ratio = statistics.median(float(old[number]) / float(new[number]) for old, new in pairs)
        words.append(f"{what} {ratio:.3f} of the old")
    print(f"  {title}: {', '.join(words)}", flush=True)
    return [run[0] / seconds for run, seconds in zip(last, predicted, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
