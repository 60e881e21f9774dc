"""One run of a command: what it works on, what is told of it, and how it ends."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fastindex import __version__
from fastindex.cli.common import Parser, make_console, make_mirror, run_reported
from fastindex.errors import ExitCode, find_worst

if TYPE_CHECKING:
    from msgspec import Struct

    from fastindex.formats.configuration import MirrorConfiguration
    from fastindex.mirror.mirror import Mirror
    from fastindex.mirror.state.runs import Known, RunRecord
    from fastindex.operations.builder.options import BuildOptions
    from fastindex.operations.report import Report
    from fastindex.operations.status.run import Survey


def add_reports(parser: Parser, *, is_recorded: bool = False) -> None:
    """Add ``--json`` and ``--report``; ``--metrics``, if runs of the command are recorded."""
    parser.add_argument(
        "--json", action="store_true", help="print the report of the run as JSON, and nothing else"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write the report of the run to FILE, as JSON, besides what is printed",
    )
    if is_recorded:
        parser.add_argument(
            "--metrics",
            metavar="FILE",
            help="write metrics of the mirror to FILE, for the textfile collector of Prometheus",
        )


class Run:
    """One run of a command.

    Args:
        command: its name.
        arguments: its options and arguments.
        is_real: whether it may change the mirror, and so leaves a record.
        about: what stands before each message.
    """

    def __init__(
        self, command: str, arguments: argparse.Namespace, *, is_real: bool, about: str = ""
    ) -> None:
        self.console = make_console(arguments, about)
        """Hears how it goes, and prints that."""
        given = vars(arguments)
        self.is_json: bool = given.get("json", False)
        """Whether stdout is for the report."""
        self.is_reported = self.is_json or given.get("report") is not None
        """Whether a report is wanted."""
        self.lists_done = not (self.is_json or given.get("quiet", False))
        """Whether stdout is for what was done; what would be done is for the quiet, too."""
        self._report_path: str | None = given.get("report")
        self.has_written_report = False
        """Whether the file of the report is that of this run."""
        self._metrics_path: str | None = given.get("metrics")
        self._configured: MirrorConfiguration | None = given.get("configured")
        self._command = command
        self._is_real = is_real
        self.survey: Survey | None = None
        """How the mirror is, if a step has looked."""
        self._mirror: Mirror | None = None
        self._last: RunRecord | None = None
        self._current: RunRecord | None = None
        self._known: Known = {}
        self._sections: dict[str, Struct] = {}
        self._began = time.time()
        self._counter = time.perf_counter()

    def open_mirror(self, root: str, arguments: argparse.Namespace) -> Mirror:
        """Return the mirror that arguments describe; the run is about it from now on.

        Args:
            root: ROOT.
            arguments: the options of the run, or of a part of it.

        Raises:
            UsageError: an option makes no sense.
        """
        is_first = self._mirror is None
        self._mirror = make_mirror(root, arguments)
        if self._is_real and is_first:  # later there is a record of this very run
            from fastindex.mirror.state import runs

            self._last = runs.load(self._mirror, self._command)
            self._known = runs.list_known(self._last)
            self.console.expect(self._known)
        return self._mirror

    def keep(self, **sections: Struct) -> None:
        """Keep what operations returned for the report: the name of each section → what."""
        self._sections |= sections

    @property
    def has_published(self) -> bool:
        """Whether a build of this run wrote the catalogue."""
        parts = [(one, getattr(one, "built", None)) for one in self._sections.values()]
        return any(getattr(part, "wrote", ()) for pair in parts for part in pair)

    def record(self, code: int) -> None:
        """Record how the run ended so far, for its own later steps and in case it is killed.

        Args:
            code: the exit code so far.
        """
        if self._is_real and self._mirror is not None and code != ExitCode.USAGE:
            from fastindex.operations.report import record_run

            self._current = record_run(
                self._mirror, self._make_report(code), self._sections, self._last, self._began
            )

    def count_told(self) -> tuple[int, int]:
        """Return how many findings and errors there are so far."""
        return len(self.console.findings), len(self.console.errors)

    def record_step(self, command: str, code: int, before: tuple[int, int]) -> None:
        """Record a step as a run of the command that it is.

        Args:
            command: that command.
            code: how the step ended.
            before: what ``count_told`` returned before it.
        """
        if self._is_real and self._mirror is not None and code < ExitCode.HUNG_UP:
            from fastindex.mirror.state import runs
            from fastindex.operations.report import record_run

            own = {
                name: section
                for name, section in self._sections.items()
                if name.partition(" ")[0] == command
            }
            report = self._make_report(code, command, before)
            last = runs.load(self._mirror, command)
            record_run(self._mirror, report, own, last, self._began)

    def do(self, work: Callable[[Run], int]) -> int:
        """Do ``work``, which signals may end, and report; return the exit code."""
        ended = run_reported(self.console, lambda: work(self))
        if self._mirror is not None:
            self.console.sum_up_known(self._mirror.root, ended)
        self.record(ended)  # the metrics tell of it
        told = find_worst([ended, run_reported(self.console, self.write_metrics_file)])
        code = find_worst([told, run_reported(self.console, partial(self._report, told))])
        if code != ended:
            self.record(code)
        return code

    def _report(self, code: int) -> int:
        """Report how the run ended where that is asked for; return the exit code."""
        if not self.is_reported:
            return ExitCode.DONE
        from fastindex.operations.report import encode_report

        content = encode_report(self._make_report(code), self._sections)
        steps = [partial(self._print, content)] if self.is_json else []
        if self._report_path is not None:
            steps.append(partial(self._write, self._report_path, content))
        return find_worst(run_reported(self.console, step) for step in steps)

    def _print(self, content: bytes) -> int:
        from fastindex.cli.output import print_bytes
        from fastindex.operations.report import as_report_error

        with as_report_error("standard output", "report"):
            print_bytes(content)
        return ExitCode.DONE

    def _write(self, path: str, content: bytes) -> int:
        from fastindex.operations.report import write_report

        write_report(path, content)
        self.has_written_report = True
        return ExitCode.DONE

    def _make_report(
        self, code: int, command: str = "", before: tuple[int, int] = (0, 0)
    ) -> Report:
        from fastindex.operations.report import make_report

        return make_report(
            program=f"fastindex {__version__}",
            command=command or self._command,
            mirror=self._mirror,
            began=self._began,
            seconds=time.perf_counter() - self._counter,
            exit_code=code,
            errors=self.console.errors[before[1] :],
            findings=self.console.findings[before[0] :],
            known=self._known,
        )

    def write_metrics_file(self) -> int:
        """Write the metrics where that is asked for; return the exit code."""
        if self._metrics_path is not None and self._mirror is not None and self._is_real:
            from fastindex.operations.metrics import write_metrics
            from fastindex.operations.status.options import StatusOptions

            options = StatusOptions()
            if self._configured is not None:
                options = StatusOptions(
                    max_age_seconds=self._configured.max_age_seconds,
                    grace_seconds=self._configured.grace_seconds,
                )
            write_metrics(self._mirror, self._metrics_path, options, self._current, self.survey)
        return ExitCode.DONE


def run_command(
    command: str,
    arguments: argparse.Namespace,
    work: Callable[[Run], int],
    *,
    is_real: bool = False,
    about: str = "",
) -> int:
    """Run a command; return its exit code.

    Args:
        command: its name.
        arguments: its options and arguments.
        work: does it, and returns the exit code.
        is_real: whether it may change the mirror.
        about: what stands before each message, if it is one of several runs.
    """
    return Run(command, arguments, is_real=is_real, about=about).do(work)


def build_and_print(
    run: Run, mirror: Mirror, options: BuildOptions, *, print_catalogue: bool = False
) -> int:
    """Build, print what was asked for and the summary; return the exit code."""
    from fastindex.cli import output
    from fastindex.formats.simplestreams import INDEX_PATH
    from fastindex.operations.builder.pipeline import build

    is_first = not os.path.lexists(os.path.join(mirror.output, INDEX_PATH))
    report = build(mirror, options, observer=run.console)
    run.keep(build=report)
    if print_catalogue:
        output.print_bytes(b"".join(report.product_files.values()))
    elif options.dry_run and not run.is_json:
        output.print_changes(report.changes)
    run.console.sum_up_build(report)
    if is_first and not options.dry_run:
        run.console.hint_at_next_step(mirror.output)
    return report.exit_code
