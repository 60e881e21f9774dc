"""A nightly run on a file system where each request waits, beside ``find`` over the same tree.

    python benchmarks/latency.py                           2,000 versions of 4 files, 1 ms
    python benchmarks/latency.py --versions 10 --rounds 1                      a smoke run

``latency_fs.py`` mounts it, which needs /dev/fuse and libfuse's headers. The kernel keeps
nothing of it: each component of a path, each ``stat``, each open and each read of a listing
is a request. ``find`` makes one after the other.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from latency_fs import CannotMountError, mounted_with_latency
from make_mirror import make_tiny_mirror
from measure import CANNOT_MEASURE, alternate, argument_parser, seconds_and_mib, tell
from nightly import build, find, with_new_version


def measure(
    versions: int, wait_ms: float, rounds: int, tree: Path, slow: Path
) -> dict[str, list[float]]:
    """Return the seconds of each contender's runs on ``tree``, which is empty, seen at ``slow``."""
    with mounted_with_latency(tree, slow, wait_ms=wait_ms):
        make_tiny_mirror(tree, versions, "squashfs", "disk")
        for root in (tree, slow):  # first where nothing waits: caches are those of both
            seconds_and_mib(build(root))
        runs = alternate(
            {
                "find": lambda: seconds_and_mib(find(slow)),
                "fastindex, nothing to do": lambda: seconds_and_mib(build(slow)),
                "fastindex, one version to add": lambda: with_new_version(
                    seconds_and_mib, slow, tree
                ),
            },
            rounds,
        )
    return {name: [seconds for seconds, _ in of_one] for name, of_one in runs.items()}


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--versions", type=int, default=2_000)
    parser.add_argument("--wait", type=float, default=1.0, help="ms a request (default: 1.0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        tree, slow = Path(directory, "tree"), Path(directory, "slow")
        tree.mkdir()
        slow.mkdir()
        try:
            seconds = measure(arguments.versions, arguments.wait, arguments.rounds, tree, slow)
        except CannotMountError as error:
            print(error, file=sys.stderr)
            return CANNOT_MEASURE
    facts = {
        "versions": arguments.versions,
        "files": 4 * arguments.versions,
        "ms a request": arguments.wait,
        "rounds": arguments.rounds,
    }
    tell("Unchanged build, each request waits", seconds, "find", facts, arguments.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
