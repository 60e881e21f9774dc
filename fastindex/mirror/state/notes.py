"""What a run notes for the next ones, beside the lock: only the operator writes there.

A note that cannot be read stops the run: to go on without it would publish what is about
to be deleted, or what is damaged.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TypeVar

import msgspec

from fastindex.errors import TreeError
from fastindex.formats.simplestreams import STREAMS_DIRECTORY, UNDECODABLE
from fastindex.system import atomic, locks

Form = TypeVar("Form")

_MOST_BYTES = 64 << 20


def path_of(output: str, name: str) -> str:
    """Return where the note ``name`` lies; ``output`` is the directory with ``streams/``."""
    return os.path.join(output, STREAMS_DIRECTORY, name)


def lock(output: str, wait_seconds: float) -> AbstractContextManager[None]:
    """Return the mirror's lock, to be held; waits and raises as ``locks.lock`` does."""
    return locks.lock(path_of(output, ".lock"), wait_seconds)


def load(path: str, form: type[Form], remedy: str) -> Form:
    """Return a note; empty where there is none.

    Args:
        path: of the note.
        form: what it is decoded to.
        remedy: what to do where it cannot be used.

    Raises:
        TreeError: it cannot be used.
    """
    try:
        data = atomic.read_small_file(path, _MOST_BYTES)
    except FileNotFoundError:
        return form()
    except OSError as error:
        raise TreeError(f"{path}: cannot be used ({error}); {remedy}") from error
    try:
        return msgspec.json.decode(data, type=form)
    except UNDECODABLE as error:
        raise TreeError(f"{path}: cannot be used ({error}); {remedy}") from error


def save(path: str, document: object) -> None:
    """Write a note, durably; raises OSError."""
    atomic.replace_file(path, msgspec.json.encode(document, order="sorted") + b"\n")


Damaged = dict[str, str]
"""File (relative to ROOT) → its cache key when other bytes were found under it."""

_DAMAGED = ".damaged.json"


def load_damaged(output: str) -> Damaged:
    """Return what was found damaged; raises TreeError where the note cannot be used."""
    path = path_of(output, _DAMAGED)
    return load(path, Damaged, "mend it, or remove it and run with --rehash")


def save_damaged(output: str, damaged: Damaged) -> None:
    """Write what was found damaged, durably; raises OSError."""
    save(path_of(output, _DAMAGED), damaged)
