"""System calls of a run with nothing to do, beside those of ``find``: a directory, and a file.

    python benchmarks/system_calls.py                           200 versions of 4 files
    python benchmarks/system_calls.py --versions 20                            a smoke run

Counted by ``strace``, which must be installed, over a tree of so many versions and over one
of half as many: the difference is what the further directories and files have cost, without
the program's start. *stat* is told by file, but those of directories count too. *All others*
are those that take a path or a descriptor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from make_mirror import make_tiny_mirror
from measure import CANNOT_MEASURE, argument_parser, seconds_and_mib, tell
from nightly import Command, build, find

KINDS = {
    "openat": ("open", "openat", "openat2"),
    "getdents64": ("getdents", "getdents64"),
    "close": ("close",),
    "stat": ("fstat", "lstat", "newfstatat", "stat", "statx"),
}
"""What a scan is made of → the names that ``strace`` has for it."""
OTHERS = "all others"
_KIND_OF = {call: kind for kind, calls in KINDS.items() for call in calls}
_OF_MEMORY = ("mmap", "munmap")  # they take descriptors, but map memory of threads, too
_CALL = re.compile(r"^(?:\d+ +)?([a-z]\w*)\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Added:
    """What the greater of two trees has more, and how many more calls it takes."""

    directories: int
    files: int
    calls: Counter[str]
    """By kind: those of ``KINDS``, and ``OTHERS``."""

    def each(self) -> dict[str, float]:
        """Return the calls by kind: ``stat`` a file, the others a directory."""
        return {
            f"{kind} a file" if kind == "stat" else f"{kind} a directory": self.calls[kind]
            / (self.files if kind == "stat" else self.directories)
            for kind in (*KINDS, OTHERS)
        }


def count_calls(command: Command, environment: Mapping[str, str] | None = None) -> Counter[str]:
    """Return how many calls of each kind ``command``, and all that it starts, makes.

    Args:
        command: what is run.
        environment: its own, or None for that of this process.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        strace = ["strace", "-f", "-qq", "-e", "trace=%file,%desc", "-e", "signal=none", "-o"]
        silence = subprocess.DEVNULL
        subprocess.run([*strace, log, *command], check=True, stdout=silence, env=environment)
        names = _CALL.findall(log.read_text())
    return Counter(_KIND_OF.get(name, OTHERS) for name in names if name not in _OF_MEMORY)


def size_of(root: Path) -> tuple[int, int]:
    """Return how many directories and files the stream of ``root`` has; hidden ones are none."""
    directories = files = 0
    for _, _, names in os.walk(root / "images"):
        directories += 1
        files += sum(not name.startswith(".") for name in names)
    return directories, files


def added(fewer: Path, more: Path, calls: tuple[Counter[str], Counter[str]]) -> Added:
    """Return how ``more`` differs from ``fewer``, which took ``calls``: (of fewer, of more)."""
    (few_directories, few_files), (directories, files) = size_of(fewer), size_of(more)
    of_fewer, of_more = calls
    difference = Counter(of_more)
    difference.subtract(of_fewer)
    return Added(directories - few_directories, files - few_files, difference)


def make_trees(directory: Path, versions: int) -> tuple[Path, Path]:
    """Make two mirrors, of half of ``versions`` and of all, and index them; return both."""
    roots = directory / "fewer", directory / "more"
    for root, count in zip(roots, (versions // 2, versions), strict=True):
        make_tiny_mirror(root, count, "squashfs", "disk")
        seconds_and_mib(build(root))
    return roots


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=1)
    parser.add_argument("--versions", type=int, default=200)
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed: apt-get install strace", file=sys.stderr)
        return CANNOT_MEASURE
    runs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        fewer, more = make_trees(Path(directory), arguments.versions)
        for name, command in {"find": find, "fastindex": build}.items():
            for _ in range(arguments.rounds):
                calls = count_calls(command(fewer)), count_calls(command(more))
                for kind, count in added(fewer, more, calls).each().items():
                    runs.setdefault(f"{name}: {kind}", []).append(count)
        directories, files = size_of(more)
    facts = {"versions": arguments.versions, "directories": directories, "files": files}
    baseline = "find: stat a file"
    title = "System calls of a run with nothing to do"
    tell(title, runs, baseline, facts, arguments.record, unit="calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
