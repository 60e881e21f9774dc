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

import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blake3 import blake3
from contenders import (
    Mirror,
    add_mirror_options,
    big_mirror,
    engine_pairs,
    facts,
    hash_bare,
    verify_with_incus,
    versions_of_others,
)
from measure import (
    alternate,
    argument_parser,
    engines,
    fastindex_command,
    in_workers,
    pinned_in_memory,
    tell,
    wall_seconds,
)

_BUFFER_BYTES = 512 * 1024
_THREADED_BUFFER_BYTES = 8 << 20
_VERIFY = "fastindex verify"


def _blake3_bare(paths: list[Path], threads: int) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES if threads == 1 else _THREADED_BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hasher = blake3(max_threads=threads)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
        hasher.hexdigest()


def _contenders(mirror: Mirror, jobs: int) -> dict[str, Callable[[], float]]:
    threads = max(1, jobs // len(mirror.roots))
    bare_blake3 = partial(_blake3_bare, threads=threads)
    command: list[str | Path] = [fastindex_command(), "verify", "-q", "--jobs", str(jobs)]
    contenders: dict[str, Callable[[], float]] = {
        "bare BLAKE3": partial(in_workers, bare_blake3, mirror.roots, jobs),
        _VERIFY: partial(wall_seconds, [*command, mirror.root]),
        "bare hashlib": partial(hash_bare, mirror.roots, jobs, mirror.digests),
    }
    for engine in engines():
        options = ["--sha256", "--engine", engine]
        contenders[" ".join((_VERIFY, *options))] = partial(
            wall_seconds, [*command, *options, mirror.root]
        )
    if shutil.which("incus-simplestreams"):
        contenders["incus-simplestreams verify"] = partial(verify_with_incus, mirror)
    return contenders


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_mirror_options(parser)
    arguments = parser.parse_args()
    with big_mirror(arguments.dir, arguments.files, arguments.size, metadata=1) as mirror:
        subprocess.run([fastindex_command(), "-q", mirror.root], check=True)
        contenders = _contenders(mirror, arguments.jobs)
        with pinned_in_memory(mirror.roots) as is_pinned:
            seconds = alternate(contenders, arguments.rounds)
        others = versions_of_others()
        tell(
            "Verification, files in memory",
            seconds,
            _VERIFY,
            {
                **facts(arguments),
                "pinned": is_pinned,
                **{name: others[name] for name in others if "incus" in name},
            },
            arguments.record,
            pairs=engine_pairs(list(contenders)),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
