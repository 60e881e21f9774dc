"""What is to accompany the catalogue: the options of all commands that publish."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fastindex.cli.common import Parser, parse_name

if TYPE_CHECKING:
    from fastindex.catalogue.companions import Makers
    from fastindex.mirror.mirror import Mirror


def add_companions(parser: Parser) -> None:
    """Add ``--gzip`` and the other options."""
    group = parser.add_argument_group(
        "what accompanies the catalogue",
        "Each run that publishes makes it, and removes what it is not asked for: best set in the "
        "configuration.",
    )
    group.add_argument(
        "--gzip",
        action="store_true",
        help="a compressed copy of each catalogue file, X.json.gz, for servers that send it "
        "instead (nginx: gzip_static)",
    )
    group.add_argument("--zstd", action="store_true", help="the same by Zstandard: X.json.zst")
    group.add_argument(
        "--lists",
        action="store_true",
        help="lists of all files for those who mirror this mirror: streams/files.txt, "
        "streams/fullfiletimelist and streams/trace.json",
    )
    group.add_argument(
        "--sign",
        type=parse_name,
        metavar="KEY",
        help="signatures by this key of GnuPG: X.sjson and X.json.gpg",
    )
    group.add_argument(
        "--page",
        action="store_true",
        help="a page for people, index.html, with all images and how to launch them; and a feed of "
        "new ones, feed.atom",
    )
    group.add_argument(
        "--page-settings",
        metavar="FILE",
        help="title, text, logo, colours and links of the page, as TOML",
    )


def make_makers(mirror: Mirror, arguments: argparse.Namespace) -> Makers:
    """Return the makers of what the options ask for."""
    from fastindex.catalogue.companions import FileMaker, Maker, Makers

    of_files: list[FileMaker] = []
    of_all: list[Maker] = []
    if arguments.gzip:
        from fastindex.operations.companions.compressed import GzipMaker, require_isal

        require_isal()
        of_files.append(GzipMaker())
    if arguments.zstd:
        from fastindex.operations.companions.compressed import ZstdMaker

        of_files.append(ZstdMaker())
    if arguments.sign:
        from fastindex.operations.companions.signed import SignMaker

        of_files.append(SignMaker(arguments.sign))
    if arguments.page:
        from fastindex.operations.page.making import PageMaker
        from fastindex.operations.page.settings import read_page_settings

        settings = arguments.page_settings
        of_all.append(PageMaker(read_page_settings(settings) if settings else None))
    if arguments.lists:
        from fastindex.operations.companions.lists import ListMaker

        of_all.append(ListMaker(mirror.root))
        # last: it lists what the others made
    return Makers(tuple(of_files), tuple(of_all))
