"""A first build of big files that are on disk only, by engine, beside others who hash them.

    python benchmarks/cold_build.py                            8 × 512 MiB, 3 digests each
    python benchmarks/cold_build.py --files 2 --size 16M --rounds 1 --quick    a smoke run

The contenders are those of ``warm_build.py``. Before each run the machine's page cache is
dropped, which only root may; then the contender works on a mirror of a few KiB, so that its
own program is back in memory. What a virtual machine's host keeps in *its* memory nobody
inside can drop.
"""

from __future__ import annotations

import sys
from functools import partial

from contenders import (
    Contender,
    Mirror,
    add_build_options,
    big_mirror,
    build_contenders,
    build_name,
    engine_pairs,
    facts,
    versions_of_others,
)
from measure import alternate, argument_parser, drop_caches, tell


def _cold(run: Contender, mirror: Mirror, few: Mirror) -> float:
    drop_caches()
    run(few)
    return run(mirror)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_build_options(parser)
    arguments = parser.parse_args()
    drop_caches()  # before long work that would be for nothing
    with (
        big_mirror(arguments.dir, arguments.files, arguments.size, arguments.metadata) as mirror,
        big_mirror(arguments.dir, 2, 4096, arguments.metadata) as few,
    ):
        contenders = build_contenders(arguments.jobs, mirror.digests, is_quick=arguments.quick)
        seconds = alternate(
            {name: partial(_cold, run, mirror, few) for name, run in contenders.items()},
            arguments.rounds,
        )
        tell(
            f"First build, files on disk, {mirror.digests} SHA-256 digests a file",
            seconds,
            build_name("hashlib", "--no-blake3"),
            {**facts(arguments), **({} if arguments.quick else versions_of_others())},
            arguments.record,
            pairs=engine_pairs(list(contenders)),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
