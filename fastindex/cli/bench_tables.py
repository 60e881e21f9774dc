"""Pure: turn the report of a measurement into text: a table, then the advice."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from fastindex.cli.output import escape_unprintable, format_size
from fastindex.operations.bench.advice import disk_speeds
from fastindex.operations.bench.memory import name_contender
from fastindex.operations.bench.options import BenchReport, DiskReport, Method

_WIDTH = 88
_LABEL_WIDTH = 30
_COLUMN_WIDTH = 9
_CACHING = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "zfs", "fuse")
"""File systems that may answer direct reads from a cache of their own or of a server: their
types, or the part before a dot."""

_DISK_LABELS: dict[Method, str] = {
    "direct": "the disk (O_DIRECT)",
    "dropped": "the disk (pages dropped)",
}
"""How the page cache was bypassed."""


def format_report(report: BenchReport) -> list[str]:
    """Return the lines of the report: a table, then the advice."""
    sentences = [
        _advise_on_jobs(report),
        _describe_limit(report),
        _estimate_time(report),
        " ".join(_list_caveats(report.disk)),
    ]
    advice = [line for sentence in sentences for line in _wrap(sentence)]
    return [escape_unprintable(line) for line in (*_format_table(report), "", *advice)]


def format_duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def _format_table(report: BenchReport) -> list[str]:
    """Return a table with a column for each number of processes; not measured: a dash."""
    rows: dict[str, dict[int, float]] = {}
    for figure in report.hashing:
        rows.setdefault(name_contender(figure), {})[figure.jobs] = figure.bytes_per_second
    if report.disk is not None:
        rows[_DISK_LABELS[report.disk.method]] = disk_speeds(report.disk)
    counts = sorted({count for row in rows.values() for count in row})
    lines = [_format_row("GB/s, by processes", [f"{count:,}" for count in counts])]
    for name, row in rows.items():
        lines.append(_format_row(name, [_format_cell(row.get(count)) for count in counts]))
    if report.missing_for_lanes:
        lines.append(f"no lanes: {report.missing_for_lanes}")
    return lines


def _format_row(label: str, cells: Iterable[str]) -> str:
    return label.ljust(_LABEL_WIDTH) + "".join(cell.rjust(_COLUMN_WIDTH) for cell in cells)


def _format_cell(bytes_per_second: float | None) -> str:
    return "-" if bytes_per_second is None else f"{bytes_per_second / 1e9:.2f}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _advise_on_jobs(report: BenchReport) -> str:
    advice = report.advice
    speeds = f"a build hashes {_format_speed(advice.cpu_bytes_per_second)}"
    if advice.disk_bytes_per_second is not None:
        speeds += f" and the disk delivers {_format_speed(advice.disk_bytes_per_second)}"
    reason = ""
    if advice.jobs > report.cpus:
        reason = " These are more jobs than CPUs, because the disk delivers more to more readers."
    elif advice.jobs < report.jobs:
        reason = f" With {report.jobs:,} jobs it is hardly faster."
    return f"Use --jobs {advice.jobs}: {speeds}.{reason}"


def _describe_limit(report: BenchReport) -> str:
    match report.advice.limit:
        case "cpu":
            return (
                "The CPU is the limit: more or faster cores shorten a run, a faster disk does not."
            )
        case "disk":
            return (
                "The disk is the limit: a faster disk shortens a run, more or faster cores do not."
            )
        case "both":
            return "CPU and disk are equally fast: to shorten a run, both must be faster."
        case "unknown":
            return (
                "The disk was not measured (give a PATH on it): the CPU is the limit if the disk "
                f"delivers more than {_format_speed(report.advice.cpu_bytes_per_second)}."
            )


def _estimate_time(report: BenchReport) -> str:
    advice = report.advice
    least = "at least " if advice.limit == "unknown" else ""
    time = format_duration(advice.run_seconds)
    sentence = f"A run over {format_size(advice.run_bytes)} takes {least}{time}"
    if report.disk is not None and report.disk.total_bytes and advice.all_seconds is not None:
        sentence += (
            f"; rehashing all {format_size(report.disk.total_bytes)} below PATH takes "
            f"{format_duration(advice.all_seconds)}"
        )
    return sentence + "."


def _list_caveats(disk: DiskReport | None) -> Iterable[str]:
    yield (
        "Not included: the extra time that many small files take, the time saved by files that "
        "are in the page cache, other work on the machine."
    )
    if disk is None:
        return
    if disk.file_system.partition(".")[0] in _CACHING:
        yield f"On {disk.file_system}, a cache of the file system or of a server may have answered."
    elif disk.bytes_read > disk.offered_bytes:
        yield "Some data was read more than once: a cache in the disk or below may have answered."


def _format_speed(bytes_per_second: float) -> str:
    return f"{format_size(round(bytes_per_second))}/s"
