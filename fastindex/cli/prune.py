"""``fastindex prune [ROOT]``: remove old versions, once no client can know of them any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    EXIT_CODES,
    Parser,
    add_recheck,
    add_root,
    add_withdrawing,
    make_empty_parser,
    make_hashing_options,
    parse_count,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_prune_report, print_steps
from fastindex.cli.publishing import add_companions, make_makers
from fastindex.cli.running import Run, add_reports, run_command

if TYPE_CHECKING:
    from fastindex.mirror.mirror import Mirror
    from fastindex.operations.builder.options import BuildOptions

_EPILOG = """\
examples:
  fastindex prune --dry-run /srv/images        what would be withdrawn and deleted
  fastindex prune --keep 5 /srv/images         nightly, from a timer: withdraw what is old
                                               now, delete what was withdrawn before
  fastindex prune --keep-days 30 --grace 1d /srv/images
  fastindex prune --undo debian/12/amd64/default/20240505_05:24 /srv/images

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex prune",
        "Publish what is new, withdraw old versions from the catalogue, and delete those that\n"
        "have been withdrawn for longer than the grace: a catalogue in a client's cache may still\n"
        "name them. Leftovers of killed runs, and incomplete versions, are deleted too when\n"
        "nothing in them has changed for a day. What a visible symlink leads to stays.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    parser.add_argument(
        "--keep",
        type=parse_count,
        default=3,
        metavar="N",
        help="keep the N newest published versions of each product (default: 3)",
    )
    parser.add_argument(
        "--keep-days",
        type=parse_count,
        default=0,
        metavar="D",
        help="also keep versions dated less than D days ago",
    )
    parser.add_argument(
        "--undo",
        action="append",
        metavar="VERSION",
        help="publish a withdrawn version again, as long as its files are there; or all those of "
        "a product; repeatable",
    )
    add_recheck(parser)
    add_withdrawing(parser)
    add_companions(parser)
    add_reports(parser, is_recorded=True)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = read_arguments(parser, argv)
    parser.refuse_together(arguments, "--undo", ("--keep", "--keep-days", "--grace"))
    is_real = not arguments.dry_run
    return run_command(
        "prune", arguments, lambda run: prune_and_print(run, arguments), is_real=is_real
    )


def make_build_options(run: Run, mirror: Mirror, arguments: argparse.Namespace) -> BuildOptions:
    """Return the options of the build that ``prune`` and ``remove`` end with."""
    from fastindex.operations.builder.options import BuildOptions

    return BuildOptions(
        hashing=make_hashing_options(arguments),
        settle_seconds=arguments.settle,
        recheck=vars(arguments).get("recheck", ""),  # remove has no such option
        dry_run=arguments.dry_run,
        wait_seconds=arguments.wait,
        scanners=arguments.scanners,
        list_changes=run.is_reported,
        makers=make_makers(mirror, arguments),
    )


def prune_and_print(run: Run, arguments: argparse.Namespace) -> int:
    """Prune, and print what was done; return the exit code."""
    from fastindex.operations.prune.options import PruneOptions
    from fastindex.operations.prune.run import prune, restore

    mirror = run.open_mirror(arguments.root, arguments)
    options = PruneOptions(
        keep=arguments.keep,
        keep_days=arguments.keep_days,
        grace_seconds=arguments.grace,
        build=make_build_options(run, mirror, arguments),
    )
    if arguments.undo:
        report = restore(mirror, options, arguments.undo, observer=run.console)
    else:
        report = prune(mirror, options, observer=run.console)
    run.keep(prune=report)
    if not run.is_json:
        print_steps(report.steps)
    if run.lists_done:
        print_prune_report(report)
    run.console.sum_up_prune(report)
    return report.exit_code
