from collections.abc import Sequence

from typing_extensions import Buffer

def list_directories(
    at: int, paths: Sequence[bytes], what: int, stop: Buffer, /
) -> tuple[list[tuple[bytes, bytes, bytes, bytes, int]], int, int, int, int, int]: ...
