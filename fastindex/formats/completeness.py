"""Whether a tarball is there to its end, without unpacking it where the format allows that.

An upload that was cut off starts like a whole one. xz, Zstandard and LZ4 say where their parts
are, bzip2 has a mark at its end, and a tarball has its headers: those are walked, and a root of
many gigabytes takes milliseconds. gzip and .lzma must be decompressed.

That shows what is missing, not every flipped bit.

Formats: "The .xz File Format" 1.2.1, RFC 8878 (Zstandard), lz4_Frame_format.md 1.6 of lz4/lz4,
bzip2 ("BZIP2: Format Specification"), RFC 1952 (gzip).
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from typing import BinaryIO

from fastindex.formats import lz4
from fastindex.formats.reading import open_file
from fastindex.formats.tar import BLOCK_BYTES, TarballError, read_members
from fastindex.formats.tarball import (
    MAX_CPU_SECONDS,
    MAX_RATIO,
    RATIO_FROM_BYTES,
    Decompressed,
    has_skippable_frame,
)

_PIECE_BYTES = 1 << 20
_MAX_INDEX_BYTES = 64 << 20
_MAX_NAME_BYTES = 1 << 20
_ENDS_EARLY = "damaged: it ends early"
_XZ_EDGE_BYTES = 12
"""Length of the header, and of the footer, of an xz stream."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_RLE, _ZSTD_RESERVED = 1, 3
_BZIP2_END = 0x177245385090


def check_completeness(path: str, compression: str) -> None:
    """Check that the tarball at ``path`` does not end early.

    Args:
        path: the tarball.
        compression: as ``content.detect_compression`` returns it.

    Raises:
        TarballError: it does, or what it consists of contradicts itself.
        OSError: it cannot be read, or is no regular file.
    """
    with open_file(path) as file:
        _CHECKS[compression](_Cursor(file))


class _Cursor:
    """A place in a file, which moves forwards only, within the file and within CPU time.

    Args:
        file: an open file, at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size_bytes = os.fstat(file.fileno()).st_size
        self._offset = 0
        self._deadline = time.thread_time() + MAX_CPU_SECONDS

    @property
    def is_at_end(self) -> bool:
        """Whether nothing comes after it."""
        return self._offset >= self.size_bytes

    def check_time(self) -> None:
        """Raise TarballError if the CPU time is used up."""
        if time.thread_time() > self._deadline:
            raise TarballError(f"it took more than {MAX_CPU_SECONDS:.0f} s of CPU time to check")

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end."""
        self.check_time()
        piece = self.file.read(size)
        self._offset += len(piece)
        return piece

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; raise TarballError if there are fewer."""
        taken = self.read(size)
        if len(taken) < size:
            raise TarballError(_ENDS_EARLY)
        return taken

    def take_number(self, size: int) -> int:
        """Return the number, lowest byte first, in the next ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def skip(self, size: int) -> None:
        """Skip ``size`` bytes; raise TarballError if there are fewer."""
        self.check_time()
        self._offset += size
        if self._offset > self.size_bytes:
            raise TarballError(_ENDS_EARLY)
        self.file.seek(size, os.SEEK_CUR)


class _PlainTar:
    """A tar stream that is not compressed; see ``tar.Stream``."""

    def __init__(self, cursor: _Cursor) -> None:
        self.is_at_end = False
        """Whether there was nothing left to read."""
        self._cursor = cursor
        self._offset = 0

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> int:
        self._cursor.skip(offset - self._offset)
        self._offset = offset
        return offset

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_NAME_BYTES:
            raise TarballError("the name or attributes of a member are too long")
        piece = self._cursor.read(size)
        self.is_at_end = not piece
        self._offset += len(piece)
        return piece


def _check_tar(cursor: _Cursor) -> None:
    stream = _PlainTar(cursor)
    for _ in read_members(stream):
        pass
    # Every tar writes whole blocks, and blocks of zeros at the end.
    if stream.is_at_end or cursor.size_bytes % BLOCK_BYTES:
        raise TarballError(_ENDS_EARLY)


