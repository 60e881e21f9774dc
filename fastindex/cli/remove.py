"""``fastindex remove FINGERPRINT|ALIAS... [ROOT]``: remove single images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from fastindex.cli.common import (
    EXIT_CODES,
    add_withdrawing,
    make_console,
    make_empty_parser,
    make_mirror,
    run_reported,
)
from fastindex.cli.output import Console, print_prune_report
from fastindex.cli.prune import make_build_options

_EPILOG = """\
examples:
  fastindex remove 57875665195b /srv/images     the image whose fingerprint starts so
  fastindex remove debian/12 /srv/images        the newest images with that alias
  fastindex remove --grace 0 57875665195b .     delete its files at once, even if a
                                                client is downloading them

The image leaves the catalogue at once. A later prune or remove deletes its files, once the grace
has passed. Until then, fastindex prune --undo VERSION publishes it again.

"""


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex remove",
        "Withdraw images from the catalogue, by fingerprint (its first 4 digits or more) or by\n"
        "alias, and delete their files once no client can know of them any more.",
        _EPILOG + EXIT_CODES,
    )
    parser.add_argument(
        "words",
        metavar="FINGERPRINT|ALIAS",
        nargs="+",
        help="the images to remove; then ROOT, the directory that the web server serves "
        "(default: the current directory)",
    )
    add_withdrawing(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = make_parser().parse_intermixed_args(argv)
    console = make_console(arguments)
    return run_reported(console, lambda: _remove(console, arguments))


def _remove(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.operations.prune.options import PruneOptions
    from fastindex.operations.prune.run import remove

    names: list[str] = arguments.words
    root = names.pop() if len(names) > 1 and os.path.isdir(names[-1]) else "."
    options = PruneOptions(grace_seconds=arguments.grace, build=make_build_options(arguments))
    report = remove(make_mirror(root, arguments), options, names, observer=console)
    print_prune_report(report)
    console.sum_up_prune(report)
    return report.exit_code
