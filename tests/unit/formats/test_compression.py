from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.compression import expand_gzip
from fastindex.formats.errors import FormatError


@given(st.binary(max_size=1000))
def test_what_was_compressed_is_expanded(data: bytes) -> None:
    assert expand_gzip(gzip.compress(data), 1000) == data


@given(st.binary(max_size=100))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        expand_gzip(data, 1000)


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    bomb = gzip.compress(bytes(100 << 20))
    with pytest.raises(FormatError, match="larger than 1000 bytes"):
        expand_gzip(bomb, 1000)


def test_what_is_cut_off_is_refused() -> None:
    with pytest.raises(FormatError, match="cut off"):
        expand_gzip(gzip.compress(b"1" * 100)[:-1], 1000)
