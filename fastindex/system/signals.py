"""Ctrl-C, SIGTERM and SIGHUP: raised where they arrive, and again at the next call of ``check``.

Python swallows what a signal handler raises within the callback of a weak reference (each import
has one), a destructor or a fork hook. One run in a hundred would ignore the signal. So the
handler also remembers it, and long waits call ``check`` every second. Outside ``handled``, as
when fastindex is used as a library, no handler is changed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a run to end: Ctrl-C, a service manager, and a terminal that is gone."""
CHECK_SECONDS = 1.0
"""A wait must not last longer before it calls ``check``."""

_arrived: list[int] = []


class Interrupted(BaseException):
    """A signal asked this process to end.

    Like KeyboardInterrupt it is not an Exception, so that nothing swallows it.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handled() -> Iterator[None]:
    """Make each of ``SIGNALS`` raise ``Interrupted`` while the context lasts.

    A signal that was ignored when the program started (``nohup``, a shell's ``&``) stays
    ignored.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived.clear()


def _raise(number: int, frame: object) -> NoReturn:
    _arrived.append(number)
    raise Interrupted(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Only remember ``SIGNALS`` while the context lasts; the next ``check`` raises.

    For what must not be torn: to start a program and to know that it runs.
    """
    raising = [number for number in SIGNALS if signal.getsignal(number) is _raise]
    for number in raising:
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number in raising:
            signal.signal(number, _raise)


@contextmanager
def told_to(hear: Callable[[int], None]) -> Iterator[None]:
    """Call ``hear`` with the number of a signal instead of raising, while the context lasts.

    For an event loop, which ends in order. As everything else here, it changes nothing outside
    ``handled``.

    Args:
        hear: called between two steps of whatever runs.
    """
    raising = [number for number in SIGNALS if signal.getsignal(number) is _raise]
    for number in raising:
        signal.signal(number, lambda number, frame: hear(number))
    try:
        yield
    finally:
        for number in raising:
            signal.signal(number, _raise)


def _remember(number: int, frame: object) -> None:
    _arrived.append(number)


def check() -> None:
    """Raise ``Interrupted`` if a signal has arrived and the run was not interrupted by it.

    Raises:
        Interrupted: a signal has arrived since ``handled`` was entered.
    """
    if _arrived:
        raise Interrupted(_arrived[0])


@contextmanager
def blocked() -> Iterator[None]:
    """Block ``SIGNALS`` while the context lasts, as around a fork; they arrive after it.

    Threads that are started within inherit the mask. There must be no other threads, which
    would receive the signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_worker_handlers() -> None:
    """Make this process, a worker, ignore SIGINT and SIGHUP, and die of SIGTERM.

    A terminal sends Ctrl-C and its hang-up to the workers too; the parent decides what they do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
