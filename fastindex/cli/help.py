"""``fastindex help [COMMAND]``: the same as ``fastindex COMMAND --help``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastindex.cli.common import Parser, add_verbosity, list_exit_codes, make_empty_parser
from fastindex.cli.words import COMMANDS, suggest

_EPILOG = """\
examples:
  fastindex help
  fastindex help import

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex help",
        "Explain a command and its options, as fastindex COMMAND --help does.",
        _EPILOG + list_exit_codes({}, is_interruptible=False),
    )
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs="?",
        default="build",
        help=f"one of {', '.join(COMMANDS)} (default: build, which names the others)",
    )
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit, as each parser does after its help."""
    from fastindex.cli.main import find_command

    parser = make_parser()
    arguments: argparse.Namespace = parser.parse_args(argv)
    topic: str = arguments.command
    if topic not in COMMANDS:
        hint = suggest(topic, COMMANDS) or f"; the commands are {', '.join(COMMANDS)}"
        parser.error(f"{topic!r} is not a command{hint}")
    _, run_topic = find_command(topic)
    return run_topic(["--help"])
