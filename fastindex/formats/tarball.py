"""What an image's tarball contains: read as a stream, within bounds, never unpacked.

A stranger may have made it. So there are bounds on the number of members, the size of
``metadata.yaml``, the decompressed size, the compression ratio, the memory and the CPU time, and
``metadata.yaml`` must be a regular file. Reading stops as soon as the kind of the tarball is
known: of a root of many gigabytes only the first few kilobytes are read.

Formats: RFC 1952 (gzip), RFC 8878 (Zstandard), the .xz file format 1.2.0, .lzma, bzip2, and
those of ``lz4`` and ``tar``. What the members mean: doc/reference/image_format of lxc/incus.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import sys
import time
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from msgspec import Struct

from fastindex.formats.content import HEAD_BYTES, detect_compression
from fastindex.formats.lz4 import Lz4Decompressor
from fastindex.formats.reading import open_file
from fastindex.formats.tar import Member, TarballError, read_members

MAX_MEMBERS = 200_000
MAX_METADATA_BYTES = 1 << 20
MAX_BYTES = 1 << 30
"""``metadata.yaml`` must come within this many decompressed bytes; builders put it first."""
MAX_RATIO = 250
"""Of decompressed to compressed bytes, from ``RATIO_FROM_BYTES`` on; a root file system reaches
10."""
RATIO_FROM_BYTES = 16 << 20
"""Decompressed bytes before the ratio is checked."""
MAX_CPU_SECONDS = 20.0
"""CPU time, not wall-clock time: a busy machine must not make a good tarball fail."""
_MAX_HEADER_BYTES = 1 << 20  # for the names and attributes of one member
_MAX_DICTIONARY_BYTES = 128 << 20  # `xz -9` and `zstd --ultra` need half of it
_PIECE_BYTES = 64 << 10

_SKIPPABLE = (
    "starts with a skippable frame, as pzstd writes it, which daemons do not recognise: "
    "compress it with zstd"
)
_METADATA = "metadata.yaml"
_ROOT = "rootfs"
_DISK = "rootfs.img"
_ROOT_DIRECTORY = re.compile(
    "bin|boot|dev|etc|home|init|lib(32|64|x32)?|media|mnt|nix|opt|proc|root|run|sbin|srv|sys"
    "|tmp|usr|var"
)


class Contents(Struct, frozen=True):
    """What a tarball contains, as far as it was read to find out its kind."""

    compression: str
    """As ``content.detect_compression`` returns it."""
    metadata_yaml: bytes | None
    """The bytes of ``metadata.yaml``; None if there is none."""
    has_rootfs: bool
    """Whether it contains a directory ``rootfs``: a unified container image."""
    has_disk: bool
    """Whether it contains ``rootfs.img``: a unified virtual-machine image."""
    is_root: bool
    """Whether it is a root file system itself (``/etc``, ``/usr`` …)."""
    top_names: frozenset[str]
    """First components of the members' names, the short ones among those that were read."""


def has_skippable_frame(head: bytes) -> bool:
    """Return whether a file starts with a skippable frame of Zstandard or LZ4."""
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def inspect_tarball(path: str) -> Contents:
    """Read the tarball at ``path`` until its kind is known, and return what it contains.

    One that only has metadata is read to its end.

    Raises:
        TarballError: it is not a tarball, is damaged, or exceeds a bound.
        OSError: it cannot be read, or is no regular file.
    """
    with open_file(path) as file:
        head = file.read(HEAD_BYTES)
        compression = detect_compression(head)
        if compression is None:
            raise TarballError(_SKIPPABLE if has_skippable_frame(head) else "not a tarball")
        file.seek(0)
        return _inspect(_Stream(file, compression), compression)


def make_metadata_tarball(metadata_yaml: bytes, mtime: int) -> bytes:
    """Return a .tar.xz that contains a ``metadata.yaml``; equal arguments give equal bytes.

    Args:
        metadata_yaml: the file's bytes.
        mtime: its modification time, in seconds since 1970.
    """
    import tarfile  # takes 10 ms, which few imports need

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(_METADATA)
        member.size, member.mtime = len(metadata_yaml), mtime
        tar.addfile(member, io.BytesIO(metadata_yaml))
    return lzma.compress(made.getvalue(), preset=6)


def is_virtual_machine(path: str) -> bool:
    """Return whether the unified image at ``path`` is a virtual machine's; False if unreadable."""
    try:
        return inspect_tarball(path).has_disk
    except (TarballError, OSError):
        return False


