"""Pure: a line as bash has it → its words, and what bash wants to know of the last one.

bash hands a completion the line as it is typed, with quotes, and replaces only what stands behind
the last word break (``:`` or ``=`` among others) or behind a quote that is still open.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PIECE = r"""\\.|\\$|'[^']*(?:'|$)|"(?:\\.|[^"\\])*\\?(?:"|$)|[^\s'"\\]+"""
_WORD = re.compile(rf"(?:{_PIECE})+", re.DOTALL)
_PARTS = re.compile(_PIECE, re.DOTALL)
_QUOTES = "'\""


class Line(NamedTuple):
    """What stands before the cursor."""

    words: list[str]
    """The words that are finished, without their quotes."""
    current: str
    """The word under the cursor, as far as it is typed, without its quotes."""
    kept: int | None
    """How many characters of ``current`` bash keeps; None: its quotes are too intricate."""


def split(line: str, word_breaks: str) -> Line:
    """Return the words of ``line``, which ends at the cursor.

    Args:
        line: as bash has it.
        word_breaks: the characters that are words of their own to bash, unless they are quoted.
    """
    found = [*_WORD.finditer(line)]
    raw = found.pop()[0] if found and found[-1].end() == len(line) else ""
    return Line([unquote(match[0]) for match in found], unquote(raw), _count_kept(raw, word_breaks))


def unquote(raw: str) -> str:
    """Return a word without its quotes; nothing in it is expanded."""
    return "".join(map(_unquote_part, _PARTS.findall(raw)))


def _unquote_part(part: str) -> str:
    if part[0] == "'":
        return part[1:].removesuffix("'")
    if part[0] == '"':
        is_closed = len(part) > 1 and re.search(r'(?<!\\)(?:\\\\)*"$', part[1:]) is not None
        return re.sub(r'\\([$`"\\\n])', r"\1", part[1:-1] if is_closed else part[1:])
    return part[1:] if part[0] == "\\" else part


def _count_kept(raw: str, word_breaks: str) -> int | None:
    if raw[:1] and raw[0] in _QUOTES and not set(raw[1:]) & {*_QUOTES, "\\"}:
        return 0  # a quote is open: all behind it is replaced
    if set(raw) & {*_QUOTES, "\\"}:
        return None
    return max(raw.rfind(character) for character in {*word_breaks, " "}) + 1
