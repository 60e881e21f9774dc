"""Pulls from a server on 127.0.0.1 that lose patience at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastindex.errors import ExitCode, FastindexError
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.pull.options import PullOptions, PullReport
from fastindex.operations.pull.run import pull
from fastindex.remote.options import RemoteOptions
from tests.support.faults.upstream_server import UpstreamServer


@dataclass(frozen=True, slots=True)
class Pulled:
    """How a pull ended."""

    exit_code: ExitCode
    """The exit code of the command."""
    told: str
    """The message of the error, or of all findings."""
    report: PullReport | None
    """What it did; None: it failed."""


def pull_at_once(
    server: UpstreamServer,
    root: Path,
    *,
    keep: int = 1,
    mirrors: Sequence[str] = (),
    force: bool = False,
    retries: int = 2,
    timeout_seconds: float = 0.3,
    connections: int = 4,
) -> Pulled:
    """Pull as the command does, but lose patience at once; files come in small pieces.

    Args:
        server: the upstream.
        root: the mirror.
        keep: as ``--keep``.
        mirrors: as ``--mirror``.
        force: as ``--force``.
        retries: how often a request is tried again.
        timeout_seconds: how long the server may be silent.
        connections: as ``--connections``.
    """
    remote = RemoteOptions(
        user_agent="test",
        connections=connections,
        ca_file=str(server.certificate),
        timeout_seconds=timeout_seconds,
        retries=retries,
        first_delay_seconds=0,
        min_piece_bytes=4 << 10,
        max_piece_bytes=16 << 10,
    )
    options = PullOptions(
        url=server.url,
        keep=keep,
        mirrors=tuple(mirrors),
        remote=remote,
        build=BuildOptions(force=force),
    )
    try:
        report = pull(Mirror.at(root), options)
    except FastindexError as error:
        return Pulled(error.exit_code, str(error), None)
    findings = (*report.findings, *(report.built.findings if report.built else ()))
    told = "\n".join(f"{one.path}: {one.problem}; {one.remedy}" for one in findings)
    return Pulled(report.exit_code, told, report)
