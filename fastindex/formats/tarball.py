"""What an image's tarball holds: read as a stream, within bounds, never unpacked.

Strangers made it. So the members, the bytes of ``metadata.yaml``, the bytes that come out,
their ratio to those that went in, the memory and the time are all bounded, and only a
plain file is taken for ``metadata.yaml``. Reading stops as soon as it is clear what the
tarball is: of a root of many gigabytes only the first few kilobytes are read.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from msgspec import Struct

from fastindex.formats.tar import Member, TarballError, members

MOST_MEMBERS = 200_000
MOST_METADATA_BYTES = 1 << 20
MOST_BYTES = 1 << 30
"""Decompressed bytes until ``metadata.yaml`` must have come; builders put it first."""
MOST_RATIO = 250
"""Decompressed to compressed bytes, past ``FREE_BYTES``: a root file system reaches 10."""
FREE_BYTES = 16 << 20
MOST_SECONDS = 20.0
"""Of computing; a machine that is busy with other things is nobody's fault."""
_MOST_HEADER_BYTES = 1 << 20  # what one member may need for names and attributes
_MOST_DICTIONARY_BYTES = 128 << 20  # `xz -9` and `zstd --ultra` need half of that
_PIECE_BYTES = 64 << 10

_METADATA = "metadata.yaml"
_ROOT = "rootfs"
_DISK = "rootfs.img"
_ROOT_DIRECTORY = re.compile(
    "bin|boot|dev|etc|home|init|lib(32|64|x32)?|media|mnt|nix|opt|proc|root|run|sbin|srv|sys"
    "|tmp|usr|var"
)


class Contents(Struct, frozen=True):
    """What a tarball was seen to hold before it was clear what it is."""

    compression: str
    """``xz``, ``gz``, ``bz2``, ``zst``, or empty: plain."""
    metadata_yaml: bytes | None
    """The bytes of ``metadata.yaml``, if it is there."""
    has_rootfs: bool
    """Whether a directory ``rootfs`` is in it: a unified container."""
    has_disk: bool
    """Whether ``rootfs.img`` is in it: a unified virtual machine."""
    is_root: bool
    """Whether it is itself a root file system (``/etc``, ``/usr`` …)."""
    top_names: frozenset[str]
    """First components of the names seen."""


def compression_of(head: bytes) -> str | None:
    """Tell a tarball's compression from its first 262 bytes; None: this is no tarball."""
    for magic, compression in (
        (b"\xfd7zXZ\0", "xz"),
        (b"\x1f\x8b\x08", "gz"),
        (b"BZh", "bz2"),
        (b"\x28\xb5\x2f\xfd", "zst"),
    ):
        if head.startswith(magic):
            return compression
    is_skippable_frame = head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
    if is_skippable_frame:  # how parallel zstd begins
        return "zst"
    return "" if head[257:262] == b"ustar" else None


