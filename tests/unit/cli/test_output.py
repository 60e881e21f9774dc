from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.cli.output import escape_unprintable, format_size


@given(st.text())
def test_what_is_told_is_printable(text: str) -> None:
    shown = escape_unprintable(text)
    assert shown.isprintable()
    shown.encode()
    assert escape_unprintable(shown) == shown


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4_294_967_296, "4.3 GB"),
        (10**16, "10,000.0 TB"),
    ],
)
def test_sizes_are_for_people(length: int, text: str) -> None:
    assert format_size(length) == text
