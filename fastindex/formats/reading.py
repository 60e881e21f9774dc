"""How the files of strangers are opened."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_PIECE_BYTES = 64 << 10


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without following a symlink or waiting for a FIFO.

    Raises:
        OSError: it cannot be opened, is a symlink, or is not a regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    # Buffered, because a raw read may return less than was asked for, as on network file systems.
    with io.BufferedReader(io.FileIO(os.open(path, flags)), _PIECE_BYTES) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        yield file
