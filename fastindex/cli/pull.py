"""``fastindex pull URL [ROOT]``: mirror an upstream."""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    Parser,
    add_cluster,
    add_filter,
    add_hashing,
    add_no_blake3,
    add_places,
    add_remote,
    add_root,
    add_scanners,
    add_verbosity,
    add_wait,
    do_in_turn,
    list_exit_codes,
    make_empty_parser,
    make_hashing_options,
    make_remote_options,
    parse_count,
    parse_duration,
    run_reported,
)
from fastindex.cli.configuration import (
    apply,
    fill_in,
    find_source_values,
    find_values,
    load_configuration,
    reported,
)
from fastindex.cli.output import print_paths, print_pull_plan
from fastindex.cli.publishing import add_companions, make_makers
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.cli.words import suggest
from fastindex.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from fastindex.formats.configuration import MirrorConfiguration, PullSource

_EPILOG = """\
examples:
  fastindex pull --dry-run https://images.example.org /srv/images     what it would fetch
  fastindex pull https://images.example.org /srv/images               all products, newest version
  fastindex pull --filter 'os=debian,alpine arch=amd64,arm64' --keep 2 https://… /srv/images
  fastindex pull --filter 'alias=22.04 type=container' --lag 7d https://cloud-images.ubuntu.com/releases
  fastindex pull --mirror https://eu.example.org --limit-rate 50M https://… /srv/images
  fastindex pull main                                  from the sources that are configured

filters (words of one --filter must all hold; of several --filter one):
  KEY=A,B   one of the values        KEY!=A,B   none of them
  KEY~REGEX found in the name        KEY!~REGEX not found
  keys: os, release, arch, variant, alias, type (container or vm), version, label

What the upstream no longer has is withdrawn here, and deleted by a later fastindex prune once the
grace has passed. Only what was pulled is withdrawn, and only products that the filters ask for.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex pull",
        "Bring the mirror in ROOT to what an upstream has of what is asked for, and publish it.\n"
        "Each file is held against the upstream's catalogue while it arrives; a version appears\n"
        "whole or not at all. Exit code 0 means that all of it is here and published.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "done: all that was asked for is here, and published",
                ExitCode.FAILED: "failed; what is published was not changed",
                ExitCode.LEFT_OUT: "done, but something is missing, left out or too old; each is "
                "named",
                ExitCode.LOCKED: "another run holds the lock; try again later, or use --wait",
            }
        ),
    )
    parser.add_argument(
        "url",
        metavar="URL",
        help="the upstream: what stands before /streams/v1/; or the name of a mirror in the "
        "configuration, for all its sources",
    )
    add_root(parser)
    add_filter(parser, "pull")
    parser.add_argument(
        "--keep",
        type=parse_count,
        default=1,
        metavar="N",
        help="have the N newest versions of each product, and withdraw older ones that were pulled "
        "(default: 1)",
    )
    parser.add_argument(
        "--stream",
        metavar="NAME",
        help="put everything into this directory in ROOT (default: as the upstream's paths say, "
        "else images)",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="fetch files from here, too, if the upstream fails to deliver one; repeatable",
    )
    parser.add_argument(
        "--moved-from",
        default="",
        metavar="URL",
        help="the address of the same upstream until now: what was pulled from there counts as "
        "pulled from here; once is enough",
    )
    parser.add_argument(
        "--lag",
        type=parse_duration,
        default=math.inf,
        metavar="TIME",
        help="exit with 3 if the newest version is older than this, such as 2d",
    )
    parser.add_argument(
        "--keyring",
        default="",
        metavar="FILE",
        help="require that the catalogue is signed (.sjson or .json.gpg) by a key in this keyring "
        "(gpg --export KEY > FILE)",
    )
    add_remote(parser, "fetch N files, or parts of big files, side by side")
    parser.add_argument(
        "--force",
        action="store_true",
        help="go on even if the upstream has shrunk or become older, or most of what is published "
        "would go",
    )
    add_wait(parser)
    add_places(parser)
    add_no_blake3(parser)
    add_companions(parser)
    add_hashing(parser)
    add_cluster(parser, "hash what the build at the end must read")
    add_scanners(parser)
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="change nothing; print what would be fetched, linked and withdrawn",
    )
    add_reports(parser, is_recorded=True)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    pulls = _read_pulls(argv)
    gc.enable()  # a pull may last for hours
    first = pulls[0]
    is_real = not first.dry_run
    if len(pulls) == 1:
        return run_command(
            "pull", first, lambda run: pull_and_print(run, first, "pull"), is_real=is_real
        )
    return run_command("pull", first, lambda run: _pull_each(run, pulls), is_real=is_real)


def _pull_each(run: Run, pulls: Sequence[argparse.Namespace]) -> int:
    """Pull from several sources in turn, whichever of them fail; return the worst exit code."""

    def pull_one(arguments: argparse.Namespace) -> int:
        run.console.about = arguments.url
        work = partial(pull_and_print, run, arguments, f"pull {arguments.url}")
        return run_reported(run.console, work)

    code = do_in_turn(partial(pull_one, arguments) for arguments in pulls)
    run.console.about = ""
    return code


def _read_pulls(argv: Sequence[str]) -> list[argparse.Namespace]:
    """Return the arguments of each pull that the command line asks for.

    A mirror for its URL stands for all its sources.

    Raises:
        SystemExit: after ``--help`` and on wrong usage.
    """
    parser = make_parser()
    read = parser.parse_intermixed_args
    arguments = read(argv)
    with reported():
        configuration = load_configuration(arguments.config)
        mirrors = {} if configuration is None else configuration.mirrors
        mirror = mirrors.get(arguments.url)
        if mirror is None:
            if configuration is not None and "/" not in arguments.url:
                raise UsageError(
                    f"{arguments.url!r} is neither a URL nor a mirror in {configuration.path}"
                    + suggest(arguments.url, mirrors)
                )
            return [apply(configuration, arguments.root, arguments, parser, argv, read=read)]
        if arguments.root != ".":
            raise UsageError(f"the mirror {mirror.name} has its ROOT; leave out {arguments.root}")
        if not mirror.pull:
            raise UsageError(
                f"the mirror {mirror.name} has no source; give a URL, or add a table "
                f"[[mirror.{mirror.name}.pull]] to {configuration and configuration.path}"
            )
        if arguments.moved_from and len(mirror.pull) > 1:
            raise UsageError("--moved-from is about one upstream; give its URL, and ROOT")
        return [fill_in_source(mirror, source, argv) for source in mirror.pull]


def fill_in_source(
    mirror: MirrorConfiguration, source: PullSource, argv: Sequence[str]
) -> argparse.Namespace:
    """Return the arguments of a pull from a source of a mirror; the command line wins."""
    parser = make_parser()
    values = find_values(mirror, "pull") | find_source_values(source)
    arguments = fill_in(parser, argv, values, read=parser.parse_intermixed_args)
    arguments.url, arguments.root, arguments.configured = source.url, mirror.root, mirror
    return arguments


def pull_and_print(run: Run, arguments: argparse.Namespace, section: str) -> int:
    """Pull from one source; keep its report as ``section`` of that of the run."""
    from fastindex.operations.builder.options import BuildOptions
    from fastindex.operations.pull.options import PullOptions
    from fastindex.operations.pull.run import pull

    stream = arguments.stream or ""
    configured: MirrorConfiguration | None = arguments.configured
    if configured is not None and "streams" in configured.lines:
        arguments.stream = configured.streams
    else:
        arguments.stream = [stream] if stream else None
    mirror = run.open_mirror(arguments.root, arguments)
    options = PullOptions(
        url=arguments.url,
        filters=tuple(arguments.filter or ()),
        keep=arguments.keep,
        stream=stream,
        mirrors=tuple(arguments.mirror),
        moved_from=arguments.moved_from,
        keyring=arguments.keyring,
        lag_seconds=arguments.lag,
        remote=make_remote_options(arguments),
        build=BuildOptions(
            hashing=make_hashing_options(arguments),
            force=arguments.force,
            dry_run=arguments.dry_run,
            wait_seconds=arguments.wait,
            scanners=arguments.scanners,
            list_changes=run.is_reported,
            makers=make_makers(mirror, arguments),
        ),
    )
    run.console.activity = "fetching"
    report = pull(mirror, options, observer=run.console)
    run.keep(**{section: report})
    if not run.is_json:
        print_pull_plan(report)
    if run.lists_done:
        print_paths(report.pulled)
        print_paths(tuple(f"withdrawn {path}" for path in report.withdrawn))
    run.console.sum_up_pull(report)
    return report.exit_code
