"""What an answer to the request for a file means: pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from fastindex.remote.errors import ChangedError, NoRangesError, PermanentError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


IDENTITIES = ("", "identity")
"""Values of ``Content-Encoding`` for a file that is sent as it is."""
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d{1,19})", re.ASCII)


class Asked(Struct, frozen=True):
    """What a request asks for."""

    start: int
    """The first byte."""
    end: int
    """Where it ends; that byte is not wanted."""
    size_bytes: int
    """How long the file is."""
    is_ranged: bool
    """Whether it asks for a part of the file."""
    validator: str
    """The file's validator, if that is known."""


class Answered(Struct, frozen=True):
    """What the headers of an answer say."""

    status: int
    """200, 206 or 416."""
    length_bytes: int | None
    """How long the body is, if that is known."""
    content_range: str = ""
    """``Content-Range``."""
    etag: str = ""
    """``ETag``."""
    last_modified: str = ""
    """``Last-Modified``."""
    encoding: str = ""
    """``Content-Encoding``."""
    accept_ranges: str = ""
    """``Accept-Ranges``."""
    cache_control: str = ""
    """``Cache-Control``."""
    expires: str = ""
    """``Expires``."""
    date: str = ""
    """``Date``."""

    @property
    def validator(self) -> str:
        """What tells this state of the file from another, for ``If-Range``; empty: nothing."""
        return self.etag if is_strong(self.etag) else self.last_modified


class Body(Struct, frozen=True):
    """What a body consists of."""

    skipped_bytes: int
    """What comes before the first byte that was asked for."""
    end: int
    """Where it ends in the file."""


def is_strong(etag: str) -> bool:
    """Return whether an entity tag stands for the very bytes."""
    return etag.startswith('"')


def read_headers(status: int, length_bytes: int | None, get: Callable[[str], str]) -> Answered:
    """Return what the headers say.

    Args:
        status: the status.
        length_bytes: how long the body is.
        get: returns a header's value, or an empty string.
    """
    return Answered(
        status,
        length_bytes,
        get("Content-Range"),
        get("ETag"),
        get("Last-Modified"),
        get("Content-Encoding").strip().lower(),
        get("Accept-Ranges").strip().lower(),
        get("Cache-Control"),
        get("Expires"),
        get("Date"),
    )


def interpret(asked: Asked, answered: Answered) -> Body:
    """Return what the body of an answer is.

    Raises:
        ChangedError: it belongs to another file than the one that was asked for.
        NoRangesError: a part was asked for, and the server sends all.
        PermanentError: it is not to be understood.
    """
    if answered.encoding not in IDENTITIES:
        raise PermanentError("the server sends it compressed, unasked", "use another server")
    if answered.status == 416:
        raise ChangedError(f"the server's file ends before byte {asked.start}")
    if asked.validator and _differs(asked.validator, answered):
        raise ChangedError("the server's file was replaced meanwhile")
    if answered.status == 200:
        if answered.length_bytes not in (None, asked.size_bytes):
            raise ChangedError(_differing_size(answered.length_bytes, asked.size_bytes))
        if asked.is_ranged:
            raise NoRangesError
        return Body(asked.start, asked.size_bytes)
    if answered.status != 206 or not asked.is_ranged:
        raise PermanentError(f"the server answers {answered.status}, unasked", "use another server")
    return _interpret_part(asked, answered)


def find_total(answered: Answered) -> int | None:
    """Return how long a file is of which the first byte was asked for; None: unknown."""
    if answered.encoding not in IDENTITIES:
        return None
    if answered.status == 200:
        return answered.length_bytes
    pattern = _UNSATISFIED_RANGE if answered.status == 416 else _CONTENT_RANGE
    matched = pattern.fullmatch(answered.content_range.strip())
    total = "*" if matched is None else matched.groups()[-1]
    return int(total) if total != "*" else None


def _interpret_part(asked: Asked, answered: Answered) -> Body:
    matched = _CONTENT_RANGE.fullmatch(answered.content_range.strip())
    if matched is None:
        raise ChangedError("the server sends another part than the one it was asked for")
    first, last, total = matched.groups()
    if total != "*" and int(total) != asked.size_bytes:
        raise ChangedError(_differing_size(int(total), asked.size_bytes))
    start, end = int(first), int(last) + 1
    if start != asked.start or not start < end <= asked.end:
        raise ChangedError("the server sends another part than the one it was asked for")
    if answered.length_bytes not in (None, end - start):
        raise ChangedError("the server sends a part of another length than it says")
    return Body(0, end)


def _differs(validator: str, answered: Answered) -> bool:
    """Return whether an answer has another validator of the same kind."""
    theirs = answered.etag if is_strong(validator) else answered.last_modified
    return bool(theirs) and theirs != validator


def _differing_size(theirs: int | None, ours: int) -> str:
    return f"the server's file has {theirs} bytes instead of {ours}"
