"""Pure: what ``measure`` found → the lines that people read: tables, then the advice."""

from __future__ import annotations

from collections.abc import Iterable

from fastindex.cli.output import format_size, printable
from fastindex.operations.bench.options import (
    BUILD_DIGESTS,
    Advice,
    BenchReport,
    DiskReport,
    HashTask,
)

_WIDTH = 88
_LABEL_WIDTH = 33
_ELSEWHERE = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "zfs", "fuse")
"""File systems that may answer from memory whatever is asked of them: types, or what they
begin with before a dot."""

_METHODS = {
    "direct": "past the page cache (O_DIRECT)",
    "dropped": "out of the page cache first (no O_DIRECT here)",
    "cached": "FROM THE PAGE CACHE: it cannot be kept out here",
}


def lines_of(report: BenchReport) -> list[str]:
    """Return all that is to be printed, line by line."""
    lines = _hashing_lines(report)
    if report.disk is not None:
        lines += ["", *_disk_lines(report.disk)]
    return [*lines, "", *advice_lines(report)]


def advice_lines(report: BenchReport) -> list[str]:
    """Return the advice: which jobs, what limits, how long, and what is not known."""
    import textwrap

    advice = report.advice
    sentences = [
        _jobs_sentence(report),
        _limit_sentence(advice),
        _time_sentence(advice),
        " ".join(_doubts(report.disk)),
    ]
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            printable(sentence), _WIDTH, subsequent_indent="  ", break_on_hyphens=False
        )
    ]


def duration(seconds: float) -> str:
    """Return a time for people, in its two greatest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def _jobs_sentence(report: BenchReport) -> str:
    advice = report.advice
    speeds = (
        f"with so many, SHA-256 ({report.engine}) of roots with two metadata files, and BLAKE3, "
        f"take in {_speed(advice.cpu_bytes_per_second)}"
    )
    if advice.disk_bytes_per_second is not None:
        speeds += f"; the disk delivers {_speed(advice.disk_bytes_per_second)}"
    why = ""
    if advice.jobs > report.cpus:
        why = " More jobs than CPUs, as the disk delivers more to more readers."
    elif advice.jobs < report.jobs:
        why = f" {report.jobs} would hardly be faster."
    return f"--jobs {advice.jobs}: {speeds}.{why}"


def _limit_sentence(advice: Advice) -> str:
    cpu = _speed(advice.cpu_bytes_per_second)
    match advice.limit:
        case "cpu":
            return "The CPU limits: more or faster CPUs make a run shorter, a faster disk does not."
        case "disk":
            return "The disk limits: a faster one makes a run shorter, more CPUs do not."
        case "both":
            return "CPU and disk limit alike: only if both were faster, a run would be shorter."
        case "unknown":
            return (
                "How fast the disk delivers is not known: name a PATH on it. The CPU limits "
                f"where the disk delivers more than {cpu}."
            )


def _time_sentence(advice: Advice) -> str:
    sentence = f"{format_size(advice.run_bytes)} take {duration(advice.run_seconds)}"
    if advice.limit == "unknown":
        sentence += " at the least"
    if advice.all_seconds is not None:
        total_bytes = round(advice.all_seconds * advice.bytes_per_second)
        sentence += (
            f"; all {format_size(total_bytes)} there (--rehash), {duration(advice.all_seconds)}"
        )
    return sentence + "."


def _doubts(disk: DiskReport | None) -> Iterable[str]:
    yield (
        "Not known: how many files are small (each costs some more), what is in the page cache "
        "already (it saves the disk), what else this machine will do then."
    )
    if disk is None:
        return
    if disk.method == "cached":
        yield "The figures of the disk are those of the page cache, and were not used."
    elif disk.file_system.partition(".")[0] in _ELSEWHERE:
        yield f"On {disk.file_system}, its own memory or a server's may have answered."
    elif disk.bytes_read > disk.offered_bytes:
        yield "Some parts were read more than once: memory in or below the disk may have answered."
    if disk.is_rotational:
        yield (
            "The disk says that it rotates, as virtual ones often do; if so, readers cost seeks."
        )


def _hashing_lines(report: BenchReport) -> list[str]:
    cells: dict[int, dict[str, dict[int, float]]] = {}
    for figure in report.hashing:
        rows = cells.setdefault(figure.jobs, {})
        rows.setdefault(_name(figure), {})[figure.buffer_bytes] = figure.bytes_per_second
    sections: dict[str, dict[str, dict[int, float]]] = {
        "one process" if jobs == 1 else f"{jobs} processes at once, in all": cells[jobs]
        for jobs in sorted(cells)
    }
    lines = _table("in memory, GB/s, by buffer", sections)
    if report.missing_for_lanes:
        lines.append(f"no lanes: {report.missing_for_lanes}")
    return lines


def _disk_lines(disk: DiskReport) -> list[str]:
    rows: dict[str, dict[int, float]] = {}
    for figure in disk.figures:
        name = f"{figure.readers} reader{'s' if figure.readers > 1 else ''}"
        rows.setdefault(name, {})[figure.buffer_bytes] = figure.bytes_per_second
    where = printable(disk.path) + (f", {disk.file_system}" if disk.file_system else "")
    return _table("the disk, GB/s, by buffer", {f"{where}: {_METHODS[disk.method]}": rows})


def _table(title: str, sections: dict[str, dict[str, dict[int, float]]]) -> list[str]:
    """Return a table with a column a buffer size; what was not measured is a dash."""
    every = [rows for section in sections.values() for rows in section.values()]
    buffers = sorted({buffer for row in every for buffer in row})
    names = [name for rows in sections.values() for name in rows]
    width = max(_LABEL_WIDTH, len(title), *(len(name) + 2 for name in names))
    lines = [title.ljust(width) + "".join(_buffer(buffer).rjust(9) for buffer in buffers)]
    for heading, rows in sections.items():
        lines.append(heading)
        for name, row in rows.items():
            numbers = (f"{row[b] / 1e9:.2f}" if b in row else "-" for b in buffers)
            lines.append(f"  {name}".ljust(width) + "".join(n.rjust(9) for n in numbers))
    return lines


def _name(task: HashTask) -> str:
    match task.algorithm:
        case "sha256" if task.engine == "hashlib":
            return "SHA-256, hashlib"
        case "sha256":
            return f"SHA-256, {task.lanes} lane{'s' if task.lanes > 1 else ''}"
        case "blake3":
            return f"BLAKE3, {task.threads} thread{'s' if task.threads > 1 else ''}"
        case "xxh3":
            return "xxh3"
        case "build":
            return f"a build: {BUILD_DIGESTS} SHA-256 and BLAKE3"


def _buffer(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"


def _speed(bytes_per_second: float) -> str:
    return f"{format_size(round(bytes_per_second))}/s"
