"""What a shell can complete the word under the cursor to: from the parsers and the catalogue.

A line that is being typed is no command line yet, so it is not parsed as one. Names in a catalogue
come from strangers: only those are candidates that mean themselves in every shell, unquoted.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from fastindex.cli.common import Parser
from fastindex.cli.main import find_command
from fastindex.cli.words import COMMANDS, find_values, is_option, read_unfinished
from fastindex.formats.filters import KEYS, TYPES

if TYPE_CHECKING:
    from fastindex.catalogue.images import Image

MAX_CANDIDATES = 1000
"""Of more candidates a shell is told none: nobody reads them all."""
_MAX_HINT_CHARACTERS = 60
_MIN_DIGITS = 4
"""Digits of a fingerprint to be typed: of fewer, too many images have them."""
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+=,@%-]*")
"""Words that every shell takes as they are."""

Paths = Literal["none", "files", "directories"]
"""What the shell itself adds to the candidates."""


class Candidate(NamedTuple):
    """What the word under the cursor can become."""

    word: str
    """The whole word. A final ``/`` or ``=`` is to be continued."""
    hint: str = ""
    """What it means, in a few words."""


class Completion(NamedTuple):
    """All that the word under the cursor can become."""

    candidates: list[Candidate]
    """In order."""
    paths: Paths
    """What the shell adds."""


def complete(before: Sequence[str], current: str, others: Sequence[str]) -> Completion:
    """Return what ``current`` can become.

    Args:
        before: the words before it, without the name of the program.
        current: the word as far as it is typed.
        others: words that stand behind it, or anywhere: one may be ROOT.

    Raises:
        FastindexError: the catalogue cannot be read.
    """
    line = read_unfinished(before)
    make_parser, _ = find_command(line.command)
    parser = make_parser()
    option, start = line.option, ""
    if not option and current.startswith("--") and "=" in current:
        option, _, current = current.partition("=")
        start = f"{option}="
    if option:
        action = _find_option(parser, option)
    elif not line.are_options_over and current.startswith("-"):
        return Completion(_choose(_list_options(parser), current), "none")
    else:
        action = _find_argument(parser, len(line.arguments))
    if action is None:
        return Completion([], "none")
    root = _find_root(before, others)
    found, paths = _list_values(action, current, root)
    if not (option or line.command or line.arguments or line.are_options_over):
        found = [*_list_commands(), *found]
    chosen = _choose(found, current)
    return Completion([Candidate(start + word, hint) for word, hint in chosen], paths)


def _choose(candidates: Iterable[Candidate], current: str) -> list[Candidate]:
    """Return the candidates that start with ``current``, each once; none if they are too many."""
    chosen = {found.word: found for found in candidates if found.word.startswith(current)}
    return list(chosen.values()) if len(chosen) <= MAX_CANDIDATES else []


def _list_commands() -> Iterator[Candidate]:
    for name in COMMANDS:
        make_parser, _ = find_command(name)
        yield Candidate(name, _shorten(make_parser().description or ""))


def _list_options(parser: Parser) -> Iterator[Candidate]:
    for action in _list_actions(parser):
        for option in action.option_strings:
            yield Candidate(option, _shorten(action.help or ""))


def _list_actions(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _shorten(text: str) -> str:
    """Return the first thought of a help text."""
    thought = re.split(r"[.:;(]\s|[.:;]$| \(", " ".join(text.split()), maxsplit=1)[0]
    if len(thought) <= _MAX_HINT_CHARACTERS:
        return thought
    return thought[:_MAX_HINT_CHARACTERS].rpartition(" ")[0] + " …"


def _find_option(parser: Parser, option: str) -> argparse.Action | None:
    """Return the option called so that takes a value; ``-qj`` ends in the option ``-j``."""
    name = option if option.startswith("--") else f"-{option[-1]}"
    return next(
        (one for one in _list_actions(parser) if name in one.option_strings and one.nargs != 0),
        None,
    )


def _find_argument(parser: Parser, number: int) -> argparse.Action | None:
    """Return what the argument with that number is; the first that can be repeated takes all."""
    for action in _list_actions(parser):
        if not action.option_strings:
            if number == 0 or action.nargs in ("+", "*"):
                return action
            number -= 1
    return None


def _find_root(before: Sequence[str], others: Sequence[str]) -> str:
    """Return the first place with a catalogue: of ``--output``, of the words, or here."""
    words = [*find_values(before, "--output"), *before, *others]
    places = (os.path.expanduser(word) for word in words if word and not is_option(word))
    return next((place for place in places if _has_catalogue(place)), os.curdir)


def _has_catalogue(place: str) -> bool:
    from fastindex.formats.simplestreams import INDEX_PATH

    try:
        return os.path.isfile(os.path.join(place, INDEX_PATH))
    except ValueError:  # no path can be called so
        return False


def _list_values(action: argparse.Action, current: str, root: str) -> tuple[list[Candidate], Paths]:
    """Return what an option's value or an argument can be, if ``current`` is its beginning."""
    kind = "--stream" if "--stream" in action.option_strings else str(action.metavar)
    if action.choices is not None:
        return [Candidate(str(choice)) for choice in action.choices], "none"
    if kind == "COMMAND":
        return list(_list_commands()), "none"
    if kind in _PATHS:
        return [], _PATHS[kind]
    if kind not in _NAMES:
        return [], "none"
    names = [name for name in _NAMES[kind](root, current) if name.startswith(current)]
    # The last of several images may be ROOT.
    is_path = kind == "IMAGE" and not names
    return [Candidate(name) for name in names], "directories" if is_path else "none"


