"""How many of fastindex's branches the tests take, and which lines and branches they do not.

python .ci/branches.py                 runs all tests, two minutes longer than without
python .ci/branches.py COMMAND...      runs COMMAND instead, which may be any that runs tests

Ends with the command's exit code if that is not 0; else with 1 if less than 95 % are taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import coverage

LEAST_PERCENT = 95
ALL_TESTS = (sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile")
SETTINGS = Path(__file__).parents[1] / "pyproject.toml"


def measure(command: list[str], directory: Path) -> int:
    """Run ``command`` so that every Python it starts leaves its figures in ``directory``."""
    directory.chmod(0o1777)  # some tests are another user's
    environment = {
        **os.environ,
        "COVERAGE_PROCESS_START": str(SETTINGS),
        "COVERAGE_FILE": str(directory / "figures"),
    }
    return subprocess.run(command, env=environment, check=False).returncode


def report(directory: Path) -> int:
    """Tell the figures in ``directory``; return 1 where too few branches are taken."""
    measured = coverage.Coverage(str(directory / "figures"), config_file=str(SETTINGS))
    measured.combine([str(directory)])
    path = directory / "report.json"
    measured.json_report(outfile=str(path))
    found = json.loads(path.read_bytes())
    for name, file in sorted(found["files"].items()):
        lines = set(file["missing_lines"])
        branches = [(start, end) for start, end in file["missing_branches"] if start not in lines]
        if lines:
            print(f"{name}: lines {ranges(sorted(lines))}")
        if branches:
            arrows = (f"{start} to {end if end > 0 else 'the end'}" for start, end in branches)
            print(f"{name}: branches {', '.join(arrows)}")
    totals = found["totals"]
    percent = 100 * totals["covered_branches"] / totals["num_branches"]
    print(
        f"{percent:.2f} % of {totals['num_branches']} branches, "
        f"{totals['covered_lines']} of {totals['num_statements']} statements"
    )
    return int(percent < LEAST_PERCENT)


def ranges(numbers: list[int]) -> str:
    """Return ``numbers`` as people write them: 3, 5-7."""
    breaks = [index for index, (one, two) in enumerate(pairwise(numbers), 1) if two > one + 1]
    parts = (numbers[a:b] for a, b in pairwise([0, *breaks, len(numbers)]))
    return ", ".join(f"{part[0]}-{part[-1]}" if part[1:] else f"{part[0]}" for part in parts)


def main() -> int:
    """Measure what the command line says, and tell."""
    with tempfile.TemporaryDirectory() as directory:
        code = measure(sys.argv[1:] or list(ALL_TESTS), Path(directory))
        told = report(Path(directory))
        return code or told


if __name__ == "__main__":
    sys.exit(main())
