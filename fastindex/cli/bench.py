"""``fastindex bench [PATH]``: how fast this machine hashes and reads, and what follows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    EXIT_CODES,
    add_hashing,
    add_verbosity,
    duration,
    new_parser,
    run_reported,
)
from fastindex.cli.output import Console, print_json, print_text

if TYPE_CHECKING:
    from fastindex.operations.bench.options import BenchOptions

_EPILOG = """\
examples:
  fastindex bench                          how fast this machine hashes: ten seconds
  fastindex bench /srv/images              and how fast the disk below delivers: twenty
  fastindex bench --seconds 1 /srv/images  the same, with less chance in it
  fastindex bench --gigabytes 400 --json /srv/images | jq .advice

what is measured:
  Each figure is the middle one of three rounds, in bytes taken in by all states and all
  processes together. Lanes take in the same buffer; "a build" is what a build does with a
  root that has two metadata files (three SHA-256 and BLAKE3), in bytes of the file.
  The disk is read past the page cache with O_DIRECT; where that is not to be had, the
  pages of what is read are dropped from it first. No symlink is followed, and nothing is
  written. 64 MiB in files of 4 MiB and more must be there; a few GB are better.
  Other work on the machine shows in the figures: run it when it is idle, or twice.

"""


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = new_parser(
        "fastindex bench",
        "Measure how fast this machine hashes and, with a PATH, how fast its disk delivers;\n"
        "tell which --jobs to use, what limits a run, and how long it takes.",
        _EPILOG + EXIT_CODES,
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        help="a big file, or a directory with such, to read (default: measure no disk)",
    )
    parser.add_argument(
        "--seconds",
        type=duration,
        default=0.1,
        metavar="TIME",
        help="how long each contender is measured with each buffer size; the disk three "
        "times that (default: 0.1)",
    )
    parser.add_argument(
        "--gigabytes",
        type=_gigabytes,
        default=100.0,
        metavar="N",
        help="how much the run reads whose duration is to be told (default: 100)",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    add_hashing(parser)
    add_verbosity(parser)
    return parser


def _gigabytes(word: str) -> float:
    """Return the number above 0 that ``word`` is; for argparse."""
    try:
        number = float(word)
    except ValueError:
        number = 0
    if not 1e-9 <= number <= 1e12:  # nan is neither
        raise argparse.ArgumentTypeError(f"{word!r} is no number of gigabytes such as 100")
    return number


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = parser().parse_args(argv)
    from fastindex.operations.bench.options import BenchOptions

    console = Console(arguments.verbose - arguments.quiet)
    options = BenchOptions(
        path=arguments.path,
        jobs=arguments.jobs,
        engine=arguments.engine,
        seconds=arguments.seconds,
        run_bytes=round(arguments.gigabytes * 1e9),
    )
    return run_reported(console, lambda: _bench(console, options, as_json=arguments.json))


def _bench(console: Console, options: BenchOptions, *, as_json: bool) -> int:
    from fastindex.cli.bench_tables import lines_of
    from fastindex.errors import ExitCode
    from fastindex.operations.bench.run import expected_seconds, measure

    console.announce(f"measuring, for about {expected_seconds(options):.0f} s")
    report = measure(options, observer=console)
    if as_json:
        print_json(report)
    else:
        print_text("\n".join(lines_of(report)))
    return ExitCode.DONE
