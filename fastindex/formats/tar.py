"""The members of a tar stream: their names, kinds and sizes, in bounded time and memory.

Python's ``tarfile`` is made for tarballs of friends: a header of a megabyte can keep its
regular expressions busy for days, fill the memory with attributes, or end in errors of any
class. Formats: POSIX.1-2008 (``ustar`` and ``pax``) and GNU tar's; of attributes only those
count that name a member or size it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

_BLOCK_BYTES = 512
_ZEROS = bytes(_BLOCK_BYTES)
_FILE_KINDS = (b"0", b"\0", b"7")
_KINDS_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
_DIRECTORY = b"5"
_GNU_SPARSE = b"S"
_GNU_LONG_NAME = b"L"
_GNU_LONG_TARGET = b"K"
_ATTRIBUTES = (b"x", b"X")
_GLOBAL_ATTRIBUTES = b"g"
_MOST_DIGITS = 20
_BLANK_FIELD_SUM = 8 * ord(" ")
"""What the checksum's own field counts for."""


class TarballError(ValueError):
    """No tarball, a damaged one, or one out of bounds. The message says which."""


class Stream(Protocol):
    """Bytes that are read forwards; the one who makes it bounds what may be read."""

    def tell(self) -> int:
        """Return how many bytes have been read or skipped."""

    def seek(self, offset: int) -> int:
        """Skip to ``offset``, or to the end; return where that is."""

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""


class Member(Struct, frozen=True):
    """A member of a tarball, whose content comes next in the stream."""

    name: str
    """As it stands there: with a leading ``/`` or ``..`` too."""
    size_bytes: int
    """Of what lies in the stream."""
    is_plain_file: bool
    """Whether it is a file, and none with holes."""
    is_directory: bool


def members(stream: Stream) -> Iterator[Member]:
    """Yield each member; what of its content is not read meanwhile is skipped.

    Raises:
        TarballError: damaged, or no tarball.
    """
    name = ""
    attributes: dict[bytes, bytes] = {}
    while (header := _read_header(stream)) is not None:
        kind = header[156:157]
        size_bytes = _number(attributes.get(b"size", b"") or header[124:136])
        start = stream.tell()
        if kind == _GNU_LONG_NAME:
            name = name or _text(_read(stream, size_bytes))
        elif kind in _ATTRIBUTES:
            attributes = _parse_attributes(_read(stream, size_bytes))
        elif kind not in (_GNU_LONG_TARGET, _GLOBAL_ATTRIBUTES):
            is_sparse = kind == _GNU_SPARSE or any(
                key.startswith(b"GNU.sparse.") for key in attributes
            )
            if kind == _GNU_SPARSE:
                _skip_map(stream, header)
                start = stream.tell()
            if kind in _KINDS_WITHOUT_CONTENT:
                size_bytes = 0
            own = attributes.get(b"GNU.sparse.name") or attributes.get(b"path")
            name = _text(own) if own else name or _name(header)
            yield Member(
                name,
                size_bytes,
                kind in _FILE_KINDS and not is_sparse and not name.endswith("/"),
                kind == _DIRECTORY or (kind in _FILE_KINDS and name.endswith("/")),
            )
            name, attributes = "", {}
        end = start + -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
        if stream.seek(end) < end:
            raise TarballError("damaged: it ends within a member")


def _read_header(stream: Stream) -> bytes | None:
    """Return the next header block; None at the end."""
    block = stream.read(_BLOCK_BYTES)
    if block in (b"", _ZEROS):
        return None
    if len(block) < _BLOCK_BYTES:
        raise TarballError("no tarball, or a damaged one: it ends within a header")
    field = block[148:156]
    expected = _number(field)
    # Some tars have added up signed bytes.
    if expected != sum(block) - sum(field) + _BLANK_FIELD_SUM and expected != (
        sum(memoryview(block).cast("b")) - sum(memoryview(field).cast("b")) + _BLANK_FIELD_SUM
    ):
        raise TarballError("no tarball, or a damaged one: a header's checksum does not hold")
    return block


def _read(stream: Stream, size_bytes: int) -> bytes:
    content = stream.read(size_bytes)
    if len(content) < size_bytes:
        raise TarballError("damaged: it ends within a header")
    return content


def _number(field: bytes) -> int:
    """Return the number in a header: octal digits, or GNU's to the base of 256."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    # int() would take signs, underscores and white space.
    if len(digits) > _MOST_DIGITS or not digits.isdigit():
        raise TarballError("no tarball, or a damaged one: a number that is none")
    try:
        return int(digits, 8)
    except ValueError as error:
        raise TarballError("no tarball, or a damaged one: a number that is none") from error


def _name(header: bytes) -> str:
    name = _text(header[:100])
    is_posix = header[257:263] == b"ustar\0"  # GNU has other things where the prefix is
    prefix = _text(header[345:500]) if is_posix else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parse_attributes(content: bytes) -> dict[bytes, bytes]:
    """Read pax records, ``LENGTH KEY=VALUE`` and a newline; keep what names or sizes a member."""
    attributes: dict[bytes, bytes] = {}
    start = 0
    content = content.rstrip(b"\0")
    while start < len(content):
        digits, blank, _ = content[start : start + _MOST_DIGITS].partition(b" ")
        end = start + (int(digits) if digits.isdigit() else 0)
        record = content[start + len(digits) + 1 : end]
        key, is_record, value = record.partition(b"=")
        if not blank or not is_record or end > len(content) or record[-1:] != b"\n":
            raise TarballError("damaged: attributes that are none")
        if key == b"size":
            size = value[:-1]
            if not size.isdigit() or len(size) > _MOST_DIGITS:
                raise TarballError("damaged: a size that is none")
            attributes[key] = b"%o" % int(size)
        elif key == b"path" or key.startswith(b"GNU.sparse."):
            attributes[key] = value[:-1]
        start = end
    return attributes


def _skip_map(stream: Stream, header: bytes) -> None:
    """Skip the rest of GNU's old map of holes."""
    is_extended = header[482] != 0
    while is_extended:
        is_extended = _read(stream, _BLOCK_BYTES)[504] != 0
