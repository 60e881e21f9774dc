"""The settings of the page: the bytes of a TOML file → what the operator wants to be different.

As in the configuration, one wrong key makes all of it an error, with file, line and nearest key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from fastindex.errors import ExitCode
from fastindex.formats.colours import (
    MIN_CONTRAST,
    measure_contrast,
    mix_colours,
    normalize_colour,
)
from fastindex.formats.errors import FormatError
from fastindex.formats.located_toml import (
    Key,
    find_nearest,
    parse_located,
    quote,
    read_text,
    show,
)

MAX_BYTES = 64 * 1024
"""How large the file may be."""
DEFAULT_PRODUCT_PAGES = 100
_MAX_COUNT = 1_000_000
_MAX_CHARACTERS = 10_000
_MAX_LINKS = 20
_REMOTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_SITE = re.compile(r"https?://[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*(/[A-Za-z0-9._~!$&()*+,;=:@%/-]*)?")
_LINK = re.compile(r"(?:https?://|mailto:)[^\s]+|(?!//)[^\s:]+")


class PageSettingsError(FormatError):
    """The settings of the page cannot be used. Each line of the message is one thing wrong."""

    exit_code = ExitCode.USAGE


class Palette(Struct, frozen=True):
    """The colours of the page, each ``#rrggbb``, in a light or in a dark surrounding."""

    accent: str
    """Links, buttons, what has the focus."""
    background: str
    """The page."""
    text: str
    """Text on it."""
    muted: str
    """Text that matters less."""

    @property
    def panel(self) -> str:
        """What stands out from the page a little."""
        return mix_colours(self.background, self.text, 0.035)

    @property
    def line(self) -> str:
        """Lines between rows, and around panels."""
        return mix_colours(self.background, self.text, 0.14)


LIGHT = Palette(accent="#0b57d0", background="#ffffff", text="#1b1e23", muted="#575e68")
DARK = Palette(accent="#8ab4f8", background="#15181c", text="#e4e7eb", muted="#a2abb6")


class PageOptions(Struct, frozen=True, kw_only=True):
    """How an operator wants the page to be."""

    title: str = "Images"
    """What stands above it."""
    text: str = ""
    """What stands below the title; empty lines part paragraphs."""
    footer: str = ""
    """What stands at the end."""
    links: tuple[tuple[str, str], ...] = ()
    """Words and URLs, for the end of the page."""
    url: str = ""
    """The URL of the mirror, without a slash at its end; empty: what the browser has."""
    remote: str = "mirror"
    """What clients are told to call it."""
    light: Palette = LIGHT
    """The colours in a light surrounding."""
    dark: Palette = DARK
    """The colours in a dark surrounding."""
    product_pages: int = DEFAULT_PRODUCT_PAGES
    """With more products than this, each has a page of its own."""
    logo: str = ""
    """A picture beside the title, as a ``data:`` URL; empty: none. In settings: its path."""
    templates: dict[str, str] = {}
    """Name → text of templates that are the operator's own."""
    template_directory: str = ""
    """Where these are."""


def parse_page_settings(path: str, content: bytes) -> PageOptions:
    """Read the settings of the page.

    Args:
        path: the file, as messages name it.
        content: its bytes; the caller bounds them by ``MAX_BYTES``.

    Returns:
        The options. ``logo`` is the path of the picture, and ``templates`` are not read yet.

    Raises:
        PageSettingsError: they cannot be used; the message says what is wrong, with the lines.
    """
    document, lines = parse_located(path, content, PageSettingsError)
    errors: list[tuple[int, str]] = []

    def refuse(key: tuple[str, ...], problem: str) -> None:
        line = lines.get(key, lines.get(key[:1], 1))
        errors.append((line, f"{path}:{line}: {problem}"))

    values = _read_keys((), document, PAGE_KEYS, refuse)
    table = document.get("colours", {})
    if not isinstance(table, dict):
        refuse(("colours",), f'"colours" must be a table, not {show(table)}')
        table = {}
    colours = _read_keys(("colours",), table, COLOUR_KEYS, refuse)
    palettes = {}
    for field, palette, suffix in (("light", LIGHT, ""), ("dark", DARK, "_dark")):
        palettes[field] = Palette(
            colours.get(f"accent{suffix}", palette.accent),
            colours.get(f"background{suffix}", palette.background),
            palette.text,
            palette.muted,
        )
        for key, problem in _find_unreadable(palettes[field], suffix, colours):
            refuse(("colours", key), problem)
    if errors:
        raise PageSettingsError("\n".join(message for _, message in sorted(errors)))
    return PageOptions(light=palettes["light"], dark=palettes["dark"], **values)


