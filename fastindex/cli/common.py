"""What all commands share: options, and how a run ends."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable

from fastindex.errors import ExitCode, FastindexError
from fastindex.hashing.engine import ENGINES, VARIABLE
from fastindex.system import signals

TYPE_CHECKING = False  # typing's own would double the start of the program
if TYPE_CHECKING:
    from fastindex.cli.output import Console
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


def new_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return an empty parser whose texts stand as they are written."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add ROOT, which may be left out."""
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        default=".",
        help="the directory that is served, with images/ in it (default: this one)",
    )


def add_hashing(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--engine``."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        metavar="N",
        help="worker processes (default: the CPUs this process may use)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what computes SHA-256: hashlib, or lanes, several digests at once on CPUs with "
        f"SHA extensions (default: auto, the best there is; or what {VARIABLE} says)",
    )


def add_loudness(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--verbose``."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="tell warnings and errors only"
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="tell every step")


def add_withdrawing(parser: argparse.ArgumentParser) -> None:
    """Add the options of withdrawing: the grace, and what the build that publishes takes."""
    parser.add_argument(
        "--grace",
        type=duration,
        default=7200.0,
        metavar="TIME",
        help="how long files outlive the last catalogue that names them, as 90, 30m, 2h or "
        "1d; clients cache catalogues for an hour (default: 2h)",
    )
    parser.add_argument(
        "--stream", action="append", metavar="NAME", help="as in the build; repeatable"
    )
    parser.add_argument(
        "--settle", type=duration, default=0.0, metavar="TIME", help="as in the build"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="as in the build")
    parser.add_argument("--output", metavar="DIR", help="as in the build")
    parser.add_argument(
        "--wait",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="wait so long for another run to end (default: fail at once)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="change nothing; print what would go"
    )
    add_hashing(parser)
    add_loudness(parser)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(word: str) -> float:
    """Return the seconds of a time as people write it; for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", word, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{word!r} is no time such as 90, 30m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def positive(word: str) -> int:
    """Return the whole number from 1 on that ``word`` is; for argparse."""
    number = int(word) if word.isascii() and word.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 on")
    return number


def carry_out(console: Console, work: Callable[[], int]) -> int:
    """Do ``work`` so that both signals end it; return its exit code, or that of its error."""
    try:
        with signals.handled():
            return work()
    except FastindexError as error:
        console.fail(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of stdout is gone (`| head`)
        return ExitCode.FAILED
    except MemoryError:
        console.fail("out of memory; nothing was half-written; use fewer --jobs, or give it more")
        return ExitCode.FAILED
    except OSError as error:  # the system is out of something
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        console.fail(f"{told}; nothing was half-written, run again when that is mended")
        return ExitCode.FAILED
    except signals.Interrupted as end:
        what = "interrupted" if end.number == signal.SIGINT else "terminated"
        console.fail(f"{what}; what was done is kept, nothing was half-written")
        return ExitCode(128 + end.number)


def build_and_tell(
    console: Console, options: BuildOptions, *, print_catalogue: bool = False
) -> int:
    """Build, print what was asked for, sum up; return the exit code."""
    from fastindex.cli import output
    from fastindex.operations.build.pipeline import build

    built = build(options, observer=console)
    if print_catalogue:
        output.print_bytes(b"".join(built.product_files.values()))
    elif options.dry_run:
        output.print_changes(built.changes)
    console.sum_up(built)
    return built.exit_code
