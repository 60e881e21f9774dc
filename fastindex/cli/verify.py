"""``fastindex verify [ROOT]``: check what is published against the disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_cluster,
    add_hashing,
    add_places,
    add_root,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    make_hashing_options,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_mismatches
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode

_EPILOG = """\
examples:
  fastindex verify /srv/images             by BLAKE3 where the caches have it, else by SHA-256
  fastindex verify --sha256 /srv/images    by SHA-256, with fingerprints, as clients check
  fastindex verify --quick /srv/images     names and sizes only, in seconds
  fastindex verify --json /srv/images | jq .verify.mismatches

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex verify",
        "Check every file that the published catalogue names against the disk, and the\n"
        "catalogue against what clients accept. Print everything that is wrong.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "all is well",
                ExitCode.FAILED: "failed, as when nothing is published yet",
                ExitCode.DAMAGED: "something published is missing, changed or wrong; each is named",
            }
        ),
    )
    add_root(parser)
    method = parser.add_mutually_exclusive_group()
    method.add_argument(
        "--sha256",
        dest="method",
        action="store_const",
        const="sha256",
        help="compute SHA-256 and fingerprints, as clients do, whatever the caches say",
    )
    method.add_argument(
        "--quick",
        dest="method",
        action="store_const",
        const="quick",
        help="check names and sizes only, without reading images",
    )
    add_reports(parser)
    add_places(parser)
    add_hashing(parser)
    add_cluster(parser, "read and hash")
    add_verbosity(parser)
    parser.set_defaults(method="known")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = read_arguments(make_parser(), argv)
    return run_command("verify", arguments, lambda run: _verify(run, arguments))


def _verify(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.verify.options import VerifyOptions
    from fastindex.operations.verify.run import verify

    options = VerifyOptions(method=arguments.method, hashing=make_hashing_options(arguments))
    report = verify(run.open_mirror(arguments.root, arguments), options, observer=run.console)
    run.keep(verify=report)
    if not run.is_json:
        print_mismatches(report.mismatches)
    run.console.sum_up_verify(report)
    return report.exit_code
