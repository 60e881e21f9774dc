"""The base class of the errors that parsers raise."""

from __future__ import annotations

from fastindex.errors import FastindexError


class FormatError(FastindexError):
    """Bytes that do not follow their format, or that exceed a bound. The message says which."""
