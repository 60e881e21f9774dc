"""Makes the page: ``index.html``, the feed, and a page a product where there are many.

All is of the same values as the catalogue. Nothing depends on the day: the page of the same
catalogue has the same bytes, and a script in it turns dates into ages.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex import __version__
from fastindex.catalogue.companions import Companion, Generation
from fastindex.errors import PublishError
from fastindex.formats.page_settings import PageOptions
from fastindex.formats.simplestreams import (
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    decode_state,
    encode_state,
)
from fastindex.hashing.plain import sha256_of
from fastindex.operations.page.content import (
    PAGES_DIRECTORY,
    Row,
    Summary,
    describe_product,
    sort_rows,
)
from fastindex.operations.page.feed import Newest
from fastindex.operations.page.rendering import (
    MARKER_BYTES,
    Renderer,
    is_marked,
    make_source,
    mark_escaped,
    read_templates,
)
from fastindex.system.directories import close
from fastindex.system.files import open_regular, read_small_file, read_span

if TYPE_CHECKING:
    from markupsafe import Markup

PAGE_NAME = "index.html"
FEED_NAME = "feed.atom"
STYLE_PATH = f"{PAGES_DIRECTORY}/style.css"
SCRIPT_PATH = f"{PAGES_DIRECTORY}/script.js"
_KNOWN_PATH = f"{PAGES_DIRECTORY}/.summaries.json"
"""What the first page shows of each product that has a page of its own, for the next run."""
_RULES = 3
"""Raise it when the same options and templates make another page."""


class _Known(Struct, frozen=True, gc=False):
    """A product that has a page of its own."""

    summary: Summary
    """What the first page and the feed show of it."""
    line: str
    """Its row on the first page, in HTML."""


class PageMaker:
    """Makes the page, as a ``Maker``.

    Args:
        options: how the operator wants it.
    """

    name = "page"

    def __init__(self, options: PageOptions | None = None) -> None:
        self._options = options or PageOptions()
        self._templates = read_templates(self._options)
        made_of = (__version__, _RULES, self._options, self._templates)
        self.fingerprint = sha256_of([encode_state(made_of)])
        """Another one makes other pages of the same catalogue."""

    def make(self, generation: Generation) -> Iterator[Companion]:
        """Yield the pages of products, if there are many, then the page and the feed.

        A product that is as it was keeps its page.

        Raises:
            UsageError: Jinja2 is not installed.
            TemplateError: a template of the operator's is wrong.
            PublishError: ``index.html`` or the feed is a file of somebody else.
            OSError: it cannot be told whose it is.
        """
        for name in (PAGE_NAME, FEED_NAME):
            _require_own(os.path.join(generation.output, name))
        renderer = Renderer(self._options, self._templates)
        count = sum(len(products.keys) for products in generation.products.values())
        has_pages = count > self._options.product_pages
        known = _read_known(generation) if has_pages else {}
        made: list[_Known] = []
        newest = Newest()
        details: dict[str, Markup] = {}
        for stream, products in generation.products.items():
            for key in products.keys:
                one = known.get((stream, key))
                if one is not None:
                    yield Companion(_name_path(one.summary.row), None)
                else:
                    shown = describe_product(
                        stream,
                        key,
                        products.read_product(key),
                        remote=self._options.remote,
                        has_page=has_pages,
                    )
                    if shown is None:
                        continue
                    one = _Known(shown.summary, renderer.render_row(shown.row))
                    if has_pages:
                        page = renderer.render_product(shown)
                        yield Companion(_name_path(shown.row), (page,))
                    else:
                        details[shown.row.name] = renderer.render_details(shown, 3)
                made.append(one)
                newest.add(one.summary)
        if has_pages:
            yield Companion(STYLE_PATH, (renderer.style.encode(),))
            yield Companion(SCRIPT_PATH, (renderer.script.encode(),))
            yield Companion(_KNOWN_PATH, (encode_state(made),))
        yield self._make_first_page(renderer, made, details)
        feed = renderer.render_feed(entries=newest.list_entries())
        yield Companion(FEED_NAME, (feed,))

    def _make_first_page(
        self, renderer: Renderer, made: list[_Known], details: Mapping[str, Markup]
    ) -> Companion:
        rows = [one.summary.row for one in made]
        systems = sort_rows(rows)
        page = renderer.render_page(
            "index.html",
            root="",
            systems=systems,
            lines={one.summary.row.name: mark_escaped(one.line) for one in made},
            products=[(row.name, details[row.name]) for row in rows if details],
            count=len(rows),
            newest_day=max((row.day for row in rows), default=""),
            style=renderer.style,
            script=renderer.script,
            style_source=make_source(renderer.style),
            script_source=make_source(renderer.script),
        )
        return Companion(PAGE_NAME, (page,))


def _name_path(row: Row) -> str:
    return f"{PAGES_DIRECTORY}/{row.name}.html"


def _read_known(generation: Generation) -> dict[tuple[str, str], _Known]:
    """Return the products that are as they were when their pages were made, by stream and key."""
    if generation.changed is None:
        return {}
    try:
        path = os.path.join(generation.output, _KNOWN_PATH)
        data = read_small_file(path, MAX_CATALOGUE_BYTES)
        known = decode_state(data, list[_Known])
    except (OSError, *UNDECODABLE):
        return {}
    return {
        (one.summary.stream, one.summary.key): one
        for one in known
        if one.summary.key not in generation.changed.get(one.summary.stream, ())
    }


def _require_own(path: str) -> None:
    """Check that what is at ``path``, if anything, is a file that fastindex made.

    A file without content is nobody's: a power cut leaves such ones.

    Raises:
        PublishError: it is somebody else's.
        OSError: it cannot be read.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode):
        descriptor = open_regular(path)
        try:
            head = read_span(descriptor, 0, min(MARKER_BYTES, status.st_size))
        finally:
            close(descriptor)
        if is_marked(head) or not head.strip(b"\0"):
            return
    raise PublishError(
        f"{path}: is not a file that fastindex made, so nothing was published; "
        "move it elsewhere, or leave out --page"
    )
