"""Ctrl-C and SIGTERM: raised where they arrive, and again at the next safe point.

Python swallows what a signal handler raises from within a weak reference's callback (each
import has one), a destructor or a fork's hook: one run in a hundred would go on as if
nothing had been said. So the handler also remembers, and long waits come back to
``check`` every second. Without ``handled`` (as a library) nothing here changes anything.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHECK_SECONDS = 1.0
"""How long a wait may last before it comes back to ``check``."""

_arrived: list[int] = []


class Interrupted(BaseException):
    """A signal asked for the end. Like KeyboardInterrupt, no error: nothing may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handled() -> Iterator[None]:
    """Let both signals raise ``Interrupted`` while the context lasts.

    One that was ignored when the program started (``nohup``, a shell's ``&``) stays so.
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


def check() -> None:
    """Raise ``Interrupted`` if a signal has arrived and yet the run goes on."""
    if _arrived:
        raise Interrupted(_arrived[0])


@contextmanager
def held() -> Iterator[None]:
    """Let the signals wait while the context lasts: around a fork.

    Threads started within inherit that; other threads must not be there, or they would
    take the signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Make this process, a worker, deaf to Ctrl-C, which a terminal sends to all alike."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
