"""A build with nothing to do, beside ``find`` over the same tree; and the program's start.

    python benchmarks/unchanged_build.py                        20,000 versions of 4 files
    python benchmarks/unchanged_build.py --versions 200 --rounds 1             a smoke run

``--record NAME.json`` writes the start of the program to ``NAME_start.json``.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from make_mirror import make_tiny_mirror, write_version
from measure import alternate, argument_parser, fastindex_command, tell, wall_seconds


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--start-rounds", type=int, default=25, help="of the short runs")
    arguments = parser.parse_args()
    fastindex = fastindex_command()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        many, few = Path(directory, "many"), Path(directory, "few")
        for root, versions in ((many, arguments.versions), (few, 10)):
            make_tiny_mirror(root, versions, "squashfs", "disk")
            wall_seconds([fastindex, root])
        find: list[str | Path] = ["find", many / "images", "-type", "f", "-printf", r"%s %T@\n"]
        new = many / "images/debian/12/amd64/default/20300101_00:00"

        def one_new_version() -> float:
            """Time a build that has one version to add; it is taken away again."""
            write_version(new)
            seconds = wall_seconds([fastindex, "-q", many])
            for path in new.iterdir():
                path.unlink()
            new.rmdir()
            wall_seconds([fastindex, "-q", many])
            return seconds

        contenders = {
            "find": lambda: wall_seconds(find),
            "fastindex, nothing to do": lambda: wall_seconds([fastindex, "-q", many]),
            "fastindex, one version to add": one_new_version,
        }
        seconds = alternate(contenders, arguments.rounds + 1)
        warm = {name: runs[1:] or runs for name, runs in seconds.items()}
        facts = {
            "versions": arguments.versions,
            "files": 4 * arguments.versions,
            "rounds": arguments.rounds,
        }
        record: Path | None = arguments.record
        tell("Unchanged build, warm", warm, "find", facts, record)
        commands: dict[str, list[str | Path]] = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "fastindex --version": [fastindex, "--version"],
            "fastindex, 10 unchanged versions": [fastindex, "-q", few],
        }
        starts = {name: partial(wall_seconds, command) for name, command in commands.items()}
        seconds = alternate(starts, arguments.start_rounds)
        record = record and record.with_stem(f"{record.stem}_start")
        tell(
            "Start of the program",
            seconds,
            "python -c pass",
            {"rounds": arguments.start_rounds},
            record,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
