"""What is shown → HTML and Atom, by templates of Jinja2 that escape whatever they insert."""

from __future__ import annotations

import os
import re
import shlex
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from traceback import walk_tb
from typing import TYPE_CHECKING

from fastindex.errors import FastindexError, UsageError
from fastindex.formats.filters import CONTAINER
from fastindex.formats.page_settings import PageOptions
from fastindex.hashing.plain import sha256_of
from fastindex.system.files import read_small_file

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from fastindex.operations.page.content import Row, ShownProduct, ShownVersion

TEMPLATES = (
    "base.html",
    "index.html",
    "row.html",
    "product.html",
    "details.html",
    "feed.atom",
    "style.css",
    "script.js",
)
"""The templates; an operator may have own ones of these names."""
HTML_MARKER = '<meta name="generator" content="fastindex">'
"""What an HTML file of ours has in its head."""
FEED_MARKER = "<generator>fastindex</generator>"
"""What a feed of ours has near its beginning."""
TO_ROOT = "../../"
"""From a page of a product to the output directory."""
_TITLE, _DETAILS = "\ue000", "\ue001"
"""Where a title and details go. No text on the page has these: they have no shape."""
_CONTAINER_BADGE = '<span class="c">container</span>'
_MACHINE_BADGE = '<span class="v">VM</span>'
_MAX_TEMPLATE_BYTES = 1 << 20
_DIRECTORY = os.path.join(os.path.dirname(__file__), "templates")


def read_templates(options: PageOptions) -> dict[str, str]:
    """Return the templates that are in force: name → text.

    Raises:
        OSError: the package is damaged.
    """
    own = options.templates
    return {name: own[name] if name in own else _read_packaged(name) for name in TEMPLATES}


def _read_packaged(name: str) -> str:
    return read_small_file(os.path.join(_DIRECTORY, name), _MAX_TEMPLATE_BYTES).decode()


