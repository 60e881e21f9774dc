"""A first build of big files that are in memory, by engine, beside others who hash them.

    python benchmarks/warm_build.py                            8 × 512 MiB, 3 digests each
    python benchmarks/warm_build.py --metadata 1               2 digests each
    python benchmarks/warm_build.py --files 1 --size 8G --jobs 1 --quick       one big root
    python benchmarks/warm_build.py --files 2 --size 16M --rounds 1            a smoke run

*bare hashlib*: as many processes as jobs that do nothing but read the files into a buffer
and update as many hashlib objects as the build needs; once with a bytearray for a buffer,
once with a page-aligned one, which OpenSSL walks faster. *4 KiB reads*: one process, a pass
for each digest, as the seed tool works. ``sha256sum``, ``openssl dgst`` (as many processes
as jobs) and ``b3sum`` (as many threads) compute one digest of each file;
``incus-simplestreams verify`` (one thread) all that clients check.
"""

from __future__ import annotations

import sys
from functools import partial

from contenders import (
    add_build_options,
    big_mirror,
    build_contenders,
    build_name,
    engine_pairs,
    facts,
    versions_of_others,
)
from measure import alternate, argument_parser, pinned_in_memory, tell


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    add_build_options(parser)
    arguments = parser.parse_args()
    with big_mirror(arguments.dir, arguments.files, arguments.size, arguments.metadata) as mirror:
        contenders = build_contenders(arguments.jobs, mirror.digests, is_quick=arguments.quick)
        with pinned_in_memory(mirror.roots) as is_pinned:
            seconds = alternate(
                {name: partial(run, mirror) for name, run in contenders.items()},
                arguments.rounds,
            )
        tell(
            f"First build, files in memory, {mirror.digests} SHA-256 digests a file",
            seconds,
            build_name("hashlib", "--no-blake3"),
            {
                **facts(arguments),
                "pinned": is_pinned,
                **({} if arguments.quick else versions_of_others()),
            },
            arguments.record,
            pairs=engine_pairs(list(contenders)),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
