"""Engines that compute SHA-256: ``hashlib``, or our extension, several streams at once.

The extension (``_lanes``) is compared with hashlib before its first use in a process. If it is
missing, does not run on this CPU, or gives other digests, hashlib does the work: it has the same
interface and gives the same results.
"""

from __future__ import annotations

import os
from functools import cache
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

LANES_VARIABLE = "FASTINDEX_LANES"
"""The environment variable that says how many lanes of the narrow kernel to use, and no other.
For tests and comparisons."""


class Engine:
    """One way to compute SHA-256.

    Attributes:
        name: ``hashlib`` or ``lanes``.
        sha256: makes a state with some data.
        update: adds the first buffer to the first of several distinct states, and so on.
        lanes: how many states ``update`` can work on at once with its narrow kernel.
        problem: why it is not the requested engine; empty if it is.
        wide_lanes: how many it can work on at once with its wide kernel; 0: there is none.
    """

    def __init__(
        self,
        name: str,
        sha256: Callable[[Buffer], Sha256],
        update: Callable[[Sequence[Sha256], Sequence[Buffer]], None],
        lanes: int,
        problem: str = "",
        wide_lanes: int = 0,
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.update = update
        self.lanes = lanes
        self.problem = problem
        self.wide_lanes = wide_lanes


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


def requested_lanes() -> int:
    """Return how many lanes of the narrow kernel to use at most; 0: all kernels as they are.

    Raises:
        UsageError: the environment does not name a number of lanes.
    """
    text = os.environ.get(LANES_VARIABLE, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(f"{LANES_VARIABLE}: must be an integer of at least 1, not {text!r}")
    return int(text or 0)


def why_no_lanes() -> str:
    """Return why the extension cannot be used on this machine, or "" if it can."""
    try:
        from fastindex.hashing import _lanes
    except ImportError:
        return (
            "its extension was not built "
            "(install with a C compiler on x86-64 or aarch64 to build it)"
        )
    return "" if _lanes.SUPPORTED else "this CPU has no instructions for SHA-256"


def describe_engine() -> str:
    """Return which engine a run uses, and why, or why there can be none, in a line for people."""
    try:
        name = requested_engine("auto")
        most_lanes = requested_lanes()
    except UsageError as error:
        return f"SHA-256: {error}"
    return f"SHA-256 by {_describe_choice(name, most_lanes)}"


def _describe_choice(name: str, most_lanes: int) -> str:
    if name == "hashlib":
        return f"hashlib, as {VARIABLE} says"
    if reason := why_no_lanes():
        return f"hashlib: {reason}"
    from fastindex.hashing import _lanes

    if most_lanes:
        lanes = min(most_lanes, _lanes.NARROW_LANES)
        return f"lanes: {lanes} with {_lanes.NARROW_KERNEL}, as {LANES_VARIABLE} says"
    narrow = f"{_lanes.NARROW_LANES} with {_lanes.NARROW_KERNEL}"
    if not _lanes.WIDE_LANES:
        return f"lanes: {narrow}"
    return (
        f"lanes: {_lanes.WIDE_LANES} with {_lanes.WIDE_KERNEL} where that is quicker, else {narrow}"
    )


def describe_setup(setup: EngineSetup) -> str:
    """Return, in a few words for people, with what a run computes SHA-256."""
    if not setup.wide_from:
        return setup.name
    from fastindex.hashing import _lanes

    return f"{setup.name}, with {_lanes.WIDE_KERNEL} from {setup.wide_from} at once"


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
    if difference:
        return _new_hashlib_engine(difference)
    return _new_lanes_engine(setup.wide_from, setup.narrow_lanes)


@cache
def find_difference_of_lanes() -> str:
    """Return how the extension, which must be usable, differs from hashlib; "" if it does not.

    Both kernels are looked at, if the CPU has both.
    """
    narrow = _new_lanes_engine()
    difference = find_difference_from_hashlib(narrow)
    if not difference and narrow.wide_lanes:
        difference = find_difference_from_hashlib(_new_lanes_engine(wide_from=1))
    return difference


def _new_hashlib_engine(problem: str = "") -> Engine:
    from hashlib import sha256

    def update(states: Sequence[Sha256], buffers: Sequence[Buffer]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer)

    return Engine("hashlib", sha256, update, 1, problem)


def _new_lanes_engine(wide_from: int = 0, narrow_lanes: int = 0) -> Engine:
    from fastindex.hashing import _lanes

    own_update = _lanes.update

    def update(states: Sequence[Sha256], buffers: Sequence[Buffer]) -> None:
        own_update(states, buffers, wide_from, narrow_lanes)

    return Engine("lanes", _lanes.sha256, update, _lanes.NARROW_LANES, wide_lanes=_lanes.WIDE_LANES)


_LENGTHS = (0, 8, 55, 56, 63, 64, 65, 119, 120, 128, 600, 2049)
"""Around the limits of blocks, of padding, and of the work for which the GIL is released."""
_LONG_BYTES = 600
"""From here on, lengths make every kernel work on several blocks at a time."""
_COUNT_STEP = 3
"""Shorter lengths are tried with a third of the numbers of lanes that only the wide kernel takes:
the check is part of the start of every run."""


def find_difference_from_hashlib(candidate: Engine) -> str:
    """Return how ``candidate`` differs from hashlib, for people; "" if no difference was found.

    Compares digests of known and random bytes, with all numbers of lanes and with equal and
    unequal lengths. Takes one or two milliseconds.
    """
    from hashlib import sha256  # without memory for it, the module lacks it

    data = bytes(range(256)) * 20 + os.urandom(4096)
    most = max(candidate.lanes, candidate.wide_lanes)
    for number, length in enumerate(_LENGTHS):
        prefixes = [
            data[lane:][: _LENGTHS[(number - lane) % len(_LENGTHS)]] for lane in range(most + 1)
        ]
        pieces = [data[31 * lane :][: length + 7 * lane * (number % 2)] for lane in range(most + 1)]
        expected = [
            sha256(prefix + piece).digest() for prefix, piece in zip(prefixes, pieces, strict=True)
        ]
        started = [candidate.sha256(prefix) for prefix in prefixes]
        for count in range(1, most + 2):
            is_thinned = length < _LONG_BYTES and count > candidate.lanes + 1
            if is_thinned and (count - number) % _COUNT_STEP:
                continue
            states = [state.copy() for state in started[:count]]
            candidate.update(states, pieces[:count])
            candidate.update(
                [state.copy() for state in states], pieces[:count]
            )  # must not change the originals
            if [state.digest() for state in states] != expected[:count]:
                return f"wrong digests with {count} lanes of {length} bytes"
    return ""
