"""Pure: what a client sent, and the file that it asks for → the answer (RFC 9110)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Protocol

from msgspec import Struct

from fastindex.system.stamps import Stamp

IMAGE_CACHING = "public, max-age=31536000, immutable"
"""A published version never changes."""
CATALOGUE_CACHING = "public, max-age=300"
"""Clients keep catalogues for so long, or longer, themselves."""
ERROR_CACHING = "no-store"
METHODS = ("GET", "HEAD")

_TYPES = {
    ".atom": "application/atom+xml",
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".sjson": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".zst": "application/zstd",
}
_ANY_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Headers(Protocol):
    """The header fields of a request; names in any case."""

    def get(self, name: str, default: str, /) -> str:
        """Return the value of a field, those of several joined by commas."""


class Resource(Struct, frozen=True):
    """A file that is published, open."""

    path: str
    """What it was asked for as, relative to the mirror."""
    stamp: Stamp
    is_image: bool
    """Whether it is a file of an image; else it is one of the catalogue, or accompanies it."""
    is_gzipped: bool = False
    """Whether it is the compressed form of what was asked for."""
    has_forms: bool = False
    """Whether what is sent depends on what the client accepts."""


class Answer(Struct, frozen=True):
    """What is sent: a status, header fields, and bytes of the file."""

    status: int
    headers: Mapping[str, str]
    first: int = 0
    """The offset in the file of the first byte that is sent."""
    length: int = 0
    """How many bytes are sent."""


def refuse(status: int) -> Answer:
    """Return an answer without content."""
    headers = {"Cache-Control": ERROR_CACHING, "Content-Length": "0"}
    if status == 405:
        headers["Allow"] = ", ".join(METHODS)
    return Answer(status, headers)


def accepts_gzip(headers: Headers) -> bool:
    """Return whether a client takes content that is compressed by gzip."""
    qualities = {}
    for word in headers.get("Accept-Encoding", "").lower().split(","):
        coding, _, parameter = word.partition(";")
        name, _, value = parameter.partition("=")
        is_refused = name.strip() == "q" and not value.strip(" 0.")
        qualities[coding.strip()] = not is_refused
    return qualities.get("gzip", qualities.get("*", False))


def make_tag(resource: Resource) -> str:
    """Return the strong ETag of what is sent."""
    return f'"{resource.stamp.key}{"-gzip" * resource.is_gzipped}"'


def answer(method: str, headers: Headers, resource: Resource) -> Answer:
    """Return the answer to a request for a file.

    Of several ranges the whole file is sent, as a server may: what many small ones cost is nobody's
    to choose.

    Args:
        method: ``GET`` or ``HEAD``.
        headers: of the request.
        resource: the file.
    """
    size = resource.stamp.size_bytes
    tag = make_tag(resource)
    told = {
        "Cache-Control": IMAGE_CACHING if resource.is_image else CATALOGUE_CACHING,
        "ETag": tag,
        "Last-Modified": formatdate(_seconds(resource), usegmt=True),
        "X-Content-Type-Options": "nosniff",
    }
    if resource.has_forms:
        told["Vary"] = "Accept-Encoding"
    status = _check_conditions(headers, resource, tag)
    if status == 412:
        return refuse(status)
    if status == 304:
        return Answer(status, told)
    told["Accept-Ranges"] = "bytes"
    extension = posixpath.splitext(resource.path)[1]
    told["Content-Type"] = _ANY_TYPE if resource.is_image else _TYPES.get(extension, _ANY_TYPE)
    if resource.is_gzipped:
        told["Content-Encoding"] = "gzip"
    first, length = 0, size
    span = _find_span(headers, resource, tag) if method == "GET" else None
    if span is not None:
        first, length = span
        if not length:
            wrong = refuse(416)
            return Answer(416, {**wrong.headers, "Content-Range": f"bytes */{size}"})
        told["Content-Range"] = f"bytes {first}-{first + length - 1}/{size}"
    told["Content-Length"] = str(length)
    return Answer(206 if span else 200, told, first, length if method == "GET" else 0)


def _seconds(resource: Resource) -> int:
    return resource.stamp.mtime_ns // 1_000_000_000


def _check_conditions(headers: Headers, resource: Resource, tag: str) -> int:
    """Return 412 or 304 where a condition of the client asks for that, else 200."""
    modified = _seconds(resource)
    match, none_match = headers.get("If-Match", ""), headers.get("If-None-Match", "")
    if match:
        if match.strip() != "*" and tag not in [word.strip() for word in match.split(",")]:
            return 412
    else:
        since = _read_date(headers.get("If-Unmodified-Since", ""))
        if since is not None and modified > since:
            return 412
    if none_match:
        return 304 if none_match.strip() == "*" or tag in _TAG.findall(none_match) else 200
    since = _read_date(headers.get("If-Modified-Since", ""))
    return 304 if since is not None and modified <= since else 200


def _find_span(headers: Headers, resource: Resource, tag: str) -> tuple[int, int] | None:
    """Return the first byte of a range and its length, 0 if there is no such byte.

    Returns:
        None: no range is asked for, or none that is to be looked at.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    if match is None or match.group(1, 2) == ("", ""):
        return None
    condition = headers.get("If-Range", "").strip()
    if condition and condition != tag and _read_date(condition) != _seconds(resource):
        return None
    size = resource.stamp.size_bytes
    start, last = match.groups()
    if not start:
        length = min(int(last), size)
        return size - length, length
    first = int(start)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < first:
        return None  # no range at all
    return first, max(0, end - first)


def _read_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
