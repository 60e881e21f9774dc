"""``SHA256SUMS``: the digests that a builder publishes beside its files.

A check that silently does not happen is worse than none. So every line is either understood, or
named as a problem.

Format: the output of ``sha256sum`` with and without ``--tag`` (coreutils manual, "cksum output
modes"), of BSD's ``sha256`` with and without ``-r``, and of ``openssl dgst`` with and without
``-r``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection

from msgspec import Struct

_LINE_END = re.compile(r"\r\n|\n|\r")
_PLAIN = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+\*?|[ \t]\*)(\S.*)", re.DOTALL)
_TAGGED = re.compile(r"SHA(?:2-)?256 ?\((.+)\) ?= ([0-9a-fA-F]{64})", re.DOTALL)
_OTHER_ALGORITHM = re.compile(
    r"(?!SHA(?:2-)?256 ?\()[A-Z][A-Za-z0-9/-]+ ?\(.+\) ?= [0-9a-fA-F]{8,}", re.DOTALL
)
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_QUOTED = 100
"""Characters of a name in a message."""


class Checksums(Struct, frozen=True):
    """What a ``SHA256SUMS`` says, as far as it can be understood."""

    digests: dict[str, str]
    """File name → 64 lowercase hex digits. A name with a directory is one of another file; one
    for which two lines differ is left out."""
    problem: str = ""
    """What is wrong with the file as a whole, for people; empty if all of it was understood."""

    def find_problem(self, names: Collection[str]) -> str:
        """Return why ``names``, the files beside it, cannot be relied on as checked; or ""."""
        if self.problem or any(name in self.digests for name in names):
            return self.problem
        return "names none of the files beside it"


def parse_checksums(content: bytes) -> Checksums:
    """Read a ``SHA256SUMS``.

    Args:
        content: its bytes; the caller bounds their number.

    Returns:
        What it says, and the first thing that is wrong with it. A leading ``./`` is removed from
        names. Blank lines, comments (``#``) and tagged lines of other algorithms say nothing.
    """
    if content.startswith(_UTF16_MARKS):
        return Checksums({}, "is in UTF-16, which sha256sum cannot read either; save it in UTF-8")
    problems: list[str] = []
    if content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
        problems.append("starts with a byte order mark (BOM); save it without one")
    elif b"\0" in content:
        problems.append("contains NUL bytes: it is in UTF-16, or damaged")
    digests: dict[str, str] = {}
    rivals: set[str] = set()
    lines = _LINE_END.split(content.decode("utf-8", "surrogateescape"))
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] == "#" or _OTHER_ALGORITHM.fullmatch(line):
            continue
        named = _parse_line(line)
        if named is None:
            problems.append(f"cannot be understood: line {number} is not one of sha256sum")
            continue
        name, digest = named
        if digests.setdefault(name, digest) != digest and name not in rivals:
            rivals.add(name)
            problems.append(f"contradicts itself: it has two digests for {name[:_MAX_QUOTED]}")
    for name in rivals:
        del digests[name]
    if not digests:
        problems.append("is empty: it has no digest of any file")
    return Checksums(digests, problems[0] if problems else "")


def _parse_line(line: str) -> tuple[str, str] | None:
    """Return the name and the digest in a line; None if it is in no known form."""
    is_escaped = line[0] == "\\"  # the name contains a backslash or a line end
    plain = _PLAIN.fullmatch(line, is_escaped)
    tagged = _TAGGED.fullmatch(line, is_escaped)
    if plain is not None:
        digest, name = plain.groups()
    elif tagged is not None:
        name, digest = tagged.groups()
    else:
        return None
    if is_escaped:
        if any(escape[1] not in _ESCAPED for escape in _ESCAPE.finditer(name)):
            return None
        name = _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]], name)
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return (name, digest.lower()) if name else None
