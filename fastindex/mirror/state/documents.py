"""How a run reads and writes what it leaves for the next ones; only the operator writes there.

A document that cannot be read stops the run: to go on without it would publish what is about
to be deleted, or what is damaged.
"""

from __future__ import annotations

from typing import TypeVar

from fastindex.errors import PublishError, TreeError
from fastindex.formats.simplestreams import UNDECODABLE, decode_state, encode_state
from fastindex.system import atomic, files

Form = TypeVar("Form")

_MAX_BYTES = 64 << 20


def load(path: str, form: type[Form], remedy: str) -> Form:
    """Return the document at ``path``; empty where there is none.

    Args:
        path: where it lies.
        form: what it is decoded to.
        remedy: what to do where it cannot be used.

    Raises:
        TreeError: it cannot be used.
    """
    try:
        return decode_state(files.read_small_file(path, _MAX_BYTES), form)
    except FileNotFoundError:
        return form()
    except (OSError, *UNDECODABLE) as error:
        raise TreeError(f"{path}: cannot be used ({error}); {remedy}") from error


def save(path: str, document: object) -> None:
    """Write a document durably.

    Raises:
        PublishError: it could not be written; the old one is as it was.
    """
    try:
        atomic.replace_file(path, encode_state(document))
    except OSError as error:
        raise PublishError(
            f"{path}: cannot be written ({error.strerror or error}); make room or give this "
            "user the right to write there, then run again"
        ) from error
