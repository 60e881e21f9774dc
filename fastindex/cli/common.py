"""What the commands share: options, the values made of them, and the end of a run."""

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
    from fastindex.operations.builder.options import BuildOptions

EXIT_CODES = """\
exit codes:
  0    done
  1    failed, nothing published
  2    wrong usage
  3    published, but something was left out (each file or version is named)
  4    verify found damage
  75   another run holds the lock
  130  interrupted (Ctrl-C), 143 terminated; nothing was half-written
"""


def make_empty_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser without options that prints its texts as they are written."""
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
        help="the directory that the web server serves, with images/ in it (default: the current "
        "directory)",
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache-dir``, ``--output`` and ``--allow-links``."""
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep the .items.json caches in DIR instead of the tree",
    )
    add_output(parser)
    parser.add_argument(
        "--allow-links",
        action="append",
        metavar="DIR",
        help="let any symlink in the tree lead to DIR or below it, such as another disk; "
        "repeatable (default: symlinks stay within their product's directory)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--output``."""
    parser.add_argument(
        "--output", metavar="DIR", help="the directory with streams/ in it (default: ROOT)"
    )


def add_streams(parser: argparse.ArgumentParser) -> None:
    """Add ``--stream``, which can be repeated."""
    parser.add_argument(
        "--stream",
        action="append",
        metavar="NAME",
        help="a directory in ROOT, published as streams/v1/NAME.json; repeatable (default: images)",
    )


def add_settle(parser: argparse.ArgumentParser) -> None:
    """Add ``--settle``."""
    parser.add_argument(
        "--settle",
        type=parse_duration,
        default=0.0,
        metavar="TIME",
        help="leave versions with files younger than this (such as 120 or 2m) for the next run "
        "(default: 0)",
    )


def add_hashing(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--engine``."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=parse_count,
        metavar="N",
        help="the number of worker processes (default: the CPUs that it may use)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what computes SHA-256: hashlib, or lanes, which computes several digests at once on "
        f"CPUs with SHA extensions (default: auto, which means {VARIABLE} in the environment, "
        "else the faster one)",
    )


def add_no_blake3(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-blake3``."""
    parser.add_argument(
        "--no-blake3",
        action="store_true",
        help="do not compute BLAKE3, which later runs of verify read faster than SHA-256",
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--verbose``."""
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and errors only"
    )
    verbosity.add_argument("-v", "--verbose", action="store_true", help="print every step")


def add_withdrawing(parser: argparse.ArgumentParser) -> None:
    """Add what prune and remove share: the grace, and options of the build that they end with."""
    parser.add_argument(
        "--grace",
        type=parse_duration,
        default=7200.0,
        metavar="TIME",
        help="how long to keep files after the last catalogue that names them, such as 90, 30m, 2h "
        "or 1d; clients cache catalogues for an hour (default: 2h)",
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
        "-n",
        "--dry-run",
        action="store_true",
        help="change nothing; print what would be withdrawn and deleted",
    )
    add_hashing(parser)
    add_verbosity(parser)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(word: str) -> float:
    """Parse a time as people write it, such as 30m, into seconds; for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", word, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"must be a time such as 90 (seconds), 30m, 2h or 1d, not {word!r}"
        )
    return float(match[1]) * _SECONDS[match[2]]


def parse_count(word: str) -> int:
    """Parse an integer of at least 1; for argparse."""
    number = int(word) if word.isascii() and word.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {word!r}")
    return number


def make_console(arguments: argparse.Namespace) -> Console:
    """Return a console that obeys ``--quiet`` and ``--verbose``."""
    from fastindex.cli.output import Console

    return Console(arguments.verbose - arguments.quiet)


def make_mirror(root: str, arguments: argparse.Namespace) -> Mirror:
    """Return the mirror at ``root`` that ``--output``, ``--cache-dir`` and ``--stream`` describe.

    Raises:
        UsageError: an option makes no sense.
    """
    from fastindex.mirror.mirror import DEFAULT_STREAMS, Mirror

    given = vars(arguments)
    return Mirror.at(
        root,
        output=given.get("output"),
        cache_dir=given.get("cache_dir"),
        streams=given.get("stream") or DEFAULT_STREAMS,
        allow_links=given.get("allow_links") or (),
    )


def make_hashing_options(arguments: argparse.Namespace) -> HashingOptions:
    """Return the options that ``--jobs``, ``--engine`` and ``--no-blake3`` describe."""
    from fastindex.hashing.options import HashingOptions

    blake3 = not vars(arguments).get("no_blake3", False)
    return HashingOptions(jobs=arguments.jobs, engine=arguments.engine, blake3=blake3)


def run_reported(console: Console, work: Callable[[], int]) -> int:
    """Do ``work``, which signals may end; return its exit code, or that of its error."""
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
    except OSError as error:  # such as a full disk behind standard output
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        console.fail(f"{what}; nothing was half-written")
        return ExitCode.FAILED
    except signals.Interrupted as end:
        what = "interrupted" if end.number == signal.SIGINT else "terminated"
        console.fail(f"{what}; finished work is kept, and nothing was half-written")
        return ExitCode(128 + end.number)


def build_and_print(
    console: Console, mirror: Mirror, options: BuildOptions, *, print_catalogue: bool = False
) -> int:
    """Build, print what was asked for and the summary; return the exit code."""
    from fastindex.cli import output
    from fastindex.operations.builder.pipeline import build

    report = build(mirror, options, observer=console)
    if print_catalogue:
        output.print_bytes(b"".join(report.product_files.values()))
    elif options.dry_run:
        output.print_changes(report.changes)
    console.sum_up_build(report)
    return report.exit_code
