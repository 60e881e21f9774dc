"""``fastindex prune [ROOT]``: old versions go, when no client can know them any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from msgspec.structs import replace

from fastindex.cli.common import (
    EXIT_CODES,
    add_root,
    add_withdrawing,
    carry_out,
    new_parser,
    positive,
)
from fastindex.cli.output import Console, print_paths, print_steps
from fastindex.operations.prune.options import PruneOptions, PruneReport

_EPILOG = """\
examples:
  fastindex prune --dry-run /srv/images        what would go
  fastindex prune --keep 5 /srv/images         from a timer, nightly: withdraws what is old
                                               now, deletes what was withdrawn before
  fastindex prune --keep-days 30 --grace 1d /srv/images
  fastindex prune --undo debian/12/amd64/default/20240505_05:24 /srv/images

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex prune",
        "Withdraw old versions from the catalogue, and delete those withdrawn longer than\n"
        "the grace ago: no file vanishes that a client's cached catalogue may name.\n"
        "Hidden leftovers and incomplete versions older than a day are deleted, too.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    parser.add_argument(
        "--keep",
        type=positive,
        default=3,
        metavar="N",
        help="of each product the N newest versions stay (default: 3)",
    )
    parser.add_argument(
        "--keep-days",
        type=positive,
        default=0,
        metavar="D",
        help="versions dated less than D days ago stay, too",
    )
    parser.add_argument(
        "--undo",
        action="append",
        metavar="VERSION",
        help="publish a withdrawn version again, while its files are there; repeatable",
    )
    add_withdrawing(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_args(argv)
    console = Console(arguments.verbose - arguments.quiet)
    options = replace(
        withdrawing_options(arguments, arguments.root),
        keep=arguments.keep,
        keep_days=arguments.keep_days,
    )
    return carry_out(console, lambda: _prune(console, options, arguments.undo))


def withdrawing_options(arguments: argparse.Namespace, root: str) -> PruneOptions:
    """Return what ``prune`` and ``remove`` have in common."""
    return PruneOptions(
        root=root,
        grace_seconds=arguments.grace,
        streams=tuple(arguments.stream or ("images",)),
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        settle_seconds=arguments.settle,
        jobs=arguments.jobs,
        engine=arguments.engine,
        dry_run=arguments.dry_run,
        wait_seconds=arguments.wait,
    )


def _prune(console: Console, options: PruneOptions, undo: list[str] | None) -> int:
    from fastindex.operations.prune.run import prune, restore

    report = restore(options, undo, observer=console) if undo else prune(options, observer=console)
    return tell(console, report)


def tell(console: Console, report: PruneReport) -> int:
    """Print what was done; return the exit code."""
    print_steps(report.steps)
    print_paths(tuple(f"withdrawn {path}" for path in report.withdrawn))
    print_paths(tuple(f"deleted {path}" for path in report.deleted))
    print_paths(tuple(f"published {path}" for path in report.restored))
    console.sum_up_prune(report)
    return report.exit_code
