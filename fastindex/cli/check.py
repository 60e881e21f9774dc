"""``fastindex check URL``: check a mirror from outside, as clients see it."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_filter,
    add_remote,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    make_remote_options,
    parse_count,
    parse_duration,
)
from fastindex.cli.output import print_mismatches
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode

_EPILOG = """\
examples:
  fastindex check https://images.example.org                 catalogue, files, headers, certificate
  fastindex check --sample 5 https://images.example.org      and read five images, chosen at random
  fastindex check --full --filter 'os=debian' https://…      and read all images of Debian
  fastindex check --max-age 10d https://…                    and name products that are too old
  fastindex check --upstream https://images.linuxcontainers.org --lag 1d https://…
  fastindex check --json https://… | jq .check.mismatches

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex check",
        "Check a mirror from outside: the catalogue against what clients accept, and that the\n"
        "server has every file that it names, of the right size. Print everything that is wrong.\n"
        "Nothing is stored.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "all is well",
                ExitCode.FAILED: "cannot be checked, as when the server does not answer",
                ExitCode.LEFT_OUT: "clients can use it, but something should be seen to; each is "
                "named",
                ExitCode.DAMAGED: "something is missing, wrong, or rejected by clients; each is "
                "named",
            }
        ),
    )
    parser.add_argument("url", metavar="URL", help="the mirror: what stands before /streams/v1/")
    reading = parser.add_mutually_exclusive_group()
    reading.add_argument(
        "--sample",
        type=parse_count,
        default=0,
        metavar="N",
        help="read N images, chosen at random, and compare their digests and fingerprints",
    )
    reading.add_argument("--full", action="store_true", help="read all images")
    add_filter(parser, "ask for the files of")
    parser.add_argument(
        "--expiry",
        type=parse_duration,
        default=14 * 86400.0,
        metavar="TIME",
        help="warn if the server's certificate expires within this (default: 14d)",
    )
    parser.add_argument(
        "--max-age",
        type=parse_duration,
        metavar="TIME",
        help="warn of products whose newest version is older than this, such as 10d",
    )
    parser.add_argument(
        "--upstream",
        default="",
        metavar="URL",
        help="warn of products of which this other mirror has newer versions",
    )
    parser.add_argument(
        "--lag",
        type=parse_duration,
        metavar="TIME",
        help="only if it has had them for longer than this, such as 1d",
    )
    add_remote(parser, "ask for N files, or read N parts of files, side by side")
    add_reports(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    parser.refuse_without(arguments, "--lag", "--upstream")
    gc.enable()  # reading all images may last for hours
    return run_command("check", arguments, lambda run: _check(run, arguments))


def _check(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.check.options import CheckOptions
    from fastindex.operations.check.run import check

    options = CheckOptions(
        url=arguments.url,
        filters=tuple(arguments.filter or ()),
        sample=arguments.sample,
        full=arguments.full,
        expiry_seconds=arguments.expiry,
        max_age_seconds=arguments.max_age,
        upstream=arguments.upstream,
        lag_seconds=arguments.lag,
        remote=make_remote_options(arguments),
    )
    run.console.activity = "checking"
    report = check(options, observer=run.console)
    run.keep(check=report)
    if not run.is_json:
        print_mismatches(report.mismatches)
    run.console.sum_up_check(report)
    return report.exit_code
