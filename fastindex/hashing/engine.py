"""Engines that compute SHA-256: ``hashlib``, or our extension, several streams at once.

The extension (``_lanes``) is compared with hashlib before its first use in a process. If it is
missing, does not run on this CPU, or gives other digests, hashlib does the work: it has the same
interface and gives the same results.
"""

from __future__ import annotations

import os
import time
from functools import cache, partial
from typing import TYPE_CHECKING

from fastindex.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from typing_extensions import Buffer

    from fastindex.hashing.tasks import EngineSetup

    class Sha256(Protocol):
        """A SHA-256 state with hashlib's interface."""

        def update(self, data: Buffer, /) -> None:
            """Add ``data`` to what is hashed."""

        def digest(self) -> bytes:
            """Return the digest of the data so far, 32 bytes."""

        def hexdigest(self) -> str:
            """Return the digest of the data so far, 64 hex digits."""

        def copy(self) -> Sha256:
            """Return an independent state with the same data."""


ENGINES = ("auto", "hashlib", "lanes")

VARIABLE = "FASTINDEX_ENGINE"
"""The environment variable that names the engine if no option does."""


class Engine:
    """One way to compute SHA-256.

    Attributes:
        name: ``hashlib`` or ``lanes``.
        sha256: makes a state with some data.
        update: adds the first buffer to the first of several distinct states, and so on.
        lanes: how many states ``update`` can work on at once.
        problem: why it is not the requested engine; empty if it is.
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
    """Return the name of the requested engine, one of ``ENGINES``.

    Args:
        option: the value of ``--engine``. If it is ``auto``, the environment decides.

    Raises:
        UsageError: there is no such engine, or it does not run on this machine.
    """
    name = option if option != "auto" else os.environ.get(VARIABLE) or "auto"
    if name not in ENGINES:
        raise UsageError(
            f"{VARIABLE if option == 'auto' else '--engine'}: must be one of "
            f"{', '.join(ENGINES)}, not {name!r}"
        )
    if name == "lanes" and (reason := why_no_lanes()):
        raise UsageError(f"cannot use the engine lanes: {reason}; use hashlib or auto")
    return name


def why_no_lanes() -> str:
    """Return why the extension cannot be used on this machine, or "" if it can."""
    try:
        from fastindex.hashing import _lanes
    except ImportError:
        return "its extension was not built (install with a C compiler on x86-64 to build it)"
    return "" if _lanes.SUPPORTED else "this CPU has no SHA extensions"


def describe_engine() -> str:
    """Return which engine a run uses, and why, in a few words for people."""
    try:
        name = requested_engine("auto")
    except UsageError as error:
        return str(error)
    if name == "hashlib":
        return f"hashlib, as {VARIABLE} says"
    reason = why_no_lanes()
    return f"hashlib: {reason}" if reason else "lanes, several digests at once"


@cache
def usable_engine(setup: EngineSetup) -> Engine:
    """Return the engine for ``setup``; hashlib if the extension cannot be used or fails its check.

    The result is cached, and so is that of the check, which is the same for all setups.

    Args:
        setup: its name is one of ``ENGINES``.
    """
    if setup.name == "hashlib" or why_no_lanes():
        return _new_hashlib_engine()
    difference = find_difference_of_lanes()
    return _new_hashlib_engine(difference) if difference else _new_lanes_engine(setup.wide_from)


@cache
def find_difference_of_lanes() -> str:
    """Return how the extension, which must be usable, differs from hashlib; "" if it does not."""
    return find_difference_from_hashlib(_new_lanes_engine())


def _new_hashlib_engine(problem: str = "") -> Engine:
    import hashlib

    def update(states: Sequence[Sha256], buffers: Sequence[Buffer]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer)

    return Engine("hashlib", hashlib.sha256, update, 1, problem)


def _new_lanes_engine(wide_from: int = 0) -> Engine:
    from fastindex.hashing import _lanes

    update = partial(_lanes.update, wide_from=wide_from)
    return Engine("lanes", _lanes.sha256, update, _lanes.MAX_LANES)


def measure_speeds(candidate: Engine) -> tuple[float, ...]:
    """Return the speeds with 1, 2, … states at once on this CPU, relative to that with one.

    Takes a millisecond. CPUs differ: on all that were measured a second lane is nearly free, on
    some a fourth one gains nothing.

    Args:
        candidate: the engine.

    Returns:
        A number for each number of states up to ``candidate.lanes``; the first is 1.0.
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
"""Around the limits of blocks, of padding, and of the work for which the GIL is released."""


def find_difference_from_hashlib(candidate: Engine) -> str:
    """Return how ``candidate`` differs from hashlib, for people; "" if no difference was found.

    Compares digests of known and random bytes, with all numbers of lanes and with equal and
    unequal lengths. Takes some milliseconds.
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
            candidate.update(
                [state.copy() for state in states], pieces
            )  # must not change the originals
            for state, prefix, piece in zip(states, prefixes, pieces, strict=True):
                if state.digest() != hashlib.sha256(prefix + piece).digest():
                    return f"wrong digests with {count} lanes of {length} bytes"
    return ""
