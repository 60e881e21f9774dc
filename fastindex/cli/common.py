"""What the commands share: options, the values they become, and how a run ends."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastindex.errors import ExitCode, FastindexError
from fastindex.hashing.engine import ENGINES, VARIABLE
from fastindex.system import signals

if TYPE_CHECKING:
    from fastindex.cli.output import Console
    from fastindex.hashing.options import HashingOptions
    from fastindex.mirror.mirror import Mirror
    from fastindex.operations.build.options import BuildOptions

EXIT_CODES = """\
exit codes:
  0    done
  1    failed, nothing published
  2    wrong usage
  3    published, but something was left out (each is named)
  4    verify found damage
  75   another run holds the lock
  130  interrupted (Ctrl-C), 143 terminated; nothing half-written
"""


def make_empty_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return an empty parser that prints its texts as they are written."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add ROOT, which is optional."""
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        default=".",
        help="the directory that is served, with images/ in it (default: the current one)",
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache-dir`` and ``--output``."""
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep the .items.json caches in DIR, not in the tree",
    )
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--output``."""
    parser.add_argument(
        "--output", metavar="DIR", help="the directory that has streams/ (default: ROOT)"
    )


def add_streams(parser: argparse.ArgumentParser) -> None:
    """Add ``--stream``, which can be repeated."""
    parser.add_argument(
        "--stream",
        action="append",
        metavar="NAME",
        help="a directory of ROOT that is published as streams/v1/NAME.json; repeatable "
        "(default: images)",
    )


def add_settle(parser: argparse.ArgumentParser) -> None:
    """Add ``--settle``."""
    parser.add_argument(
        "--settle",
        type=parse_duration,
        default=0.0,
        metavar="TIME",
        help="leave versions with files younger than this, such as 120 or 2m, for the next run "
        "(default: 0)",
    )


def add_hashing(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--engine``."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=parse_count,
        metavar="N",
        help="worker processes (default: the CPUs this process may use)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what computes SHA-256: hashlib, or lanes: several digests at once on CPUs with "
        f"SHA extensions (default: auto: {VARIABLE} in the environment, else the faster one)",
    )


def add_no_blake3(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-blake3``."""
    parser.add_argument(
        "--no-blake3",
        action="store_true",
        help="compute SHA-256 only, without BLAKE3 for later scrubbing",
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--verbose``."""
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and errors only"
    )
    verbosity.add_argument("-v", "--verbose", action="store_true", help="print every step")


def add_withdrawing(parser: argparse.ArgumentParser) -> None:
    """Add the options of withdrawing: the grace, and those of the build that publishes."""
    parser.add_argument(
        "--grace",
        type=parse_duration,
        default=7200.0,
        metavar="TIME",
        help="how long files outlive the last catalogue that names them, such as 90, 30m, 2h or "
        "1d; clients cache catalogues for an hour (default: 2h)",
    )
    add_streams(parser)
    add_settle(parser)
    add_places(parser)
    parser.add_argument(
        "--wait",
        type=parse_duration,
        default=0.0,
        metavar="TIME",
        help="wait this long for another run to end (default: fail at once)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="change nothing; print what would go"
    )
    add_hashing(parser)
    add_verbosity(parser)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(word: str) -> float:
    """Return the seconds of a time as people write it; for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", word, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{word!r} must be a time such as 90, 30m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_count(word: str) -> int:
    """Return the integer of at least 1 that ``word`` is; for argparse."""
    number = int(word) if word.isascii() and word.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be an integer of at least 1")
    return number


def make_console(arguments: argparse.Namespace) -> Console:
    """Return the console for ``--quiet`` and ``--verbose``."""
    from fastindex.cli.output import Console

    return Console(arguments.verbose - arguments.quiet)


def make_mirror(root: str, arguments: argparse.Namespace) -> Mirror:
    """Return the mirror at ``root`` that ``--output``, ``--cache-dir`` and ``--stream`` describe.

    Raises:
        UsageError: the options make no sense.
    """
    from fastindex.mirror.mirror import DEFAULT_STREAMS, Mirror

    said = vars(arguments)
    return Mirror.at(
        root,
        output=said.get("output"),
        cache_dir=said.get("cache_dir"),
        streams=said.get("stream") or DEFAULT_STREAMS,
    )


def make_hashing_options(arguments: argparse.Namespace) -> HashingOptions:
    """Return what ``--jobs``, ``--engine`` and ``--no-blake3`` say."""
    from fastindex.hashing.options import HashingOptions

    blake3 = not vars(arguments).get("no_blake3", False)
    return HashingOptions(jobs=arguments.jobs, engine=arguments.engine, blake3=blake3)


def run_reported(console: Console, work: Callable[[], int]) -> int:
    """Do ``work`` so that signals end it; return its exit code, or that of its error."""
    try:
        with signals.handled():
            return work()
    except FastindexError as error:
        console.fail(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of stdout is gone (`| head`)
        return ExitCode.FAILED
    except MemoryError:
        console.fail("out of memory; nothing was half-written")
        return ExitCode.FAILED
    except OSError as error:  # of standard output, for instance
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        console.fail(f"{what}; nothing was half-written")
        return ExitCode.FAILED
    except signals.Interrupted as end:
        what = "interrupted" if end.number == signal.SIGINT else "terminated"
        console.fail(f"{what}; finished work is kept, nothing was half-written")
        return ExitCode(128 + end.number)


def build_and_print(
    console: Console, mirror: Mirror, options: BuildOptions, *, print_catalogue: bool = False
) -> int:
    """Build, print what was asked for, sum up; return the exit code."""
    from fastindex.cli import output
    from fastindex.operations.build.pipeline import build

    report = build(mirror, options, observer=console)
    if print_catalogue:
        output.print_bytes(b"".join(report.product_files.values()))
    elif options.dry_run:
        output.print_changes(report.changes)
    console.sum_up_build(report)
    return report.exit_code
