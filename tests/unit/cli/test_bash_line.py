from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.cli.bash_line import split

BREAKS = " \t\n\"'@><=;|&(:"


@pytest.mark.parametrize(
    ("line", "words", "current", "kept"),
    [
        ("", [], "", 0),
        ("fastindex", [], "fastindex", 0),
        ("fastindex ", ["fastindex"], "", 0),
        ("a b", ["a"], "b", 0),
        ("a --jobs=", ["a"], "--jobs=", 7),
        ("a 2024_05:2", ["a"], "2024_05:2", 8),
        ("a 'b c", ["a"], "b c", 0),
        ('a "b=c', ["a"], "b=c", 0),
        ('a b"c', ["a"], "bc", None),
        ("a 'b'", ["a"], "b", None),
        (r"a b\ c", ["a"], "b c", None),
        (r"a b\ ", ["a"], "b ", None),
        ("a b\\", ["a"], "b", None),
        (r"""a "x\"y$z" """, ["a", 'x"y$z'], "", 0),
        (r"""a 'it'\''s' b""", ["a", "it's"], "b", 0),
        ("a $(b) `c`", ["a", "$(b)"], "`c`", 0),
    ],
)
def test_a_line_is_split_as_bash_does(
    line: str, words: list[str], current: str, kept: int | None
) -> None:
    assert split(line, BREAKS) == (words, current, kept)


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1)))
def test_quoted_words_are_what_they_were(words: list[str]) -> None:
    assert split(f"{shlex.join(words)} ", BREAKS).words == words


@given(st.text())
def test_every_line_can_be_split(line: str) -> None:
    split(line, BREAKS)
