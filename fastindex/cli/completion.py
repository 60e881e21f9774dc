"""``fastindex completion SHELL``: how bash, zsh and fish complete fastindex's command lines.

The scripts are the same for every command: they ask this program, so that they know what it knows.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_verbosity,
    list_exit_codes,
    make_console,
    make_empty_parser,
    run_reported,
)
from fastindex.errors import ExitCode, FastindexError

SCRIPTS = {"bash": "fastindex.bash", "zsh": "_fastindex", "fish": "fastindex.fish"}
"""Shell → the name of its script in ``shells/``."""
_MAX_SCRIPT_BYTES = 1 << 16
_MAX_SECONDS = 2
"""How long somebody waits who pressed a key."""

_EPILOG = """\
examples:
  source <(fastindex completion bash)          in ~/.bashrc
  source <(fastindex completion zsh)           in ~/.zshrc, after compinit
  fastindex completion fish | source           in ~/.config/fish/config.fish

pip and packages put the scripts where shells look for them, below share/ of the prefix. A shell
completes commands, options, directories and files, and from the catalogue in ROOT, or else in the
current directory: aliases, products, versions, fingerprints, streams and the values of filters.
Names that would need quotes in a shell are left out.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex completion",
        "Print a script that lets a shell complete what you type for fastindex.",
        _EPILOG + list_exit_codes({}, is_interruptible=False),
    )
    parser.add_argument(
        "shell", metavar="SHELL", choices=tuple(SCRIPTS), help=f"one of {', '.join(SCRIPTS)}"
    )
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    if argv[:2] == ["--candidates", "--"]:  # the scripts' own words
        return _print_candidates(argv[2:])
    arguments = make_parser().parse_args(argv)
    return run_reported(make_console(arguments), lambda: _print_script(arguments))


def _print_script(arguments: argparse.Namespace) -> int:
    from fastindex.cli.output import print_bytes
    from fastindex.system.files import read_small_file

    path = os.path.join(os.path.dirname(__file__), "shells", SCRIPTS[arguments.shell])
    print_bytes(read_small_file(path, _MAX_SCRIPT_BYTES))
    return ExitCode.DONE


def _print_candidates(words: Sequence[str]) -> int:
    """Print what a script asks for: a line for the paths, and a line for each candidate.

    Args:
        words: ``bash``, the line before the cursor, that behind it, and the word breaks; or
            another shell, the number of words before the cursor, those words, the word under the
            cursor, and others.
    """
    from fastindex.cli import bash_line
    from fastindex.cli.candidates import complete
    from fastindex.cli.output import print_text

    signal.signal(signal.SIGALRM, lambda *_: os._exit(ExitCode.FAILED))  # nobody waits any more
    signal.alarm(_MAX_SECONDS)
    kept: int | None = 0
    match words:
        case ["bash", start, end, word_breaks]:
            before, current, kept = bash_line.split(start, word_breaks)
            others = bash_line.split(f"{end} ", word_breaks).words
        case ["zsh" | "fish", count, *rest] if count.isdecimal() and len(rest) > int(count):
            before, (current, *others) = rest[: int(count)], rest[int(count) :]
        case _:  # a script of another version
            return ExitCode.USAGE
    try:
        completion = complete(before[1:], current, others)
    except (FastindexError, OSError):
        return ExitCode.FAILED
    lines: list[str] = [completion.paths]
    if words[0] == "bash":
        lines += [found.word[kept:] for found in completion.candidates if kept is not None]
    else:
        lines += [f"{found.word}\t{found.hint}" for found in completion.candidates]
    print_text("\n".join(lines))
    return ExitCode.DONE
