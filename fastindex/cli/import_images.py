"""``fastindex import SOURCE... ROOT``: put images that builders made into the tree."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_cluster,
    add_config,
    add_hashing,
    add_no_blake3,
    add_places,
    add_verbosity,
    add_wait,
    list_exit_codes,
    make_empty_parser,
    make_hashing_options,
    parse_name,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_paths, print_steps
from fastindex.cli.publishing import add_companions, make_makers
from fastindex.cli.running import Run, add_reports, build_and_print, run_command
from fastindex.errors import ExitCode, find_worst
from fastindex.formats.image_metadata import Naming
from fastindex.operations.importer.options import ImportOptions

_EPILOG = """\
examples:
  fastindex import build/debian-12 /srv/images          a directory that a builder made
  fastindex import --index --copy build/* /srv/images   many images, then the catalogue
  fastindex import web.tar.gz /srv/images               what `incus image export` made
  fastindex import --os debian --release 12 meta.tar.xz root.squashfs /srv/images
  fastindex import --os bsd --release 15 --arch amd64 disk.qcow2 /srv/images
  fastindex import --dry-run build/debian-12 /srv/images

which files are imported (recognised by content, not by name):
  a tarball with metadata.yaml, and a squashfs, a tarball of a root file system or a qcow2
  disk; or one tarball with both (rootfs/ or rootfs.img). A root without metadata gets some
  from --os, --release and --arch. A SHA256SUMS beside them must agree. Several images in one
  directory are told apart by their names: X.incus.tar.xz and X.squashfs, Y-lxd.tar.xz and Y.img.

"""

_FULL_NAMES = {
    "os": "distribution",
    "release": "release",
    "arch": "architecture",
    "variant": "variant",
}


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex import",
        "Put images made by distrobuilder, lxd-imagebuilder, `incus image export` or by hand\n"
        "into the tree in ROOT: each complete and in its place, or not at all.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "done: each image is in the tree, now or from an earlier import",
                ExitCode.FAILED: "failed: no image was imported",
                ExitCode.LEFT_OUT: "some images were imported, some were not; each is named",
                ExitCode.LOCKED: "imported, but not indexed: another run holds the lock",
            }
        ),
    )
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="directories of images, or files"
    )
    parser.add_argument(
        "root",
        metavar="ROOT",
        help="the directory that the web server serves, or the name of a mirror in the "
        "configuration",
    )
    add_config(parser)
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ("move", "move the files (default)"),
        ("copy", "copy the files"),
        ("link", "hard-link the files where the file system allows it, else copy them"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    for name, full_name in _FULL_NAMES.items():
        parser.add_argument(
            f"--{name}",
            type=parse_name,
            metavar="NAME",
            help=f"use this instead of the {full_name} in the metadata",
        )
    version = parser.add_mutually_exclusive_group()
    version.add_argument(
        "--version-name",
        type=parse_name,
        metavar="NAME",
        help="the name of the version (default: the creation date in UTC, such as 20240505_05:24)",
    )
    version.add_argument(
        "--serial", action="store_true", help="use the builder's serial as the name of the version"
    )
    parser.add_argument(
        "-r",
        "--recursive",
        action="store_true",
        help="look for images in the directories below a SOURCE, too",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="call the product NAME, too, in its .product.toml (repeatable)",
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="build the catalogue afterwards, as fastindex ROOT does",
    )
    parser.add_argument(
        "--stream",
        default="images",
        metavar="NAME",
        help="the directory in ROOT to import into (default: images)",
    )
    add_wait(parser, default=math.inf, when="with --index: ")
    add_places(parser)
    add_no_blake3(parser)
    add_companions(parser)
    add_hashing(parser)
    add_cluster(parser, "hash what is linked")
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="change nothing; print each step. Images are not read through: only a real run "
        "compares them with a SHA256SUMS, or with a version that exists, and only that builds "
        "with --index",
    )
    add_reports(parser, is_recorded=True)
    add_verbosity(parser)
    parser.set_defaults(mode="move")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = read_arguments(parser, argv, read=parser.parse_intermixed_args)
    parser.refuse_without(arguments, "--wait", "--index")
    options = ImportOptions(
        sources=tuple(arguments.sources),
        mode=arguments.mode,
        naming=Naming(
            os=arguments.os or "",
            release=arguments.release or "",
            arch=arguments.arch or "",
            variant=arguments.variant or "",
            version=arguments.version_name or "",
            from_serial=arguments.serial,
        ),
        hashing=make_hashing_options(arguments),
        is_recursive=arguments.recursive,
        aliases=tuple(arguments.alias),
        dry_run=arguments.dry_run,
    )
    arguments.stream = [arguments.stream]
    return _run(arguments, options, is_built=arguments.index)


def run_seed_import(arguments: argparse.Namespace) -> int:
    """Run ``fastindex -i SOURCE ROOT``, the import of the seed tool, simplestreams.py."""
    options = ImportOptions(
        sources=tuple(arguments.sources),
        hashing=make_hashing_options(arguments),
        dry_run=arguments.dry_run,
    )
    return _run(arguments, options, is_built=False)


def _run(arguments: argparse.Namespace, options: ImportOptions, *, is_built: bool) -> int:
    def work(run: Run) -> int:
        return _import(run, arguments, options, is_built=is_built)

    return run_command("import", arguments, work, is_real=not options.dry_run)


def _import(
    run: Run, arguments: argparse.Namespace, options: ImportOptions, *, is_built: bool
) -> int:
    """Import, and build if ``is_built``; return the exit code."""
    from fastindex.operations.importer.run import import_images

    mirror = run.open_mirror(arguments.root, arguments)
    report = import_images(mirror, options, observer=run.console)
    run.keep(**{"import": report})
    if not run.is_json:
        print_steps(report.steps)
    if run.lists_done:
        print_paths(report.imported)
    run.console.sum_up_import(report)
    has_any = report.imported or report.existing
    if not is_built or options.dry_run or not has_any:
        return report.exit_code
    from fastindex.operations.builder.options import BuildOptions

    build = BuildOptions(
        hashing=options.hashing,
        wait_seconds=arguments.wait,
        list_changes=run.is_reported,
        makers=make_makers(mirror, arguments),
    )
    return find_worst([report.exit_code, build_and_print(run, mirror, build)])
