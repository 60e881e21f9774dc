"""Pure: where in the bytes of a product file each product lies.

A product file may be gigabytes long. It is told apart here while it is read window by window,
so that memory holds one product at a time. That takes a file in the form in which ``encode`` writes
it; any other is told apart as a whole.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from fastindex.formats.simplestreams import UNDECODABLE, Product, ProductFrame


class Span(NamedTuple):
    """Where a JSON value lies in a file."""

    offset: int
    length: int


Pieces = tuple[ProductFrame, dict[str, Span]]
"""The fields of a product file, and product key → its value, in the order of the file."""

MAX_FRAME_BYTES: Final = 1 << 16
"""The length up to which the fields before the products are looked for."""

_TEXT: Final = rb'"(?:[^"\\]|\\.)*"'
_FRAME: Final = re.compile(
    rb'\{"content_id":%b,"datatype":%b,"format":%b,"products":\{' % (_TEXT, _TEXT, _TEXT), re.DOTALL
)
_START: Final = b'":{"aliases":"'
"""From the end of a product's key on."""
_BETWEEN: Final = b"}},"
"""The ends of a product's ``versions`` and of the product, and what separates it from the next."""
_END: Final = b"}}\n"
"""The ends of ``products`` and of the file."""

_raw_decoder: Final = msgspec.json.Decoder(msgspec.Raw)
_text_decoder: Final = msgspec.json.Decoder(str)
_product_decoder: Final = msgspec.json.Decoder(Product)


