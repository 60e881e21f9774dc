"""What servers compress on the way to clients."""

from __future__ import annotations

import zlib

from fastindex.formats.errors import FormatError

_GZIP_BITS = 16 + zlib.MAX_WBITS


def expand_gzip(data: bytes, max_bytes: int) -> bytes:
    """Return what was compressed with gzip.

    Args:
        data: what came.
        max_bytes: the largest size that is accepted.

    Raises:
        FormatError: it is not gzip, is cut off, or expands to more.
    """
    decompressor = zlib.decompressobj(_GZIP_BITS)
    try:
        expanded = decompressor.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise FormatError(f"it is not gzip ({error})") from error
    if len(expanded) > max_bytes:
        raise FormatError(f"it is larger than {max_bytes} bytes")
    if not decompressor.eof:
        raise FormatError("it is cut off")
    return expanded
