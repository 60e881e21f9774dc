"""The tree of errors: a class is a meaning and an exit code.

A failure of one *file* is never one of these: it is a value (``fastindex.hashing.tasks.Failed``),
so that the rest of the mirror goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ExitCode(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    """Everything in the tree is published."""
    FAILED = 1
    """Failed; nothing was published."""
    USAGE = 2
    """The command line is wrong."""
    LEFT_OUT = 3
    """Published, but something was left out; each is named."""
    DAMAGED = 4
    """``verify`` found damage: something published is missing, changed or wrong."""
    LOCKED = 75
    """Another run holds the lock (EX_TEMPFAIL: try again later)."""
    INTERRUPTED = 130
    """Ended by Ctrl-C; nothing half-written."""
    TERMINATED = 143
    """Ended by SIGTERM; nothing half-written."""


class FastindexError(Exception):
    """The base of all errors: the run failed. The message says why, and what to do."""

    exit_code = ExitCode.FAILED


class UsageError(FastindexError):
    """An option or an argument makes no sense."""

    exit_code = ExitCode.USAGE


class TreeError(FastindexError):
    """The tree is missing, unreadable, or empty where it should not be."""


class BrakeError(FastindexError):
    """The run would drop more than half of the published versions."""


class PublishError(FastindexError):
    """Metadata could not be written, or failed the check before it is written."""


class LockHeldError(FastindexError):
    """Another run holds the lock of this output directory."""

    exit_code = ExitCode.LOCKED


class ResourceError(FastindexError):
    """The system ran out of something, or a disk or a directory failed."""


class RefusalError(FastindexError):
    """One upload cannot be accepted; the rest goes on.

    Args:
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


def suggest_remedy(error: OSError) -> str:
    """Return what a person can do about a file or directory that cannot be written or deleted."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "give this user write permission there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there"
    if error.errno == errno.EROFS:
        return "mount it for writing, or write elsewhere with --output and --cache-dir"
    return "check what is there, and the disk"


def is_shortage(error: OSError) -> bool:
    """Return whether the system ran out of something, which is no reason to leave a file out."""
    return error.errno in _SHORTAGES


@contextmanager
def translate_system_errors() -> Iterator[None]:
    """Raise ResourceError instead of OSError and MemoryError; a context manager and a decorator."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            "out of memory; nothing was half-written; use fewer --jobs, or give it more memory"
        ) from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise ResourceError(
            f"{what}; nothing was half-written; fix that, then run again"
        ) from error
