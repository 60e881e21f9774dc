"""``fastindex diff [ROOT]``: what the next build would change."""

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
from fastindex.cli.output import Console, print_changes

_EPILOG = """\
examples:
  fastindex diff /srv/images && echo nothing to do

New files are hashed, so that the answer is exact; nothing is written.
Here, exit code 3 means: something would change.

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex diff",
        "Tell what the next build would change in what is published: versions added (+),\n"
        "removed (-), changed (~), with the sizes of their files.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    parser.add_argument(
        "--stream", action="append", metavar="NAME", help="as in the build; repeatable"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="as in the build")
    parser.add_argument("--output", metavar="DIR", help="as in the build")
    add_hashing(parser)
    add_loudness(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_args(argv)
    console = Console(arguments.verbose - arguments.quiet)
    return carry_out(console, lambda: _diff(console, arguments))


def _diff(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.errors import ExitCode
    from fastindex.operations.build.options import BuildOptions
    from fastindex.operations.build.pipeline import build

    options = BuildOptions(
        root=arguments.root,
        jobs=arguments.jobs,
        engine=arguments.engine,
        streams=tuple(arguments.stream or ("images",)),
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        dry_run=True,
    )
    report = build(options, observer=console)
    print_changes(report.changes)
    if report.refusal:
        console.fail(report.refusal)
        return ExitCode.FAILED
    return ExitCode.LEFT_OUT if report.changes else ExitCode.DONE
