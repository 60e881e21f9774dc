"""A cold build of big files that are in memory, beside bare hashing of the same bytes.

    python benchmarks/hash_throughput.py                      8 × 512 MiB, five rounds
    python benchmarks/hash_throughput.py --files 2 --size 16M --rounds 1     a smoke run

The yardstick, *bare*: as many processes as jobs that do nothing but read the files into
a buffer and update as many hashlib objects as the build needs; once with a bytearray
for a buffer, once with a page-aligned one, which OpenSSL walks faster. *three passes*: one
process, 4 KiB reads, a pass for each digest, as the seed tool works.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from make_mirror import make_mirror, size_argument
from measure import alternate, fastindex_command, pinned_in_memory, tell, wall_seconds

_BUFFER_BYTES = 256 * 1024


def _bare_worker(paths: list[str], digests: int, is_aligned: bool) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES) if is_aligned else bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hashers = [hashlib.sha256() for _ in range(digests)]
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for hasher in hashers:
                    hasher.update(view[:count])
        for hasher in hashers:
            hasher.hexdigest()


def _bare(roots: list[Path], jobs: int, digests: int, *, is_aligned: bool) -> float:
    began = time.perf_counter()
    shares = [[str(path) for path in roots[start::jobs]] for start in range(jobs)]
    workers = [
        multiprocessing.Process(target=_bare_worker, args=(share, digests, is_aligned))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def _three_passes(roots: list[Path]) -> float:
    began = time.perf_counter()
    for path in roots:
        for prefixes in ((), ("incus.tar.xz",), ("lxd.tar.xz",)):
            hasher = hashlib.sha256()
            for name in (*prefixes, path.name):
                with path.with_name(name).open("rb") as file:
                    while piece := file.read(4096):
                        hasher.update(piece)
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
    parser.add_argument("--quick", action="store_true", help="without the slow contenders")
    parser.add_argument("--dir", type=Path, help="where the mirror is made (default: a new one)")
    parser.add_argument("--record", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        root = Path(directory)
        make_mirror(
            root,
            versions=arguments.files,
            per_product=arguments.files,
            size_bytes=arguments.size,
            roots=("squashfs",),
            metadata=("incus", "lxd"),
            seed=1,
        )
        os.sync()  # the disk is to be done with writing them
        roots = sorted(root.glob("images/**/rootfs.squashfs"))

        def build(*options: str) -> float:
            shutil.rmtree(root / "streams", ignore_errors=True)
            command: list[str | Path] = [
                fastindex_command(),
                "-q",
                "--rehash",
                "--jobs",
                str(arguments.jobs),
            ]
            return wall_seconds([*command, *options, root])

        contenders = {
            "bare": lambda: _bare(roots, arguments.jobs, 3, is_aligned=False),
            "bare, aligned": lambda: _bare(roots, arguments.jobs, 3, is_aligned=True),
            "fastindex --no-blake3": lambda: build("--no-blake3"),
            "fastindex": build,
        }
        if not arguments.quick:
            listing = root / "files"
            listing.write_bytes(b"\0".join(bytes(path) for path in roots))
            command = f"xargs -0 -n1 -P{arguments.jobs} sha256sum < '{listing}'"
            contenders["sha256sum, 1 digest"] = lambda: wall_seconds(["sh", "-c", command])
            contenders["three passes"] = lambda: _three_passes(roots)
        with pinned_in_memory(roots) as is_pinned:
            seconds = alternate(contenders, arguments.rounds)
        tell(
            "Cold build, files in memory, 3 SHA-256 digests a file",
            seconds,
            "bare",
            {
                "files": arguments.files,
                "MiB each": arguments.size >> 20,
                "jobs": arguments.jobs,
                "pinned": is_pinned,
            },
            arguments.record,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
