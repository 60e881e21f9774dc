"""``fastindex [build] [ROOT]``: the build, the command that needs no name."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    Parser,
    add_cluster,
    add_hashing,
    add_no_blake3,
    add_places,
    add_recheck,
    add_root,
    add_scanners,
    add_settle,
    add_streams,
    add_verbosity,
    add_wait,
    do_in_turn,
    list_exit_codes,
    make_empty_parser,
    make_hashing_options,
)
from fastindex.cli.configuration import (
    apply,
    fill_in,
    find_values,
    load_configuration,
    reported,
    require_mirrors,
)
from fastindex.cli.publishing import add_companions, make_makers
from fastindex.cli.running import Run, add_reports, build_and_print, run_command
from fastindex.cli.words import COMMANDS, find_first, suggest
from fastindex.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from fastindex.formats.configuration import Configuration, MirrorConfiguration

_EPILOG = """\
examples:
  fastindex /srv/images                  index a mirror that a web server serves
  fastindex --jobs 16 -q /srv/images     the same from a timer: print warnings only
  fastindex --recheck 1/30 /srv/images   every night, to notice a failing disk within a month
  fastindex --dry-run /srv/images        what would be added, removed, changed
  fastindex --print . | jq .products     print the catalogue, write nothing
  fastindex --cache-dir /var/cache/fastindex --output /srv/www /mnt/read-only
  fastindex --stream images --stream images-daily /srv/images
  fastindex main                         the mirror of this name in /etc/fastindex.toml
  fastindex build --all                  all mirrors in it

other commands, each explained by fastindex help COMMAND:
  import      put images that builders made into the tree
  pull        mirror an upstream: fetch what is missing, and publish it
  verify      check what is published against the disk
  check       check a mirror from outside, as clients see it
  list        list the published images
  diff        show what the next build would change
  prune       remove old versions
  remove      remove single images
  deltas      make deltas between published versions, so that clients fetch less
  status      how the mirror is: what is published, left out, damaged, too old; how runs ended
  push        put what is published into a bucket of an object store
  nightly     all of that, for mirrors in the configuration, in one run
  serve       serve a mirror by HTTPS, for a LAN and for trying
  units       the systemd units, or a cron line, that run nightly
  bench       measure this machine: which --jobs to use, and how long a run takes
  config      print the configuration, and where each value comes from
  completion  let bash, zsh or fish complete what you type
  Options may stand before the name of the command: fastindex -q verify /srv/images
  To index a directory that is called like a command, write fastindex ./import

the tree:
  ROOT/images/OS/RELEASE/ARCH/VARIANT/VERSION/, such as
  /srv/images/images/debian/12/amd64/default/20240505_05:24/, with
  incus.tar.xz and/or lxd.tar.xz, and rootfs.squashfs, rootfs.tar.xz or disk.qcow2

"""

_OPTIONS_OF_A_BUILD = (
    *("--rehash", "--recheck", "--settle", "--adopt", "--print", "--force", "--wait"),
)
"""Those that do nothing in an import."""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex",
        "Hash what is new in a mirror of Incus and LXD images, and write the\n"
        "simplestreams catalogue (streams/v1/) that incus and lxc read. This is the command\n"
        "without a name; fastindex build ROOT is the same.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.FAILED: "failed; nothing was published",
                ExitCode.LEFT_OUT: "published, but something was left out; each is named",
                ExitCode.LOCKED: "another run holds the lock; try again later, or use --wait",
            }
        ),
    )
    add_root(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        help="build each mirror in the configuration; the exit code is the worst one",
    )
    add_hashing(parser)
    add_cluster(parser, "hash")
    add_scanners(parser)
    add_streams(parser)
    reading = parser.add_mutually_exclusive_group()
    reading.add_argument(
        "--rehash", action="store_true", help="read every file again, whatever the caches say"
    )
    add_recheck(reading)
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
    add_wait(parser)
    add_companions(parser)
    parser.add_argument(
        "-i",
        dest="sources",
        action="append",
        metavar="SOURCE",
        help="the import of simplestreams.py: the same as fastindex import SOURCE ROOT",
    )
    parser.add_argument(
        "-N",
        action="store_true",
        help="no effect; accepted because simplestreams.py has it",
    )
    add_reports(parser, is_recorded=True)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; return its exit code.

    Raises:
        SystemExit: after --help, --version and on wrong usage.
    """
    parser = make_parser()
    arguments = _read(parser, argv)
    with reported():
        configuration = load_configuration(arguments.config)
        names = () if configuration is None else tuple(configuration.mirrors)
        _refuse_unknown_words(parser, arguments, argv, names)
        if arguments.all:
            return _build_all(parser, arguments, argv, configuration)
        arguments = apply(
            configuration, arguments.root, arguments, parser, argv, read=partial(_read, parser)
        )
    return _run_one(parser, arguments)


