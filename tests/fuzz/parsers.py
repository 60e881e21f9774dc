"""Fuzz the parsers of strangers' bytes, guided by coverage. Needs the extra ``fuzz``.

python -m tests.fuzz.parsers                          each target for a minute
python -m tests.fuzz.parsers --seconds 180 tar cache
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS_PER_CASE = 10
MEMORY_MB = 1024


def fuzz(name: str, corpus: str, seconds: int) -> None:
    """Feed one target until the time is up; never returns."""
    import atheris

    with atheris.instrument_imports(include=["fastindex", "tomllib", "yaml"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_PER_CASE}",
        f"-rss_limit_mb={MEMORY_MB}",
        "-max_len=65536",
        "-print_final_stats=1",
        f"-artifact_prefix={corpus}/../found-",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], target.check)
    atheris.Fuzz()


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.targets or TARGETS:
        directory = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        here = f"from tests.fuzz.parsers import fuzz; fuzz({name!r}, {str(corpus)!r}, "
        command = [sys.executable, "-c", f"{here}{arguments.seconds})"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        units = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        peak = re.search(r"peak_rss_mb:\s*(\d+)", done.stderr)
        told = "nothing found" if not done.returncode else f"FOUND something: {directory}"
        print(
            f"{name}: {int(units[1]) if units else 0:,} executions, "
            f"{reached[-1] if reached else 0} edges, "
            f"{peak[1] if peak else '?'} MB at most: {told}",
            flush=True,
        )
        if done.returncode:
            failed = True
            print(done.stdout[-2000:] + done.stderr[-6000:], file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