def _check_xz(cursor: _Cursor) -> None:
    """Check the streams from the last to the first: each ends with a list of its blocks."""
    file, end = cursor.file, cursor.size_bytes
    while end:
        cursor.check_time()
        if end % 4 or end < 2 * _XZ_EDGE_BYTES:
            raise TarballError(_ENDS_EARLY)
        footer = _read_at(file, end - _XZ_EDGE_BYTES, _XZ_EDGE_BYTES)
        if footer[8:] == bytes(4):  # padding between streams
            end -= 4
            continue
        if footer[10:] != b"YZ" or zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
            raise TarballError(_ENDS_EARLY)
        index_bytes = (int.from_bytes(footer[4:8], "little") + 1) * 4
        start = end - _XZ_EDGE_BYTES - index_bytes
        if index_bytes > _MAX_INDEX_BYTES or start < _XZ_EDGE_BYTES:
            raise TarballError(_ENDS_EARLY)
        start -= _sum_blocks(cursor, _read_at(file, start, index_bytes)) + _XZ_EDGE_BYTES
        header = _read_at(file, start, _XZ_EDGE_BYTES) if start >= 0 else b""
        if header[:6] != b"\xfd7zXZ\0" or header[6:8] != footer[8:10]:
            raise TarballError("damaged: its parts do not add up to its length")
        end = start


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _sum_blocks(cursor: _Cursor, index: bytes) -> int:
    """Return the total length of the blocks that the index of an xz stream lists."""
    if index[0] or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise TarballError(_ENDS_EARLY)
    count, at = _read_xz_number(index, 1)
    total = 0
    for number in range(count):
        if number % 10_000 == 0:
            cursor.check_time()
        unpadded, at = _read_xz_number(index, at)
        _, at = _read_xz_number(index, at)
        total += -(-unpadded // 4) * 4
    return total


def _read_xz_number(index: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to nine bytes, seven bits each, and where the next one starts."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(index):
            break
        byte = index[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TarballError("damaged: its list of blocks cannot be read")


def _check_zstd(cursor: _Cursor) -> None:
    """Check frame by frame, and in each block by block."""
    while not cursor.is_at_end:
        magic = cursor.take(4)
        if has_skippable_frame(magic):
            cursor.skip(cursor.take_number(4))
            continue
        if magic != _ZSTD_MAGIC:
            raise TarballError("damaged: there is something else after its end")
        flags = cursor.take_number(1)
        is_single = flags >> 5 & 1
        size_field_bytes = (is_single, 2, 4, 8)[flags >> 6]
        cursor.skip((1 - is_single) + (0, 1, 2, 4)[flags & 3] + size_field_bytes)
        is_last = 0
        while not is_last:
            block = cursor.take_number(3)
            is_last, kind, size = block & 1, block >> 1 & 3, block >> 3
            if kind == _ZSTD_RESERVED:
                raise TarballError("damaged: a block of an unknown kind")
            cursor.skip(1 if kind == _ZSTD_RLE else size)
        cursor.skip(4 * (flags >> 2 & 1))


def _check_lz4(cursor: _Cursor) -> None:
    """Check frame by frame, and in each block by block."""
    while not cursor.is_at_end:
        head = cursor.take(lz4.FrameHeader.MIN_BYTES)
        if has_skippable_frame(head[:4]):
            cursor.skip(int.from_bytes(head[4:6] + cursor.take(2), "little"))
            continue
        try:
            header = lz4.FrameHeader(head)
        except lz4.Lz4Error as error:
            raise TarballError(f"damaged: {error}") from error
        cursor.skip(header.size_bytes - len(head))
        while (size := cursor.take_number(4)) != lz4.END_OF_BLOCKS:
            size &= ~lz4.UNCOMPRESSED
            if size > header.max_block_bytes:
                raise TarballError("damaged: a block that is too large")
            cursor.skip(size + header.block_checksum_bytes)
        cursor.skip(header.content_checksum_bytes)


def _check_bzip2(cursor: _Cursor) -> None:
    """Check that it ends with the mark of the end, a checksum and less than a byte of zeros."""
    tail = _read_at(cursor.file, max(0, cursor.size_bytes - 11), 11)
    bits = int.from_bytes(tail, "big")
    for padding in range(8):
        is_padded = not bits & ((1 << padding) - 1)
        if is_padded and bits >> (32 + padding) & ((1 << 48) - 1) == _BZIP2_END:
            return
    raise TarballError(_ENDS_EARLY)


def _decompress(compression: str, max_ratio: float) -> Callable[[_Cursor], None]:
    """Return a check that decompresses everything.

    Args:
        compression: how it is compressed.
        max_ratio: of decompressed to compressed bytes.
    """

    def check(cursor: _Cursor) -> None:
        source = Decompressed(cursor.file, compression)
        total = 0
        while piece := source.read(_PIECE_BYTES):
            total += len(piece)
            if total > RATIO_FROM_BYTES and total > max_ratio * cursor.file.tell():
                raise TarballError(f"it decompresses to more than {max_ratio} times its size")

    return check


_CHECKS: dict[str, Callable[[_Cursor], None]] = {
    "": _check_tar,
    "xz": _check_xz,
    "zst": _check_zstd,
    "lz4": _check_lz4,
    "bz2": _check_bzip2,
    "gz": _decompress("gz", float("inf")),  # gzip itself cannot exceed 1032
    "lzma": _decompress("lzma", MAX_RATIO),
}