class PieceFinder:
    """Finds the products in a file that is handed to it window by window.

    A product that ``encode`` wrote begins with its aliases and ends with its versions, so that
    ``}},"KEY":{"aliases":"`` stands between two of them. It stands nowhere else in such a file:

    - Quotes within strings are escaped, so the two around KEY delimit strings. If the first were
      the end of one, the second would begin one that starts with ``:{`` and ends before
      ``aliases``, where no JSON goes on so.
    - So KEY is the key of an object whose first key is ``aliases``, with a string as its value.
      That is a product, or ``requirements`` or ``lxd_requirements``: elsewhere it is an object.
    - ``requirements`` follows a string, and ``lxd_requirements`` the one brace that ends
      ``requirements``, before which there is another string or the brace that opens it.

    Of files that something else wrote this need not hold. Therefore each key must be a JSON string,
    each product a JSON object, and nothing else may stand between them than what ``encode`` writes
    there: then this is how a parser reads the file.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._buffer_offset = 0
        self._searched = 0
        self._frame: ProductFrame | None = None
        self._key = ""
        self._start = 0  # of the product that is not complete; of the first key, if there is none
        self._has_begun = False
        self._spans: dict[str, Span] = {}

    def feed(self, window: bytes) -> bool:
        """Take the next bytes of the file.

        Returns:
            Whether it may have the form that ``encode`` writes; False is final.
        """
        self._buffer += window
        return (self._frame is not None or self._find_frame()) and self._find_products()

    def finish(self) -> Pieces | None:
        """Return what was found when all has been handed in; None: the file has another form."""
        buffer = self._buffer
        if self._frame is None or not buffer.endswith(_END):
            return None
        end = len(buffer) - len(_END)
        if self._has_begun:
            return (self._frame, self._spans) if self._add(end) else None
        return (self._frame, {}) if end == self._start else None

    def _find_frame(self) -> bool:
        match = _FRAME.match(self._buffer)
        if match is None:
            return len(self._buffer) < MAX_FRAME_BYTES
        try:
            self._frame = msgspec.json.decode(match[0] + b"}}", type=ProductFrame)
        except UNDECODABLE:
            return False
        self._start = self._searched = match.end()
        return True

    def _find_products(self) -> bool:
        buffer = self._buffer
        while self._frame is not None:
            quote = buffer.find(_START, self._searched)
            if quote < 0:
                self._searched = max(self._searched, len(buffer) - len(_START) + 1)
                break
            self._searched = quote + len(_START)
            opening = _find_opening_quote(buffer, quote)
            if self._has_begun:
                if not buffer.endswith(_BETWEEN, self._start, max(opening, 0)):
                    continue  # requirements
                if not self._add(opening - 1):
                    return False
            elif opening != self._start:
                return False
            self._has_begun = True
            self._start = quote + len(b'":')
            try:
                self._key = _text_decoder.decode(buffer[opening : quote + 1])
            except UNDECODABLE:
                return False
        self._drop()
        return True

    def _add(self, end: int) -> bool:
        """Add the product that ends before ``end``, if it is one."""
        try:
            _raw_decoder.decode(self._buffer[self._start : end])
        except UNDECODABLE:
            return False
        if self._key in self._spans:
            return False
        self._spans[self._key] = Span(self._buffer_offset + self._start, end - self._start)
        return True

    def _drop(self) -> None:
        """Forget what lies before the product that is not complete."""
        if self._frame is not None and self._start:
            del self._buffer[: self._start]
            self._buffer_offset += self._start
            self._searched -= self._start
            self._start = 0


def _find_opening_quote(buffer: bytearray, quote: int) -> int:
    """Return where the string begins whose closing quote is at ``quote``; -1 if there is none."""
    while (quote := buffer.rfind(b'"', 0, quote)) > 0:
        escaping = quote
        while escaping and buffer[escaping - 1] == _BACKSLASH:
            escaping -= 1
        if (quote - escaping) % 2 == 0:
            break
    return quote


_BACKSLASH: Final = ord("\\")


class _RawProducts(ProductFrame, frozen=True, kw_only=True):
    products: msgspec.Raw = msgspec.Raw(b"{}")


def find_pieces(data: bytes) -> Pieces | None:
    """Find the products in the bytes of a file of any form.

    Returns:
        What was found. None: ``decode`` may reject the file; or a field or a product is missing,
        null or there twice, so that the order and the bytes of its products do not tell what it
        says.
    """
    try:
        file = msgspec.json.decode(data, type=_RawProducts)
        fields = _tile(data, Span(0, len(data)))
        if fields is None:
            return None
        products = _tile(data, fields["products"]) if "products" in fields else {}
    except UNDECODABLE:
        return None
    if products is None or any(data[span.offset] != _BRACE for span in products.values()):
        return None
    frame = ProductFrame(content_id=file.content_id, datatype=file.datatype, format=file.format)
    return frame, products


_BRACE: Final = ord("{")
_SPACE: Final = rb"[ \t\n\r]*"
_FIRST_KEY: Final = re.compile(
    rb"%b\{%b%b%b:%b" % (_SPACE, _SPACE, _TEXT, _SPACE, _SPACE), re.DOTALL
)
_NEXT_KEY: Final = re.compile(rb"%b,%b%b%b:%b" % (_SPACE, _SPACE, _TEXT, _SPACE, _SPACE), re.DOTALL)
_EMPTY: Final = re.compile(rb"%b\{%b\}%b" % (_SPACE, _SPACE, _SPACE))
_CLOSING: Final = re.compile(rb"%b\}%b" % (_SPACE, _SPACE))


def _tile(data: bytes, span: Span) -> dict[str, Span] | None:
    """Return where each value of the JSON object at ``span`` lies; None if a key is there twice.

    Raises:
        msgspec.DecodeError, UnicodeError, RecursionError: it is something else.
    """
    end = span.offset + span.length
    raw = msgspec.json.decode(memoryview(data)[span.offset : end], type=dict[str, msgspec.Raw])
    spans: dict[str, Span] = {}
    place, pattern = span.offset, _FIRST_KEY
    for key, value in raw.items():
        match = pattern.match(data, place, end)
        text = bytes(value)
        # A parser reads the file in one way only. So if these bytes stand here, this is where
        # they come from, unless a key is there twice: then something is left over at the end.
        if match is None or not data.startswith(text, match.end(), end):
            return None
        spans[key] = Span(match.end(), len(text))
        place, pattern = match.end() + len(text), _NEXT_KEY
    return spans if (_CLOSING if spans else _EMPTY).fullmatch(data, place, end) else None


def decode_piece(data: bytes) -> Product:
    """Decode a product as ``decode`` decodes it in a file without null.

    Raises:
        msgspec.DecodeError: a value has a wrong type; the path in the message is that in a file.
        UnicodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    try:
        return _product_decoder.decode(data)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(str(error).replace("`$", "`$.products[...]", 1)) from error