def _read(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse what is known; ``_refuse_unknown_words`` knows better what the rest may mean."""
    arguments, rest = parser.parse_known_args(argv)
    arguments.rest = rest
    return arguments


def _refuse_unknown_words(
    parser: Parser, arguments: argparse.Namespace, argv: Sequence[str], names: Sequence[str]
) -> None:
    before, word = find_first(argv)
    may_be_value = any(option in before for option in arguments.rest)
    if word is not None and word not in ("--", *names) and not may_be_value:
        _refuse_unknown_command(parser, word, names)
    parser.refuse_rest(arguments, arguments.rest)


def _refuse_unknown_command(parser: Parser, word: str, names: Sequence[str]) -> None:
    """Report a first word that names nothing in this directory: it is a misspelt command."""
    if os.sep not in word and not os.path.lexists(word):
        hint = suggest(word, (*COMMANDS, *names)) or f"; the commands are {', '.join(COMMANDS)}"
        known = "neither a command, a mirror" if names else "neither a command"
        parser.error(f"{word!r} is {known} nor a directory here{hint}")


def _build_all(
    parser: Parser,
    arguments: argparse.Namespace,
    argv: Sequence[str],
    configuration: Configuration | None,
) -> int:
    """Build each mirror of the configuration in turn; return the worst exit code."""
    parser.refuse_together(
        arguments, "--all", ("-i", "--print", "--output", "--report", "--metrics")
    )
    _, word = find_first(argv)
    if word is not None:
        parser.error(f"--all builds each mirror in the configuration; leave out {word!r}")
    gc.enable()  # there may be many

    def build_one(name: str, mirror: MirrorConfiguration) -> int:
        one = make_parser()
        arguments = fill_in(one, argv, find_values(mirror, "build"), read=partial(_read, one))
        arguments.root = mirror.root
        return _run_one(one, arguments, name)

    mirrors = require_mirrors(configuration)
    return do_in_turn(partial(build_one, name, mirror) for name, mirror in mirrors.items())


def _run_one(parser: Parser, arguments: argparse.Namespace, name: str = "") -> int:
    """Build one mirror, or import as the seed tool does; return the exit code.

    Args:
        parser: the parser of the arguments.
        arguments: the command line.
        name: the mirror's name, if it is one of several; else empty.
    """
    parser.refuse_without(arguments, "--adopt", "--cache-dir")
    parser.refuse_together(arguments, "-i", _OPTIONS_OF_A_BUILD)
    parser.refuse_together(arguments, "--print", ("--json",))
    if arguments.sources is not None:
        from fastindex.cli.import_images import run_seed_import

        return run_seed_import(arguments)
    if name and arguments.dry_run and not arguments.json:
        from fastindex.cli.output import print_text

        print_text(f"{name}:")
    is_real = not (arguments.dry_run or arguments.print_catalogue)
    return run_command(
        "build", arguments, lambda run: _build(run, arguments), is_real=is_real, about=name
    )


def _build(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.builder.options import BuildOptions

    is_print = arguments.print_catalogue
    if is_print and len(arguments.stream or ()) > 1:
        raise UsageError("--print prints one product file; give one --stream only")
    mirror = run.open_mirror(arguments.root, arguments)
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
        scanners=arguments.scanners,
        list_changes=run.is_reported,
        makers=make_makers(mirror, arguments),
    )
    return build_and_print(run, mirror, options, print_catalogue=is_print)
