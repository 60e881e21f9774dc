from collections.abc import Sequence
from typing import Any, Final, final

from typing_extensions import Buffer

SUPPORTED: Final[bool]
NARROW_LANES: Final[int]
NARROW_KERNEL: Final[str]
WIDE_LANES: Final[int]
WIDE_KERNEL: Final[str]

@final
class Sha256:
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Sha256: ...

def sha256(data: Buffer = b"", /) -> Sha256: ...
def update(
    states: Sequence[Any],
    buffers: Sequence[Buffer],
    wide_from: int = 0,
    narrow_lanes: int = 0,
    /,
) -> None: ...
