"""A file on its way into the tree: each byte is hashed as it arrives, and written once."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator, Sequence

from fastindex.formats.content import Fault, find_fault
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.stream import StreamDigest
from fastindex.hashing.tasks import FileDigest
from fastindex.mirror.staging import Staging
from fastindex.mirror.tree import FoundFile
from fastindex.operations.pull.mapping import WantedFile
from fastindex.system import files
from fastindex.system.new_file import NewFile
from fastindex.system.stamps import stamp_of

_BUFFER_BYTES = 1 << 20


class Arrival:
    """A file that arrives in a version; what is there of it from before is kept.

    A root begins once its metadata has arrived, as its fingerprints begin with the metadata. What
    a download calls may be called in any thread.

    Args:
        wanted: the file.
        start: how many of its bytes are there from before.
        open_staging: returns where it arrives; raises OSError if that cannot be.
        hashing: how it is hashed.
        metadata: the files that it has a fingerprint with.
        mtime_ns: its modification time in the end, since 1970.
        note: told the validator of its bytes, to resume it by.
    """

    def __init__(
        self,
        wanted: WantedFile,
        start: int,
        open_staging: Callable[[], Staging],
        hashing: HashingOptions,
        metadata: Sequence[Arrival],
        mtime_ns: int,
        note: Callable[[str, str], None],
    ) -> None:
        self.wanted = wanted
        self.start = start
        """How many of its bytes are there from before."""
        self.is_complete = False
        """Whether all of it is there, and hashed."""
        self._open_staging = open_staging
        self._hashing = hashing
        self._metadata = metadata
        self._mtime_ns = mtime_ns
        self._note = note
        self._validator: str | None = None
        """What vouches for the bytes, until it is noted. What comes at once needs no note."""
        self._digest: StreamDigest | None = None
        self._metadata_sha256: list[str] = []
        self._file: NewFile | None = None
        self._ended = threading.Event()
        self._taking = threading.Lock()

    # What a download calls.

    def begin(self, validator: str) -> None:
        """Learn what vouches for the bytes that follow, and for those before."""
        self._validator = validator

    def write(self, piece: memoryview) -> None:
        """Add the next bytes.

        Raises:
            OSError: the file cannot be written, or its metadata did not arrive.
        """
        digest = self._digest or self._open()
        if self._validator is not None and digest.size_bytes + len(piece) < self.wanted.size_bytes:
            self._note(self.wanted.name, self._validator)
            self._validator = None
        if piece:
            digest.update(piece)
            if self._file is not None:
                self._file.write(piece)
        if digest.size_bytes == self.wanted.size_bytes:
            if self._file is not None:
                self._file.finish(self._mtime_ns)
            self.close()
            self.is_complete = True
            self._ended.set()

    def restart(self) -> None:
        """Forget all bytes, on the disk, too: what is noted of them would soon vouch for others.

        Raises:
            OSError: they cannot be removed.
        """
        self.close()
        self._open_staging().remove(self.wanted.name)
        self.is_complete = False
        self._ended.clear()
        self.start = 0
        self._digest = None

    # What the version does.

    def take(self) -> None:
        """Hash a file all of which is there from before, unless that is done.

        Raises:
            OSError: it cannot be read, or its metadata did not arrive.
        """
        with self._taking:
            if not self.is_complete:
                self.write(memoryview(b""))

    def fail(self) -> None:
        """Have those that wait for it fail, too."""
        self._ended.set()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of what has arrived, 64 hex digits; empty: nothing has."""
        return "" if self._digest is None else self._digest.sha256

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprint with each of its metadata files, in their order."""
        return [] if self._digest is None else self._digest.fingerprints

    def has_begun_with(self, metadata: Sequence[Arrival]) -> bool:
        """Return whether its fingerprints are those with these files, as they are now.

        A metadata file may have come again after they were begun.
        """
        return self._metadata_sha256 in ([], [one.sha256 for one in metadata])

    def find_fault(self) -> Fault | None:
        """Return why it cannot be what its name says; None if its first bytes fit."""
        head = b"" if self._digest is None else self._digest.head
        return find_fault(self.wanted.role, head, self.wanted.size_bytes)

    def make_digest(self) -> tuple[FoundFile, FileDigest]:
        """Return the complete file, and its digests as a worker would.

        Raises:
            OSError: it is not there.
        """
        status = self._open_staging().stat_file(self.wanted.name)
        if status is None or self._digest is None:
            raise FileNotFoundError(None, f"{self.wanted.name} is gone")
        stamp = stamp_of(status)
        found = FoundFile(self.wanted.name, self.wanted.role, stamp)
        return found, self._digest.make_digest(stamp, is_checked=True)

    def _open(self) -> StreamDigest:
        """Open the file, and hash what is there of it."""
        after = [one.wait() for one in self._metadata]
        self._metadata_sha256 = [one.sha256 for one in after]
        staging = self._open_staging()
        digest = StreamDigest(self._hashing, after)
        for piece in self._open_file(staging):
            digest.update(piece)
        self._digest = digest
        return digest

    def _open_file(self, staging: Staging) -> Iterator[memoryview | bytes]:
        """Open the file for appending, and yield what is there of it.

        One that is a file of another version, too, has all bytes and is only read.
        """
        name = self.wanted.name
        path = f"{staging.path}/{name}"
        status = staging.stat_file(name)
        present = 0 if status is None else status.st_size
        if present < self.start:
            raise OSError(None, f"{name} has lost bytes meanwhile")
        if status is not None and status.st_nlink > 1 and self.start:
            if self.start < self.wanted.size_bytes:
                raise OSError(None, f"{name} is a file of another version, too")
            yield from files.read_pieces(path, self.wanted.size_bytes)
            return
        self._file = NewFile(path, self.start)
        if self.start:
            yield from self._file.read_kept(memoryview(mmap.mmap(-1, _BUFFER_BYTES)))

    def wait(self) -> StreamDigest:
        """Wait until it has arrived; return the digests of all of it.

        Raises:
            OSError: it did not arrive.
        """
        if self.start == self.wanted.size_bytes:
            self.take()
        self._ended.wait()
        if not self.is_complete or self._digest is None:
            raise OSError(None, f"{self.wanted.name} did not arrive")
        return self._digest
