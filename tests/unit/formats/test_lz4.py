"""LZ4 frames, as the ``lz4`` command writes them."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.lz4 import Lz4Decompressor, Lz4Error, decode_block
from tests.support.tools import needs

CONTENTS = {
    "nothing": b"",
    "text": b"architecture: x86_64\n" * 20_000,
    "noise": os.urandom(300_000),
    "zeros": bytes(300_000),
    "both": (os.urandom(70_000) + b"abc" * 30_000) * 3,
}


def compress(content: bytes, *options: str) -> bytes:
    lz4 = needs("lz4", "apt-get install lz4")
    done = subprocess.run(
        [lz4, "-q", "-c", *options], input=content, capture_output=True, check=True
    )
    return done.stdout


def decompress(frame: bytes, piece_bytes: int, max_length: int) -> tuple[bytes, bytes]:
    """Return what is in the frame, and what is behind it."""
    decompressor, content, start = Lz4Decompressor(), b"", 0
    while not decompressor.eof:
        data = b""
        if decompressor.needs_input:
            data = frame[start : start + piece_bytes]
            assert data, "it ends early"
            start += piece_bytes
        content += decompressor.decompress(data, max_length)
    return content, decompressor.unused_data


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize(
    "options", [(), ("-9", "-B4"), ("-BD", "-BX"), ("--content-size", "--no-frame-crc", "-B4")]
)
def test_what_lz4_compresses_is_restored(content: bytes, options: tuple[str, ...]) -> None:
    frame = compress(content, *options)
    assert decompress(frame + b"more", len(frame) + 4, -1) == (content, b"more")
    assert decompress(frame, 60_000, 10_000)[0] == content


@pytest.mark.parametrize(
    "frame",
    [
        b"\x04\x22\x4d\x19\x64\x40\xa7",
        b"\x04\x22\x4d\x18\x24\x40\xa7",  # another version
        b"\x04\x22\x4d\x18\x65\x40\xa7",  # a dictionary
        b"\x04\x22\x4d\x18\x64\x10\xa7",  # an unknown size of blocks
        b"\x04\x22\x4d\x18\x64\x40\xa7\xff\xff\xff\x7f",
        b"\x04\x22\x4d\x18\x64\x40\xa7\x03\0\0\0\x1f\0\0",
    ],
)
def test_a_damaged_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(Lz4Error):
        Lz4Decompressor().decompress(frame)


def test_a_block_cannot_become_longer_than_its_frame_allows() -> None:
    block = b"\x1fa\x01\x00" + b"\xff" * 1000 + b"\x00\x00"
    with pytest.raises(Lz4Error):
        decode_block(block, b"", 65536)
    with pytest.raises(Lz4Error):
        decode_block(b"\xf0" + b"\xff" * 3 + bytes(1000), b"", 100)


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_any_block_is_decoded_or_refused(block: bytes, window: bytes) -> None:
    with contextlib.suppress(Lz4Error):
        assert len(decode_block(block, window, 1000)) <= 1000
