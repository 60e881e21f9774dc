"""Checking a mirror of many small files that nginx serves with TLS on 127.0.0.1.

    python benchmarks/check.py                                  20,000 versions of 4 files
    python benchmarks/check.py --versions 100 --rounds 1        a smoke run

*curl* asks for the headers of the same files, four side by side, and looks at none of them.
*full* reads and hashes all files as well. The web server and the check share the machine's CPUs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from make_mirror import make_tiny_mirror
from measure import (
    CANNOT_MEASURE,
    alternate,
    argument_parser,
    fastindex_command,
    seconds_and_mib,
    tell,
    wall_seconds,
)
from nightly import Command, build
from web_server import WebServer, serve

_CONNECTIONS = 4


def measure(arguments: argparse.Namespace) -> None:
    """Check a mirror."""
    if shutil.which("curl") is None:
        print("curl is not installed: apt-get install curl", file=sys.stderr)
        raise SystemExit(CANNOT_MEASURE)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as made:
        root = Path(made, "mirror")
        make_tiny_mirror(root, arguments.versions, "squashfs", "disk")
        wall_seconds(build(root))
        files = [path for path in root.glob("images/**/*.*") if not path.name.startswith(".")]
        with serve(root, arguments.dir) as server:
            # The certificate of the server is valid for two days.
            options: Command = ["-q", "--expiry", "1h", "--ca", server.certificate, server.url]
            check: Command = [fastindex_command(), "check", *options]
            before = server.count_requests()
            wall_seconds(check)
            requests = server.count_requests() - before
            paths = [path.relative_to(root) for path in files if path.is_file()]
            contenders = {
                "curl --head --parallel": partial(_curl, server, paths),
                "fastindex check": partial(seconds_and_mib, check),
                "fastindex check --full": partial(seconds_and_mib, [*check, "--full"]),
            }
            runs = alternate(contenders, arguments.rounds)
    notes = {
        "versions": arguments.versions,
        "files": len(paths),
        "requests": requests,
        "rounds": arguments.rounds,
    }
    for place, (title, unit) in enumerate((("Time", "s"), ("Peak memory", "MiB"))):
        figures = {
            name: [run[place] for run in of_one]
            for name, of_one in runs.items()
            if not (place and name.startswith("curl"))
        }
        record: Path | None = arguments.record
        if record is not None and place:
            record = record.with_stem(f"{record.stem}_memory")
        words = f"{title} of a check of a mirror"
        tell(words, figures, next(iter(figures)), notes, record, unit=unit)


def _curl(server: WebServer, files: list[Path]) -> tuple[float, float]:
    lines = [f'url = "{server.url}/{path}"\noutput = "/dev/null"' for path in files]
    options: Command = ["--silent", "--fail", "--head", "--cacert", server.certificate]
    parallel: Command = ["--parallel", "--parallel-max", str(_CONNECTIONS), "--config", "-"]
    began = time.perf_counter()
    subprocess.run(
        ["curl", *options, *parallel], input="\n".join(lines).encode(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began, 0.0


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("--versions", type=int, default=20_000)
    measure(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