def _inspect(stream: _Stream, compression: str) -> Contents:
    metadata: bytes | None = None
    has_rootfs = has_disk = is_root = False
    top_names: set[str] = set()
    for number, member in enumerate(read_members(stream)):
        if number == MAX_MEMBERS:
            raise TarballError(
                f"its first {MAX_MEMBERS:,} members do not show what it is: put {_METADATA} first"
            )
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
        stream.allowed_bytes = _MAX_HEADER_BYTES
    else:
        stream.read_to_end()
    return Contents(compression, metadata, has_rootfs, has_disk, is_root, frozenset(top_names))


def _read_metadata(member: Member, stream: _Stream) -> bytes:
    if not member.is_regular_file:
        raise TarballError(f"its {_METADATA} is not a regular file")
    if member.size_bytes > MAX_METADATA_BYTES:
        raise TarballError(f"its {_METADATA} is larger than {MAX_METADATA_BYTES:,} bytes")
    stream.allowed_bytes = MAX_METADATA_BYTES
    content = stream.read(member.size_bytes)
    if len(content) != member.size_bytes:
        raise TarballError(f"it ends within {_METADATA}")
    return content


class _Decompressor(Protocol):
    """The interface that the standard library's decompressors share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others."""

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


def _new_xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY_BYTES)


def _new_zstd() -> _Decompressor:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    window_log = _MAX_DICTIONARY_BYTES.bit_length() - 1
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})


def _new_lzma() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY_BYTES)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "xz": _new_xz,
    "lzma": _new_lzma,
    "lz4": Lz4Decompressor,
    "gz": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "zst": _new_zstd,
}


def _take_all_the_time() -> None:
    pass


class Decompressed:
    """The decompressed bytes of a file: of all its streams, as pbzip2, pzstd or ``cat`` join them.

    Args:
        file: the compressed bytes.
        compression: as ``content.detect_compression`` returns it, but not empty.
        check_time: raises TarballError when the CPU time is used up.
    """

    def __init__(
        self,
        file: BinaryIO,
        compression: str,
        check_time: Callable[[], None] = _take_all_the_time,
    ) -> None:
        self._file = file
        self._new = _DECOMPRESSORS[compression]
        self._check_time = check_time
        self._decompressor = self._new()

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes, or none at the end.

        Raises:
            TarballError: it is damaged, or ends early.
            OSError: it cannot be read.
        """
        while True:  # a file may consist of millions of empty streams
            self._check_time()
            decompressor = self._decompressor
            data = b""
            if decompressor.eof:
                # xz allows zeros between streams.
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
            except Exception as error:  # each library raises its own class
                raise TarballError(f"damaged, or needs too much memory ({error})") from error
            if piece:
                return piece


class _Stream:
    """The bytes of a tarball, read forwards only and within bounds.

    Args:
        file: the tarball, at its start.
        compression: as ``detect_compression`` returns it.
    """

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self.allowed_bytes = _MAX_HEADER_BYTES
        """How many bytes may still be read, as opposed to skipped; the reader sets it anew."""
        self._file = file
        self._offset = 0
        self._deadline = time.thread_time() + MAX_CPU_SECONDS
        self._source: BinaryIO | Decompressed = file
        if compression:
            self._source = Decompressed(file, compression, self._check_time)

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> int:
        if self._source is self._file and offset > self._offset:
            # No need to go further than MAX_BYTES: _read_piece refuses what lies there.
            self._offset = self._file.seek(min(offset - 1, MAX_BYTES))
        while self._offset < offset and self._read_piece(min(_PIECE_BYTES, offset - self._offset)):
            pass
        return self._offset

    def read(self, size: int) -> bytes:
        self.allowed_bytes -= size
        if size < 0 or self.allowed_bytes < 0:
            raise TarballError("the name or attributes of a member are too long")
        pieces: list[bytes] = []
        while size and (piece := self._read_piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read_to_end(self) -> None:
        """Read what comes after the last member: checksums, or what shows that it ends early."""
        while self._read_piece(_PIECE_BYTES):
            pass

    def _read_piece(self, size: int) -> bytes:
        piece = self._source.read(size)
        self._offset += len(piece)
        if self._offset > MAX_BYTES:
            raise TarballError(
                f"its first {MAX_BYTES:,} bytes do not show what it is: put {_METADATA} first"
            )
        if self._offset > RATIO_FROM_BYTES and self._offset > MAX_RATIO * self._file.tell():
            raise TarballError(f"it decompresses to more than {MAX_RATIO} times its size")
        self._check_time()
        return piece

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TarballError(f"it took more than {MAX_CPU_SECONDS:.0f} s of CPU time to read")
