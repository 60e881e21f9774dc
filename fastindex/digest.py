"""Runs in a worker: one file, one read, all its digests. Knows no catalogue.

The only module that reads images whole, and copies them on the way where an import wants
that. Nothing here raises across the pool: a file that cannot be read, or is not the one
that was scanned, is a ``Failed``.

Reads go through one reused buffer and ``preadv2`` with RWF_DONTCACHE where the kernel
has it, so that hashing a mirror does not push the web server's hot files out of
memory. Rejected: to map the files (a truncated file kills the process with SIGBUS) and
``posix_fadvise(DONTNEED)`` (it drops pages that others had in memory).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastindex.atomic import NO_SUCH_FLAG, RWF_DONTCACHE, NewFile, UnwritableError
from fastindex.cache import key_if_settled
from fastindex.contract import VIRTUAL_MACHINE
from fastindex.model import Batch, Digested, Failed, FileDigest, FileId, FileRef, Outcome, RootTask

if TYPE_CHECKING:
    from blake3 import blake3

BUFFER_BYTES = 512 * 1024
"""Tuned with benchmarks/hash_throughput.py: small enough to stay in a core's second-level
cache while three hashes walk it, large enough that system calls do not show."""

THREADED_BUFFER_BYTES = 8 << 20
"""For BLAKE3 with several threads, which share each piece between them."""

Advance = Callable[[int], None]
"""Told the number of bytes just read."""
_State = tuple["FileDigest | Failed", "hashlib._Hash | None"]


class _ChangedError(Exception):
    """The file is not, or no longer, what was scanned."""


def digest_batch(batch: Batch, advance: Advance) -> tuple[Outcome, ...]:
    """Digest the tasks of ``batch`` in order; metadata that they share is read once.

    Args:
        batch: what to read.
        advance: called with each number of bytes read.

    Returns:
        An outcome for each task. Never raises on account of a file.
    """
    reader = _Reader(advance, batch)
    return tuple(reader.digest(task) for task in batch.tasks)


class _Reader:
    """A buffer, and the states of the metadata files read so far."""

    def __init__(self, advance: Advance, batch: Batch) -> None:
        self._advance = advance
        self._wants_sha256 = batch.wants_sha256
        self._wants_blake3 = batch.wants_blake3
        self._threads = batch.threads
        # Page-aligned: OpenSSL's SHA-256 is a fifth slower on a buffer that is not on a
        # 32-byte boundary, and a bytearray is where malloc happens to put it.
        size_bytes = BUFFER_BYTES if batch.threads == 1 else THREADED_BUFFER_BYTES
        self._buffer = memoryview(mmap.mmap(-1, size_bytes))
        self._metadata: dict[FileId, _State] = {}
        self._bytes_read = 0
        self._files_read = 0

    def digest(self, task: RootTask) -> Outcome:
        bytes_before, files_before = self._bytes_read, self._files_read
        states = {ref.id: self._metadata_state(ref) for ref in task.metadata}
        usable = {id_: hasher for id_, (_, hasher) in states.items() if hasher is not None}
        failures = [digest for digest, _ in states.values() if isinstance(digest, Failed)]
        if failures and not usable:
            return failures[0]
        # Metadata of equal bytes shares one fingerprint.
        combined = {hasher.digest(): hasher.copy() for hasher in usable.values()}
        prefixes = {id_: hasher.digest() for id_, hasher in usable.items()}
        sha256 = hashlib.sha256()
        result = self._file(task.root, sha256, *combined.values())
        if isinstance(result, Failed):
            return result
        return Digested(
            result,
            {id_: digest for id_, (digest, _) in states.items()},
            {id_: combined[prefix].hexdigest() for id_, prefix in prefixes.items()},
            self._bytes_read - bytes_before,
            self._files_read - files_before,
            VIRTUAL_MACHINE if task.is_unified and _is_virtual_machine(task.root) else "",
        )

    def _metadata_state(self, ref: FileRef) -> _State:
        state = self._metadata.get(ref.id)
        if state is None:
            sha256 = hashlib.sha256()
            digest = self._file(ref, sha256)
            state = (digest, None if isinstance(digest, Failed) else sha256)
            self._metadata[ref.id] = state
        return state

    def _file(
        self, ref: FileRef, sha256: hashlib._Hash, *others: hashlib._Hash
    ) -> FileDigest | Failed:
        """Feed the whole file to ``sha256``, ``others`` and, if wanted, BLAKE3."""
        began_ns = time.time_ns()
        quick = _blake3(self._threads) if self._wants_blake3 else None
        hashers = [sha256, *others] if self._wants_sha256 else []
        if quick is not None:
            hashers.append(quick)  # type: ignore[arg-type]  # update() is all that is used
        try:
            # O_NONBLOCK: should a FIFO stand here by now, opening it must not hang.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            descriptor = os.open(ref.path, flags)
            try:
                _check_unchanged(ref, os.fstat(descriptor))
                if ref.copy_to:
                    with NewFile(ref.copy_to) as copy:
                        self._stream(descriptor, ref, hashers, copy)
                        copy.finish(ref.mtime_ns)
                else:
                    self._stream(descriptor, ref, hashers)
                _check_unchanged(ref, os.fstat(descriptor))
            finally:
                os.close(descriptor)
            _check_unchanged(ref, os.stat(ref.path))  # replaced by a rename meanwhile?
        except _ChangedError:
            return Failed(
                "changed while it was being read",
                "let the upload finish, then run again (--settle waits for quiet files)",
            )
        except FileNotFoundError:
            return Failed("vanished while the run was on", "run again")
        except UnwritableError as error:
            return Failed(
                f"cannot be copied to {error.filename} ({error.strerror})",
                "make room there, or give this user the right to write",
            )
        except OSError as error:
            return Failed(
                f"cannot be read ({error.strerror})",
                "give this user the right to read it, or mend the file system",
            )
        self._files_read += 1
        return FileDigest(
            sha256.hexdigest() if self._wants_sha256 else "",
            quick.hexdigest() if quick is not None else "",
            key_if_settled(ref.size_bytes, ref.mtime_ns, began_ns),
        )

    def _stream(
        self,
        descriptor: int,
        ref: FileRef,
        hashers: list[hashlib._Hash],
        copy: NewFile | None = None,
    ) -> None:
        offset = 0
        while offset <= ref.size_bytes:  # past the end once, to see that nothing was appended
            count = _read_into(descriptor, self._buffer, offset, ref.device)
            if count == 0:
                break
            piece = self._buffer[:count]
            if copy is not None:
                copy.write(piece)
            for hasher in hashers:
                hasher.update(piece)
            offset += count
            self._bytes_read += count
            self._advance(count)
        if offset != ref.size_bytes:
            raise _ChangedError


def _check_unchanged(ref: FileRef, status: os.stat_result) -> None:
    is_unchanged = (
        stat.S_ISREG(status.st_mode)
        and status.st_size == ref.size_bytes
        and status.st_mtime_ns == ref.mtime_ns
        and (status.st_dev, status.st_ino) == ref.id
    )
    if not is_unchanged:
        raise _ChangedError


def _is_virtual_machine(unified: FileRef) -> bool:
    from fastindex.tarball import is_virtual_machine  # where there is one

    return is_virtual_machine(unified.path)


def _blake3(threads: int) -> blake3:
    from blake3 import blake3

    return blake3(max_threads=threads)


_without_flag: set[int] = set()
"""Devices whose file system does not know RWF_DONTCACHE."""


def _read_into(descriptor: int, buffer: memoryview, offset: int, device: int) -> int:
    """Fill ``buffer`` from ``offset`` on; return the number of bytes, 0 at the end."""
    if device not in _without_flag:
        try:
            return os.preadv(descriptor, [buffer], offset, RWF_DONTCACHE)
        except NotImplementedError:
            _without_flag.add(device)
        except OSError as error:
            if error.errno not in NO_SUCH_FLAG:
                raise
            _without_flag.add(device)
    return os.preadv(descriptor, [buffer], offset)
