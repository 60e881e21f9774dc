"""Compressed copies of the catalogue, for servers that send a file's copy instead of the file.

The same bytes come of the same file on one machine: there is no time stamp in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.catalogue.companions import CatalogueFile, Companion
from fastindex.errors import UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from isal.isal_zlib import Compress

_GZIP_LEVEL = 1
"""Of ISA-L: a catalogue of 124 MB becomes 35 MB in 0.3 s. zlib makes 33 MB of it
in 4.4 s (benchmarks/companions.py --catalogue)."""
_GZIP_WINDOW = 31  # gzip's header and trailer around 32 KiB of window
_ZSTD_LEVEL = 1
"""Digests in hexadecimal take most of a catalogue. Of these, higher levels make more bytes in more
time (benchmarks/companions.py --catalogue)."""


class GzipMaker(Struct, frozen=True):
    """Makes ``X.json.gz`` of each ``X.json``."""

    name: str = "gzip"
    fingerprint: str = f"isal {_GZIP_LEVEL}"

    def make(self, file: CatalogueFile) -> Iterator[Companion]:
        """Yield the compressed copy of a catalogue file."""
        yield Companion(f"{file.path}.gz", _compress(file), file.path)


def _compress(file: CatalogueFile) -> Iterator[bytes]:
    compressor = _make_gzip()
    for chunk in file.read_chunks():
        yield compressor.compress(chunk)
    yield compressor.flush()


def require_isal() -> None:
    """Check that what makes the copies is installed, before anything is done.

    Raises:
        UsageError: it is not.
    """
    try:
        import isal.isal_zlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--gzip needs the package isal; install it with pip install isal (Debian: python3-isal)"
        ) from error


def _make_gzip() -> Compress:
    from isal import isal_zlib

    return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)


class ZstdMaker(Struct, frozen=True):
    """Makes ``X.json.zst`` of each ``X.json``."""

    name: str = "zstd"
    fingerprint: str = f"zstd {_ZSTD_LEVEL}"

    def make(self, file: CatalogueFile) -> Iterator[Companion]:
        """Yield the compressed copy of a catalogue file."""
        yield Companion(f"{file.path}.zst", _compress_zstd(file), file.path)


def _compress_zstd(file: CatalogueFile) -> Iterator[bytes]:
    compressor = zstd.ZstdCompressor(level=_ZSTD_LEVEL)
    for chunk in file.read_chunks():
        yield compressor.compress(chunk)
    yield compressor.flush()
