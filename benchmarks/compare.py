"""Two installed commands side by side, to see that a change makes nothing slower.

    python benchmarks/compare.py /path/to/old/bin/fastindex /path/to/new/bin/fastindex

Both run in turn, each on a copy of the same mirror: ``--version``; 10 versions, nothing to do; many
versions, nothing to do, one to add, and their first build; a first build of a few big files, which
are held in memory. ``--rounds`` pairs of runs each; the ratio is that of the medians.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from make_mirror import make_mirror, make_tiny_mirror, size_argument, write_version
from measure import alternate, argument_parser, pinned_in_memory, tell, wall_seconds

OLD, NEW = "old", "new"


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=15)
    parser.add_argument("old", type=Path, help="the command as it was")
    parser.add_argument("new", type=Path, help="the command as it is now")
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--size", type=size_argument, default="512M", help="of 8 big files each")
    arguments = parser.parse_args()
    commands = {OLD: arguments.old, NEW: arguments.new}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        mirrors = {name: Path(directory, name) for name in commands}

        def compare(title: str, run: Callable[[str], float], rounds: int) -> None:
            """Measure ``run`` of both commands in turn, and print."""
            contenders = {name: lambda name=name: run(name) for name in commands}
            runs = alternate(contenders, rounds)
            tell(title, runs, OLD, {"rounds": rounds}, None)

        def start(name: str) -> float:
            return wall_seconds([commands[name], "--version"])

        def build(name: str) -> float:
            return wall_seconds([commands[name], "-q", mirrors[name]])

        def add_one(name: str) -> float:
            new = mirrors[name] / "images/debian/12/amd64/default/20300101_00:00"
            write_version(new)
            seconds = build(name)
            shutil.rmtree(new)
            build(name)
            return seconds

        def build_first(name: str) -> float:
            _forget(mirrors[name], Path(tempfile.mkdtemp(dir=directory)))
            return wall_seconds([commands[name], "-q", "-j2", mirrors[name]])

        compare("fastindex --version", start, 2 * arguments.rounds)
        for versions, rounds in (
            (10, 2 * arguments.rounds),
            (arguments.versions, arguments.rounds),
        ):
            for name, mirror in mirrors.items():
                shutil.rmtree(mirror, ignore_errors=True)
                make_tiny_mirror(mirror, versions, "squashfs", "disk")
                build(name)
            compare(f"{versions:,} versions, nothing to do", build, rounds)
        compare(
            f"{arguments.versions:,} versions, one to add", add_one, max(3, arguments.rounds // 3)
        )
        compare(
            f"first build of {arguments.versions:,} versions of 4 tiny files",
            build_first,
            max(3, arguments.rounds // 3),
        )
        for mirror in mirrors.values():
            shutil.rmtree(mirror)
        make_mirror(
            mirrors[OLD],
            versions=8,
            per_product=8,
            size_bytes=arguments.size,
            roots=("squashfs",),
            metadata=("incus", "lxd"),
            seed=1,
        )
        shutil.copytree(mirrors[OLD] / "images", mirrors[NEW] / "images", copy_function=_link)
        files = sorted(mirrors[OLD].rglob("rootfs.squashfs"))
        with pinned_in_memory(files):
            compare("first build of 8 big files", build_first, max(3, arguments.rounds // 3))
    return 0


def _forget(mirror: Path, spare: Path) -> None:
    """Move what earlier builds of ``mirror`` left to ``spare``.

    Not removed: ext4 does not use the inodes of files that were just deleted, and whoever makes
    files then searches for others, which takes five times as long as a first build's caches do.
    """
    for number, cache in enumerate(mirror.rglob(".items.json")):
        cache.rename(spare / str(number))
    with suppress(FileNotFoundError):
        (mirror / "streams").rename(spare / "streams")


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


if __name__ == "__main__":
    sys.exit(main())
