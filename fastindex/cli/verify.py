"""``fastindex verify [ROOT]``: check what is published against the disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_hashing,
    add_places,
    add_root,
    add_verbosity,
    list_exit_codes,
    make_console,
    make_empty_parser,
    make_hashing_options,
    make_mirror,
    run_reported,
)
from fastindex.cli.output import Console, print_json, print_mismatches
from fastindex.errors import ExitCode

_EPILOG = """\
examples:
  fastindex verify /srv/images             by BLAKE3 where the caches have it, else by SHA-256
  fastindex verify --sha256 /srv/images    by SHA-256, with fingerprints, as clients check
  fastindex verify --quick /srv/images     names and sizes only, in seconds
  fastindex verify --json /srv/images | jq .mismatches

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
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_places(parser)
    add_hashing(parser)
    add_verbosity(parser)
    parser.set_defaults(method="known")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = make_parser().parse_args(argv)
    console = make_console(arguments)
    return run_reported(console, lambda: _verify(console, arguments))


def _verify(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.operations.verify.options import VerifyOptions
    from fastindex.operations.verify.run import verify

    options = VerifyOptions(method=arguments.method, hashing=make_hashing_options(arguments))
    report = verify(make_mirror(arguments.root, arguments), options, observer=console)
    if arguments.json:
        print_json(report)
    else:
        print_mismatches(report.mismatches)
    console.sum_up_verify(report)
    return report.exit_code
