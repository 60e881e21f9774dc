"""Files that decide what a run does: read only where nobody else may have written them.

What root and this user own, and nobody else may write, is theirs. That has to hold for the file
and for each directory and symlink on the way to it: whoever may write a directory may put another
file there. In a directory with the sticky bit, such as ``/tmp``, only owners may.
"""

from __future__ import annotations

import errno
import os
import stat

from fastindex.system.directories import MAX_LINKS, MAX_STEPS
from fastindex.system.files import read_same_file

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedError(OSError):
    """A file that somebody else may change.

    Args:
        path: what they may change.
        reason: how.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(None, reason, path)


def read_trusted_file(path: str, max_bytes: int) -> tuple[str, bytes]:
    """Return the real path and the bytes of a file that only root and this user may change.

    Args:
        path: an absolute path. Symlinks are followed if they are as trusted as the file.
        max_bytes: the largest size that is read.

    Raises:
        UntrustedError: others may change it, a directory, or a symlink on the way to it.
        OSError: it is missing, unreadable, not a regular file, or larger.
    """
    real, status = _resolve(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(None, "not a regular file", path)
    return real, read_same_file(real, status, max_bytes)


def _resolve(path: str) -> tuple[str, os.stat_result]:
    """Return the real path and the status of what ``path`` leads to, if all on the way is trusted.

    No other user can change what was looked at: all that is passed on the way is trusted first.
    """
    names = path.split("/")[::-1]
    real = ""
    links = steps = 0
    status = _require_trusted("/")
    while names:
        name = names.pop()
        steps += 1
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            real = real.rpartition("/")[0]
            status = os.lstat(real or "/")
            continue
        inner = f"{real}/{name}"
        status = _require_trusted(inner)
        if not stat.S_ISLNK(status.st_mode):
            real = inner
            continue
        links += 1
        if links > MAX_LINKS or steps > MAX_STEPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(inner)
        names += target.split("/")[::-1]
        real = "" if target.startswith("/") else real
    return real or "/", status


def _require_trusted(path: str) -> os.stat_result:
    """Return the status of a file, directory or symlink that only root and this user may change."""
    status = os.lstat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(path, f"belongs to the user {status.st_uid}, who may change it")
    mode = status.st_mode
    is_shared = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    if mode & _OTHERS_WRITE and not stat.S_ISLNK(mode) and not is_shared:
        who = "all users" if mode & stat.S_IWOTH else f"the group {status.st_gid}"
        raise UntrustedError(path, f"{who} may write it (mode {stat.S_IMODE(mode):04o})")
    return status
