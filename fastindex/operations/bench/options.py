"""What ``measure`` takes and what it returns."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Algorithm = Literal["sha256", "blake3", "xxh3", "build"]
"""*build*: what a build does with each piece of a root that has two metadata files."""

Limit = Literal["cpu", "disk", "both", "unknown"]
"""What must be faster to shorten a run; *unknown*: the speed of the disk is not known."""

Method = Literal["direct", "dropped"]
"""How to read past the page cache: with O_DIRECT; or, where a file system does not support
that, by dropping pages from the cache before they are read."""

BUILD_DIGESTS = 3
"""SHA-256 digests of a root with two metadata files: its own and two fingerprints."""


class BenchOptions(Struct, frozen=True, kw_only=True):
    """What to measure."""

    path: str | None = None
    """A file, or a directory of files, to read; None: do not measure the disk."""
    jobs: int | None = None
    """The maximum number of processes; None: the number of CPUs this process may use."""
    engine: str = "auto"
    """The SHA-256 engine of the build: ``auto``, ``hashlib`` or ``lanes``."""
    seconds: float = 0.1
    """How long to measure each contender; each number of readers takes three times that."""
    run_bytes: int = 100 * 10**9
    """The size of the run whose duration is estimated."""


class HashTask(Struct, frozen=True, kw_only=True):
    """A contender, and how many processes run it at once."""

    algorithm: Algorithm
    """What is computed."""
    engine: str = ""
    """The SHA-256 engine: ``hashlib`` or ``lanes``; empty if no SHA-256 is computed."""
    lanes: int = 1
    """The number of SHA-256 states that are updated together."""
    wide_from: int = 0
    """From how many lanes on a build uses the wide kernel; 0: never."""
    kernel: str = ""
    """What computes them in lanes, such as ``SHA-NI`` or ``AVX-512``; empty without lanes."""
    threads: int = 1
    """Threads of each process; only BLAKE3 uses more than one."""
    buffer_bytes: int
    """The size of the buffer, the same as in a build."""
    jobs: int
    """The number of processes."""


class HashFigure(HashTask, frozen=True, kw_only=True):
    """How fast a contender hashes data in memory."""

    bytes_per_second: float
    """All processes together. *sha256* counts the buffer once for each state; *build* counts
    it once for each file, since a build updates all states of a file with the same bytes."""


class DiskFigure(Struct, frozen=True, kw_only=True):
    """How fast the disk delivers to a number of readers."""

    readers: int
    """Processes that read at once, each from a place of its own."""
    buffer_bytes: int
    """The size of each read, the same as in a build."""
    bytes_per_second: float
    """All readers together."""


class DiskReport(Struct, frozen=True, kw_only=True):
    """What was measured of the disk."""

    path: str
    """The path as given in the options."""
    method: Method
    """How the page cache was bypassed."""
    file_system: str
    """The type of the file system, such as ``ext4``; empty: not known."""
    is_rotational: bool
    """Whether the disk is known to rotate."""
    total_bytes: int | None
    """The size of all regular files below the path; None: too many files to count."""
    offered_bytes: int
    """The size of the files selected for reading."""
    bytes_read: int
    """How much was read; if more than ``offered_bytes``, some were read repeatedly."""
    figures: tuple[DiskFigure, ...]
    """One for each number of readers."""


class Advice(Struct, frozen=True, kw_only=True):
    """What the figures mean for a build."""

    jobs: int
    """The fewest ``--jobs`` that reach 95 % of the best speed; unless the disk is the limit,
    at least one for each CPU."""
    limit: Limit
    """What must be faster to shorten a run."""
    cpu_bytes_per_second: float
    """How fast that many jobs hash files that are in memory."""
    disk_bytes_per_second: float | None
    """How fast the disk delivers to that many readers; None: not known."""
    bytes_per_second: float
    """The smaller of the two."""
    run_bytes: int
    """The size of the run, as given in the options."""
    run_seconds: float
    """How long the run takes."""
    all_seconds: float | None
    """How long it takes to read all files below the path; None: their size is not known."""


class BenchReport(Struct, frozen=True, kw_only=True):
    """All figures and the advice; also the JSON document, whose keys are stable."""

    cpus: int
    """CPUs this process may use."""
    jobs: int
    """The maximum number of processes that were considered."""
    engine: str
    """The SHA-256 engine that a build uses on this machine."""
    missing_for_lanes: str
    """Why lanes were not measured; empty: they were."""
    hashing: tuple[HashFigure, ...]
    """Hashing in memory, one figure for each contender and number of processes."""
    disk: DiskReport | None
    """None: no path was given, or its file system cannot be read past the page cache."""
    advice: Advice
    """What the figures mean for a build."""
    seconds: float
    """How long the measurement took."""
