"""Decompresses LZ4 frames, for the metadata tarballs of builders that use LZ4.

Python has no LZ4, and such tarballs are small and rare. So this is plain Python: about 20 MB/s.
Checksums are not verified.

Format: lz4_Frame_format.md 1.6 and lz4_Block_format.md of lz4/lz4.
"""

from __future__ import annotations

from fastindex.formats.errors import FormatError

MAGIC = b"\x04\x22\x4d\x18"
END_OF_BLOCKS = 0
UNCOMPRESSED = 1 << 31
"""A bit in the size of a block."""
_MAX_BLOCK_BYTES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_WINDOW_BYTES = 64 << 10
_LONG = 15
_MIN_MATCH_BYTES = 4


class Lz4Error(FormatError):
    """Bytes that are not an LZ4 frame, or a damaged one."""


class FrameHeader:
    """The descriptor of a frame.

    Args:
        head: the start of the frame, at least ``MIN_BYTES``.

    Raises:
        Lz4Error: it is not a frame, or one of another version or with a dictionary.
    """

    MIN_BYTES = 6

    def __init__(self, head: bytes) -> None:
        flags, block = head[4], head[5] >> 4
        if not head.startswith(MAGIC) or flags >> 6 != 1 or block not in _MAX_BLOCK_BYTES:
            raise Lz4Error("not an LZ4 frame")
        if flags & 1:
            raise Lz4Error("an LZ4 frame that needs a dictionary")
        self.size_bytes = 7 + (8 if flags & 8 else 0)
        """Length of the header."""
        self.max_block_bytes = _MAX_BLOCK_BYTES[block]
        """Length of the largest block, decompressed."""
        self.has_dependent_blocks = not flags & 32
        """Whether a block may refer to bytes of those before it."""
        self.block_checksum_bytes = 4 if flags & 16 else 0
        """Length of the checksum after each block."""
        self.content_checksum_bytes = 4 if flags & 4 else 0
        """Length of the checksum at the end."""


class Lz4Decompressor:
    """Decompresses one frame; has the interface of the standard library's decompressors."""

    def __init__(self) -> None:
        self.eof = False
        """Whether the end of the frame has been reached."""
        self.unused_data = b""
        """What comes after the frame."""
        self._input = bytearray()
        self._output = bytearray()
        self._window = b""
        self._is_starved = True
        self._header: FrameHeader | None = None

    @property
    def needs_input(self) -> bool:
        """Whether nothing comes out before more is put in."""
        return self._is_starved and not self._output and not self.eof

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most ``max_length`` decompressed bytes.

        Raises:
            Lz4Error: the frame is damaged.
        """
        self._input += data
        self._is_starved = False
        while not (self.eof or self._output or self._is_starved):
            self._is_starved = not self._take_step()
        end = len(self._output) if max_length < 0 else max_length
        piece = bytes(self._output[:end])
        del self._output[:end]
        return piece

    def _take_step(self) -> bool:
        """Decode the header or a block if all of it is there; return whether it was."""
        if self._header is not None:
            return self._take_block(self._header)
        if len(self._input) < FrameHeader.MIN_BYTES:
            return False
        header = FrameHeader(bytes(self._input[: FrameHeader.MIN_BYTES]))
        if len(self._input) < header.size_bytes:
            return False
        self._header = header
        del self._input[: header.size_bytes]
        return True

    def _take_block(self, header: FrameHeader) -> bool:
        if len(self._input) < 4:
            return False
        field = int.from_bytes(self._input[:4], "little")
        size_bytes = field & ~UNCOMPRESSED
        if size_bytes > header.max_block_bytes:
            raise Lz4Error("damaged: an LZ4 block that is too large")
        checksum_bytes = header.block_checksum_bytes if field else header.content_checksum_bytes
        end = 4 + size_bytes + checksum_bytes
        if len(self._input) < end:
            return False
        block = bytes(self._input[4 : 4 + size_bytes])
        del self._input[:end]
        if field == END_OF_BLOCKS:
            self.eof = True
            self.unused_data = bytes(self._input)
            return True
        if not field & UNCOMPRESSED:
            block = decode_block(block, self._window, header.max_block_bytes)
        if header.has_dependent_blocks:
            self._window = (self._window + block)[-_WINDOW_BYTES:]
        self._output += block
        return True


def decode_block(block: bytes, window: bytes, max_bytes: int) -> bytes:
    """Return a decompressed block.

    Args:
        block: the compressed block.
        window: what it may refer to: the bytes before it.
        max_bytes: how long it may become.

    Raises:
        Lz4Error: it is damaged.
    """
    output = bytearray(window)
    max_bytes += len(window)
    at = 0

    def read_length(length: int) -> int:
        nonlocal at
        if length == _LONG:
            more = 255
            while more == 255:
                more = block[at]
                at += 1
                length += more
        return length

    try:
        while True:
            token = block[at]
            at += 1
            literals = read_length(token >> 4)
            if at + literals > len(block):
                break
            output += block[at : at + literals]
            at += literals
            if at == len(block) and len(output) <= max_bytes:
                return bytes(output[len(window) :])  # the last sequence has literals only
            distance = block[at] | block[at + 1] << 8
            at += 2
            length = read_length(token & 15) + _MIN_MATCH_BYTES
            if not 0 < distance <= len(output) or len(output) + length > max_bytes:
                break
            match = output[-distance:]
            output += (match * -(-length // distance))[:length]  # it may reach into itself
    except IndexError:
        pass
    raise Lz4Error("damaged: an LZ4 block that cannot be decompressed")
