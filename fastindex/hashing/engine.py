"""How SHA-256 is computed: by ``hashlib``, or by our extension, several streams at once.

The extension (``_lanes``) is held against hashlib before its first use in a process. Where
it is not there, cannot work on this CPU, or differs, hashlib does the same work: same
interface, same results.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING

from fastindex.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from typing_extensions import Buffer

    class Sha256(Protocol):
        """A SHA-256 state, as hashlib's."""

        def update(self, data: Buffer, /) -> None:
            """Take in ``data``."""

        def digest(self) -> bytes:
            """Return the digest of all so far, 32 bytes."""

        def hexdigest(self) -> str:
            """Return the digest of all so far, 64 hex digits."""

        def copy(self) -> Sha256:
            """Return a state that has taken in the same."""


ENGINES = ("auto", "hashlib", "lanes")

VARIABLE = "FASTINDEX_ENGINE"
"""In the environment: the engine, where no option names one."""


class Engine:
    """One way to compute SHA-256.

    Attributes:
        name: ``hashlib`` or ``lanes``.
        sha256: makes a state that has taken in some bytes.
        update: lets each of some distinct states take in its one of as many buffers.
        lanes: how many states at once it is worth to hand to ``update``.
        problem: why it is not the one that was asked for; empty where it is.
    """

    def __init__(
        self,
        name: str,
        sha256: Callable[[Buffer], Sha256],
        update: Callable[[Sequence[Sha256], Sequence[Buffer]], None],
        lanes: int,
        problem: str = "",
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.update = update
        self.lanes = lanes
        self.problem = problem


def requested_engine(option: str) -> str:
    """Return the engine that ``option`` or, where that is ``auto``, the environment names.

    Raises:
        UsageError: there is no such engine, or this machine cannot have it.
    """
    wanted = option if option != "auto" else os.environ.get(VARIABLE) or "auto"
    if wanted not in ENGINES:
        raise UsageError(
            f"{VARIABLE if option == 'auto' else '--engine'}: {wanted!r} is none of "
            f"{', '.join(ENGINES)}"
        )
    if wanted == "lanes" and (missing := why_no_lanes()):
        raise UsageError(f"the engine lanes cannot be used: {missing}; use hashlib, or auto")
    return wanted


def why_no_lanes() -> str:
    """Return what the extension lacks on this machine, for people; empty: nothing."""
    try:
        from fastindex.hashing import _lanes
    except ImportError:
        return "its extension was not built (for that, install with a C compiler on x86-64)"
    return "" if _lanes.SUPPORTED else "this CPU has no SHA extensions"


def describe_engine() -> str:
    """Return which engine a run would use, and why, in a few words."""
    try:
        wanted = requested_engine("auto")
    except UsageError as error:
        return str(error)
    if wanted == "hashlib":
        return f"hashlib, as {VARIABLE} says"
    missing = why_no_lanes()
    return f"hashlib: {missing}" if missing else "lanes, several digests at once"


@cache
def usable_engine(wanted: str) -> Engine:
    """Return the engine for ``wanted``, one of ``ENGINES``, checked where it is ours."""
    if wanted == "hashlib" or why_no_lanes():
        return _hashlib_engine()
    lanes = _lanes_engine()
    difference = find_difference_from_hashlib(lanes)
    return _hashlib_engine(difference) if difference else lanes


def _hashlib_engine(problem: str = "") -> Engine:
    import hashlib

    def update(states: Sequence[Sha256], buffers: Sequence[Buffer]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer)

    return Engine("hashlib", hashlib.sha256, update, 1, problem)


def _lanes_engine() -> Engine:
    from fastindex.hashing import _lanes

    return Engine("lanes", _lanes.sha256, _lanes.update, _lanes.MOST_LANES)


def measure_speeds(candidate: Engine) -> tuple[float, ...]:
    """Return how many bytes 1, 2, … states at once take in, beside one, on this CPU.

    Takes a millisecond. CPUs differ: a second lane is nearly free on all that were looked
    at, a fourth one costs on some what it brings.
    """
    pieces = [bytes(32 << 10) for _ in range(candidate.lanes)]
    speeds = [1.0]
    for count in range(1, candidate.lanes + 1):
        states = [candidate.sha256(b"") for _ in range(count)]
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            candidate.update(states, pieces[:count])
            seconds.append(time.perf_counter() - began)
        speeds.append(count / sorted(seconds)[2])
    return tuple(speed / speeds[1] for speed in speeds[1:])


_LENGTHS = (0, 8, 55, 56, 63, 64, 65, 119, 120, 128, 600, 2049)
"""Around the edges of blocks, of padding, and of what runs without the GIL."""


def find_difference_from_hashlib(candidate: Engine) -> str:
    """Return where ``candidate`` differs from hashlib, for people; empty: nowhere seen.

    Known and random bytes, all numbers of lanes, equal and unequal lengths; takes some
    milliseconds.
    """
    import hashlib

    data = bytes(range(256)) * 20 + os.urandom(4096)
    for count in range(1, candidate.lanes + 2):
        for number, length in enumerate(_LENGTHS):
            prefixes = [data[lane : lane + _LENGTHS[number - lane]] for lane in range(count)]
            pieces = [
                data[31 * lane :][: length + 7 * lane * (number % 2)] for lane in range(count)
            ]
            states = [candidate.sha256(prefix) for prefix in prefixes]
            candidate.update(states, pieces)
            candidate.update([state.copy() for state in states], pieces)  # must change none
            for state, prefix, piece in zip(states, prefixes, pieces, strict=True):
                if state.digest() != hashlib.sha256(prefix + piece).digest():
                    return f"wrong digests with {count} lanes of {length} bytes"
    return ""
