"""``fastindex [ROOT]``: the build, the command without a name."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence

from fastindex import __version__
from fastindex.cli.common import (
    EXIT_CODES,
    add_hashing,
    add_loudness,
    add_root,
    build_and_tell,
    carry_out,
    duration,
    new_parser,
)
from fastindex.errors import ExitCode
from fastindex.hashing.engine import in_words

_OTHERS = "import, verify, list, diff, prune, remove, bench"
_EPILOG = """\
examples:
  fastindex /srv/images                  index the mirror that a web server serves
  fastindex --jobs 16 -q /srv/images     the same from a timer: only warnings are told
  fastindex --recheck 1/30 /srv/images   each night, to notice a failing disk within a month
  fastindex --dry-run /srv/images        what would be added, removed, changed
  fastindex --print . | jq .products     the catalogue on stdout, nothing written
  fastindex --cache-dir /var/cache/fastindex --output /srv/www /mnt/read-only
  fastindex --stream images --stream images-daily /srv/images
  fastindex import --help                put what builders make into the tree
  fastindex verify --help                hold what is published against the disk
  fastindex list --help, diff --help     the images; what the next build would change
  fastindex prune --help, remove --help  old versions, and single images, out of the mirror
  fastindex bench --help                 which --jobs, what limits a run, how long it takes

the tree:
  ROOT/images/OS/RELEASE/ARCH/VARIANT/VERSION/, for instance
  /srv/images/images/debian/12/amd64/default/20240505_05:24/ with
  incus.tar.xz and/or lxd.tar.xz, and rootfs.squashfs, rootfs.tar.xz or disk.qcow2

"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raises SystemExit after --help, --version and on wrong usage."""
    parser = _parser()
    _refuse_no_command(parser, argv)
    return parser.parse_args(_spell_out_wait(argv))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex",
        "Hash what is new in a mirror of Incus and LXD images and write the\n"
        "simplestreams catalogue (streams/v1/) that incus and lxc read.\n\n"
        f"Other commands: fastindex {_OTHERS}.\n"
        "A ROOT of such a name: ./import",
        _EPILOG + EXIT_CODES,
    )
    add_root(parser)
    add_hashing(parser)
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
        "--recheck",
        default="",
        metavar="N/M",
        help="read this share of the versions again, another one each day (1/30: all in a "
        "month), and leave out what the disk has damaged since it was hashed",
    )
    parser.add_argument(
        "--settle",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="leave versions with files younger than this, as 120 or 2m, for the next run "
        "(default: 0)",
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
        type=_wait,
        default=0.0,
        metavar="[TIME]",
        help="wait for another run to end, for ever or this long (default: fail at once)",
    )
    parser.add_argument(
        "-i",
        dest="source",
        metavar="SOURCE",
        help="the seed tool's spelling of: fastindex import SOURCE ROOT",
    )
    parser.add_argument(
        "-N",
        action="store_true",
        help="accepted for the seed tool's sake: write, which is the default",
    )
    add_loudness(parser)
    parser.add_argument(
        "--version",
        action="version",
        version=f"fastindex {__version__}\nSHA-256 by {in_words()}",
    )
    return parser


def _refuse_no_command(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Take a first word that is nothing in this directory for a command misspelt."""
    word = next(iter(argv), "-")
    if not word.startswith("-") and os.sep not in word and not os.path.lexists(word):
        parser.error(f"{word!r} is neither a command ({_OTHERS}) nor a directory here")


def _spell_out_wait(argv: Sequence[str]) -> list[str]:
    """Give a bare ``--wait`` its value: argparse would take ROOT for its TIME."""
    spelled: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*spelled, word, *words]
        if word != "--wait":
            spelled.append(word)
            continue
        following = next(words, None)
        if following is not None and _is_time(following):
            spelled.append(f"--wait={following}")
            continue
        spelled.append("--wait=inf")
        if following is not None:
            spelled += _spell_out_wait([following, *words])
    return spelled


def _is_time(word: str) -> bool:
    try:
        _wait(word)
    except argparse.ArgumentTypeError:
        return False
    return True


def _wait(word: str) -> float:
    return math.inf if word == "inf" else duration(word)


def run(argv: Sequence[str]) -> int:
    """Run the command; return its exit code. Raises SystemExit as ``parse`` does."""
    arguments = parse(argv)
    if arguments.source is not None:
        return _import(arguments)
    from fastindex.cli.output import Console
    from fastindex.operations.build.options import BuildOptions

    streams = tuple(arguments.stream or ("images",))
    console = Console(arguments.verbose - arguments.quiet)
    if arguments.print_catalogue and len(streams) > 1:
        console.fail("--print prints one product file: name one --stream")
        return ExitCode.USAGE
    options = BuildOptions(
        root=arguments.root,
        jobs=arguments.jobs,
        engine=arguments.engine,
        streams=streams,
        rehash=arguments.rehash,
        recheck=arguments.recheck,
        settle_seconds=arguments.settle,
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        blake3=not arguments.no_blake3,
        dry_run=arguments.dry_run or arguments.print_catalogue,
        # Printing publishes nothing, so there is nothing to brake.
        force=arguments.force or arguments.print_catalogue,
        wait_seconds=arguments.wait,
    )
    prints = arguments.print_catalogue
    return carry_out(console, lambda: build_and_tell(console, options, print_catalogue=prints))


def _import(arguments: argparse.Namespace) -> int:
    from fastindex.cli import import_images
    from fastindex.operations.importer.options import ImportOptions

    options = ImportOptions(
        sources=(arguments.source,),
        root=arguments.root,
        stream=(arguments.stream or ["images"])[0],
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        jobs=arguments.jobs,
        engine=arguments.engine,
        blake3=not arguments.no_blake3,
        dry_run=arguments.dry_run,
    )
    return import_images.carry_out_import(arguments.verbose - arguments.quiet, options)
