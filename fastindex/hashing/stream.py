"""Digests of files whose bytes arrive in order, such as from a server: each is hashed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.formats.content import HEAD_BYTES
from fastindex.hashing.digest import new_blake3
from fastindex.hashing.engine import requested_engine, usable_engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.tasks import EngineSetup, FileDigest
from fastindex.system.stamps import Stamp

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from fastindex.hashing.engine import Sha256


class StreamDigest:
    """The digests of the bytes so far.

    Args:
        options: the engine, and whether to compute BLAKE3, too.
        after: complete files. For each there is a fingerprint: the digest of its bytes with these
            after them.
    """

    def __init__(self, options: HashingOptions, after: Sequence[StreamDigest] = ()) -> None:
        self._engine = usable_engine(EngineSetup(requested_engine(options.engine)))
        self._after: list[Sha256] = [one._states[0].copy() for one in after]
        self._states: list[Sha256] = [self._engine.sha256(b""), *self._after]
        self._quick = new_blake3(1) if options.blake3 else None
        self._began_ns = time.time_ns()
        self.size_bytes = 0
        """How many bytes there are."""
        self.head = b""
        """The first of them, at most ``HEAD_BYTES``."""

    def update(self, piece: Buffer) -> None:
        """Add the next bytes."""
        view = memoryview(piece)
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(view[: HEAD_BYTES - len(self.head)])
        self._engine.update(self._states, [view] * len(self._states))
        if self._quick is not None:
            self._quick.update(view)
        self.size_bytes += len(view)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes so far, 64 hex digits."""
        return self._states[0].hexdigest()

    @property
    def fingerprints(self) -> list[str]:
        """One for each of the files in ``after``: sha256(file ‖ bytes so far), 64 hex digits."""
        return [state.hexdigest() for state in self._after]

    def make_digest(self, stamp: Stamp, *, is_checked: bool) -> FileDigest:
        """Return the digests as a worker would, had it read the file.

        Args:
            stamp: of the complete file.
            is_checked: whether its first bytes were held against what its name says.
        """
        quick = "" if self._quick is None else self._quick.hexdigest()
        key = stamp.key_if_trusted(self._began_ns)
        return FileDigest(self.sha256, quick, key, is_checked)
