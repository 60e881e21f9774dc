"""``fastindex status [ROOT]``: how a mirror is."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    Parser,
    add_output,
    add_root,
    add_streams,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    parse_duration,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_status
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode

if TYPE_CHECKING:
    from fastindex.operations.status.options import StatusReport

_MAX_LINES = 20
_EPILOG = """\
examples:
  fastindex status /srv/images                     all on one screen
  fastindex status -q --max-age 14d /srv/images    for a monitor: only what is wrong
  fastindex status --json /srv/images | jq '.status.products[0]'    the oldest product

Nothing is read but what is published, and what runs recorded: fastindex verify looks at the files.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex status",
        "Tell how the mirror is: what is published, how the last runs ended, what they left out\n"
        "and since when, what is damaged, withdrawn or too old, and how long the disk lasts.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "healthy",
                ExitCode.FAILED: "failed, as when nothing is published yet",
                ExitCode.LEFT_OUT: "not healthy: a run failed, something is left out, damaged or "
                "too old",
            }
        ),
    )
    add_root(parser)
    parser.add_argument(
        "--max-age",
        type=parse_duration,
        default=math.inf,
        metavar="TIME",
        help="how old the newest version of a product may be, such as 14d; max_age in its "
        ".product.toml wins (default: as old as it gets)",
    )
    parser.add_argument(
        "--grace",
        type=parse_duration,
        default=7200.0,
        metavar="TIME",
        help="the grace that prune is run with, to tell when it deletes what is withdrawn "
        "(default: 2h)",
    )
    add_streams(parser)
    add_output(parser)
    add_reports(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = read_arguments(make_parser(), argv)
    return run_command("status", arguments, lambda run: _status(run, arguments))


def find(run: Run, arguments: argparse.Namespace) -> StatusReport:
    """Return how the mirror is, and keep it for the report of the run."""
    from fastindex.operations.status.options import StatusOptions
    from fastindex.operations.status.run import judge_runs, survey

    options = StatusOptions(max_age_seconds=arguments.max_age, grace_seconds=arguments.grace)
    mirror = run.open_mirror(arguments.root, arguments)
    run.survey = survey(mirror, options)
    report = judge_runs(mirror, run.survey)
    run.keep(status=report)
    return report


def _status(run: Run, arguments: argparse.Namespace) -> int:
    report = find(run, arguments)
    if not (run.is_json or arguments.quiet):
        print_status(report, None if arguments.verbose else _MAX_LINES)
    run.console.sum_up_status(report)
    return report.exit_code
