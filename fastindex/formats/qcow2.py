"""Whether a qcow2 disk is there to its end: its tables, and the clusters of data that they name.

A download that was cut off starts like a whole one, and QEMU reads zeros where something is
missing, without a word. So the tables are walked. No data is read.

That shows what is missing, not every flipped bit.

Format: docs/interop/qcow2 of QEMU. What may be missing at the end is what QEMU itself leaves
away, see ``_Disk``.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from fastindex.formats.errors import FormatError
from fastindex.formats.reading import open_file

MAX_CPU_SECONDS = 20.0
"""CPU time; the tables of a disk of 1 TiB take half a second."""
_HEADER = struct.Struct(">4xI12xIQ4xIQQI12xQ24x")
"""Version, cluster_bits, size, number of entries and offset of the L1 table, offset and number of
clusters of the refcount table, incompatible features; of version 2, the last means nothing."""
_EXTENDED_L2 = 1 << 4
"""The incompatible feature of L2 tables with a second word in each entry."""
_ENTRY_BYTES = 8
_PIECE_ENTRIES = 1 << 16
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
"""As QEMU has them: it opens no disk with a larger table."""
_OFFSET = 0x00FF_FFFF_FFFF_FE00
"""The bits of an entry that give the offset of a table or of a cluster."""
_FLAG_BIT = 62
_COMPRESSED = 1 << _FLAG_BIT
_ALL_ZEROS = 1
_SECTOR_BYTES = 512
_SUBCLUSTERS = 32


class DiskError(FormatError):
    """A qcow2 disk that ends early or exceeds a bound. The message says which."""


def check_disk(path: str) -> None:
    """Check that the qcow2 disk at ``path`` does not end early.

    A file that is shorter than a single cluster has no table that could be held against it.

    Args:
        path: the disk. ``content.find_fault`` finds no fault in its header.

    Raises:
        DiskError: a table or data of it is behind its end.
        OSError: it cannot be read, or is no regular file.
    """
    with open_file(path) as file:
        disk = _Disk(file)
        if disk.size_bytes >= disk.cluster_bytes:
            disk.check()


class _Disk:
    """A qcow2 disk.

    QEMU writes whole clusters, but at the end of the file

    - the L1 table has just its entries;
    - a cluster at the end of the disk has what of it belongs to the disk (old QEMU);
    - a cluster with subclusters has those up to the last that was written;
    - of compressed data, the last sector may be short, or missing (old QEMU counted one more where
      the data ended with a sector).

    Args:
        file: an open file, at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size_bytes = os.fstat(file.fileno()).st_size
        """Length of the file."""
        self._file = file
        self._deadline = time.thread_time() + MAX_CPU_SECONDS
        header = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
        version, cluster_bits, self._disk_bytes, *tables, features = header
        self._l1_entries, self._l1_offset, self._refcounts_offset, self._refcounts_clusters = tables
        self.cluster_bytes = 1 << cluster_bits
        """Length of a cluster."""
        self._words = 2 if version > 2 and features & _EXTENDED_L2 else 1
        self._compressed_offset_bits: int = 70 - cluster_bits
        # Compressed data takes no more than two clusters: so far reach the bits of its length.
        self._last_offset = self.size_bytes - 2 * self.cluster_bytes
        self._flags = self._repeat(_COMPRESSED)
        self._offsets = self._repeat(_COMPRESSED - 1)
        self._compressed_offsets = self._repeat((1 << self._compressed_offset_bits) - 1)
        self._distances = self._repeat(max(0, _COMPRESSED - 1 - max(0, self._last_offset)))

    def check(self) -> None:
        """Check each table, and where the clusters are that it names."""
        refcounts_bytes = self._refcounts_clusters * self.cluster_bytes
        self._check_table("refcount table", refcounts_bytes, _MAX_REFCOUNT_TABLE_BYTES)
        self._check_end("its refcount table", self._refcounts_offset + refcounts_bytes)
        l1_bytes = self._l1_entries * _ENTRY_BYTES
        self._check_table("L1 table", l1_bytes, _MAX_L1_BYTES)
        self._check_end("its L1 table", self._l1_offset + l1_bytes)
        for _, offset in self._read_offsets(self._refcounts_offset, refcounts_bytes):
            self._check_end("a refcount block", offset + self.cluster_bytes)
        covered_bytes = self.cluster_bytes // (_ENTRY_BYTES * self._words) * self.cluster_bytes
        for index, offset in self._read_offsets(self._l1_offset, l1_bytes):
            self._check_end("an L2 table", offset + self.cluster_bytes)
            table = self._read(offset, self.cluster_bytes)
            if not self._is_far_from_end(table):
                self._check_clusters(_parse(table), index * covered_bytes)

    def _repeat(self, entry: int) -> int:
        """Return an L2 table of nothing but ``entry``, as a number."""
        one = entry.to_bytes(_ENTRY_BYTES, "big").ljust(_ENTRY_BYTES * self._words, b"\0")
        return int.from_bytes(one * (self.cluster_bytes // len(one)), "big")

    @staticmethod
    def _check_table(name: str, size_bytes: int, max_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise DiskError(f"its {name} has more than {max_bytes >> 20} MiB")

    def _check_end(self, name: str, end: int) -> None:
        """Raise DiskError if ``name``, which takes the bytes before ``end``, is behind the end."""
        if end > self.size_bytes:
            raise DiskError(
                f"damaged: it ends at byte {self.size_bytes:,}, before {name} does (at {end:,})"
            )

    def _read(self, offset: int, size_bytes: int) -> bytes:
        if time.thread_time() > self._deadline:
            raise DiskError(f"it took more than {MAX_CPU_SECONDS:.0f} s of CPU time to check")
        self._file.seek(offset)
        return self._file.read(size_bytes).ljust(size_bytes, b"\0")

    def _read_offsets(self, start: int, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the index and the offset of each table of one cluster that a table names.

        No two entries name the same, so there are no more than the file has clusters. That
        bounds the time, whatever a stranger wrote.
        """
        count = 0
        for first in range(0, size_bytes // _ENTRY_BYTES, _PIECE_ENTRIES):
            piece_bytes = min(size_bytes - first * _ENTRY_BYTES, _PIECE_ENTRIES * _ENTRY_BYTES)
            piece = self._read(start + first * _ENTRY_BYTES, piece_bytes)
            for index, word in enumerate(_parse(piece), first):
                if offset := word & _OFFSET:
                    count += 1
                    if count * self.cluster_bytes > self.size_bytes:
                        raise DiskError("damaged: it has more tables than clusters")
                    yield index, offset

    def _is_far_from_end(self, table: bytes) -> bool:
        """Return whether all that an L2 table names starts at least two clusters before the end.

        The entries are the digits of one number, so each step is done for all of them at once.
        That is many times as fast as one after the other, and enough for almost all tables.
        """
        if self._last_offset < 0:
            return False
        entries = int.from_bytes(table, "big")
        flags = entries & self._flags
        is_compressed = flags - (flags >> _FLAG_BIT)  # each bit below a flag
        offsets = entries & (self._offsets ^ is_compressed)
        offsets |= entries & self._compressed_offsets & is_compressed
        # A sum reaches the flag's bit if its offset exceeds ``_last_offset``.
        return not (offsets + self._distances) & self._flags

    def _check_clusters(self, words: Sequence[int], guest_offset: int) -> None:
        """Check where the clusters are that an L2 table names.

        Args:
            words: the table.
            guest_offset: where in the disk its first cluster is, in bytes.
        """
        for index, entry in enumerate(words[:: self._words]):
            if not entry:
                continue
            if entry & _COMPRESSED:
                self._check_end("its data", self._find_compressed_end(entry))
                continue
            offset = entry & _OFFSET
            used_bytes = self._disk_bytes - (guest_offset + index * self.cluster_bytes)
            if self._words > 1:
                written = words[2 * index + 1] & ((1 << _SUBCLUSTERS) - 1)
                subcluster_bytes = self.cluster_bytes // _SUBCLUSTERS
                used_bytes = min(used_bytes, written.bit_length() * subcluster_bytes)
            elif entry & _ALL_ZEROS:
                continue
            if offset and used_bytes > 0:
                self._check_end("its data", offset + min(used_bytes, self.cluster_bytes))

    def _find_compressed_end(self, entry: int) -> int:
        """Return how long the file is at least that has some compressed data."""
        offset = entry & ((1 << self._compressed_offset_bits) - 1)
        more_sectors = (entry & (_COMPRESSED - 1)) >> self._compressed_offset_bits
        return max(offset + 1, (offset // _SECTOR_BYTES + more_sectors) * _SECTOR_BYTES)


def _parse(table: bytes) -> Sequence[int]:
    """Return the words of a table."""
    return struct.unpack(f">{len(table) // _ENTRY_BYTES}Q", table)
