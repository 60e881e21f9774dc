"""Peak resident memory of a build: the parent's by versions, a worker's by file size.

    python benchmarks/memory.py                                20,000 versions, 4 GiB files
    python benchmarks/memory.py --versions 200 --size 64M                       a smoke run

Read from /proc while the build runs (VmHWM), so short runs are cut short by a little.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import big_mirror
from make_mirror import forget_state, make_tiny_mirror, size_argument
from measure import alternate, argument_parser, fastindex_command, tell


def peaks_of(*arguments: str | Path) -> tuple[int, int]:
    """Run a build; return the peak memory of the parent and of its largest worker, in KiB."""
    process = subprocess.Popen([fastindex_command(), "-q", *arguments])
    parent = worker = 0
    while process.poll() is None:
        parent = max(parent, _peak(process.pid))
        for child in _children(process.pid):
            worker = max(worker, _peak(child))
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(process.returncode)
    return parent, worker


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    return next(
        (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0
    )


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=1)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--size", type=size_argument, default="4G", help="of two big files")
    arguments = parser.parse_args()
    count = f"{arguments.versions:,} versions"
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir) as directory,
        big_mirror(arguments.dir, 2, arguments.size, metadata=2) as big,
    ):
        many = Path(directory)
        make_tiny_mirror(many, arguments.versions, "squashfs", "disk")

        def build_many(*options: str, forgets: bool = False) -> tuple[int, int]:
            if forgets:
                forget_state(many)
            return peaks_of("--jobs", "2", *options, many)

        runs = alternate(
            {
                f"{count}, first build": lambda: build_many("--rehash"),
                f"{count}, all from caches": lambda: build_many(forgets=True),
                f"{count}, nothing to do": build_many,
                f"2 files of {arguments.size >> 20} MiB": lambda: peaks_of(
                    "--jobs", "2", "--rehash", big.root
                ),
            },
            arguments.rounds,
        )
    peaks: dict[str, list[float]] = {}
    for name, of_one in runs.items():
        peaks[f"{name}: parent"] = [parent / 1024 for parent, _ in of_one]
        if any(worker for _, worker in of_one):
            peaks[f"{name}: a worker"] = [worker / 1024 for _, worker in of_one]
    facts = {"jobs": 2, "rounds": arguments.rounds}
    baseline = f"{count}, nothing to do: parent"
    tell("Peak resident memory", peaks, baseline, facts, arguments.record, unit="MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
