"""Pure: the words of a command line → the command that is meant, and the words for its parser.

argparse cannot say which word is the command while options stand before it, and would take the
word after a bare ``--wait`` for its time. Two rules decide:

- The command is the first word that is neither an option nor the value of one. If it names no
  command, it is the ROOT of a build. Options may stand before it or behind it.
- The word after ``--wait`` is its time if it starts with a digit. A word that looks like the rest
  of a time (``5 minutes``, ``2h 30m``) belongs to the time before it. A directory with such a
  name is written as a path: ``./5``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

COMMANDS = (
    *("build", "pull", "import", "verify", "check", "list", "diff", "prune", "remove", "deltas"),
    *("status", "push", "nightly", "serve", "units", "bench", "config", "completion", "help"),
)

OPTIONS_WITH_VALUE = frozenset(
    {
        *("-i", "-j"),
        *("--alias", "--allow-links", "--arch", "--ca", "--cache-dir", "--config", "--connections"),
        *("--cert", "--cluster", "--endpoint"),
        *("--directory", "--engine", "--expiry", "--filter", "--gigabytes", "--keyring", "--lag"),
        *("--grace", "--jobs", "--keep", "--keep-days", "--limit-rate", "--max-age", "--metrics"),
        *("--os", "--output", "--recheck", "--sample", "--upstream"),
        *("--from", "--max-memory", "--max-ratio"),
        *("--release", "--report", "--seconds", "--scanners", "--settle", "--sort", "--stream"),
        *("--key", "--listen", "--name", "--patience", "--page-settings", "--sign", "--undo"),
        "--variant",
        *("--mirror", "--moved-from", "--user", "--user-agent", "--version-name"),
    }
)
"""The options of all commands that take the next word as their value: a test compares them with
the parsers, which need not be made to find the command."""

_OPTIONS_WITH_TIME = frozenset(
    {"--expiry", "--grace", "--lag", "--max-age", "--patience", "--seconds", "--settle"}
)
_WAIT = "--wait"

_NUMBER = re.compile(r"-?\.?\d", re.ASCII)
"""How a number starts. No option starts like a negative number."""
_REST_OF_TIME = re.compile(
    r"\d+(\.\d+)?[smhd]|secs?|seconds?|mins?|minutes?|hours?|days?|weeks?", re.ASCII | re.IGNORECASE
)


class CommandLine(NamedTuple):
    """What was asked for."""

    command: str
    """One of ``COMMANDS``; empty: none is named, which means a build."""
    words: list[str]
    """Its options and arguments; a long option and its value are one word."""


class _Piece(NamedTuple):
    """An option with its value, or a word that is neither."""

    words: list[str]
    is_option: bool


def split(argv: Sequence[str]) -> CommandLine:
    """Return the command that ``argv`` names, and the words for its parser."""
    command = ""
    words: list[str] = []
    is_first = True
    for piece in _split_into_pieces(argv):
        if is_first and not piece.is_option:
            is_first = False
            if piece.words[0] in COMMANDS:
                (command,) = piece.words
                continue
        words += piece.words
    return CommandLine(command, words)


class Unfinished(NamedTuple):
    """A command line that somebody is typing, up to the word under the cursor."""

    command: str
    """One of ``COMMANDS``; empty: none is named yet, or it is a build."""
    arguments: list[str]
    """The words that are neither an option nor the value of one, without the command."""
    option: str
    """The option whose value the next word is; empty: the next word is no value."""
    are_options_over: bool
    """Whether a ``--`` makes arguments of all that follows."""


def read_unfinished(argv: Sequence[str]) -> Unfinished:
    """Return what ``argv``, the words before the cursor, make of the next word."""
    command, option = "", ""
    arguments: list[str] = []
    are_options_over = False
    for piece in _split_into_pieces(argv):
        option = ""
        if piece.words[0] == "--":
            are_options_over = True
            arguments += piece.words[1:]
        elif piece.is_option:
            waits = len(piece.words) == 1 and _takes_next_word(piece.words[0])
            option = piece.words[0] if waits else ""
        elif not arguments and not command and piece.words[0] in COMMANDS:
            (command,) = piece.words
        else:
            arguments += piece.words
    return Unfinished(command, arguments, option, are_options_over)


def find_values(argv: Sequence[str], option: str) -> list[str]:
    """Return the values that ``argv`` gives a long option, the last first."""
    pieces = [piece.words[0] for piece in _split_into_pieces(argv) if piece.is_option]
    return [
        word.removeprefix(f"{option}=")
        for word in reversed(pieces)
        if word.startswith(f"{option}=")
    ]


def find_first(words: Iterable[str]) -> tuple[list[str], str | None]:
    """Return what stands before the first word that is neither option nor value, and that word."""
    before: list[str] = []
    for piece in _split_into_pieces(list(words)):
        if not piece.is_option:
            return before, piece.words[0]
        before += piece.words
    return before, None


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint, for the end of a message, at the known name that is nearest to ``word``."""
    import difflib  # takes 3 ms

    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _split_into_pieces(argv: Sequence[str]) -> Iterator[_Piece]:
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word == "--":
            # What follows is no command. The piece counts as an option if nothing follows.
            yield _Piece(["--", *argv[at:]], is_option=at == len(argv))
            return
        if not is_option(word):
            yield _Piece([word], is_option=False)
            continue
        following = argv[at] if at < len(argv) else "--"
        if word == _WAIT and following and not _NUMBER.match(following):
            yield _Piece([f"{_WAIT}=inf"], is_option=True)
            continue
        if is_option(following) or not (word == _WAIT or _takes_next_word(word)):
            yield _Piece([word], is_option=True)
            continue
        at += 1
        if not word.startswith("--"):
            yield _Piece([word, following], is_option=True)
            continue
        if word == _WAIT or word in _OPTIONS_WITH_TIME:
            while at < len(argv) and _REST_OF_TIME.fullmatch(argv[at]):
                following += f" {argv[at]}"
                at += 1
        yield _Piece([f"{word}={following}"], is_option=True)


def is_option(word: str) -> bool:
    """Return whether ``word`` stands for an option: it starts with a hyphen and is no number."""
    return len(word) > 1 and word[0] == "-" and not _NUMBER.match(word)


def _takes_next_word(option: str) -> bool:
    """Return whether ``option``, as it is written, leaves its value to the next word.

    The first letter with a value ends a cluster: ``-qj 4`` and ``-qj4`` are the same.
    """
    if option.startswith("--"):
        return option in OPTIONS_WITH_VALUE
    for number, letter in enumerate(option[1:], start=2):
        if f"-{letter}" in OPTIONS_WITH_VALUE:
            return number == len(option)
    return False
