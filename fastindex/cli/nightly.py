"""``fastindex nightly [NAME]``: all that a mirror needs every night, in one run."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING

from fastindex.cli import prune, status
from fastindex.cli.common import (
    Parser,
    add_config,
    add_verbosity,
    add_wait,
    do_in_turn,
    list_exit_codes,
    make_empty_parser,
    run_reported,
)
from fastindex.cli.configuration import (
    choose_mirror,
    fill_in,
    find_values,
    load_configuration,
    reported,
    require_mirrors,
)
from fastindex.cli.running import Run, add_reports
from fastindex.errors import Code, ExitCode, UsageError, find_worst
from fastindex.events import Finding
from fastindex.formats.simplestreams import STREAMS_DIRECTORY

if TYPE_CHECKING:
    from fastindex.formats.configuration import Configuration, MirrorConfiguration
    from fastindex.mirror.mirror import Mirror

_LOCK = ".nightly.lock"
_REPORT = ".nightly-report.json"
"""Where in ``streams/`` the report is for programs, if the configuration names no file."""
_KEEP_ALL = 1_000_000_000
"""How many versions stay where the configuration does not say."""
_HOOK_SECONDS = 600.0
_WITHOUT_HOOKS = (
    *(ExitCode.USAGE, ExitCode.LOCKED),
    *(ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED),
)
"""After these nothing was done, or somebody wants it to end."""
_EPILOG = """\
examples:
  fastindex nightly                 all mirrors in the configuration, one after the other
  fastindex nightly main            one of them
  fastindex nightly -n main         what it would do
  fastindex nightly /srv/images     without a configuration: publish, and tell what is wrong

steps (each is done whatever became of those before it):
  pull      from each source of the configuration, if it has any
  prune     publish what is new, read the share of recheck again, withdraw what is older than
            keep and keep_days say (nothing, if they are not set), delete what had its grace
  deltas    from as many versions as deltas says, if it is set
  push      to the bucket of the configuration, if it has one
  status    what is damaged or too old
Then the report and the metrics are written, and the programs of on_publish and on_failure run.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex nightly",
        "Do all that a mirror needs every night: pull, publish, check a share of the files,\n"
        "remove old versions, make deltas, tell what is wrong. One run, one report, one exit\n"
        "code.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "done, and the mirror is healthy",
                ExitCode.FAILED: "a step failed; the others were done",
                ExitCode.LEFT_OUT: "done, but something was left out or is damaged or too old, or "
                "a program of the configuration failed; each is named",
                ExitCode.LOCKED: "another run holds a lock; try again later, or use --wait",
            }
        ),
    )
    parser.add_argument(
        "root",
        metavar="NAME",
        nargs="?",
        help="a mirror in the configuration, or a directory (default: all mirrors in it)",
    )
    add_config(parser)
    add_wait(parser)
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="change nothing; print what would be pulled, withdrawn and deleted",
    )
    add_reports(parser, is_recorded=True)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    with reported():
        configuration = load_configuration(arguments.config)
        nights = _plan_nights(parser, arguments, argv, configuration)
    gc.enable()  # a night may be long
    return do_in_turn(night.run for night in nights)


def _plan_nights(
    parser: Parser,
    arguments: argparse.Namespace,
    argv: Sequence[str],
    configuration: Configuration | None,
) -> list[_Night]:
    """Return a night for each mirror that is meant.

    Raises:
        UsageError: none is.
    """
    if arguments.root is None:
        mirrors = list(require_mirrors(configuration).values())
        if len(mirrors) > 1 and (arguments.report is not None or arguments.metrics is not None):
            raise UsageError("--report and --metrics are for one mirror; name it")
        return [_Night(argv, mirror, mirror.root, is_one=len(mirrors) == 1) for mirror in mirrors]
    chosen = None
    if configuration is not None:
        chosen = choose_mirror(configuration, arguments.root, None)
    root = arguments.root if chosen is None else chosen.root
    return [_Night(argv, chosen, root, is_one=True)]


