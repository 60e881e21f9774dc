"""``fastindex bench [PATH]``: measure this machine and advise on a build."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    Parser,
    add_hashing,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    parse_duration,
)
from fastindex.cli.output import print_text
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode

if TYPE_CHECKING:
    from fastindex.operations.bench import BenchOptions

_EPILOG = """\
examples:
  fastindex bench                          measure hashing; takes about 3 seconds
  fastindex bench /srv/images              measure the disk too; about 5 seconds
  fastindex bench --seconds 1 /srv/images  measure longer, for steadier figures
  fastindex bench --gigabytes 400 --json /srv/images | jq .advice

what is measured:
  Each figure is the median of three rounds, of all processes together. For SHA-256 in
  several lanes it counts the bytes of all lanes. "A build" hashes what a build hashes of a
  root with two metadata files: three SHA-256 digests and BLAKE3, all of the same bytes.
  The disk is read past the page cache: with O_DIRECT or, if the file system does not support
  that, after dropping pages from the cache. Where neither is possible, as on a tmpfs, it is
  not measured. Nothing is written, and symlinks below PATH are not followed. PATH must have
  at least 64 MiB in files of 4 MiB or more; a few GB are better.
  Other work on the machine affects the figures: run this when it is idle, or run it twice.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex bench",
        "Measure how fast this machine hashes and, with PATH, how fast its disk delivers.\n"
        "Print which --jobs to use, what limits a run, and how long a run takes.",
        _EPILOG
        + list_exit_codes({ExitCode.FAILED: "failed, as when PATH has too little data to read"}),
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        help="a large file, or a directory with large files, to read (default: do not measure "
        "the disk)",
    )
    parser.add_argument(
        "--seconds",
        type=parse_duration,
        default=0.1,
        metavar="TIME",
        help="how long to measure each contender; each number of readers of the disk takes "
        "three times that (default: 0.1)",
    )
    parser.add_argument(
        "--gigabytes",
        type=_parse_gigabytes,
        default=100.0,
        metavar="N",
        help="the size of the run whose duration is estimated (default: 100)",
    )
    add_reports(parser)
    add_hashing(parser)
    add_verbosity(parser)
    return parser


def _parse_gigabytes(word: str) -> float:
    """Convert a number of gigabytes; for argparse."""
    try:
        number = float(word)
    except ValueError:
        number = 0
    if not 1e-9 <= number <= 1e12:  # also rejects nan
        raise argparse.ArgumentTypeError(f"must be a number such as 100, not {word!r}")
    return number


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = make_parser().parse_args(argv)
    from fastindex.operations.bench import BenchOptions

    options = BenchOptions(
        path=arguments.path,
        jobs=arguments.jobs,
        engine=arguments.engine,
        seconds=arguments.seconds,
        run_bytes=round(arguments.gigabytes * 1e9),
    )
    return run_command("bench", arguments, lambda run: _bench(run, options))


def _bench(run: Run, options: BenchOptions) -> int:
    from fastindex.cli.bench_tables import format_report
    from fastindex.operations.bench import measure

    report = measure(options, observer=run.console)
    run.keep(bench=report)
    if not run.is_json:
        print_text("\n".join(format_report(report)))
    return ExitCode.DONE
