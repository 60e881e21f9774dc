"""Bytes that a run keeps for later: a little in memory, much in a file without a name."""

from __future__ import annotations

import os
import tempfile
from typing import IO

from fastindex.system.files import name_path_in_errors, read_span

_MEMORY_BYTES = 16 << 20


class Spool:
    """Keeps pieces of bytes, and gives them back.

    Nobody else sees its file, which is gone when it is closed or when the process ends, however
    it ends.

    Args:
        directory: where the file is made if there is too much for the memory; None: where
            temporary files go.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0

    def append(self, data: bytes) -> int:
        """Keep ``data``; return its offset.

        Raises:
            OSError: the file cannot be made or written.
        """
        offset = self._size
        self._memory += data
        self._size += len(data)
        if len(self._memory) > _MEMORY_BYTES:
            self._flush()
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return the ``size`` bytes at ``offset``, which must have been kept.

        Raises:
            OSError: they cannot be read.
        """
        flushed = self._size - len(self._memory)
        if offset >= flushed:
            return bytes(self._memory[offset - flushed : offset - flushed + size])
        if offset + size > flushed:
            self._flush()
        with name_path_in_errors(self._place):
            return read_span(self._open(), offset, size)

    def close(self) -> None:
        """Forget everything."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _open(self) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
        return self._file.fileno()

    def _flush(self) -> None:
        view = memoryview(bytes(self._memory))
        offset = self._size - len(view)
        with name_path_in_errors(self._place):
            while view:
                written = os.pwrite(self._open(), view, offset)
                offset += written
                view = view[written:]
        self._memory.clear()

    @property
    def _place(self) -> str:
        """What errors name: the file itself has no name."""
        return os.path.join(self._directory or tempfile.gettempdir(), "a temporary file")
