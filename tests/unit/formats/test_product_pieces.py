"""Where products lie in the bytes of a product file; what is read with it has its own tests."""

from __future__ import annotations

import pytest

from fastindex.formats.product_pieces import MAX_FRAME_BYTES, PieceFinder, Span, find_pieces
from fastindex.formats.simplestreams import ProductFrame


def test_a_file_of_another_form_is_given_up_soon() -> None:
    finder = PieceFinder()
    assert finder.feed(b"{" * (MAX_FRAME_BYTES - 1))
    assert not finder.feed(b"{")


def test_products_are_found_in_any_form() -> None:
    data = b' { "products" :{"a" : {} ,\n"b\\"":{"x":1}}, "content_id":"images"}\n'
    frame, spans = find_pieces(data) or pytest.fail("nothing was found")
    assert frame == ProductFrame(content_id="images")
    assert {key: data[at : at + length] for key, (at, length) in spans.items()} == {
        "a": b"{}",
        'b"': b'{"x":1}',
    }
    assert find_pieces(b"{}") == (ProductFrame(), {})
    assert find_pieces(b'{"products":{"a":{}}}') == (ProductFrame(), {"a": Span(17, 2)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"products":[]}',
        b'{"products":null}',
        b'{"products":{"a":null}}',
        b'{"products":{"a":{},"a":{}}}',
        b'{"products":{"a":{},"b":{},"a":{"c":{}}}}',
        b'{"products":{},"products":{}}',
        # Of a field that is there twice the last value is known, and here its length fits.
        b'{"products":{},"a":{},"b":22,"a":{"p":1,"cccccccc":2}}',
    ],
)
def test_products_that_their_bytes_do_not_tell_are_not_found(data: bytes) -> None:
    assert find_pieces(data) is None