def look_into(path: str) -> Contents:
    """Read the tarball at ``path`` until it is clear what it is.

    Raises:
        TarballError: it is none, is damaged, or exceeds a bound.
        OSError: it cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    # Buffered: a read returns all that was asked for, as a bare one need not.
    with io.BufferedReader(io.FileIO(os.open(path, flags)), _PIECE_BYTES) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise TarballError("not a regular file")
        compression = compression_of(file.read(262))
        if compression is None:
            raise TarballError("no tarball")
        file.seek(0)
        return _look(_Stream(file, compression), compression)


def is_virtual_machine(path: str) -> bool:
    """Return whether the unified image at ``path`` is one; False where that is not clear."""
    try:
        return look_into(path).has_disk
    except (TarballError, OSError):
        return False


def _look(stream: _Stream, compression: str) -> Contents:
    metadata: bytes | None = None
    has_rootfs = has_disk = is_root = False
    top_names: set[str] = set()
    for number, member in enumerate(members(stream)):
        if number == MOST_MEMBERS:
            raise TarballError(f"more than {MOST_MEMBERS:,} members before it was clear what it is")
        name = member.name.removeprefix("./").rstrip("/")
        top, _, rest = name.partition("/")
        if len(top) < len(_METADATA):
            top_names.add(top)
        if name == _METADATA and metadata is None:
            metadata = _read_metadata(member, stream)
        has_disk = has_disk or name == _DISK
        has_rootfs = has_rootfs or (top == _ROOT and (bool(rest) or member.is_directory))
        is_root = metadata is None and not has_rootfs and bool(_ROOT_DIRECTORY.fullmatch(top))
        if is_root or (metadata is not None and (has_rootfs or has_disk)):
            break
        stream.allowed_bytes = _MOST_HEADER_BYTES
    return Contents(compression, metadata, has_rootfs, has_disk, is_root, frozenset(top_names))


def _read_metadata(member: Member, stream: _Stream) -> bytes:
    if not member.is_plain_file:
        raise TarballError(f"its {_METADATA} is no plain file")
    if member.size_bytes > MOST_METADATA_BYTES:
        raise TarballError(f"its {_METADATA} is larger than {MOST_METADATA_BYTES:,} bytes")
    stream.allowed_bytes = MOST_METADATA_BYTES
    content = stream.read(member.size_bytes)
    if len(content) != member.size_bytes:
        raise TarballError(f"it ends within {_METADATA}")
    return content


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the others' interface."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_DICTIONARY_BYTES)


def _zstd() -> _Decompressor:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    window_log = _MOST_DICTIONARY_BYTES.bit_length() - 1
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "xz": _xz,
    "gz": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "zst": _zstd,
}


class _Decompressed:
    """The decompressed bytes of a file, of all streams in it: `cat`, pbzip2, pzstd."""

    def __init__(
        self, file: BinaryIO, new: Callable[[], _Decompressor], check_time: Callable[[], None]
    ) -> None:
        self._file = file
        self._new = new
        self._check_time = check_time
        self._decompressor = new()

    def read(self, size: int) -> bytes:
        """Return between 1 and ``size`` bytes, or none at the end."""
        while True:  # millions of empty streams give no byte
            self._check_time()
            decompressor = self._decompressor
            data = b""
            if decompressor.eof:
                # xz may pad with zeros between streams.
                data = decompressor.unused_data.lstrip(b"\0")
                data = data or self._file.read(_PIECE_BYTES).lstrip(b"\0")
                if not data:
                    return b""
                decompressor = self._decompressor = self._new()
            elif decompressor.needs_input:
                data = self._file.read(_PIECE_BYTES)
                if not data:
                    raise TarballError("damaged: it ends early")
            try:
                piece = decompressor.decompress(data, size)
            except Exception as error:  # each library has one of its own
                raise TarballError(f"damaged, or out of bounds ({error})") from error
            if piece:
                return piece


class _Stream:
    """The bytes of a tarball, forwards only and within bounds."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self.allowed_bytes = _MOST_HEADER_BYTES
        """How many bytes may be read, not skipped, until this is set anew."""
        self._file = file
        self._offset = 0
        self._deadline = time.thread_time() + MOST_SECONDS
        self._source: BinaryIO | _Decompressed = file
        if compression:
            self._source = _Decompressed(file, _DECOMPRESSORS[compression], self._check_time)

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> int:
        if self._source is self._file and offset > self._offset:
            # What lies further away is out of bounds.
            self._offset = self._file.seek(min(offset - 1, MOST_BYTES))
        while self._offset < offset and self._piece(min(_PIECE_BYTES, offset - self._offset)):
            pass
        return self._offset

    def read(self, size: int) -> bytes:
        self.allowed_bytes -= size
        if size < 0 or self.allowed_bytes < 0:
            raise TarballError("a member with names or attributes out of all proportion")
        pieces: list[bytes] = []
        while size and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        piece = self._source.read(size)
        self._offset += len(piece)
        if self._offset > MOST_BYTES:
            raise TarballError(
                f"its first {MOST_BYTES:,} bytes do not show what it is: put {_METADATA} first"
            )
        if self._offset > FREE_BYTES and self._offset > MOST_RATIO * self._file.tell():
            raise TarballError(f"it decompresses to more than {MOST_RATIO} times its size")
        self._check_time()
        return piece

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TarballError(f"it took more than {MOST_SECONDS:.0f} s to look into")
