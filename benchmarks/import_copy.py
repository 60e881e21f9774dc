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

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contenders import add_mirror_options, big_mirror, facts, hash_bare
from measure import (
    alternate,
    argument_parser,
    fastindex_command,
    pinned_in_memory,
    tell,
    wall_seconds,
)


def _copy(sources: list[Path], target: Path, jobs: int) -> None:
    """Copy each directory with ``cp``, ``jobs`` at a time."""

    def copy_one(source: Path) -> None:
        options = ("-r", "--preserve=timestamps", "--reflink=never")
        subprocess.run(["cp", *options, source, target], check=True)

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(copy_one, sources))


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
    parser = argument_parser(__doc__)
    add_mirror_options(parser)
    parser.add_argument("--cold", action="store_true", help="sources on disk, not in memory")
    arguments = parser.parse_args()
    jobs: int = arguments.jobs
    with big_mirror(arguments.dir, arguments.files, arguments.size, metadata=1) as source:
        target = source.root.with_name("target")
        versions = [path.parent for path in source.roots]

        def copy() -> None:
            _copy(versions, target, jobs)

        def copy_synced() -> None:
            copy()
            subprocess.run(["sync", *target.rglob("*.*")], check=True)

        def copy_then_hash() -> None:
            copy()
            hash_bare(source.roots, jobs, source.digests)

        def fastindex(*options: str) -> None:
            command: list[str | Path] = [fastindex_command(), "import", "-q", "--copy"]
            wall_seconds([*command, "--jobs", str(jobs), *options, *versions, target])

        contenders: dict[str, Callable[[], object]] = {
            "cp": copy,
            "cp, synced": copy_synced,
            "cp, then hashlib": copy_then_hash,
            "fastindex import --no-blake3": lambda: fastindex("--no-blake3"),
            "fastindex import": fastindex,
        }

        def timed(work: Callable[[], object]) -> Callable[[], float]:
            return lambda: _timed(versions, target, arguments.cold, work)

        with pinned_in_memory([] if arguments.cold else source.roots) as is_pinned:
            runs = {name: timed(work) for name, work in contenders.items()}
            seconds = alternate(runs, arguments.rounds)
        tell(
            f"Import by --copy, sources {'on disk' if arguments.cold else 'in memory'}",
            seconds,
            "cp",
            {**facts(arguments), **({} if arguments.cold else {"pinned": is_pinned})},
            arguments.record,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
