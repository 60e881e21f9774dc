"""Reading and writing what runs record; only the operator can write there.

A document that cannot be read stops the run. Without it, the run would publish what is about
to be deleted, or what is damaged.
"""

from __future__ import annotations

from typing import TypeVar

from fastindex.errors import PublishError, TreeError, suggest_remedy
from fastindex.formats.simplestreams import UNDECODABLE, decode_state, encode_state
from fastindex.system import atomic, files

Form = TypeVar("Form")

_MAX_BYTES = 64 << 20


def load(path: str, form: type[Form], remedy: str) -> Form:
    """Return the document at ``path``, or an empty one if there is none.

    Args:
        path: the path of the file.
        form: the type to decode to.
        remedy: what the operator should do if the document cannot be read.

    Raises:
        TreeError: the document cannot be read or decoded.
    """
    try:
        return decode_state(files.read_small_file(path, _MAX_BYTES), form)
    except FileNotFoundError:
        return form()
    except (OSError, *UNDECODABLE) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise TreeError(f"{path}: cannot be read ({reason}); {remedy}") from error


def read_bytes(path: str) -> bytes:
    """Return the bytes of the document at ``path``; b"" if there is none that can be read."""
    try:
        return files.read_small_file(path, _MAX_BYTES)
    except OSError:
        return b""


def save(path: str, document: object) -> None:
    """Write a document durably.

    Raises:
        PublishError: it cannot be written; the old one is unchanged.
    """
    try:
        atomic.replace_file(path, encode_state(document))
    except OSError as error:
        raise PublishError(
            f"{path}: cannot be written ({error.strerror or error}); {suggest_remedy(error)}, "
            "then run again"
        ) from error