class Renderer:
    """Renders the templates.

    Args:
        options: how the operator wants the page.
        templates: name → text.

    Raises:
        UsageError: Jinja2 is not installed.
        TemplateError: a style or a script of the operator's cannot be used.
    """

    def __init__(self, options: PageOptions, templates: Mapping[str, str]) -> None:
        try:
            import jinja2
        except ImportError as error:
            raise UsageError("--page needs Jinja2; install it with: pip install jinja2") from error
        self._options = options
        self._templates = templates
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(self._load),
            autoescape=jinja2.select_autoescape(("html", "atom")),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=-1,
        )
        self._ready: dict[str, Template] = {}
        self._frame: list[str] = []
        self._environment.globals["page"] = options
        self._environment.filters["rows"] = make_rows
        self._environment.filters["shell"] = shlex.quote
        self.style = self.render("style.css")
        """The style sheet."""
        self.script = self.render("script.js")
        """The script."""

    def render(self, name: str, **values: object) -> str:
        """Return what a template makes of some values.

        Raises:
            TemplateError: the template, which is the operator's, is wrong.
        """
        # What goes wrong in a template of the operator's may be anything: it computes.
        try:
            template = self._ready.get(name)
            if template is None:
                template = self._ready[name] = self._environment.get_template(name)
            text = template.render(values)
        except Exception as error:
            if not self._options.templates:
                raise
            raise TemplateError(self._describe(name, error)) from error
        return text

    def render_page(self, name: str, **values: object) -> bytes:
        """Return an HTML page, which has our marker.

        Raises:
            TemplateError: as ``render``, or the template lost the marker.
        """
        return self._mark(name, HTML_MARKER, self.render(name, **values))

    def render_row(self, row: Row) -> str:
        """Return the row of a product on the first page, in HTML.

        Raises:
            TemplateError: as ``render``.
        """
        return self.render("row.html", row=row)

    def render_details(self, product: ShownProduct, level: int) -> Markup:
        """Return all that is shown of a product, as a part of a page.

        Args:
            product: the product.
            level: of its heading.

        Raises:
            TemplateError: as ``render``.
        """
        return mark_escaped(self.render("details.html", product=product, level=level))

    def render_product(self, product: ShownProduct) -> bytes:
        """Return the page of a product.

        What is around its details is the same on the pages of all products, and made once.

        Raises:
            TemplateError: as ``render_page``.
        """
        if not self._frame:
            frame = self.render("product.html", title=_TITLE, details=_DETAILS, root=TO_ROOT)
            self._mark("product.html", HTML_MARKER, frame)
            self._frame = re.split(f"({_TITLE}|{_DETAILS})", frame)
        row = product.row
        values = {
            _TITLE: escape(f"{row.os} {row.release} {row.variant} {row.arch}"),
            _DETAILS: self.render_details(product, 1),
        }
        return "".join([values.get(part, part) for part in self._frame]).encode()

    def render_feed(self, **values: object) -> bytes:
        """Return the feed, which has our marker.

        Raises:
            TemplateError: as ``render_page``.
        """
        return self._mark("feed.atom", FEED_MARKER, self.render("feed.atom", **values))

    def _mark(self, name: str, marker: str, text: str) -> bytes:
        data = text.encode()
        if not is_marked(data[:MARKER_BYTES]):
            raise TemplateError(
                f"{self._locate(name)}: what it makes lacks {marker} in its first "
                f"{MARKER_BYTES:,} bytes, by which later runs know that it is theirs; add it"
            )
        return data

    def _load(self, name: str) -> tuple[str, str, None]:
        """Return the text of a template, and its path, which errors have."""
        return self._templates[name], self._locate(name), None

    def _locate(self, name: str) -> str:
        own = self._options.templates
        return os.path.join(self._options.template_directory if name in own else _DIRECTORY, name)

    def _describe(self, name: str, error: Exception) -> str:
        """Return where in the templates an error is, and what it is."""
        where = self._locate(name)
        paths = set(map(self._locate, self._templates))
        for frame, line in walk_tb(error.__traceback__):
            if frame.f_code.co_filename in paths:
                where = f"{frame.f_code.co_filename}:{line}"
        path = getattr(error, "filename", None)  # of an error of syntax
        if path in paths:
            where = f"{path}:{getattr(error, 'lineno', 1)}"
        return f"{where}: {error}; correct the template"


def make_rows(versions: Iterable[ShownVersion]) -> Markup:
    """Return the rows of versions, for a table: by hand, as most of what is rendered is these.

    With 20,000 versions, a template takes a second longer.
    """
    rows: list[str] = []
    for name, time, day, images in versions:
        span = f' rowspan="{len(images)}"' if len(images) > 1 else ""
        first = (
            f'<th scope="rowgroup"{span}>{escape(name)}</th>'
            f'<td{span}><time datetime="{time}">{day}</time></td>'
        )
        for type, size, incus, lxd in images:
            badge = _CONTAINER_BADGE if type == CONTAINER else _MACHINE_BADGE
            fingerprint = f"<code>{escape(incus or lxd)}</code>"
            if incus != lxd:
                other = f"LXD: <code>{escape(lxd)}</code>" if incus and lxd else ""
                only = "Incus only" if incus else "LXD only"
                fingerprint += f" <small>{other or only}</small>"
            cells = f'<td>{badge}</td><td>{size}</td><td class="f">{fingerprint}</td>'
            rows.append(f"<tr>{first}{cells}</tr>")
            first = ""
    return mark_escaped("\n".join(rows))


def mark_escaped(text: str) -> Markup:
    """Return what our templates or rows have made, whose names are escaped: it goes in as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  # nosec B704


class TemplateError(FastindexError):
    """A template of the operator's cannot be used."""


MARKER_BYTES = 4096
"""How far from the beginning of a file the marker may be."""


def is_marked(head: bytes) -> bool:
    """Return whether a file that begins so is one that fastindex made."""
    return HTML_MARKER.encode() in head or FEED_MARKER.encode() in head


def make_source(text: str) -> str:
    """Return what a Content-Security-Policy allows a text in the page by: its digest."""
    return f"'sha256-{b64encode(bytes.fromhex(sha256_of([text.encode()]))).decode()}'"
