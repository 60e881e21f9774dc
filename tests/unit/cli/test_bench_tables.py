"""From the figures to what people read."""

from __future__ import annotations

import msgspec
import pytest

from fastindex.cli.bench_tables import format_duration, format_report
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench import BenchReport
from fastindex.operations.bench.advice import advise, build_speeds, disk_speeds
from fastindex.operations.bench.options import DiskFigure, DiskReport, HashFigure

GB = 1e9


def new_report(**changes: object) -> BenchReport:
    """Return a report as ``measure`` could make it, with ``changes``."""
    has_disk = changes.get("has_disk", True)
    hashing = (
        HashFigure(
            algorithm="xxh3", buffer_bytes=BUFFER_BYTES, jobs=1, bytes_per_second=12.345 * GB
        ),
        *(
            HashFigure(
                algorithm="build",
                engine="lanes",
                lanes=3,
                buffer_bytes=BUFFER_BYTES,
                jobs=jobs,
                bytes_per_second=jobs * 0.6 * GB,
            )
            for jobs in (1, 2)
        ),
    )
    disk = DiskReport(
        path="/srv/images",
        method="direct",
        file_system="ext4",
        is_rotational=False,
        total_bytes=15 * 10**10,
        offered_bytes=10**9,
        bytes_read=10**8,
        figures=tuple(
            DiskFigure(readers=readers, buffer_bytes=BUFFER_BYTES, bytes_per_second=speed * GB)
            for readers, speed in ((1, 0.5), (2, 0.75), (4, 0.7))
        ),
    )
    disk = msgspec.structs.replace(
        disk, **{name: value for name, value in changes.items() if name in disk.__struct_fields__}
    )
    speeds = disk_speeds(disk) if has_disk else {}
    total_bytes = disk.total_bytes if has_disk else None
    report = BenchReport(
        cpus=2,
        jobs=2,
        engine="lanes",
        missing_for_lanes="",
        hashing=hashing,
        disk=disk if has_disk else None,
        advice=advise(build_speeds(hashing), speeds, 2, 10**11, total_bytes),
        seconds=1,
    )
    own = {name: value for name, value in changes.items() if name in report.__struct_fields__}
    return msgspec.structs.replace(report, **own)


def joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def test_a_table_and_the_advice() -> None:
    assert format_report(new_report()) == [
        "GB/s, by processes                    1        2        4",
        "xxh3                              12.35        -        -",
        "a build: 3 SHA-256 and BLAKE3      0.60     1.20        -",
        "the disk (O_DIRECT)                0.50     0.75     0.70",
        "",
        "Use --jobs 2: a build hashes 1.2 GB/s and the disk delivers 750.0 MB/s.",
        "The disk is the limit: a faster disk shortens a run, more or faster cores do not.",
        "A run over 100.0 GB takes 2 min 13 s; rehashing all 150.0 GB below PATH takes 3 min 20",
        "  s.",
        "Not included: the extra time that many small files take, the time saved by files that",
        "  are in the page cache, other work on the machine.",
    ]


def test_without_a_disk_the_time_is_a_lower_bound() -> None:
    text = joined(format_report(new_report(has_disk=False)))
    assert "the disk (" not in text
    assert "The disk was not measured (give a PATH on it): the CPU is the limit if" in text
    assert "takes at least 1 min 23 s." in text


def test_without_a_known_total_nothing_is_said_about_all_files() -> None:
    assert "below PATH" not in joined(format_report(new_report(total_bytes=None)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_system": "nfs4"}, "On nfs4, a cache"),
        ({"file_system": "fuse.sshfs"}, "On fuse.sshfs, a cache"),
        ({"bytes_read": 2 * 10**9}, "read more than once"),
        ({"missing_for_lanes": "no such CPU"}, "no lanes: no such CPU"),
        ({"jobs": 8}, "With 8 jobs it is hardly faster"),
        ({"cpus": 1}, "more jobs than CPUs"),
    ],
)
def test_what_is_doubtful_is_said(changes: dict[str, object], words: str) -> None:
    assert words in joined(format_report(new_report(**changes)))
    assert words not in joined(format_report(new_report()))


@pytest.mark.parametrize(
    ("speed", "words"),
    [(9 * GB, "The CPU is the limit"), (1.2 * GB, "CPU and disk are equally fast")],
)
def test_the_limit_is_said(speed: float, words: str) -> None:
    figure = DiskFigure(readers=2, buffer_bytes=BUFFER_BYTES, bytes_per_second=speed)
    assert words in joined(format_report(new_report(figures=(figure,))))


def test_names_from_outside_cannot_move_the_cursor() -> None:
    report = new_report(file_system="fuse.\x1b[2J", missing_for_lanes="\x1b[2J")
    assert all(map(str.isprintable, format_report(report)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (91, "1 min 31 s"),
        (3570, "59 min 30 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
