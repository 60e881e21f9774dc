"""Arguments → one frozen options object a command → exit code."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence

from fastindex import __version__, interrupt
from fastindex.errors import ExitCode, FastindexError

TYPE_CHECKING = False  # typing's own would double the start of the program
if TYPE_CHECKING:
    from typing import NoReturn

    from fastindex.interface import BuildOptions
    from fastindex.report import Talk

_EPILOG = """\
examples:
  fastindex /srv/images                  index the mirror that a web server serves
  fastindex --jobs 16 -q /srv/images     the same from a timer: only warnings are told
  fastindex --dry-run /srv/images        what would be added, removed, changed
  fastindex --print . | jq .products     the catalogue on stdout, nothing written
  fastindex --cache-dir /var/cache/fastindex --output /srv/www /mnt/read-only
  fastindex --stream images --stream images-daily /srv/images

the tree:
  ROOT/images/OS/RELEASE/ARCH/VARIANT/VERSION/, for instance
  /srv/images/images/debian/12/amd64/default/20240505_05:24/ with
  incus.tar.xz and/or lxd.tar.xz, and rootfs.squashfs, rootfs.tar.xz or disk.qcow2

exit codes:
  0    done
  1    failed, nothing published
  2    wrong usage
  3    published, but something was left out (each is named)
  75   another run holds the lock
  130  interrupted (Ctrl-C), 143 terminated; nothing half-written
"""


def run() -> NoReturn:
    """Be the command: ``main`` in a process of its own, quick to start and to end.

    All that a run makes lives until its end, so neither the garbage collector nor the
    interpreter's tidying up has anything to give: without them a run with nothing to do
    takes a quarter less (benchmarks/unchanged_build.py).
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # While there is nothing to tidy up, Ctrl-C may end the process outright.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if "multiprocessing" in sys.modules:  # which does have to tidy up
        sys.exit(code)
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own); return the exit code."""
    words = _spell_out_wait(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(words)
    except SystemExit as end:  # --help, --version, wrong usage: argparse has said it all
        return int(end.code or 0)
    return _build(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastindex",
        description="Hash what is new in a mirror of Incus and LXD images and write the\n"
        "simplestreams catalogue (streams/v1/) that incus and lxc read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        default=".",
        help="the directory that is served, with images/ in it (default: this one)",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_positive,
        metavar="N",
        help="worker processes (default: the CPUs this process may use)",
    )
    parser.add_argument(
        "--stream",
        action="append",
        metavar="NAME",
        help="a directory of ROOT to index into streams/v1/NAME.json; repeatable (default: images)",
    )
    parser.add_argument(
        "--rehash", action="store_true", help="read every file anew, whatever the cache says"
    )
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="leave versions with files younger than this for the next run (default: 0)",
    )
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep the .items.json caches below DIR, not in the tree",
    )
    parser.add_argument("--output", metavar="DIR", help="write streams/ below DIR, not below ROOT")
    parser.add_argument(
        "--no-blake3",
        action="store_true",
        help="compute SHA-256 only, no BLAKE3 for later scrubbing",
    )
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="write nothing at all; print which versions would be added (+), removed (-), "
        "changed (~). New files are hashed all the same, so that the answer is exact",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        dest="print_catalogue",
        help="print the product file on stdout; write nothing",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish even if more than half of a stream's versions, or all, would go",
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=0.0,
        metavar="[SECONDS]",
        help="wait for another run to end, for ever or this long (default: fail at once)",
    )
    parser.add_argument(
        "-N",
        action="store_true",
        help="accepted for the seed tool's sake: write, which is the default",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="tell warnings and errors only"
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="tell every step")
    parser.add_argument("--version", action="version", version=f"fastindex {__version__}")
    return parser


def _spell_out_wait(argv: Sequence[str]) -> list[str]:
    """Give a bare ``--wait`` its value: argparse would take ROOT for its SECONDS."""
    spelled: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*spelled, word, *words]
        if word != "--wait":
            spelled.append(word)
            continue
        following = next(words, None)
        if following is not None and _is_number(following):
            spelled.append(f"--wait={following}")
            continue
        spelled.append("--wait=inf")
        if following is not None:
            spelled += _spell_out_wait([following, *words])
    return spelled


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _positive(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 on")
    return number


def _seconds(word: str) -> float:
    seconds = float(word) if _is_number(word) else -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds")
    return seconds


def _build(arguments: argparse.Namespace) -> int:
    from fastindex.interface import BuildOptions
    from fastindex.report import Talk

    streams = tuple(arguments.stream or ("images",))
    talk = Talk(arguments.verbose - arguments.quiet)
    if arguments.print_catalogue and len(streams) > 1:
        talk.fail("--print prints one product file: name one --stream")
        return ExitCode.USAGE
    options = BuildOptions(
        root=arguments.root,
        jobs=arguments.jobs,
        streams=streams,
        rehash=arguments.rehash,
        settle_seconds=arguments.settle,
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        blake3=not arguments.no_blake3,
        dry_run=arguments.dry_run or arguments.print_catalogue,
        # Printing publishes nothing, so there is nothing to brake.
        force=arguments.force or arguments.print_catalogue,
        wait_seconds=arguments.wait,
    )
    return _ended(talk, options, print_catalogue=arguments.print_catalogue)


def _ended(talk: Talk, options: BuildOptions, *, print_catalogue: bool) -> int:
    """Build, tell how it went, and return the exit code."""
    from fastindex import report
    from fastindex.pipeline import build

    try:
        with interrupt.handled():
            built = build(options, observer=talk)
        if print_catalogue:
            report.print_bytes(b"".join(built.product_files.values()))
        elif options.dry_run:
            report.print_changes(built.changes)
        talk.sum_up(built)
        return built.exit_code
    except FastindexError as error:
        talk.fail(str(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`): keep the interpreter from saying so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except OSError as error:  # the system is out of something
        talk.fail(f"{error}; nothing was half-written, run again when that is mended")
        return ExitCode.FAILED
    except interrupt.Interrupted as end:
        what = "interrupted" if end.number == signal.SIGINT else "terminated"
        talk.fail(f"{what}; what was hashed is kept, nothing was half-written")
        return ExitCode(128 + end.number)
