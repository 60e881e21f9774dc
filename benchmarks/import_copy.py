"""Importing big images that are in memory by --copy, beside a bare copy of the same files.

    python benchmarks/import_copy.py                          8 × 512 MiB, five rounds
    python benchmarks/import_copy.py --cold                   the same, read from the disk
    python benchmarks/import_copy.py --files 2 --size 16M --rounds 1         a smoke run

An import copies, hashes on the way (two SHA-256, one BLAKE3) and syncs. *cp*: only copies;
*cp, synced*: copies and syncs each file, as the import does; *cp, then hashlib*: copies, then
two processes read the files again and update as many SHA-256 as the import: what the same
would cost without doing both at once.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_mirror import make_mirror, size_argument
from measure import alternate, fastindex_command, pinned_in_memory, tell, wall_seconds

_BUFFER_BYTES = 512 * 1024


def _copy(sources: list[Path], target: Path, jobs: int) -> None:
    """Copy each directory with ``cp``, ``jobs`` at a time."""

    def copy_one(source: Path) -> None:
        options = ("-r", "--preserve=timestamps", "--reflink=never")
        subprocess.run(["cp", *options, source, target], check=True)

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(copy_one, sources))


def _hash(paths: list[Path]) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hashers = (hashlib.sha256(), hashlib.sha256())
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for hasher in hashers:
                    hasher.update(view[:count])


def _hash_all(paths: list[Path], jobs: int) -> None:
    shares = [paths[start::jobs] for start in range(jobs)]
    workers = [multiprocessing.Process(target=_hash, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _timed(sources: list[Path], target: Path, is_cold: bool, work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes to fill ``target``, which is empty before.

    A copy that does not count goes before: the first to fill memory that a virtual machine
    has given back to its host would wait for it.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    _copy(sources, target, 1)
    shutil.rmtree(target)
    target.mkdir()
    os.sync()  # the disk is to be done with what came before
    if is_cold:
        for path in sources:
            _forget(path / "rootfs.squashfs")
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _forget(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--size", type=size_argument, default="512M")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="sources on disk, not in memory")
    parser.add_argument("--dir", type=Path, help="where all is made (default: a new one)")
    parser.add_argument("--record", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    jobs: int = arguments.jobs
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        make_mirror(
            source,
            versions=arguments.files,
            per_product=arguments.files,
            size_bytes=arguments.size,
            roots=("squashfs",),
            metadata=("incus",),
            seed=1,
        )
        versions = sorted(source.glob("images/*/*/*/*/*"))
        roots = sorted(source.glob("images/**/rootfs.squashfs"))

        def copy() -> None:
            _copy(versions, target, jobs)

        def copy_synced() -> None:
            copy()
            subprocess.run(["sync", *target.rglob("*.*")], check=True)

        def copy_then_hash() -> None:
            copy()
            _hash_all(roots, jobs)

        def fastindex(*options: str) -> None:
            command: list[str | Path] = [fastindex_command(), "import", "-q", "--copy"]
            wall_seconds([*command, "--jobs", str(jobs), *options, *versions, target])

        contenders: dict[str, Callable[[], object]] = {
            "cp": copy,
            "cp, synced": copy_synced,
            "cp, then hashlib": copy_then_hash,
            "import --no-blake3": lambda: fastindex("--no-blake3"),
            "import": fastindex,
        }

        def timed(work: Callable[[], object]) -> Callable[[], float]:
            return lambda: _timed(versions, target, arguments.cold, work)

        with pinned_in_memory([] if arguments.cold else roots) as is_pinned:
            runs = {name: timed(work) for name, work in contenders.items()}
            seconds = alternate(runs, arguments.rounds)
        tell(
            f"Import by --copy, sources {'on disk' if arguments.cold else 'in memory'}",
            seconds,
            "cp",
            {
                "files": arguments.files,
                "MiB each": arguments.size >> 20,
                "jobs": jobs,
                "pinned": is_pinned,
            },
            arguments.record,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