class _Night:
    """The night of one mirror.

    Args:
        argv: the command line.
        mirror: what the configuration says of the mirror; None: nothing.
        root: ROOT.
        is_one: whether no other mirror has its night in this run.
    """

    def __init__(
        self, argv: Sequence[str], mirror: MirrorConfiguration | None, root: str, *, is_one: bool
    ) -> None:
        self._mirror = mirror
        self._root = root
        parser = make_parser()
        arguments = parser.parse_args(argv)
        if mirror is not None:
            values = find_values(mirror, "nightly")
            has_readers = mirror.report or mirror.on_publish or mirror.on_failure
            if has_readers and not arguments.dry_run:
                values["report"] = mirror.report or os.path.join(
                    mirror.output or root, STREAMS_DIRECTORY, _REPORT
                )
            arguments = fill_in(parser, argv, values, read=parser.parse_args)
        self._arguments = arguments
        arguments.configured = mirror
        self._places = self._find_arguments(prune.make_parser(), [])
        self._place: Mirror | None = None
        self._is_real = not arguments.dry_run
        self._name = "" if is_one or mirror is None else mirror.name
        self._words = [f"--wait={arguments.wait}"] if arguments.wait else []
        for name in ("dry_run", "quiet", "verbose"):
            self._words += [f"--{name.replace('_', '-')}"] if vars(arguments)[name] else []

    def run(self) -> int:
        """Do all of it; return the exit code."""
        run = Run("nightly", self._arguments, is_real=self._is_real, about=self._name)
        code = run.do(self._work)
        mirror = self._mirror
        if mirror is None or not self._is_real or code in _WITHOUT_HOOKS:
            return code
        report = self._arguments.report if run.has_written_report else ""
        hooks = partial(_run_hooks, run, mirror, report, code)
        worst = find_worst([code, run_reported(run.console, hooks)])
        if worst != code:
            run.record(worst)
            run_reported(run.console, run.write_metrics_file)
        return worst

    def _find_arguments(self, parser: Parser, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments of a step, as the configuration has them."""
        values = {} if self._mirror is None else find_values(self._mirror, parser.command)
        if parser.command == "prune" and not {"keep", "keep_days"} & values.keys():
            values["keep"] = _KEEP_ALL
        arguments = fill_in(parser, words, values, read=parser.parse_args)
        arguments.root = self._root
        return arguments

    def _work(self, run: Run) -> int:
        from fastindex.system import locks

        mirror = run.open_mirror(self._root, self._places)
        mirror.require_root()
        self._place = mirror
        if not self._is_real:
            return self._do_steps(run)
        with locks.lock(mirror.state_path(_LOCK), self._arguments.wait):
            code = self._do_steps(run)
            if code >= ExitCode.HUNG_UP:
                return code
            run.record(code)
            return find_worst([code, run_reported(run.console, lambda: self._tell_status(run))])

    def _do_steps(self, run: Run) -> int:
        return do_in_turn(
            partial(self._do_step, run, command, works) for command, works in self._list_steps(run)
        )

    def _do_step(self, run: Run, command: str, works: Iterable[Callable[[], int]]) -> int:
        before = run.count_told()
        code = do_in_turn(partial(run_reported, run.console, work) for work in works)
        run.record_step(command, code, before)
        return code

    def _has_catalogue(self) -> bool:
        from fastindex.mirror.state import outputs

        return self._place is not None and outputs.has_catalogue(self._place)

    def _list_steps(self, run: Run) -> Iterator[tuple[str, list[Callable[[], int]]]]:
        """Yield each step: its command, and what is to be done one after the other."""
        if self._mirror is not None and self._mirror.pull:
            from fastindex.cli import pull

            works: list[Callable[[], int]] = []
            for source in self._mirror.pull:
                words = [source.url, *self._words]
                arguments = pull.fill_in_source(self._mirror, source, words)
                works.append(partial(pull.pull_and_print, run, arguments, f"pull {source.url}"))
            yield "pull", works
            if not (self._is_real or self._has_catalogue()):
                return  # all else is about what the pull would bring
        arguments = self._find_arguments(prune.make_parser(), self._words)
        yield "prune", [partial(prune.prune_and_print, run, arguments)]
        if not self._has_catalogue():
            return  # why is told; the others would only say so again
        if self._mirror is not None and self._mirror.deltas:
            from fastindex.cli import deltas

            arguments = self._find_arguments(deltas.make_parser(), self._words)
            yield "deltas", [partial(deltas.make_and_print, run, arguments)]
        if self._mirror is not None and self._mirror.push:
            from fastindex.cli import push

            arguments = self._find_arguments(push.make_parser(), self._words)
            arguments.configured = self._mirror
            yield "push", [partial(push.push_and_print, run, arguments)]

    def _tell_status(self, run: Run) -> int:
        """Tell what is wrong and was not told yet; return the exit code."""
        if not self._has_catalogue():
            return ExitCode.DONE  # a step has failed, and told why
        report = status.find(run, self._find_arguments(status.make_parser(), []))
        told = {(one.code, one.path) for one in run.console.findings}
        new = [one for one in report.findings if not _is_told(one, told)]
        for finding in new:
            run.console.warn(finding)
        return ExitCode.LEFT_OUT if new else ExitCode.DONE


def _run_hooks(run: Run, mirror: MirrorConfiguration, report: str, code: int) -> int:
    """Run the programs of the configuration; return the exit code."""
    from fastindex.system.programs import run_program

    variables = {
        "FASTINDEX_MIRROR": mirror.name,
        "FASTINDEX_EXIT_CODE": str(int(code)),
        "FASTINDEX_REPORT": os.path.abspath(report) if report else "",
    }
    has_failed = False
    for hook, program, is_due in (
        ("on_publish", mirror.on_publish, run.has_published),
        ("on_failure", mirror.on_failure, code != ExitCode.DONE),
    ):
        if program and is_due:
            run.console.log(f"{hook}: running {program[0]}")
            problem = run_program(program, variables, _HOOK_SECONDS)
            if problem:
                has_failed = True
                remedy = "run it by hand to see why; all else was done as told"
                run.console.warn(Finding(Code.HOOK_FAILED, hook, f"{program[0]} {problem}", remedy))
    return ExitCode.LEFT_OUT if has_failed else ExitCode.DONE


def _is_told(finding: Finding, told: Set[tuple[Code, str]]) -> bool:
    """Return whether the steps of this night have told what a status finds.

    Args:
        finding: what it finds.
        told: code and path of what they have told.
    """
    is_own = finding.code is Code.RUN_FAILED and finding.path == "nightly"
    is_sum = finding.code is Code.NOT_PUBLISHED
    return is_own or is_sum or (finding.code, finding.path) in told