def _read_keys(
    above: tuple[str, ...],
    table: Mapping[str, object],
    keys: Mapping[str, Key],
    refuse: Callable[[tuple[str, ...], str], None],
) -> dict[str, Any]:
    """Return field → value of what a table sets."""
    values = {}
    for name, value in table.items():
        known = keys.get(name)
        if known is not None:
            try:
                values[known.field] = known.read(value)
            except ValueError as error:
                refuse((*above, name), f"{quote(name)} {error}")
        elif above or name != "colours":
            names = [*keys] if above else [*keys, "colours"]
            hint = find_nearest(name, names) or f"; the keys are {', '.join(names)}"
            refuse((*above, name), f"unknown key {quote(name)}{hint}")
    return values


def _find_unreadable(
    palette: Palette, suffix: str, colours: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the key and the problem of each colour that people could not read."""
    background = f"background{suffix}"
    if measure_contrast(palette.muted, palette.panel) < MIN_CONTRAST:
        if background not in colours:
            return []
        kind = "dark" if suffix else "light"
        problem = f"must be {kind}er, as the text on it is {'light' if suffix else 'dark'}"
        return [(background, f'"{background}" {problem}')]
    contrast = measure_contrast(palette.accent, palette.panel)
    set_by = next((key for key in (f"accent{suffix}", background) if key in colours), "")
    if contrast >= MIN_CONTRAST or not set_by:
        return []
    way = "lighter" if suffix else "darker"
    return [
        (
            set_by,
            f"links of the colour {palette.accent} on {palette.background} have a contrast of "
            f"{contrast:.1f}, and people need {MIN_CONTRAST}; choose a {way} accent{suffix}",
        )
    ]


def _read_long_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string in quotes, not {show(value)}")
    if len(value) > _MAX_CHARACTERS:
        raise ValueError(f"must have at most {_MAX_CHARACTERS:,} characters")
    for line in value.splitlines():
        if not line.replace("\t", " ").isprintable():
            raise ValueError("must not contain control characters")
    return value.strip()


def _read_site(value: object) -> str:
    url = read_text(value)
    if _SITE.fullmatch(url) is None:
        raise ValueError(f"must be a URL such as https://images.example.org, not {show(url)}")
    return url.rstrip("/")


def _read_remote(value: object) -> str:
    name = read_text(value)
    if _REMOTE.fullmatch(name) is None:
        raise ValueError(f"must be letters, digits, -, _ and ., not {show(name)}")
    return name


def _read_links(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > _MAX_LINKS:
        raise ValueError(f'must be a table of at most {_MAX_LINKS} lines such as Imprint = "URL"')
    links = []
    for words, target in value.items():
        try:
            read_text(words)
            url = read_text(target)
        except ValueError as error:
            raise ValueError(f"has a link that is wrong: {quote(words)} {error}") from error
        if _LINK.fullmatch(url) is None:
            raise ValueError(
                f"has a link that is wrong: {quote(words)} must be a URL with https://, http:// or "
                f"mailto:, or a path without a colon, not {show(url)}"
            )
        links.append((words, url))
    return tuple(links)


def _read_count(value: object) -> int:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, int) and is_integer and 0 <= value <= _MAX_COUNT):
        raise ValueError(f"must be an integer from 0 to {_MAX_COUNT}, not {show(value)}")
    return value


def _read_colour(value: object) -> str:
    return normalize_colour(read_text(value))


PAGE_KEYS: dict[str, Key] = {
    "title": Key("title", read_text),
    "text": Key("text", _read_long_text),
    "footer": Key("footer", _read_long_text),
    "links": Key("links", _read_links),
    "url": Key("url", _read_site),
    "remote": Key("remote", _read_remote),
    "product_pages": Key("product_pages", _read_count),
    "logo": Key("logo", read_text),
    "templates": Key("template_directory", read_text),
}
"""The keys of the file."""
COLOUR_KEYS: dict[str, Key] = {
    name: Key(name, _read_colour)
    for name in ("accent", "accent_dark", "background", "background_dark")
}
"""The keys of ``[colours]``."""
