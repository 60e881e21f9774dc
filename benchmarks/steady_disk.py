"""A first build of files on a disk whose speed is given, beside what is possible there.

    python benchmarks/steady_disk.py                     10 × 350 MiB at 1000, 1300, 1600, 2000 MB/s
    python benchmarks/steady_disk.py OLD NEW             two installed programs in turn
    python benchmarks/steady_disk.py --files 2 --size 16M --rates 200 --rounds 1   a smoke run

Disks of virtual machines are shared: theirs vary more than what is to be measured. This one is a
file in memory with an ext4 on it, behind a limit of the kernel's on the bytes read in a second
(cgroups, v1 or v2). The page cache is dropped before each run. A run cannot take less than the
larger of two bounds: the bytes at that rate, and the CPU time of the whole machine meanwhile (its
threads for the made-up disk work, too) by its CPUs. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contenders import add_mirror_options, facts
from make_mirror import make_mirror
from measure import (
    CANNOT_MEASURE,
    alternate,
    argument_parser,
    drop_caches,
    fastindex_command,
    tell,
    wall_seconds,
)

_MB = 1_000_000
_PATIENCE_SECONDS = 10
_JOIN = 'echo $$ > "$0" && exec "$@"'
"""For a shell: join the group whose file is the first argument, and become the others."""


@dataclass(frozen=True, slots=True)
class _Disk:
    """A made-up disk.

    Args:
        mount: where its file system is mounted.
        limit: the file of the control group that takes the limit.
        processes: that which takes the processes it is for.
        rule: returns what is written there for a number of bytes a second.
    """

    mount: Path
    limit: Path
    processes: Path
    rule: Callable[[int], str]

    def run(self, program: Path, jobs: int, rate: int) -> tuple[float, float]:
        """Return how many seconds a first build of all that is on it takes, and of CPU time."""
        self.limit.write_text(self.rule(rate))
        shutil.rmtree(self.mount / "mirror/streams", ignore_errors=True)
        drop_caches()
        subprocess.run([program, "--version"], check=True, stdout=subprocess.DEVNULL)
        options = ("-q", "--rehash", "--jobs", str(jobs))
        before = _busy_seconds()
        seconds = wall_seconds(
            ["sh", "-c", _JOIN, self.processes, program, *options, self.mount / "mirror"]
        )
        return seconds, _busy_seconds() - before


def _busy_seconds() -> float:
    """Return how long the CPUs of the machine have been busy, in all.

    Source: /proc/stat in proc(5): user, nice, system, idle, iowait, irq, softirq.
    """
    words = Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    user, nice, system, _idle, _waiting, irq, softirq = map(int, words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _steady_disk(directory: Path, size_bytes: int) -> Iterator[_Disk]:
    """Make a disk of ``size_bytes``, in a file in ``directory``, for a while."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        image, mount = Path(made, "image"), Path(made, "mount")
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            device = mount.stat().st_dev
            with _control_group(f"{os.major(device)}:{os.minor(device)}") as (folder, limit, rule):
                yield _Disk(mount, folder / limit, folder / "cgroup.procs", rule)
        finally:
            subprocess.run(["umount", mount], check=True)


@contextmanager
def _control_group(device: str) -> Iterator[tuple[Path, str, Callable[[int], str]]]:
    """Make a control group; yields its folder, the file for the limit, and what to write there."""
    old, new = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")
    if (old / "cgroup.procs").exists():
        parent, limit, word = old, "blkio.throttle.read_bps_device", ""
    else:
        parent, limit, word = new, "io.max", "rbps="
        (new / "cgroup.subtree_control").write_text("+io")
    folder = parent / f"fastindex-benchmark-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder, limit, lambda rate: f"{device} {word}{rate}\n"
    finally:
        _end_all(folder / "cgroup.procs")
        folder.rmdir()


def _end_all(processes: Path) -> None:
    """End what is left of a run that was interrupted: its workers have files open on the disk."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while (numbers := processes.read_text().split()) and time.monotonic() < until:
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        time.sleep(0.05)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=7)
    add_mirror_options(parser)
    parser.set_defaults(files=10, size=350 << 20, dir=Path("/dev/shm"))
    parser.add_argument("programs", nargs="*", type=Path, metavar="PROGRAM", help="OLD and NEW")
    parser.add_argument("--rates", default="1000,1300,1600,2000", help="MB/s, by commas")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is mounted must not stay
    programs: list[Path] = arguments.programs or [fastindex_command()]
    size_bytes = arguments.files * arguments.size
    runs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        disk_bytes = size_bytes + size_bytes // 10 + (64 << 20)
        try:
            disk = stack.enter_context(_steady_disk(arguments.dir, disk_bytes))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"this machine makes no disk with a limit for this user: {error}")
            return CANNOT_MEASURE
        make_mirror(
            disk.mount / "mirror",
            versions=arguments.files,
            per_product=arguments.files,
            size_bytes=arguments.size,
            roots=("squashfs",),
            metadata=("incus", "lxd"),
            seed=1,
        )
        for rate in map(int, arguments.rates.split(",")):
            contenders = {
                f"{program}, {rate} MB/s": partial(disk.run, program, arguments.jobs, rate * _MB)
                for program in programs
            }
            for name, taken in alternate(contenders, arguments.rounds).items():
                runs[name] = _compare(name, taken, size_bytes / (rate * _MB))
    tell(
        "First build from a steady disk: the larger bound by the time",
        runs,
        next(iter(runs)),
        facts(arguments),
        arguments.record,
        unit="of what is possible",
    )
    return 0


def _compare(name: str, taken: list[tuple[float, float]], disk_seconds: float) -> list[float]:
    """Print medians; return for each run the larger bound by its time."""
    cpus = len(os.sched_getaffinity(0))
    wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"  {name}: {wall:.2f} s; disk {disk_seconds:.2f}, CPU {cpu / cpus:.2f} s", flush=True)
    return [max(disk_seconds, busy / cpus) / seconds for seconds, busy in taken]


if __name__ == "__main__":
    sys.exit(main())
