"""``fastindex remove IMAGE... [ROOT]``: remove images, versions or products."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container, Sequence

from fastindex.cli.common import (
    EXIT_CODES,
    Parser,
    add_config,
    add_withdrawing,
    make_empty_parser,
)
from fastindex.cli.configuration import apply, load_configuration, reported
from fastindex.cli.output import print_prune_report, print_steps
from fastindex.cli.prune import make_build_options
from fastindex.cli.publishing import add_companions
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import UsageError
from fastindex.formats.names import ARCHITECTURES, is_version_name
from fastindex.formats.simplestreams import STREAMS_DIRECTORY

_EPILOG = """\
examples:
  fastindex remove 57875665195b /srv/images     the image whose fingerprint starts so,
                                                and all copies of it in the tree
  fastindex remove debian/12 /srv/images        the newest images with that alias
  fastindex remove images/debian/12/amd64/default/20240505_05:24 /srv/images
                                                a version, as messages name it
  fastindex remove debian/12/amd64/default /srv/images
                                                a product with all its versions
  fastindex remove --grace 0 57875665195b .     delete its files at once, even if a
                                                client is downloading them

The image leaves the catalogue at once, whichever stream it is in. A later prune deletes its
files, once the grace has passed. Until then, fastindex prune --undo VERSION publishes it again.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex remove",
        "Withdraw images from the catalogue, by fingerprint (its first 4 digits or more) or by\n"
        "alias; or a version or a product, by its path in the tree. Their files are deleted once\n"
        "no client can know of them any more.",
        _EPILOG + EXIT_CODES,
    )
    parser.add_argument(
        "words",
        metavar="IMAGE",
        nargs="+",
        help="what to remove: a fingerprint, an alias, or the path of a version or product; then "
        "ROOT, the directory that the web server serves, or the name of a mirror in the "
        "configuration (default: the current directory)",
    )
    add_config(parser)
    add_withdrawing(parser)
    add_companions(parser)
    add_reports(parser, is_recorded=True)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    read = parser.parse_intermixed_args
    arguments = read(argv)
    with reported():
        configuration = load_configuration(arguments.config)
        mirrors = () if configuration is None else configuration.mirrors
        names, root = _split_words(arguments.words, mirrors)
        arguments = apply(configuration, root, arguments, parser, argv, read=read)
    is_real = not arguments.dry_run
    return run_command(
        "remove", arguments, lambda run: _remove(run, arguments, names), is_real=is_real
    )


def _split_words(words: list[str], mirrors: Container[str]) -> tuple[list[str], str]:
    """Return what to remove, and ROOT.

    Raises:
        UsageError: nothing is to be removed.
    """
    if not (words[-1] in mirrors or _is_root(words[-1])):
        return words, "."
    if len(words) == 1:
        kind = "mirror" if words[0] in mirrors else "directory"
        raise UsageError(f"{words[0]} is a {kind}; name the images to remove before it")
    return words[:-1], words[-1]


def _remove(run: Run, arguments: argparse.Namespace, names: list[str]) -> int:
    from fastindex.operations.prune.options import PruneOptions
    from fastindex.operations.prune.run import remove

    mirror = run.open_mirror(arguments.root, arguments)
    build = make_build_options(run, mirror, arguments)
    options = PruneOptions(grace_seconds=arguments.grace, build=build)
    report = remove(mirror, options, names, observer=run.console)
    run.keep(prune=report)
    if not run.is_json:
        print_steps(report.steps)
    if run.lists_done:
        print_prune_report(report)
    run.console.sum_up_prune(report)
    return report.exit_code


def _is_root(word: str) -> bool:
    """Return whether the last word is ROOT: a directory, but not that of a version or product."""
    above, name = os.path.split(os.path.abspath(word))
    is_in_tree = is_version_name(name) or os.path.basename(above) in ARCHITECTURES
    return os.path.isdir(word) and (
        not is_in_tree or os.path.isdir(os.path.join(word, STREAMS_DIRECTORY))
    )
