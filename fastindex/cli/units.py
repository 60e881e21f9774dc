"""``fastindex units [NAME]``: what lets systemd, or cron, run ``fastindex nightly``."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    Parser,
    add_config,
    add_verbosity,
    list_exit_codes,
    make_console,
    make_empty_parser,
    run_reported,
)
from fastindex.cli.configuration import (
    NO_FILE,
    choose_mirror,
    load_configuration,
    require_mirrors,
)
from fastindex.errors import ExitCode

if TYPE_CHECKING:
    from fastindex.formats.configuration import Configuration, MirrorConfiguration
    from fastindex.operations.units.making import Runner

_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_DIRECTORY = "/etc/systemd/system"
_EPILOG = """\
examples:
  fastindex units                      print the units of all mirrors in the configuration
  fastindex units main                 those of one mirror
  fastindex units --install            write them into /etc/systemd/system
  fastindex units --install -n         which files that would write
  fastindex units --cron               lines for /etc/cron.d/fastindex instead
  fastindex units /srv/images          without a configuration: for a directory

The service of a mirror runs fastindex nightly with idle priority and in a sandbox that the
configuration decides: make the units again when that has changed.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex units",
        "Print the systemd units that run fastindex nightly every night: a service and a timer\n"
        "for each mirror, and an example of a unit that tells of failures.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.FAILED: "a unit cannot be written, or would replace one that was not made "
                "here",
                ExitCode.USAGE: "wrong usage, or a configuration that cannot be used",
            },
            is_interruptible=False,
        ),
    )
    parser.add_argument(
        "root",
        metavar="NAME",
        nargs="?",
        help="a mirror in the configuration, or a directory (default: all mirrors in it)",
    )
    add_config(parser)
    parser.add_argument(
        "--install", action="store_true", help="write the units, and say what to do next"
    )
    parser.add_argument(
        "--directory",
        default=_DIRECTORY,
        metavar="DIR",
        help=f"where to write them (default: {_DIRECTORY})",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace units that were not made by this command or were changed since, too; never "
        "the one that tells of failures, which is yours once it is there",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="write nothing; print what would be written"
    )
    parser.add_argument(
        "--cron", action="store_true", help="print lines for /etc/cron.d/fastindex instead"
    )
    parser.add_argument(
        "--user",
        type=_parse_user,
        default="fastindex",
        metavar="USER",
        help="whose rights the runs have (default: fastindex)",
    )
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    parser.refuse_together(arguments, "--cron", ("--install",))
    for option in ("--directory", "--force", "--dry-run"):
        parser.refuse_without(arguments, option, "--install")
    return run_reported(make_console(arguments), lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> int:
    from fastindex.operations.units.making import Runner

    configuration = load_configuration(arguments.config)
    mirrors = _choose_mirrors(configuration, arguments.root)
    is_configured = configuration is not None and all(mirror.name for mirror in mirrors)
    program, parts = _find_program()
    runner = Runner(
        program=program,
        parts=parts,
        user=arguments.user,
        config=configuration.path if is_configured and configuration is not None else NO_FILE,
    )
    if arguments.cron:
        from fastindex.cli.output import print_text
        from fastindex.operations.units.making import make_cron_line

        print_text("\n".join(make_cron_line(mirror, runner) for mirror in mirrors))
        return ExitCode.DONE
    return _print_or_install(arguments, mirrors, runner)


def _print_or_install(
    arguments: argparse.Namespace, mirrors: Sequence[MirrorConfiguration], runner: Runner
) -> int:
    from fastindex.cli.output import print_paths, print_text
    from fastindex.operations.units.installing import install_units, read_failure_unit
    from fastindex.operations.units.making import make_units

    pairs = [make_units(mirror, runner) for mirror in mirrors]
    units = [*(unit for pair in pairs for unit in pair), read_failure_unit()]
    directory = os.path.abspath(arguments.directory)
    if not arguments.install:
        texts = [f"# {os.path.join(directory, unit.name)}\n{unit.content}" for unit in units]
        print_text("\n".join(texts).rstrip("\n"))
        return ExitCode.DONE
    is_dry_run = arguments.dry_run
    written = install_units(units, directory, force=arguments.force, dry_run=is_dry_run)
    if not arguments.quiet:
        verb = "write" if is_dry_run else "wrote"
        print_paths(tuple(f"{verb} {path}" for path in written))
    if not is_dry_run:
        names = [[unit.name for unit in pair] for pair in pairs]
        make_console(arguments).hint_at_units(_list_next(mirrors, names, runner.user))
    return ExitCode.DONE


def _choose_mirrors(
    configuration: Configuration | None, root: str | None
) -> list[MirrorConfiguration]:
    """Return the mirrors that are meant; one that is not in the configuration has no name.

    Raises:
        UsageError: none is.
    """
    from fastindex.formats.configuration import MirrorConfiguration

    if root is None:
        return list(require_mirrors(configuration).values())
    chosen = None if configuration is None else choose_mirror(configuration, root, None)
    return [chosen or MirrorConfiguration(name="", root=os.path.abspath(root))]


def _find_program() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words that start this program, and where the rest of it is."""
    import fastindex

    package = os.path.dirname(os.path.abspath(fastindex.__file__))
    script = os.path.abspath(sys.argv[0])
    is_script = os.path.basename(script) == "fastindex" and os.access(script, os.X_OK)
    program = (script,) if is_script else (sys.executable, "-m", "fastindex")
    real = os.path.realpath(program[0])
    return program, (real, os.path.dirname(package), sys.prefix, sys.base_prefix)


def _list_next(
    mirrors: Sequence[MirrorConfiguration], names: Sequence[Sequence[str]], user: str
) -> list[str]:
    """Return the lines that an operator types after the units were written."""
    import pwd
    import shlex

    from fastindex.operations.units.making import list_written

    lines = []
    try:
        pwd.getpwnam(user)
    except KeyError:
        shell = "--home-dir /nonexistent --shell /usr/sbin/nologin"
        lines.append(f"useradd --system --user-group {shell} {user}")
    written = dict.fromkeys(path for mirror in mirrors for path in list_written(mirror))
    owned = f"--owner={user} --group={user}"
    lines += [
        f"install --directory {owned} {shlex.quote(path)}"
        for path in written
        if not os.path.isdir(path)
    ]
    lines.append("systemctl daemon-reload")
    lines += [f"systemctl enable --now {timer}" for _, timer in names]
    lines += [f"systemctl start {service}   # to try it now" for service, _ in names]
    return lines


def _parse_user(word: str) -> str:
    if not _USER_NAME.fullmatch(word):
        raise argparse.ArgumentTypeError(f"{word!r} cannot be the name of a user")
    return word
