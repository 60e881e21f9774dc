"""``fastindex deltas [ROOT]``: make deltas between published versions."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

from fastindex.cli.common import (
    EXIT_CODES,
    Parser,
    add_ending_build,
    add_root,
    as_argument_error,
    make_empty_parser,
    make_hashing_options,
    parse_count,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_paths, print_steps
from fastindex.cli.publishing import add_companions, make_makers
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.formats import quantities

_EPILOG = """\
examples:
  fastindex deltas --dry-run /srv/images       which deltas it would make
  fastindex deltas /srv/images                 nightly, after what is new was published
  fastindex deltas --from 3 /srv/images        also for clients that missed two nights
  fastindex deltas --jobs 2 --max-memory 1G /srv/images

A client that has the version before the newest one fetches the delta instead of the whole root. It
needs the program xdelta3 (Debian: xdelta3). Builds need not wait while deltas are made.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex deltas",
        "Make deltas to the newest published version of each product from the one before, with\n"
        "xdelta3, and publish them. Each is decoded again, and compared with what is published,\n"
        "before it appears. Containers only: of the squashfs.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    parser.add_argument(
        "--from",
        dest="per_root",
        type=parse_count,
        default=1,
        metavar="N",
        help="make a delta from each of the N versions before the newest one (default: 1); Incus "
        "fetches all of several that it can use",
    )
    parser.add_argument(
        "--max-ratio",
        type=_parse_ratio,
        default=60.0,
        metavar="PERCENT",
        help="drop a delta that is larger than this share of the root, and do not make it again "
        "(default: 60)",
    )
    parser.add_argument(
        "--max-memory",
        type=_parse_size,
        metavar="SIZE",
        help="use at most so much memory, such as 2G, with fewer jobs if need be: each takes about "
        "twice the size of its root (default: half of what the machine has)",
    )
    parser.add_argument(
        "--vm",
        action="store_true",
        help="make deltas of the disks of virtual machines, too; Incus cannot use them, and fails "
        "where it tries",
    )
    add_ending_build(parser, "change nothing; print which deltas would be made")
    add_companions(parser)
    add_reports(parser, is_recorded=True)
    return parser


def _parse_ratio(word: str) -> float:
    try:
        ratio = float(word.removesuffix("%"))
    except ValueError:
        ratio = 0
    if not 0 < ratio <= 100:  # per cent
        raise argparse.ArgumentTypeError(
            f"must be more than 0 and at most 100 per cent, not {word!r}"
        )
    return ratio


def _parse_size(word: str) -> int:
    with as_argument_error():
        return quantities.parse_size(word)


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = read_arguments(make_parser(), argv)
    gc.enable()  # it may take long
    is_real = not arguments.dry_run
    return run_command(
        "deltas", arguments, lambda run: make_and_print(run, arguments), is_real=is_real
    )


def make_and_print(run: Run, arguments: argparse.Namespace) -> int:
    """Make deltas, and print what was done; return the exit code."""
    from fastindex.operations.builder.options import BuildOptions
    from fastindex.operations.deltas.options import DeltasOptions
    from fastindex.operations.deltas.run import make_deltas

    mirror = run.open_mirror(arguments.root, arguments)
    options = DeltasOptions(
        per_root=arguments.per_root,
        with_machines=arguments.vm,
        max_ratio=arguments.max_ratio,
        jobs=arguments.jobs,
        max_memory_bytes=arguments.max_memory,
        build=BuildOptions(
            hashing=make_hashing_options(arguments),
            settle_seconds=arguments.settle,
            dry_run=arguments.dry_run,
            wait_seconds=arguments.wait,
            scanners=arguments.scanners,
            list_changes=run.is_reported,
            makers=make_makers(mirror, arguments),
        ),
    )
    report = make_deltas(mirror, options, observer=run.console)
    run.keep(deltas=report)
    if not run.is_json:
        print_steps(report.steps)
    if run.lists_done:
        print_paths(report.made)
    run.console.sum_up_deltas(report)
    return report.exit_code
