"""The SHA-256 of bytes that are not those of images: catalogue files and lists."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def sha256_of(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of the chunks, one after the other, as 64 hex digits."""
    hasher = sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()
