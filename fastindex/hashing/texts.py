"""Digests of short texts, such as names."""

from __future__ import annotations

import hashlib


def sha256_of(text: bytes) -> bytes:
    """Return the SHA-256 of a text, 32 bytes."""
    return hashlib.sha256(text).digest()
