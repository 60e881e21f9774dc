"""Verifying big files that are in memory, beside bare BLAKE3 and bare hashlib of the same bytes.

    python benchmarks/verify.py                          8 × 512 MiB, five rounds
    python benchmarks/verify.py --files 1 --size 8G      one big file: BLAKE3's own threads
    python benchmarks/verify.py --files 2 --size 16M --rounds 1           a smoke run

*bare BLAKE3*: as many processes as jobs that only read and update one hasher each; with one
file, one process whose hasher has as many threads. *bare hashlib*: two SHA-256 a file, as
``verify --sha256`` needs for a root with one metadata file. ``incus-simplestreams verify``
(one thread) takes part where it is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3
from make_mirror import make_mirror, size_argument
from measure import alternate, fastindex_command, pinned_in_memory, tell, wall_seconds

_BUFFER_BYTES = 512 * 1024
_THREADED_BUFFER_BYTES = 8 << 20


def _blake3_worker(paths: list[Path], threads: int) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES if threads == 1 else _THREADED_BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hasher = blake3(max_threads=threads)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
        hasher.hexdigest()


def _sha256_worker(paths: list[Path], threads: int) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hashers = (hashlib.sha256(), hashlib.sha256())
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for hasher in hashers:
                    hasher.update(view[:count])


def _bare(work: Callable[[list[Path], int], None], roots: list[Path], jobs: int) -> float:
    began = time.perf_counter()
    threads = max(1, jobs // len(roots))
    shares = [share for start in range(jobs) if (share := roots[start::jobs])]
    workers = [multiprocessing.Process(target=work, args=(share, threads)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--size", type=size_argument, default="512M")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where the mirror is made (default: a new one)")
    parser.add_argument("--record", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    jobs: int = arguments.jobs
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        root = Path(directory)
        make_mirror(
            root,
            versions=arguments.files,
            per_product=arguments.files,
            size_bytes=arguments.size,
            roots=("squashfs",),
            metadata=("incus",),
            seed=1,
        )
        os.sync()
        subprocess.run([fastindex_command(), "-q", root], check=True)
        roots = sorted(root.glob("images/**/rootfs.squashfs"))
        command: list[str | Path] = [fastindex_command(), "verify", "-q", "--jobs", str(jobs)]
        contenders = {
            "bare BLAKE3": lambda: _bare(_blake3_worker, roots, jobs),
            "verify": lambda: wall_seconds([*command, root]),
            "bare hashlib": lambda: _bare(_sha256_worker, roots, jobs),
            "verify --sha256": lambda: wall_seconds([*command, "--sha256", root]),
        }
        rival = shutil.which("incus-simplestreams")
        if rival is not None:
            contenders["incus-simplestreams"] = lambda: _in(root, [rival, "verify"])
        with pinned_in_memory(roots) as is_pinned:
            seconds = alternate(contenders, arguments.rounds)
        tell(
            "Verification, files in memory",
            seconds,
            "verify",
            {
                "files": arguments.files,
                "MiB each": arguments.size >> 20,
                "jobs": jobs,
                "pinned": is_pinned,
            },
            arguments.record,
        )
    return 0


def _in(directory: Path, command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
