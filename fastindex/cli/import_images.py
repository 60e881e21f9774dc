"""``fastindex import SOURCE... ROOT``: put what builders make into the tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastindex.cli.common import (
    EXIT_CODES,
    add_hashing,
    add_loudness,
    build_and_tell,
    carry_out,
    new_parser,
)
from fastindex.cli.output import Console, print_paths, print_steps
from fastindex.mirror.tree import Naming
from fastindex.operations.build.options import BuildOptions
from fastindex.operations.importer.options import ImportOptions

if TYPE_CHECKING:
    from fastindex.operations.importer.options import ImportReport

_EPILOG = """\
examples:
  fastindex import build/debian-12 /srv/images          a directory that a builder made
  fastindex import --index --copy build/* /srv/images   many, side by side; then the catalogue
  fastindex import web.tar.gz /srv/images               what `incus image export` made
  fastindex import --os debian --release 12 meta.tar.xz root.squashfs /srv/images
  fastindex import --dry-run build/debian-12 /srv/images

what is recognised, by content, whatever the name:
  a tarball with metadata.yaml (.xz, .gz, .bz2, .zst or plain), and a squashfs, a tarball
  of a root file system or a qcow2 disk; or a tarball with both (rootfs/, rootfs.img).
  SHA256SUMS beside the files is held against them.

"""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "fastindex import",
        "Put images that distrobuilder, lxd-imagebuilder, `incus image export` or you made\n"
        "into the tree below ROOT: each whole, in its place, or not at all.",
        _EPILOG + EXIT_CODES,
    )
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="directories, one image each, or files"
    )
    parser.add_argument("root", metavar="ROOT", help="the directory that is served")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--move", dest="mode", action="store_const", const="move", help="move the files (default)"
    )
    mode.add_argument(
        "--copy", dest="mode", action="store_const", const="copy", help="leave the sources alone"
    )
    mode.add_argument(
        "--link",
        dest="mode",
        action="store_const",
        const="link",
        help="hard-link where the file system allows, else copy",
    )
    parser.add_argument("--os", default="", metavar="NAME", help="instead of the metadata's")
    parser.add_argument("--release", default="", metavar="NAME", help="instead of the metadata's")
    parser.add_argument("--arch", default="", metavar="NAME", help="instead of the metadata's")
    parser.add_argument("--variant", default="", metavar="NAME", help="instead of the metadata's")
    version = parser.add_mutually_exclusive_group()
    version.add_argument(
        "--version-name",
        default="",
        metavar="NAME",
        help="the version's name (default: the creation date in UTC, as 20240505_05:24)",
    )
    version.add_argument(
        "--serial", action="store_true", help="take the builder's serial for the version's name"
    )
    parser.add_argument(
        "--index", action="store_true", help="go on to build the catalogue: fastindex ROOT"
    )
    parser.add_argument(
        "--stream",
        default="images",
        metavar="NAME",
        help="the directory of ROOT to import into (default: images)",
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="as in the build")
    parser.add_argument("--output", metavar="DIR", help="as in the build")
    parser.add_argument(
        "--no-blake3",
        action="store_true",
        help="compute SHA-256 only, no BLAKE3 for later scrubbing",
    )
    add_hashing(parser)
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="change nothing; print each step"
    )
    add_loudness(parser)
    parser.set_defaults(mode="move")
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = _parser().parse_intermixed_args(argv)
    options = ImportOptions(
        sources=tuple(arguments.sources),
        root=arguments.root,
        mode=arguments.mode,
        naming=Naming(
            os=arguments.os,
            release=arguments.release,
            arch=arguments.arch,
            variant=arguments.variant,
            version=arguments.version_name,
            from_serial=arguments.serial,
        ),
        stream=arguments.stream,
        cache_dir=arguments.cache_dir,
        output_dir=arguments.output,
        jobs=arguments.jobs,
        engine=arguments.engine,
        blake3=not arguments.no_blake3,
        dry_run=arguments.dry_run,
    )
    return carry_out_import(arguments.verbose - arguments.quiet, options, builds=arguments.index)


def carry_out_import(verbosity: int, options: ImportOptions, *, builds: bool = False) -> int:
    """Import, and build where asked to; tell how it went and return the exit code."""
    console = Console(verbosity)
    return carry_out(console, lambda: _import(console, options, builds=builds))


def _import(console: Console, options: ImportOptions, *, builds: bool) -> int:
    from fastindex.operations.importer.run import import_images

    report = import_images(options, observer=console)
    print_steps(report.steps)
    print_paths(report.imported)
    console.sum_up_import(report)
    if not builds or options.dry_run:
        return report.exit_code
    return max(report.exit_code, _build(console, options, report))


def _build(console: Console, options: ImportOptions, report: ImportReport) -> int:
    """Build the catalogue of what has been imported; return the exit code."""
    if not report.imported and not report.existing:
        return report.exit_code
    return build_and_tell(
        console,
        BuildOptions(
            root=options.root,
            jobs=options.jobs,
            engine=options.engine,
            streams=(options.stream,),
            cache_dir=options.cache_dir,
            output_dir=options.output_dir,
            blake3=options.blake3,
            wait_seconds=float("inf"),
        ),
    )
