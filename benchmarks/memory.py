"""Peak resident memory of a build: the parent's by versions, a worker's by file size.

    python benchmarks/memory.py                                20,000 versions, 4 GiB files
    python benchmarks/memory.py --versions 200 --size 64M                       a smoke run

Read from /proc while the build runs (VmHWM), so short runs are cut short by a little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from make_mirror import make_mirror, size_argument
from measure import fastindex_command


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--size", type=size_argument, default="4G", help="of two big files")
    parser.add_argument("--dir", type=Path, help="where the mirrors are made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        many, big = Path(directory, "many"), Path(directory, "big")
        for root, versions, size_bytes in ((many, arguments.versions, 300), (big, 2, None)):
            make_mirror(
                root,
                versions=versions,
                per_product=10,
                size_bytes=size_bytes or arguments.size,
                roots=("squashfs",) if root == big else ("squashfs", "disk"),
                metadata=("incus", "lxd"),
                seed=1,
            )
        runs = {
            f"{arguments.versions} versions, first build": ("--jobs", "2", many),
            f"{arguments.versions} versions, all from caches": ("--jobs", "2", many),
            f"{arguments.versions} versions, nothing to do": ("--jobs", "2", many),
            f"2 files of {arguments.size >> 20} MiB": ("--jobs", "2", big),
        }
        for title, command in runs.items():
            if "caches" in title:
                (many / "streams/.snapshot.json").unlink()
            parent, worker = peaks_of(*command)
            print(f"  {title:<40} parent {parent / 1024:6.1f} MiB, worker {worker / 1024:5.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
