"""Finds the command that is meant, and runs it in a process that starts and ends quickly."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fastindex.cli.words import split

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from fastindex.cli.common import Parser

    Command = tuple[Callable[[], Parser], Callable[[Sequence[str]], int]]


def run() -> NoReturn:
    """Run ``main`` in a process of its own that starts and ends quickly.

    Whatever a run makes lives until the run ends, so neither the garbage collector nor the
    interpreter's clean-up is of use. Without them, a run with nothing to do takes a quarter less
    time (benchmarks/unchanged_build.py).
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until there is something to clean up, Ctrl-C may end the process outright.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    _open_closed_descriptors()
    _take_names_for_utf8()
    _escape_what_cannot_be_printed()
    try:
        code = main()
        code = _flush_results() or code
    except MemoryError:
        sys.exit("fastindex: error: not enough memory to start")
    except (
        ImportError,
        SystemError,
        OSError,
    ) as error:  # Python 3.13 raises SystemError when memory is short
        sys.exit(f"fastindex: error: cannot start ({error}); give it more memory, or reinstall it")
    with suppress(OSError):
        sys.stderr.flush()
    # multiprocessing has to clean up. The interpreter would also free every object of the run.
    atexit._run_exitfuncs()
    os._exit(code)


def _open_closed_descriptors() -> None:
    """Open standard descriptors that are closed (``>&-``) on the null device.

    Otherwise the next file that is opened gets the number, and messages are written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def _take_names_for_utf8() -> None:
    """Start again in UTF-8 mode if the locale has file names in another encoding.

    Clients ask for names in UTF-8. In another encoding the same tree would give another
    catalogue, and published files could not be opened.
    """
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)  # the terminal's
    with suppress(OSError):
        arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606  # nosec B606  # no shell: nothing to quote


def _escape_what_cannot_be_printed() -> None:
    """Let characters that the encoding of stdout or stderr lacks be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_results() -> int:
    """Write out what is buffered for stdout; return the exit code, 0 if that succeeds."""
    try:
        sys.stdout.flush()
    except OSError:
        from fastindex.cli.common import run_reported
        from fastindex.cli.output import Console, flush_results

        return run_reported(Console(0), flush_results)  # it fails again, which is then reported
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own); return the exit code."""
    command, words = split(sys.argv[1:] if argv is None else argv)
    try:
        _, run_command = find_command(command)
        return run_command(words)
    except SystemExit as end:  # --help, --version, wrong usage: everything has been printed
        return int(end.code or 0)


def find_command(name: str) -> Command:  # noqa: PLR0912  # one for each command
    """Return the command called ``name``, one of ``COMMANDS``; that of a build if it is empty.

    Returns:
        What makes its parser; and what runs it, which raises SystemExit after --help and on wrong
        usage.
    """
    # Imported where used, so that the program starts quickly.
    match name:
        case "bench":
            from fastindex.cli.bench import make_parser, run
        case "check":
            from fastindex.cli.check import make_parser, run
        case "completion":
            from fastindex.cli.completion import make_parser, run
        case "config":
            from fastindex.cli.config import make_parser, run
        case "deltas":
            from fastindex.cli.deltas import make_parser, run
        case "diff":
            from fastindex.cli.diff import make_parser, run
        case "help":
            from fastindex.cli.help import make_parser, run
        case "import":
            from fastindex.cli.import_images import make_parser, run
        case "list":
            from fastindex.cli.list import make_parser, run
        case "nightly":
            from fastindex.cli.nightly import make_parser, run
        case "prune":
            from fastindex.cli.prune import make_parser, run
        case "pull":
            from fastindex.cli.pull import make_parser, run
        case "push":
            from fastindex.cli.push import make_parser, run
        case "remove":
            from fastindex.cli.remove import make_parser, run
        case "serve":
            from fastindex.cli.serve import make_parser, run
        case "status":
            from fastindex.cli.status import make_parser, run
        case "units":
            from fastindex.cli.units import make_parser, run
        case "verify":
            from fastindex.cli.verify import make_parser, run
        case _:
            from fastindex.cli.build import make_parser, run
    return make_parser, run
