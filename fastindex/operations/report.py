"""The report of a run: one form for all commands, for programs and for the next run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import ReportError, suggest_remedy
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import runs
from fastindex.mirror.state.runs import Known, RunFigures, RunRecord, ToldFinding, is_success
from fastindex.system import atomic, locks

SCHEMA = 1
"""Raise it when a field gets another meaning or goes away, not when one is added."""
_ELSEWHERE = ("findings", "built", "product_files")
"""Fields of what operations return that are not in a section of their own: all findings are in one
list, a build has its own section, and its product file is what ``--print`` is for."""
_SUMMED = ("changes", "wrote")
"""Fields of a build that those of all builds of a run are in."""


class Report(Struct, frozen=True, kw_only=True):
    """What a run did, and how it ended."""

    schema: int = SCHEMA
    """The version of this form."""
    program: str
    """Name and version of what wrote it."""
    command: str
    """The command."""
    root: str
    """ROOT, absolute; empty: the command has none."""
    output: str
    """The directory with ``streams/`` in it, absolute."""
    streams: tuple[str, ...]
    """The streams that it was about."""
    began: str
    """When it began, in UTC: 2026-11-28T05:24:00Z."""
    seconds: float
    """How long it took."""
    exit_code: int
    """How it ended."""
    errors: tuple[str, ...]
    """Why it failed."""
    findings: tuple[ToldFinding, ...]
    """All that a person should know, each with the day since when it is known."""


def make_report(
    *,
    program: str,
    command: str,
    mirror: Mirror | None,
    began: float,
    seconds: float,
    exit_code: int,
    errors: Iterable[str],
    findings: Iterable[Finding],
    known: Known,
) -> Report:
    """Return the report of a run.

    Args:
        program: name and version of the program.
        command: the name of the command.
        mirror: what it was about; None: no mirror.
        began: when it began, in seconds since 1970.
        seconds: how long it took.
        exit_code: how it ended.
        errors: why it failed.
        findings: what was told.
        known: what the last run told.
    """
    when = datetime.fromtimestamp(began, UTC)
    return Report(
        program=program,
        command=command,
        root=runs.make_encodable(mirror.root) if mirror is not None else "",
        output=runs.make_encodable(mirror.output) if mirror is not None else "",
        streams=mirror.streams if mirror is not None else (),
        began=when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(seconds, 3),
        exit_code=int(exit_code),
        errors=tuple(runs.make_encodable(error) for error in errors),
        findings=runs.date_findings(findings, known, when.strftime("%Y-%m-%d")),
    )


def encode_report(report: Report, sections: Mapping[str, Struct]) -> bytes:
    """Return the report as JSON, indented, in UTF-8.

    Args:
        report: what all commands tell.
        sections: the name of each operation that was part of the run → what it returned.
    """
    document: dict[str, Any] = msgspec.to_builtins(report)
    for name, section in sections.items():
        found = msgspec.to_builtins(section)
        built = found.get("built")
        document[name] = {key: found[key] for key in found if key not in _ELSEWHERE}
        if built is not None:
            last = document.get("build", {})
            document["build"] = {key: built[key] for key in built if key not in _ELSEWHERE}
            for key in _SUMMED:  # of a night that builds several times, all count
                document["build"][key] = _join_lists(last.get(key, ()), built[key])
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:  # it has a path that is not UTF-8
        encoded = msgspec.json.encode(_escape(document))
    return msgspec.json.format(encoded) + b"\n"


def _join_lists(first: Iterable[Any], last: Iterable[Any]) -> list[Any]:
    """Return the elements of both, equal ones once."""
    joined = list(first)
    return joined + [one for one in last if one not in joined]


def write_report(path: str, content: bytes) -> None:
    """Write a report, whole or not at all.

    Raises:
        ReportError: it cannot be written; an old one is unchanged.
    """
    with as_report_error(path, "report"):
        atomic.replace_named_file(os.path.abspath(path), content)


@contextmanager
def as_report_error(path: str, what: str) -> Iterator[None]:
    """Raise ReportError instead of OSError.

    Args:
        path: where something is written, for the message.
        what: what it is.
    """
    try:
        yield
    except OSError as error:
        raise ReportError(
            f"{path}: the {what} cannot be written ({error.strerror or error}); "
            f"{suggest_remedy(error)}; all else was done as told"
        ) from error


def record_run(
    mirror: Mirror,
    report: Report,
    sections: Mapping[str, Struct],
    last: RunRecord | None,
    began: float,
) -> RunRecord:
    """Keep how a run ended and what it found, for the next run and for ``status``.

    Args:
        mirror: the mirror.
        report: what the run did.
        sections: what its operations returned.
        last: the record of the run before.
        began: when it began, in seconds since 1970.

    Returns:
        The record, whether or not it could be written.
    """
    pulled = {
        runs.identify(finding)
        for name, section in sections.items()
        if name.partition(" ")[0] == "pull"
        for finding in getattr(section, "findings", ())
    }
    record = RunRecord(
        command=report.command,
        began=began,
        seconds=report.seconds,
        exit_code=report.exit_code,
        succeeded=began if is_success(report.exit_code) else last.succeeded if last else 0,
        figures=_find_figures(sections.values()),
        streams=report.streams,
        errors=report.errors,
        findings=tuple(
            replace(one, is_of_pull=runs.identify(one) in pulled) for one in report.findings
        ),
    )
    record = runs.keep_others(mirror, record, last)
    with suppress(OSError):  # the next run tells again what it would have known
        runs.save(mirror, record)
    return record


def _find_figures(sections: Iterable[Struct]) -> RunFigures:
    """Return what the operations of a run read and fetched, and where their time went."""
    figures: dict[str, Any] = {"lock_seconds": round(locks.count_waited_seconds(), 3)}
    for section in sections:
        for part in (section, getattr(section, "built", None)):
            for name in RunFigures.__struct_fields__:
                value = getattr(part, name, 0)
                figures[name] = round(figures.get(name, 0) + value, 3)
    return RunFigures(**figures)


def _escape(value: object) -> object:
    """Return ``value``, made of what JSON has, with undecodable bytes of paths escaped."""
    if isinstance(value, str):
        return runs.make_encodable(value)
    if isinstance(value, list | tuple):
        return [_escape(part) for part in value]
    if isinstance(value, dict):
        return {name: _escape(part) for name, part in value.items()}
    return value
