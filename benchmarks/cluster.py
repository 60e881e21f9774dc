"""Hashing on a cluster, beside own workers, with all of it on this machine; and how it grows.

    python benchmarks/cluster.py                      8 × 512 MiB, and 40,000 versions of 300 bytes
    python benchmarks/cluster.py --jobs 4             with four workers instead of two
    python benchmarks/cluster.py --growth             10 PB in 2 million files over 200 machines

The workers of the cluster are as many processes with one thread as jobs. ``--growth`` simulates:
the decisions, and the messages of a sample of the parcels, are those of a real run, and are timed;
the machines are made up, each with four jobs behind a link of 25 Gbit/s, which two CPUs of 2 GB/s
would fill.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from contenders import add_mirror_options, big_mirror, facts
from make_mirror import TINY_BYTES, make_mirror
from measure import (
    alternate,
    argument_parser,
    fastindex_command,
    own_peak_mib,
    pinned_in_memory,
    tell,
    wall_seconds,
)

from fastindex.formats.clusters import DigestMessage, OutcomeMessage
from fastindex.hashing.cluster_answers import make_parcel, read_outcomes
from fastindex.hashing.distribution import Assignment, Distribution
from fastindex.hashing.tasks import Batch, FileRef, RootTask
from fastindex.system.stamps import Stamp

_PATIENCE_SECONDS = 30
_MACHINES = 200
_JOBS = 4
_MEAN_BYTES = 5_000_000_000
_LINK_BYTES_PER_SECOND = 3.1e9
_LATENCY_SECONDS = 0.005
_SAMPLE = 100
"""Of so many parcels the messages of one are made and read."""


@contextmanager
def _cluster(workers: int) -> Iterator[Path]:
    """Start a scheduler and workers; yields the scheduler file."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "scheduler.json")

        def start(*words: object) -> None:
            command = [sys.executable, "-m", "dask", *map(str, words), "--no-dashboard"]
            quiet = subprocess.DEVNULL
            processes.append(
                subprocess.Popen(
                    [*command, "--host", "127.0.0.1"], cwd=directory, stdout=quiet, stderr=quiet
                )
            )

        try:
            start("scheduler", "--port", "0", "--scheduler-file", file)
            for _ in range(workers):
                start(
                    *("worker", "--scheduler-file", file, "--no-nanny", "--nthreads", 1),
                    *("--local-directory", directory),
                )
            _wait_for(file, workers)
            yield file
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _wait_for(file: Path, workers: int) -> None:
    """Wait until a scheduler has its workers, by asking it in a process of its own."""
    ask = (
        "import sys, distributed\n"
        "client = distributed.Client(scheduler_file=sys.argv[1], timeout=30)\n"
        "client.wait_for_workers(int(sys.argv[2]), timeout=30)"
    )
    until = time.monotonic() + _PATIENCE_SECONDS
    while not (file.exists() and file.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    subprocess.run([sys.executable, "-c", ask, file, str(workers)], check=True)


def _measure(arguments: argparse.Namespace) -> None:
    jobs: int = arguments.jobs
    with (
        big_mirror(arguments.dir, arguments.files, arguments.size, metadata=2) as big,
        tempfile.TemporaryDirectory(dir=arguments.dir) as made,
        pinned_in_memory(big.roots),
        _cluster(jobs) as file,
    ):
        tiny = Path(made, "tiny")
        make_mirror(
            tiny,
            versions=arguments.versions,
            per_product=10,
            size_bytes=TINY_BYTES,
            roots=("squashfs",),
            metadata=("incus",),
            seed=1,
        )
        command: list[str | Path] = [fastindex_command(), "-q", "--rehash", "--jobs", str(jobs)]
        contenders = {
            f"{what}, {where}": partial(wall_seconds, [*command, *options, root])
            for what, root in (("big files", big.root), ("tiny files", tiny))
            for where, options in (("own workers", []), ("cluster", ["--cluster", str(file)]))
        }
        runs = alternate(contenders, arguments.rounds)
    pairs = [(f"{what}, cluster", f"{what}, own workers") for what in ("big files", "tiny files")]
    tell(
        "A build on a cluster, all of it on this machine: seconds",
        runs,
        "big files, own workers",
        facts(arguments) | {"tiny versions": arguments.versions},
        arguments.record,
        pairs=pairs,
    )


def make_tasks(files: int) -> list[RootTask]:
    """Return tasks with a metadata file each, of the sizes that images have, the largest first."""
    chance = random.Random(1)
    median = _MEAN_BYTES * 0.88  # the mean of exp(gauss(0, 1/2)) is exp(1/8)
    sizes = [int(median * chance.lognormvariate(0, 0.5)) for _ in range(files)]
    sizes.sort(reverse=True)
    tasks = []
    for number, size_bytes in enumerate(sizes):
        where = f"/srv/images/images/os{number % 999}/12/amd64/default/20240505_{number:06d}"
        metadata = FileRef(f"{where}/incus.tar.xz", Stamp(700, number, 1, 2 * number))
        root = FileRef(f"{where}/rootfs.squashfs", Stamp(size_bytes, number, 1, 2 * number + 1))
        tasks.append(RootTask(root, (metadata,)))
    return tasks


class Simulation:
    """A run on made-up machines.

    Args:
        tasks: the work, the largest first.
        machines: how many machines there are, with a worker of ``_JOBS`` threads each.
    """

    def __init__(self, tasks: list[RootTask], machines: int) -> None:
        self.total_bytes = sum(task.root.stamp.size_bytes for task in tasks)
        self.seconds = 0.0
        """When the last worker was done."""
        self.idle_seconds = 0.0
        """For how long workers had nothing to do before, on average."""
        self.parcels = 0
        """How many parcels there were."""
        self.deciding_seconds = 0.0
        """How long this process took for decisions and messages."""
        self._ends: dict[str, float] = {}
        batch = Batch(tuple(tasks), self.total_bytes, wants_blake3=True)
        self._distribution = Distribution(deque([batch]), None)
        for number in range(machines):
            self._distribution.add_worker(f"w{number}", f"m{number}", _JOBS)

    def run(self) -> None:
        """Let all parcels be hashed."""
        events: list[tuple[float, int, Assignment]] = []
        numbers = count()
        speed = _LINK_BYTES_PER_SECOND / _JOBS  # all jobs of a machine are busy nearly always
        free: dict[str, list[float]] = {}

        def send(now: float, assignments: list[Assignment]) -> None:
            for assignment in assignments:
                threads = free.setdefault(assignment.worker, [0.0] * _JOBS)
                starts = max(now + _LATENCY_SECONDS, heapq.heappop(threads))
                ends = starts + assignment.batch.size_bytes / speed
                heapq.heappush(threads, ends)
                heapq.heappush(events, (ends, next(numbers), assignment))

        send(0.0, self._decide(None))
        while events:
            now, _, done = heapq.heappop(events)
            self.seconds = self._ends[done.worker] = now
            send(now, self._decide(done))
        waits = [self.seconds - end for end in self._ends.values()]
        self.idle_seconds = sum(waits) / len(waits)

    def _decide(self, done: Assignment | None) -> list[Assignment]:
        began = time.perf_counter()
        if done is None:
            assignments = self._distribution.assign()
        else:
            self._distribution.finish(done)
            assignments = self._distribution.assign(done.worker)
        seconds = time.perf_counter() - began
        for assignment in assignments:
            self.parcels += 1
            if self.parcels % _SAMPLE == 0:
                seconds += _SAMPLE * _time_messages(assignment.batch)
        self.deciding_seconds += seconds
        return assignments


def _time_messages(batch: Batch) -> float:
    """Return the seconds that the messages about a parcel take here."""
    digest = DigestMessage(bytes(32), bytes(32), is_checked=True, head=b"")
    outcome = OutcomeMessage(digest, (digest,), (bytes(32),), 1, 2, "")
    outcomes = [outcome] * len(batch.tasks)
    began = time.perf_counter()
    make_parcel(batch, "", "auto")
    read_outcomes(batch, outcomes, 1 << 62)
    return time.perf_counter() - began


def _simulate(arguments: argparse.Namespace) -> None:
    before_mib = own_peak_mib()
    tasks = make_tasks(arguments.versions)
    simulation = Simulation(tasks, _MACHINES)
    tasks.clear()
    simulation.run()
    figures = {
        "files": arguments.versions,
        "machines": _MACHINES,
        "petabytes": simulation.total_bytes / 1e15,
        "parcels": simulation.parcels,
        "hours": simulation.seconds / 3600,
        "hours if the links were never idle": simulation.total_bytes
        / (_MACHINES * _LINK_BYTES_PER_SECOND)
        / 3600,
        "seconds that a machine waits for the last one": simulation.idle_seconds,
        "parcels a second": simulation.parcels / simulation.seconds,
        "CPU seconds of this process": simulation.deciding_seconds,
        "MiB for the tasks": own_peak_mib() - before_mib,
    }
    for name, value in figures.items():
        print(f"  {name}: {value:,.4g}" if isinstance(value, float) else f"  {name}: {value:,}")


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_mirror_options(parser)
    parser.add_argument("--versions", type=int, help="tiny ones, or files of --growth")
    parser.add_argument("--growth", action="store_true", help="simulate a large cluster")
    arguments = parser.parse_args()
    if arguments.versions is None:
        arguments.versions = 2_000_000 if arguments.growth else 40_000
    if arguments.growth and arguments.record is not None:
        parser.error("--growth prints figures of one run, and has no --record")
    if arguments.growth:
        _simulate(arguments)
    else:
        _measure(arguments)
    return 0


if __name__ == "__main__":
    os.environ.pop("FASTINDEX_CLUSTER", None)
    sys.exit(main())
