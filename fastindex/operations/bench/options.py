"""What a caller hands to ``measure`` and gets back."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Algorithm = Literal["sha256", "blake3", "xxh3", "build"]
"""*build*: what a build does with each piece of a root that has two metadata files."""

Method = Literal["direct", "dropped", "cached"]
"""How the page cache was kept out: O_DIRECT; the file's pages dropped first; not at all."""

Limit = Literal["cpu", "disk", "both", "unknown"]
"""What ends a run no sooner; *unknown*: no figures of the disk."""

BUILD_DIGESTS = 3
"""SHA-256 digests of a root with two metadata files: its own and two fingerprints."""


class BenchOptions(Struct, frozen=True, kw_only=True):
    """What ``measure`` is to do."""

    path: str | None = None
    """A file, or a directory of files, to read; None: no disk is measured."""
    jobs: int | None = None
    """The most processes at once; None: as many as CPUs that this process may use."""
    engine: str = "auto"
    """What a build would compute SHA-256 with: ``auto``, ``hashlib`` or ``lanes``."""
    seconds: float = 0.1
    """How long a contender is measured with one buffer size; the disk three times that."""
    run_bytes: int = 100 * 10**9
    """How many bytes the run reads whose duration is to be told."""


class HashTask(Struct, frozen=True, kw_only=True):
    """A contender and a buffer size."""

    algorithm: Algorithm
    """What is computed."""
    engine: str = ""
    """What computes SHA-256: ``hashlib`` or ``lanes``; empty where none is computed."""
    lanes: int = 1
    """SHA-256 states that take in each buffer together."""
    threads: int = 1
    """Threads of one process; BLAKE3 alone can use more than one."""
    buffer_bytes: int
    """How many bytes are handed over at a time."""


class HashFigure(HashTask, frozen=True, kw_only=True):
    """How fast a contender hashes what is in memory."""

    jobs: int
    """Processes that did it at once."""
    bytes_per_second: float
    """Taken in by all states of all processes; for *build*, where each byte goes to all
    states, the bytes of the file."""


class DiskFigure(Struct, frozen=True, kw_only=True):
    """How fast files are read."""

    readers: int
    """Processes that read at once, each another part."""
    buffer_bytes: int
    """How many bytes each asks for at a time."""
    bytes_per_second: float
    """Delivered to all of them together."""


class DiskReport(Struct, frozen=True, kw_only=True):
    """What was measured of the disk."""

    path: str
    """What was asked for."""
    method: Method
    """How the page cache was kept out."""
    file_system: str
    """Its type, as ``ext4``; empty: not known."""
    is_rotational: bool
    """Whether it is known to lie on rotating disks."""
    total_bytes: int | None
    """Bytes of all regular files there; None: there are too many to count them all."""
    offered_bytes: int
    """Bytes of the parts that were chosen to be read."""
    bytes_read: int
    """Bytes that were read; more than were offered: some were read again."""
    figures: tuple[DiskFigure, ...]
    """By number of readers and buffer size."""


class Advice(Struct, frozen=True, kw_only=True):
    """What follows for a build."""

    jobs: int
    """The fewest ``--jobs`` that get all but a twentieth of the best speed; one for each
    CPU or more, unless the disk limits."""
    limit: Limit
    """What would have to be faster for a run to end sooner."""
    cpu_bytes_per_second: float
    """What so many jobs hash, of files in memory."""
    disk_bytes_per_second: float | None
    """What the disk delivers to so many readers; None: not known."""
    bytes_per_second: float
    """The smaller of both."""
    run_bytes: int
    """How much the run reads."""
    run_seconds: float
    """How long that takes."""
    all_seconds: float | None
    """How long reading all that lies there takes; None: not known how much it is."""


class BenchReport(Struct, frozen=True, kw_only=True):
    """What ``measure`` found. The keys of its JSON stay; ``schema`` grows if one must go."""

    schema: int = 1
    """Which keys there are."""
    cpus: int
    """CPUs that this process may use."""
    jobs: int
    """The most processes at once."""
    engine: str
    """What a build would compute SHA-256 with here."""
    missing_for_lanes: str
    """Why no lanes were measured; empty: they were."""
    hashing: tuple[HashFigure, ...]
    """In memory, by contender, number of processes and buffer size."""
    disk: DiskReport | None
    """Of the disk; None: no path was named."""
    advice: Advice
    """What follows."""
    seconds: float
    """Wall time of it all."""
