"""``fastindex remove FINGERPRINT|ALIAS... [ROOT]``: single images out of the mirror."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from fastindex.cli.common import EXIT_CODES, add_withdrawing, carry_out, new_parser
from fastindex.cli.output import Console
from fastindex.cli.prune import tell, withdrawing_options
from fastindex.operations.prune.options import PruneOptions

_EPILOG = """\
examples:
  fastindex remove 57875665195b /srv/images     the image of that fingerprint, by a prefix
  fastindex remove debian/12 /srv/images        the newest images that the alias names
  fastindex remove --grace 0 57875665195b .     its files at once, whoever is fetching them

An image is published no more at once; its files go with a later prune or remove, once the
grace has passed. `fastindex prune --undo VERSION` takes it back until then.

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex remove",
        "Withdraw images from the catalogue, named by fingerprint (its first 4 digits or\n"
        "more will do) or by alias, and delete their files once no client can know them.",
        _EPILOG + EXIT_CODES,
    )
    parser.add_argument(
        "words",
        metavar="FINGERPRINT|ALIAS",
        nargs="+",
        help="what to remove; then ROOT, the directory that is served (default: this one)",
    )
    add_withdrawing(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_intermixed_args(argv)
    console = Console(arguments.verbose - arguments.quiet)
    words: list[str] = arguments.words
    root = words.pop() if len(words) > 1 and os.path.isdir(words[-1]) else "."
    options = withdrawing_options(arguments, root)
    return carry_out(console, lambda: _remove(console, options, words))


def _remove(console: Console, options: PruneOptions, words: list[str]) -> int:
    from fastindex.operations.prune.run import remove

    return tell(console, remove(options, words, observer=console))
