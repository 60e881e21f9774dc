"""Files that only this user may read, such as keys."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fastindex.system import atomic, directories

_MODE = 0o700


def make_private_directory(path: str) -> None:
    """Make a directory that nobody else may enter; one that is there becomes so.

    Args:
        path: an absolute path; symlinks on the way to it are followed.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    above, name = os.path.split(path)
    with directories.closing(directories.open_or_make(above)) as parent:
        with suppress(FileExistsError):
            os.mkdir(name, _MODE, dir_fd=parent)
        with directories.closing(directories.open_in(parent, name)) as directory:
            if stat.S_IMODE(os.fstat(directory).st_mode) != _MODE:
                os.fchmod(directory, _MODE)


def replace_private_file(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file in a private directory, atomically and durably.

    Args:
        path: an absolute path.
        data: the new content.
        mode: who may read it, should the directory ever be opened.

    Raises:
        OSError: it was not replaced.
    """
    atomic.replace_file(path, data, mode=mode)
