"""Writing the metrics of a mirror after a run."""

from __future__ import annotations

import os
from contextlib import suppress

from fastindex.errors import FastindexError
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import runs
from fastindex.mirror.state.runs import RunRecord
from fastindex.operations.report import as_report_error
from fastindex.operations.status.metrics import format_metrics, list_metrics
from fastindex.operations.status.options import StatusOptions, StatusReport
from fastindex.operations.status.run import Survey, judge_runs, survey
from fastindex.system import atomic


def write_metrics(
    mirror: Mirror,
    path: str,
    options: StatusOptions,
    current: RunRecord | None,
    found: Survey | None = None,
) -> None:
    """Write the metrics of a mirror to a file, whole or not at all.

    Args:
        mirror: the mirror.
        path: the file, such as ``/var/lib/prometheus/node-exporter/fastindex.prom``.
        options: what is healthy.
        current: the run that ends; where it could not be recorded, as on a disk that is not
            mounted, that is told all the same. None: none does.
        found: how the mirror is, if the run has looked; None: it has not.

    Raises:
        ReportError: it cannot be written; an old one is unchanged.
    """
    status: StatusReport | None = None
    with suppress(FastindexError):  # the metrics say that it cannot be told
        status = judge_runs(mirror, found or survey(mirror, options))
    records = {record.command: record for record in runs.load_all(mirror)[0]}
    if current is not None:
        records[current.command] = current
    content = format_metrics(list_metrics(records.values(), status), mirror.root)
    with as_report_error(path, "metrics"):
        atomic.replace_named_file(os.path.abspath(path), content)
