"""``fastindex list [ROOT]``: the images as clients see them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import EXIT_CODES, add_root, carry_out, new_parser
from fastindex.cli.output import Console, print_images, print_json

_EPILOG = """\
examples:
  fastindex list /srv/images                  the newest image of each product and type
  fastindex list --all --json /srv/images | jq -r '.[] | .fingerprint'

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex list",
        "List the published images, one a row, as a client would see them.",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    parser.add_argument("--all", action="store_true", help="every version, not only the newest")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, all columns")
    parser.add_argument("--output", metavar="DIR", help="where streams/ is, if not below ROOT")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_args(argv)
    console = Console(0)
    return carry_out(console, lambda: _list(console, arguments))


def _list(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.catalogue.images import list_images
    from fastindex.catalogue.published import read_published
    from fastindex.errors import ExitCode

    files, wrong = read_published(arguments.output or arguments.root)
    images = [image for image in list_images(files) if arguments.all or image.is_newest]
    if arguments.json:
        print_json(images)
    else:
        print_images(images)
    if wrong:
        console.fail("clients reject this catalogue; fastindex verify tells why")
    return ExitCode.DAMAGED if wrong else ExitCode.DONE
