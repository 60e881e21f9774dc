"""``fastindex list [ROOT]``: the images as clients see them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_filter,
    add_output,
    add_root,
    add_verbosity,
    list_exit_codes,
    make_console,
    make_empty_parser,
    make_filters,
    make_mirror,
    run_reported,
)
from fastindex.cli.output import Console, print_images, print_json
from fastindex.errors import ExitCode

_EPILOG = """\
examples:
  fastindex list /srv/images     the newest image of each product and type
  fastindex list --all --json /srv/images | jq -r '.[] | .fingerprint'
  fastindex list --filter 'os=debian,alpine arch~^(amd64|arm64)$ type=vm' /srv/images

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex list",
        "List the published images as clients see them, one in each row.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.FAILED: "failed, as when nothing is published yet",
                ExitCode.DAMAGED: "the catalogue is damaged; verify says what is wrong",
            }
        ),
    )
    add_root(parser)
    parser.add_argument(
        "--all", action="store_true", help="list every version, not only the newest"
    )
    add_filter(parser, "list")
    parser.add_argument("--json", action="store_true", help="print all columns as JSON")
    add_output(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = make_parser().parse_args(argv)
    console = make_console(arguments)
    return run_reported(console, lambda: _list(console, arguments))


def _list(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.operations.listing import list_published

    mirror = make_mirror(arguments.root, arguments)
    filters = make_filters(arguments)
    listing = list_published(mirror, every_version=arguments.all, filters=filters, observer=console)
    if arguments.json:
        print_json(listing.images)
    else:
        print_images(listing.images)
    if listing.is_damaged:
        console.fail("this catalogue is damaged; run fastindex verify to see what is wrong")
    return ExitCode.DAMAGED if listing.is_damaged else ExitCode.DONE
