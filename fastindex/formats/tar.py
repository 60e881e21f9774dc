"""The members of a tar stream: their names, kinds and sizes, in bounded time and memory.

Python's ``tarfile`` is not made for hostile input: a header of a megabyte can keep its regular
expressions busy for days, fill the memory with attributes, or raise any exception.

Formats: ``ustar`` and ``pax`` of POSIX.1-2008 (the page on ``pax``), and GNU tar's (``tar.h``,
"Basic Tar Format" in its manual). Of the pax attributes only those that give a member's name or
size are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from fastindex.formats.errors import FormatError

BLOCK_BYTES = 512
_ZEROS = bytes(BLOCK_BYTES)
_FILE_KINDS = (b"0", b"\0", b"7")
_KINDS_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
_DIRECTORY = b"5"
_GNU_SPARSE = b"S"
_GNU_LONG_NAME = b"L"
_GNU_LONG_TARGET = b"K"
_ATTRIBUTES = (b"x", b"X")
_GLOBAL_ATTRIBUTES = b"g"
_MAX_DIGITS = 20
_BLANK_FIELD_SUM = 8 * ord(" ")
"""The checksum is computed as if its own field held spaces."""


class TarballError(FormatError):
    """Not a tarball, or one that is damaged or exceeds a bound. The message says which."""


class Stream(Protocol):
    """Bytes that are read forwards. Whoever implements it bounds how many may be read."""

    def tell(self) -> int:
        """Return how many bytes have been read or skipped so far."""

    def seek(self, offset: int) -> int:
        """Skip to ``offset``, or to the end if that comes first; return the new offset."""

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, or fewer at the end."""


class Member(Struct, frozen=True):
    """A member of a tarball. Its content comes next in the stream."""

    name: str
    """The name as it was written; it may start with ``/`` or contain ``..``."""
    size_bytes: int
    """Length of its content in the stream; of a sparse file, without the holes."""
    is_regular_file: bool
    """Whether it is a regular file and not a sparse one."""
    is_directory: bool
    """Whether it is a directory."""


def read_members(stream: Stream) -> Iterator[Member]:
    """Yield each member of a tar stream.

    Args:
        stream: at the start of the tarball. Between two members the caller may read the
            content of the first; what it does not read is skipped.

    Raises:
        TarballError: it is not a tarball, or is damaged.
        OSError: the stream cannot be read.
    """
    name = ""
    attributes: dict[bytes, bytes] = {}
    while (header := _read_header(stream)) is not None:
        kind = header[156:157]
        size_bytes = _parse_number(attributes.get(b"size", b"") or header[124:136])
        start = stream.tell()
        if kind == _GNU_LONG_NAME:
            name = name or _decode_text(_read(stream, size_bytes))
        elif kind in _ATTRIBUTES:
            attributes = _parse_attributes(_read(stream, size_bytes))
        elif kind not in (_GNU_LONG_TARGET, _GLOBAL_ATTRIBUTES):
            is_sparse = kind == _GNU_SPARSE or any(
                key.startswith(b"GNU.sparse.") for key in attributes
            )
            if kind == _GNU_SPARSE:
                _skip_sparse_map(stream, header)
                start = stream.tell()
            if kind in _KINDS_WITHOUT_CONTENT:
                size_bytes = 0
            own = attributes.get(b"GNU.sparse.name") or attributes.get(b"path")
            name = _decode_text(own) if own else name or _read_name(header)
            yield Member(
                name,
                size_bytes,
                kind in _FILE_KINDS and not is_sparse and not name.endswith("/"),
                kind == _DIRECTORY or (kind in _FILE_KINDS and name.endswith("/")),
            )
            name, attributes = "", {}
        end = start + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if stream.seek(end) < end:
            raise TarballError("damaged: it ends within a member")


def _read_header(stream: Stream) -> bytes | None:
    """Return the next header block, or None at the end of the tarball."""
    block = stream.read(BLOCK_BYTES)
    if block in (b"", _ZEROS):
        return None
    if len(block) < BLOCK_BYTES:
        raise TarballError("not a tarball, or a damaged one: it ends within a header")
    field = block[148:156]
    expected = _parse_number(field)
    # Some old tars added up signed bytes.
    if expected != sum(block) - sum(field) + _BLANK_FIELD_SUM and expected != (
        sum(memoryview(block).cast("b")) - sum(memoryview(field).cast("b")) + _BLANK_FIELD_SUM
    ):
        raise TarballError("not a tarball, or a damaged one: wrong checksum in a header")
    return block


def _read(stream: Stream, size_bytes: int) -> bytes:
    content = stream.read(size_bytes)
    if len(content) < size_bytes:
        raise TarballError("damaged: it ends within a header")
    return content


def _parse_number(field: bytes) -> int:
    """Return the number in a header field: octal digits, or big-endian bytes (a GNU extension)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    # int() would also accept signs, underscores and white space.
    if len(digits) > _MAX_DIGITS or not digits.isdigit():
        raise TarballError("not a tarball, or a damaged one: invalid number in a header")
    try:
        return int(digits, 8)
    except ValueError as error:
        raise TarballError("not a tarball, or a damaged one: invalid number in a header") from error


def _read_name(header: bytes) -> str:
    name = _decode_text(header[:100])
    is_posix = header[257:263] == b"ustar\0"  # GNU stores other fields there
    prefix = _decode_text(header[345:500]) if is_posix else ""
    return f"{prefix}/{name}" if prefix else name


def _decode_text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parse_attributes(content: bytes) -> dict[bytes, bytes]:
    """Parse pax records, ``LENGTH KEY=VALUE`` and a newline; return those that matter here."""
    attributes: dict[bytes, bytes] = {}
    start = 0
    content = content.rstrip(b"\0")
    while start < len(content):
        digits, space, _ = content[start : start + _MAX_DIGITS].partition(b" ")
        end = start + (int(digits) if digits.isdigit() else 0)
        record = content[start + len(digits) + 1 : end]
        key, is_record, value = record.partition(b"=")
        if not space or not is_record or end > len(content) or record[-1:] != b"\n":
            raise TarballError("damaged: invalid pax attributes")
        if key == b"size":
            size = value[:-1]
            if not size.isdigit() or len(size) > _MAX_DIGITS:
                raise TarballError("damaged: invalid size in the pax attributes")
            attributes[key] = b"%o" % int(size)
        elif key == b"path" or key.startswith(b"GNU.sparse."):
            attributes[key] = value[:-1]
        start = end
    return attributes


def _skip_sparse_map(stream: Stream, header: bytes) -> None:
    """Skip the extension blocks of the map of holes in GNU's old format for sparse files."""
    is_extended = header[482] != 0
    while is_extended:
        is_extended = _read(stream, BLOCK_BYTES)[504] != 0
