"""What the last run of each command found, and how it ended: for the next run, and for people.

A record that is lost or torn does no harm to a run: it tells again what has been told before.
``status`` tells of one that cannot be read, as a run that failed could hide behind it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import ExitCode
from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    STREAMS_DIRECTORY,
    UNDECODABLE,
    decode_state,
    encode_state,
)
from fastindex.mirror.mirror import LOCK_NAME, Mirror
from fastindex.system import atomic
from fastindex.system.files import read_small_file

RECORDED_COMMANDS = (*("nightly", "build", "pull", "import", "prune", "remove", "deltas", "push"),)
"""The commands that change a mirror, and so leave a record."""
_MAX_BYTES = 16 << 20
_MAX_FINDINGS = 30_000


class ToldFinding(Struct, frozen=True):
    """A finding, and since when it is known."""

    code: str
    """What kind of thing it is: one of ``Code``, unless another release wrote it."""
    path: str
    """What it is about, relative to ROOT."""
    problem: str
    """What is wrong."""
    remedy: str
    """What to do about it."""
    versions_left_out: int
    """How many versions are not published because of it."""
    files_left_out: int
    """How many files are not published because of it, although their version is."""
    since: str
    """The day on which a run of the same command told it first, in UTC: YYYY-MM-DD."""
    is_of_pull: bool = False
    """Whether it is about an upstream, or about what comes from there, and not about the tree."""

    @property
    def is_left_out(self) -> bool:
        """Whether something is not published because of it."""
        return bool(self.versions_left_out or self.files_left_out)

    @property
    def stream(self) -> str:
        """The stream that it is about, if it is about one."""
        return self.path.partition("/")[0]


class RunFigures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run read and fetched, and where its time went."""

    bytes_read: int = 0
    """Bytes of files that it read."""
    bytes_fetched: int = 0
    """Bytes of files that came over the network."""
    scanning_seconds: float = 0
    """Wall time spent on looking at the tree."""
    hashing_seconds: float = 0
    """Wall time spent on reading and hashing."""
    publishing_seconds: float = 0
    """Wall time spent on assembling and writing the catalogue."""
    fetching_seconds: float = 0
    """Wall time spent on fetching."""
    lock_seconds: float = 0
    """Wall time spent on waiting for other runs."""


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run of a command."""

    command: str
    """Its name."""
    began: float
    """When it began, in seconds since 1970."""
    seconds: float
    """How long it took."""
    exit_code: int
    """How it ended."""
    succeeded: float = 0
    """When the last run began that did its work, in seconds since 1970; 0: none did."""
    figures: RunFigures = RunFigures()
    """What it read and fetched, and where its time went."""
    streams: tuple[str, ...] = ()
    """The streams that it was about, and those of earlier runs whose findings it keeps."""
    errors: tuple[str, ...] = ()
    """Why it failed."""
    findings: tuple[ToldFinding, ...] = ()
    """What it found, as far as there is room."""

    @property
    def ended(self) -> float:
        """When it ended, in seconds since 1970."""
        return self.began + self.seconds


Known = Mapping[tuple[str, str, str], str]
"""What ``identify`` returns of a finding → the day since when it is known."""


def identify(finding: Finding | ToldFinding) -> tuple[str, str, str]:
    """Return what tells a finding from others; its remedy may become better."""
    return finding.code, make_encodable(finding.path), make_encodable(finding.problem)


def make_encodable(text: str) -> str:
    """Return ``text`` with undecodable bytes of paths escaped."""
    return text if text.isprintable() else text.encode(errors="backslashreplace").decode()


def is_success(exit_code: int) -> bool:
    """Return whether a run did its work, even if it left something out."""
    return exit_code in (ExitCode.DONE, ExitCode.LEFT_OUT)


def sort_newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return records in the order in which the runs ended, the last one first."""
    return sorted(records, key=lambda record: record.ended, reverse=True)


def load_all(mirror: Mirror) -> tuple[list[RunRecord], dict[str, str]]:
    """Return the record of the last run of each command that has one.

    Returns:
        The records; and the path, relative to the output directory, of each that cannot be read
        → why.
    """
    records: list[RunRecord] = []
    faults: dict[str, str] = {}
    for command in RECORDED_COMMANDS:
        try:
            records.append(_read(mirror, command))
        except FileNotFoundError:
            pass
        except (OSError, *UNDECODABLE) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            faults[f"{STREAMS_DIRECTORY}/{_name(command)}"] = reason or str(error)
    return records, faults


def list_known(record: RunRecord | None) -> Known:
    """Return what a run has told already."""
    findings = record.findings if record is not None else ()
    return {identify(one): one.since for one in findings}


def date_findings(findings: Iterable[Finding], known: Known, today: str) -> tuple[ToldFinding, ...]:
    """Return the findings, each with the day since when it is known.

    Args:
        findings: what a run found.
        known: what was known before.
        today: the day of the run.
    """
    return tuple(
        ToldFinding(
            code=one.code,
            path=make_encodable(one.path),
            problem=make_encodable(one.problem),
            remedy=make_encodable(one.remedy),
            versions_left_out=one.versions_left_out,
            files_left_out=one.files_left_out,
            since=known.get(identify(one), today),
        )
        for one in findings
    )


def load(mirror: Mirror, command: str) -> RunRecord | None:
    """Return the record of the last run of a command; None: there is none that can be read."""
    try:
        return _read(mirror, command)
    except (OSError, *UNDECODABLE):
        return None


def save(mirror: Mirror, record: RunRecord) -> None:
    """Keep the record of a run, unless no run has ever published this mirror.

    Raises:
        OSError: it cannot be written; the old one is unchanged.
    """
    if os.path.exists(mirror.state_path(LOCK_NAME)):
        kept = replace(record, findings=record.findings[:_MAX_FINDINGS])
        content = encode_state(kept)
        atomic.replace_file(_find_path(mirror, record.command), content, is_durable=False)


def keep_others(mirror: Mirror, record: RunRecord, last: RunRecord | None) -> RunRecord:
    """Return a record with what the last run of the command found in streams that this one left.

    Args:
        mirror: the mirror.
        record: the run.
        last: the record of the last one; None: there is none.
    """
    if last is None:
        return record
    if record.exit_code == ExitCode.LOCKED:  # it has looked at nothing
        return replace(record, streams=last.streams, findings=last.findings)
    others = tuple(
        stream
        for stream in last.streams
        if stream not in record.streams and os.path.isdir(mirror.path(stream))
    )
    kept = tuple(one for one in last.findings if one.stream in others)
    return replace(record, streams=(*record.streams, *others), findings=(*record.findings, *kept))


def _read(mirror: Mirror, command: str) -> RunRecord:
    return decode_state(read_small_file(_find_path(mirror, command), _MAX_BYTES), RunRecord)


def _find_path(mirror: Mirror, command: str) -> str:
    return mirror.state_path(_name(command))


def _name(command: str) -> str:
    return f".run-{command}.json"
