"""What it costs to let more accompany the catalogue: beside the same runs without it.

    python benchmarks/companions.py                                      20,000 versions
    python benchmarks/companions.py --options='--gzip --zstd'            of these only
    python benchmarks/companions.py --catalogue streams/v1/images.json   compression alone
    python benchmarks/companions.py --versions 100 --rounds 1            a smoke run

Each round adds a version, and takes it away again, in two equal mirrors: one with the options and
one without. ``--catalogue`` compresses a file with what ``--gzip`` and ``--zstd`` use, and with
zlib, and tells seconds and bytes.
"""

from __future__ import annotations

import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from isal import isal_zlib
from make_mirror import make_tiny_mirror
from measure import alternate, argument_parser, seconds_and_mib, tell, wall_seconds
from nightly import build, with_new_version

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS = "--gzip --lists"
_PLAIN = "one version to add"
_NOTHING = "nothing to do"


def measure_builds(
    directory: Path, versions: int, options: list[str], rounds: int, record: Path | None
) -> None:
    """Tell the time of runs with ``options`` and without."""
    plain, more = directory / "plain", directory / "more"
    words = " ".join(options)
    for root, own in ((plain, []), (more, options)):
        make_tiny_mirror(root, versions, "squashfs", "disk")
        wall_seconds(build(root, *own))

    def add(root: Path, *own: str) -> float:
        return with_new_version(seconds_and_mib, root, options=own)[0]

    contenders: dict[str, Callable[[], float]] = {
        _PLAIN: partial(add, plain),
        f"{_PLAIN}, {words}": partial(add, more, *options),
        _NOTHING: lambda: wall_seconds(build(plain)),
        f"{_NOTHING}, {words}": lambda: wall_seconds(build(more, *options)),
    }
    seconds = alternate(contenders, rounds)
    facts = {"versions": versions, "rounds": rounds, "options": words}
    changed = {name: seconds[name] for name in seconds if name.startswith(_PLAIN)}
    tell("A build that adds a version", changed, _PLAIN, facts, record)
    same = {name: seconds[name] for name in seconds if name.startswith(_NOTHING)}
    beside = record and record.with_stem(f"{record.stem}_nothing")
    tell("A build with nothing to do", same, _NOTHING, facts, beside)


def compress(path: Path) -> Iterator[tuple[str, float, int]]:
    """Yield what each way to compress a file takes: its name, seconds, bytes."""
    data = path.read_bytes()
    ways: dict[str, Callable[[], bytes]] = {
        "--gzip (ISA-L, level 3)": lambda: isal_zlib.compress(data, 3),
        "--zstd (level 1)": lambda: zstd.compress(data, 1),
        "zstd, level 3": lambda: zstd.compress(data, 3),
        "zlib, level 1": lambda: zlib.compress(data, 1),
        "zlib, level 6": lambda: zlib.compress(data, 6),
    }
    for name, way in ways.items():
        began = time.perf_counter()
        size = len(way())
        yield name, time.perf_counter() - began, size


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--options", default=_OPTIONS, help=f"(default: {_OPTIONS})")
    parser.add_argument("--catalogue", type=Path, help="compress this file, and do nothing else")
    arguments = parser.parse_args()
    if arguments.catalogue:
        for name, seconds, size in compress(arguments.catalogue):
            print(f"{name:24} {seconds:6.2f} s {size / 1e6:8.1f} MB")
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        measure_builds(
            Path(directory),
            arguments.versions,
            arguments.options.split(),
            arguments.rounds,
            arguments.record,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
