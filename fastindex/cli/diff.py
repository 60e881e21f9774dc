"""``fastindex diff [ROOT]``: what the next build would change."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_cluster,
    add_hashing,
    add_places,
    add_root,
    add_scanners,
    add_streams,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    make_hashing_options,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_changes, print_rewritten
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode

_EPILOG = """\
examples:
  fastindex diff /srv/images && echo nothing to do

Nothing is written. New files are hashed, so that the answer is exact.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex diff",
        "Print what the next build would change in the catalogue: versions added (+),\n"
        "removed (-) or changed (~), with the sizes of their files, and catalogue files that\n"
        "would be written although no version in them changes.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "nothing would change",
                ExitCode.FAILED: "failed, or the next build would fail",
                ExitCode.LEFT_OUT: "something would change",
            }
        ),
    )
    add_root(parser)
    add_streams(parser)
    add_places(parser)
    add_hashing(parser)
    add_cluster(parser, "hash")
    add_scanners(parser)
    add_reports(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = read_arguments(make_parser(), argv)
    return run_command("diff", arguments, lambda run: _diff(run, arguments))


def _diff(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.builder.options import BuildOptions
    from fastindex.operations.builder.pipeline import build

    options = BuildOptions(
        hashing=make_hashing_options(arguments), dry_run=True, scanners=arguments.scanners
    )
    report = build(run.open_mirror(arguments.root, arguments), options, observer=run.console)
    run.keep(build=report)
    if not run.is_json:
        print_changes(report.changes)
        print_rewritten(report)
    if report.refusal:
        run.console.fail(report.refusal)
        return ExitCode.FAILED
    return ExitCode.LEFT_OUT if report.changes or report.would_write else ExitCode.DONE
