"""``fastindex [ROOT]``: the build, which is the command without a name."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex import __version__
from fastindex.cli.common import (
    EXIT_CODES,
    add_hashing,
    add_no_blake3,
    add_places,
    add_root,
    add_settle,
    add_streams,
    add_verbosity,
    build_and_print,
    make_console,
    make_empty_parser,
    make_hashing_options,
    make_mirror,
    parse_duration,
    run_reported,
)
from fastindex.errors import ExitCode
from fastindex.hashing.engine import describe_engine

if TYPE_CHECKING:
    from fastindex.cli.output import Console

_OTHER_COMMANDS = "import, verify, list, diff, prune, remove, bench"
_EPILOG = """\
examples:
  fastindex /srv/images                  index a mirror that a web server serves
  fastindex --jobs 16 -q /srv/images     the same from a timer: print warnings only
  fastindex --recheck 1/30 /srv/images   every night, to notice a failing disk within a month
  fastindex --dry-run /srv/images        what would be added, removed, changed
  fastindex --print . | jq .products     print the catalogue, write nothing
  fastindex --cache-dir /var/cache/fastindex --output /srv/www /mnt/read-only
  fastindex --stream images --stream images-daily /srv/images
  fastindex import --help                put images that builders made into the tree
  fastindex verify --help                check what is published against the disk
  fastindex list --help, diff --help     list the images; what the next build would change
  fastindex prune --help, remove --help  remove old versions; remove single images
  fastindex bench --help                 which --jobs to use, and how long a run takes

the tree:
  ROOT/images/OS/RELEASE/ARCH/VARIANT/VERSION/, such as
  /srv/images/images/debian/12/amd64/default/20240505_05:24/, with
  incus.tar.xz and/or lxd.tar.xz, and rootfs.squashfs, rootfs.tar.xz or disk.qcow2

"""


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex",
        "Hash what is new in a mirror of Incus and LXD images, and write the\n"
        "simplestreams catalogue (streams/v1/) that incus and lxc read.\n\n"
        f"Other commands: fastindex {_OTHER_COMMANDS}.\n"
        "To index a directory with such a name: fastindex ./import",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    add_hashing(parser)
    add_streams(parser)
    parser.add_argument(
        "--rehash", action="store_true", help="read every file again, whatever the caches say"
    )
    parser.add_argument(
        "--recheck",
        default="",
        metavar="N/M",
        help="read this share of the versions again, another share each day (1/30: all in a "
        "month), and leave out files that the disk has damaged since they were hashed",
    )
    add_settle(parser)
    add_places(parser)
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="with --cache-dir: believe the caches in the tree for versions that it does not know "
        "yet (only if you trust everybody who can write there)",
    )
    add_no_blake3(parser)
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="write nothing; print which versions would be added (+), removed (-) or changed (~). "
        "New files are hashed, so that the answer is exact",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        dest="print_catalogue",
        help="write nothing; print the product file",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish even if more than half of a stream's versions, or all, would go",
    )
    parser.add_argument(
        "--wait",
        type=_parse_wait,
        default=0.0,
        metavar="[TIME]",
        help="wait for another run to end, without a TIME for ever (default: fail at once)",
    )
    parser.add_argument(
        "-i",
        dest="source",
        metavar="SOURCE",
        help="the import of simplestreams.py: the same as fastindex import SOURCE ROOT",
    )
    parser.add_argument(
        "-N",
        action="store_true",
        help="no effect; accepted because simplestreams.py has it",
    )
    add_verbosity(parser)
    parser.add_argument(
        "--version",
        action="version",
        version=f"fastindex {__version__}\nSHA-256 by {describe_engine()}",
    )
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raises SystemExit after --help, --version and on wrong usage."""
    command = make_parser()
    _refuse_unknown_command(command, argv)
    return command.parse_args(_complete_wait(argv))


def _refuse_unknown_command(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Report a first word that names nothing in this directory: it is a misspelt command."""
    word = next(iter(argv), "-")
    if not word.startswith("-") and os.sep not in word and not os.path.lexists(word):
        parser.error(f"{word!r} is neither a command ({_OTHER_COMMANDS}) nor a directory here")


def _complete_wait(argv: Sequence[str]) -> list[str]:
    """Give a bare ``--wait`` its value: argparse would take ROOT for its TIME."""
    completed: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*completed, word, *words]
        if word != "--wait":
            completed.append(word)
            continue
        following = next(words, None)
        if following is not None and _is_time(following):
            completed.append(f"--wait={following}")
            continue
        completed.append("--wait=inf")
        if following is not None:
            completed += _complete_wait([following, *words])
    return completed


def _is_time(word: str) -> bool:
    try:
        _parse_wait(word)
    except argparse.ArgumentTypeError:
        return False
    return True


def _parse_wait(word: str) -> float:
    return math.inf if word == "inf" else parse_duration(word)


def run(argv: Sequence[str]) -> int:
    """Run the command; return its exit code. Raises SystemExit as ``parse`` does."""
    arguments = parse(argv)
    console = make_console(arguments)
    if arguments.source is not None:
        from fastindex.cli.import_images import run_seed_import

        return run_seed_import(console, arguments)
    if arguments.print_catalogue and len(arguments.stream or ()) > 1:
        console.fail("--print prints one product file; give one --stream only")
        return ExitCode.USAGE
    return run_reported(console, lambda: _build(console, arguments))


def _build(console: Console, arguments: argparse.Namespace) -> int:
    from fastindex.operations.builder.options import BuildOptions

    is_print = arguments.print_catalogue
    options = BuildOptions(
        hashing=make_hashing_options(arguments),
        rehash=arguments.rehash,
        adopt=arguments.adopt,
        recheck=arguments.recheck,
        settle_seconds=arguments.settle,
        dry_run=arguments.dry_run or is_print,
        # Printing publishes nothing, so there is nothing to hold back.
        force=arguments.force or is_print,
        wait_seconds=arguments.wait,
    )
    mirror = make_mirror(arguments.root, arguments)
    return build_and_print(console, mirror, options, print_catalogue=is_print)
