"""Take all figures, and draw them: what the README shows.

    python benchmarks/run_all.py                           two hours, 12 GiB of memory, 10 of disk
    python benchmarks/run_all.py verify unchanged_build    some of them
    python benchmarks/run_all.py --print                   the commands, nothing else
    python benchmarks/run_all.py --tiny --results /tmp/r   a smoke run of every script

Each figure is a JSON file in benchmarks/results, with an SVG beside it if matplotlib is
installed. What this user cannot measure (cold runs need root) is told and passed over.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from measure import CANNOT_MEASURE
from plot import RESULTS

_HERE = Path(__file__).parent
_SMALL = "--files 2 --size 8M"


@dataclass(frozen=True, slots=True)
class Figure:
    """One record, and how it is taken."""

    name: str
    """Of its files in the results directory."""
    command: str
    """The script and its options, at full size."""
    tiny: str
    """Options that replace the sizes for a smoke run."""
    takes_directory: bool = True
    """Whether it makes files, below ``--dir``."""


FIGURES = (
    Figure("hash_throughput", "hash_throughput.py", "--bytes 8M --buffers 64K,512K", False),
    Figure("hash_throughput_read", "hash_throughput.py --read", "--bytes 8M --buffers 512K", False),
    Figure("lanes", "lanes.py", "--seconds 0.01", False),
    Figure("warm_build_2_digests", "warm_build.py --metadata 1", f"{_SMALL} --quick"),
    Figure("warm_build_3_digests", "warm_build.py --metadata 2", _SMALL),
    Figure(
        "warm_build_one_file",
        "warm_build.py --files 1 --size 8G --jobs 1 --quick",
        "--files 1 --size 16M",
    ),
    Figure("cold_build", "cold_build.py", f"{_SMALL} --quick"),
    Figure("steady_disk", "steady_disk.py", f"{_SMALL} --rates 200"),
    Figure("verify", "verify.py --files 16", _SMALL),
    Figure("cluster", "cluster.py", f"{_SMALL} --versions 100"),
    Figure("unchanged_build", "unchanged_build.py", "--versions 100 --start-rounds 2"),
    Figure(
        "unchanged_build_100000",
        "unchanged_build.py --versions 100000 --start-rounds 0",
        "--versions 100",
    ),
    Figure("unchanged_build_cold", "unchanged_build.py --cold", "--versions 100"),
    Figure("companions", "companions.py", "--versions 100"),
    Figure("latency", "latency.py", "--versions 10"),
    Figure("system_calls", "system_calls.py", "--versions 20"),
    Figure("catalogue_encode", "catalogue_encode.py", "--versions 100,1000", False),
    Figure("scaling_jobs", "scaling.py jobs", f"{_SMALL} --most-jobs 2"),
    Figure("scaling_versions", "scaling.py versions", "--real 50,100 --simulated 100,1000"),
    Figure("hostile", "hostile.py", "--counts 20 40"),
    Figure("memory", "memory.py", "--versions 100 --size 64M"),
    Figure("schedule", "schedule.py", "--bytes 4M --main-bytes 8M --only two_sizes,tiny"),
    Figure("import_copy", "import_copy.py", _SMALL),
    Figure("import_copy_cold", "import_copy.py --cold", _SMALL),
    Figure("pull_files", "pull.py files", _SMALL),
    Figure("pull_unchanged", "pull.py unchanged", "--versions 100"),
    Figure("pull_products", "pull.py products", "--products 1000"),
    Figure("check", "check.py", "--versions 100"),
    Figure("page", "page.py", "--products 20"),
)


def command_of(
    figure: Figure, results: Path, directory: Path | None, *, is_tiny: bool
) -> list[str]:
    """Return the command that takes ``figure``."""
    script, *options = figure.command.split()
    if is_tiny:
        options += [*figure.tiny.split(), "--rounds", "1"]
    if directory is not None and figure.takes_directory:
        options += ["--dir", str(directory)]
    record = results / f"{figure.name}.json"
    return [sys.executable, str(_HERE / script), *options, "--record", str(record)]


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [figure.name for figure in FIGURES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--tiny", action="store_true", help="see that each script works")
    parser.add_argument("--print", action="store_true", help="print the commands only")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the records go")
    parser.add_argument("--dir", type=Path, help="where the benchmarks make their files")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    failed: list[str] = []
    for figure in FIGURES:
        if arguments.names and figure.name not in arguments.names:
            continue
        command = command_of(figure, arguments.results, arguments.dir, is_tiny=arguments.tiny)
        print(f"$ {shlex.join(command)}", flush=True)
        if arguments.print:
            continue
        code = subprocess.run(command, check=False).returncode
        if code == CANNOT_MEASURE:
            print(f"{figure.name}: passed over")
        elif code:
            failed.append(figure.name)
    if not arguments.print and find_spec("matplotlib") is not None:
        records = sorted(arguments.results.glob("*.json"))
        subprocess.run([sys.executable, _HERE / "plot.py", *records], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