def _sort_harmless(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if _HARMLESS.fullmatch(name)})


def _read_images(root: str) -> tuple[Image, ...]:
    from fastindex.mirror.mirror import Mirror
    from fastindex.operations.listing import list_published

    return list_published(Mirror.at(root), every_version=True).images


def _list_image_names(root: str, current: str) -> list[str]:
    """Return what images, products and versions are called, each up to its next slash."""
    images = _read_images(root)
    names = {alias for image in images for alias in image.aliases}
    names |= {image.version for image in images}
    names = {_cut(name, current) for name in names}
    names |= {image.version.rpartition("/")[0] for image in images if current.count("/") > 3}
    if len(current) >= _MIN_DIGITS:
        names |= {image.fingerprint for image in images}
    return _sort_harmless(names)


def _cut(name: str, current: str) -> str:
    """Return ``name`` up to the first slash behind ``current``."""
    end = name.find("/", len(current))
    return name if end < 0 else name[: end + 1]


def _list_streams(root: str, current: str) -> list[str]:
    del current
    return _sort_harmless(image.stream for image in _read_images(root))


def _list_withdrawn(root: str, current: str) -> list[str]:
    """Return the versions that are withdrawn, each up to its next slash."""
    from fastindex.mirror.mirror import Mirror
    from fastindex.mirror.state import withdrawals

    return _sort_harmless(_cut(name, current) for name in withdrawals.load(Mirror.at(root)))


def _list_terms(root: str, current: str) -> list[str]:
    """Return what a filter can become: keys, or the values of the key that is typed."""
    start, term = re.fullmatch(r"(.*\s)?(.*)", current, re.DOTALL).groups("")  # type: ignore[union-attr]  # all match
    match = re.fullmatch(r"(([a-z]+)!?=(?:.*,)?)[^,~]*", term, re.DOTALL)
    if match is None:
        return [f"{start}{key}=" for key in KEYS]
    typed, key = match.groups()
    images = _read_images(root)
    return [f"{start}{typed}{value}" for value in _sort_harmless(_list_filtered(images, key))]


def _list_filtered(images: Sequence[Image], key: str) -> set[str]:
    """Return the values that images have for a key of filters, of which a comma separates two."""
    match key:
        case "type":
            return set(TYPES)
        case "alias":
            values = {alias for image in images for alias in image.aliases}
        case "version":
            values = {image.serial for image in images}
        case "os":  # its directory, not what people write
            values = {image.version.split("/")[1] for image in images}
        case "release" | "arch" | "variant":
            values = {getattr(image, key) for image in images}
        case _:
            values = set()
    return {value for value in values if "," not in value}


_PATHS: dict[str, Paths] = {
    "DIR": "directories",
    "ROOT": "directories",
    "PATH": "files",
    "FILE": "files",
    "SOURCE": "files",
}
"""What the parsers call a value → the paths that it can be."""
_NAMES: dict[str, Callable[[str, str], list[str]]] = {
    "EXPR": _list_terms,
    "IMAGE": _list_image_names,
    "VERSION": _list_withdrawn,
    "--stream": _list_streams,
}
"""What the parsers call a value, or the option → what lists the names that it can be."""
