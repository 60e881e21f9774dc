"""Pure: headers that keep clients from seeing what is new, or a pull from going on.

Incus and LXD cache a catalogue for an hour themselves, and look at no header of it. Whatever lies
between them and the server does. An image never changes under its name: it may be cached forever.
What the clients do not mind, a ``fastindex pull`` does: without a validator, or without ranges, it
begins a file anew that broke off.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.remote.answers import Answered

MAX_CATALOGUE_SECONDS = 3600
"""How long a catalogue may be cached between the server and a client."""
_DIRECTIVE = re.compile(r'([a-z-]+)(?:\s*=\s*"?(\d{1,12})"?)?', re.ASCII)


def find_cache_fault(path: str, answered: Answered) -> Finding | None:
    """Return what is wrong with how long a catalogue file may be cached.

    Args:
        path: the file.
        answered: what the server says of it.
    """
    directives = dict(_DIRECTIVE.findall(answered.cache_control.lower()))
    if not {"no-store", "no-cache"}.isdisjoint(directives):
        return None
    if "immutable" in directives:
        problem = "is immutable, says its Cache-Control: caches do not ask for a newer one"
    else:
        seconds = _find_lifetime(directives, answered)
        if seconds <= MAX_CATALOGUE_SECONDS:
            return None
        problem = (
            f"may be cached for {seconds / 3600:,.1f} hours, say its headers: for so long, clients "
            "may not see what is new, and ask for what is deleted"
        )
    remedy = "have the web server send Cache-Control: max-age=300 with JSON files"
    return Finding(Code.CACHED_TOO_LONG, path, problem, remedy)


def _find_lifetime(directives: dict[str, str], answered: Answered) -> float:
    """Return for how many seconds caches may keep an answer; 0: they choose, which is brief."""
    told = [directives[name] for name in ("max-age", "s-maxage") if directives.get(name)]
    if told:
        return float(max(map(int, told)))
    try:
        expires = parsedate_to_datetime(answered.expires)
        return (expires - parsedate_to_datetime(answered.date)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0


class _Kind(Struct, frozen=True):
    """Something about the headers of a file."""

    code: Code
    problem: str
    remedy: str


NO_VALIDATOR = _Kind(
    Code.NOT_RESUMABLE,
    "has neither a strong ETag nor a Last-Modified: a download that broke off cannot go on",
    "have the web server send one of them",
)
NO_RANGES = _Kind(
    Code.NOT_RESUMABLE,
    "is sent as a whole, whatever part is asked for: a download that broke off cannot go on",
    "have the web server answer Range",
)
COMPRESSED = _Kind(
    Code.COMPRESSED_FILE,
    "is compressed on the way, although it is compressed already: that costs the server time, and "
    "clients do not learn its size",
    "have the web server compress JSON only",
)
NO_SIZE = _Kind(
    Code.SIZE_UNKNOWN,
    "comes without its size, so that can be checked only by reading it",
    "have the web server send Content-Length, or use --full",
)


class Tally:
    """Counts files of which the same is to be said, so that it is said once."""

    def __init__(self) -> None:
        self._found: dict[_Kind, tuple[str, int]] = {}

    def add(self, kind: _Kind, path: str, count: int = 1) -> None:
        """Note that it is to be said of ``count`` files, such as ``path``."""
        first, before = self._found.get(kind, (path, 0))
        self._found[kind] = min(first, path), before + count

    def list_findings(self) -> list[Finding]:
        """Return a finding for each thing that is to be said."""
        return [
            Finding(kind.code, path, kind.problem + _count_others(count - 1), kind.remedy)
            for kind, (path, count) in self._found.items()
        ]


def _count_others(others: int) -> str:
    if not others:
        return ""
    return f" (as {others:,} other file{'s' if others > 1 else ''})"
