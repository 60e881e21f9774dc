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
    make_empty_parser,
    make_filters,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_images, print_json, print_sums
from fastindex.cli.running import Run, run_command
from fastindex.errors import ExitCode

SORT_KEYS = ("product", "alias", "date", "size")
_EPILOG = """\
examples:
  fastindex list /srv/images     the newest image of each product and type
  fastindex list --all --json /srv/images | jq -r '.[] | .fingerprint'
  fastindex list --sort size /srv/images | head
  fastindex list --all --sha256sums /srv/images > SHA256SUMS
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
    parser.add_argument(
        "--sort",
        choices=SORT_KEYS,
        default="product",
        metavar="KEY",
        help=f"by what to sort: {', '.join(SORT_KEYS)}; sizes and dates with the greatest first "
        "(default: product)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="as_json", action="store_true", help="print all columns as JSON"
    )
    form.add_argument(
        "--sha256sums",
        action="store_true",
        help="print the SHA-256 and the path of each file of these versions instead, as sha256sum "
        "--check reads them",
    )
    add_output(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = read_arguments(make_parser(), argv)
    return run_command("list", arguments, lambda run: _list(run, arguments))


def _list(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.listing import list_published, sort_images

    mirror = run.open_mirror(arguments.root, arguments)
    filters = make_filters(arguments)
    listing = list_published(
        mirror,
        every_version=arguments.all,
        filters=filters,
        with_digests=arguments.sha256sums,
        observer=run.console,
    )
    images = sort_images(listing.images, arguments.sort)
    if arguments.as_json:
        print_json(images)
    elif arguments.sha256sums:
        print_sums(listing.digests)
    else:
        print_images(images)
    if listing.is_damaged:
        run.console.fail("this catalogue is damaged; run fastindex verify to see what is wrong")
    return ExitCode.DAMAGED if listing.is_damaged else ExitCode.DONE
