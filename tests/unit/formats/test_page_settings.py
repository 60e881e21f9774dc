"""The settings of the page: right values, or what is wrong with the line where it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import ExitCode
from fastindex.formats.colours import measure_contrast, mix_colours, normalize_colour
from fastindex.formats.page_settings import (
    DARK,
    LIGHT,
    PageOptions,
    PageSettingsError,
    Palette,
    parse_page_settings,
)

FULL = """\
title = "Images of Example"
text = \"\"\"
One.

Two.\"\"\"
footer = "Run by Example"
url = "https://images.example.org/sub/"
remote = "example"
logo = "logo.svg"
templates = "/etc/fastindex/page"
product_pages = 0

[links]
Imprint = "https://example.org/imprint"
Mail = "mailto:root@example.org"
Rules = "rules.html"

[colours]
accent = "#05d"
accent_dark = "#AABBFF"
background = "#fffdf5"
background_dark = "#000000"
"""


def read(text: str) -> PageOptions:
    return parse_page_settings("page.toml", text.encode())


def complain(text: str) -> list[str]:
    with pytest.raises(PageSettingsError) as raised:
        read(text)
    assert raised.value.exit_code is ExitCode.USAGE
    return str(raised.value).split("\n")


def test_all_keys_are_read() -> None:
    options = read(FULL)
    assert options.title == "Images of Example"
    assert options.text == "One.\n\nTwo."
    assert options.url == "https://images.example.org/sub"
    assert (options.remote, options.product_pages) == ("example", 0)
    assert options.links == (
        ("Imprint", "https://example.org/imprint"),
        ("Mail", "mailto:root@example.org"),
        ("Rules", "rules.html"),
    )
    assert (options.light.accent, options.light.background) == ("#0055dd", "#fffdf5")
    assert (options.dark.accent, options.dark.background) == ("#aabbff", "#000000")


def test_nothing_is_needed() -> None:
    assert read("") == PageOptions()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('titel = "x"', 'page.toml:1: unknown key "titel"; did you mean title?'),
        ("\ntitle = 1", 'page.toml:2: "title" must be a string in quotes, not 1'),
        ('title = "a\\u001b[31m"', 'page.toml:1: "title" must not contain control characters'),
        ('text = "a\\u202e"', 'page.toml:1: "text" must not contain control characters'),
        (
            'url = "ftp://x"',
            '"url" must be a URL such as https://images.example.org, not "ftp://x"',
        ),
        ('url = "https://x/\'; reboot"', '"url" must be a URL such as'),
        ('remote = "a b"', '"remote" must be letters, digits, -, _ and ., not "a b"'),
        ("product_pages = -1", '"product_pages" must be an integer from 0 to 1000000, not -1'),
        ("product_pages = true", '"product_pages" must be an integer from 0 to 1000000, not true'),
        (
            '[links]\nx = "javascript:alert(1)"',
            'page.toml:1: "links" has a link that is wrong: "x"',
        ),
        ('[links]\nx = "//evil.example"', "must be a URL with https://"),
        ('[colours]\n\naccent = "red"', 'page.toml:3: "accent" must be a colour such as'),
        ('[colours]\nacent = "#000"', 'page.toml:2: unknown key "acent"; did you mean accent?'),
        ("colours = 1", 'page.toml:1: "colours" must be a table, not 1'),
        ("title = ", "page.toml:1: not TOML: Invalid value; correct it"),
        (
            '[colours]\naccent = "#ffff00"',
            "page.toml:2: links of the colour #ffff00 on #ffffff have a contrast of 1.0, and "
            "people need 4.5; choose a darker accent",
        ),
        (
            '[colours]\nbackground_dark = "#777777"',
            'page.toml:2: "background_dark" must be darker, as the text on it is light',
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, complaint: str) -> None:
    (told,) = complain(text)
    assert complaint in told


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert [told.split(":")[1] for told in complain('tilte = "x"\nremote = 1\nurl = "x"')] == [
        *("1", "2", "3")
    ]


COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@given(COLOURS, COLOURS)
def test_a_contrast_is_the_same_both_ways_and_within_its_bounds(first: str, second: str) -> None:
    assert 1 <= measure_contrast(first, second) == measure_contrast(second, first) <= 21.0001


@given(COLOURS, COLOURS)
def test_a_mixture_begins_with_one_colour_and_ends_with_the_other(first: str, second: str) -> None:
    assert mix_colours(first, second, 0) == first
    assert mix_colours(first, second, 1) == second


def test_contrasts_are_those_of_the_guidelines() -> None:
    assert measure_contrast("#000000", "#ffffff") == pytest.approx(21)
    assert measure_contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert normalize_colour("#AbC") == "#aabbcc"


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_the_usual_colours_can_be_read(palette: Palette) -> None:
    for colour in (palette.text, palette.muted, palette.accent):
        for behind in (palette.background, palette.panel):
            assert measure_contrast(colour, behind) >= 4.5
