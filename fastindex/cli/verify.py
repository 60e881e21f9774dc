"""``fastindex verify [ROOT]``: hold what is published against the disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import (
    EXIT_CODES,
    add_hashing,
    add_loudness,
    add_root,
    carry_out,
    new_parser,
)
from fastindex.cli.output import Console, print_json, print_mismatches
from fastindex.operations.prune.options import VerifyOptions

_EPILOG = """\
examples:
  fastindex verify /srv/images             BLAKE3 where the caches know it, SHA-256 elsewhere
  fastindex verify --sha256 /srv/images    what clients check, fingerprints included
  fastindex verify --quick /srv/images     names and sizes only: seconds
  fastindex verify --json /srv/images | jq .mismatches

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex verify",
        "Hold every file that the published catalogue names against the disk, and the\n"
        "catalogue against what clients accept. Tells all mismatches; exit code 4 if any.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    method = parser.add_mutually_exclusive_group()
    method.add_argument(
        "--sha256",
        dest="method",
        action="store_const",
        const="sha256",
        help="compute what clients check, whatever the caches know",
    )
    method.add_argument(
        "--quick",
        dest="method",
        action="store_const",
        const="quick",
        help="read no image: only what names and sizes show",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="where the .items.json caches are, if not in the tree"
    )
    parser.add_argument("--output", metavar="DIR", help="where streams/ is, if not below ROOT")
    add_hashing(parser)
    add_loudness(parser)
    parser.set_defaults(method="known")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_args(argv)
    console = Console(arguments.verbose - arguments.quiet)
    options = VerifyOptions(
        root=arguments.root,
        method=arguments.method,
        jobs=arguments.jobs,
        engine=arguments.engine,
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
    )
    return carry_out(console, lambda: _verify(console, options, as_json=arguments.json))


def _verify(console: Console, options: VerifyOptions, *, as_json: bool) -> int:
    from fastindex.operations.verify.run import verify_catalogue

    report = verify_catalogue(options, observer=console)
    if as_json:
        print_json(report)
    else:
        print_mismatches(report.mismatches)
    console.sum_up_verify(report)
    return report.exit_code
