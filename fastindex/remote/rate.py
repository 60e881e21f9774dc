"""A limit on the bytes per second of all connections together."""

from __future__ import annotations

import threading

_BURST_SECONDS = 0.25
"""So much of the time in which nothing came may be made up for."""
_MIN_READ_BYTES = 4 << 10


class Rate:
    """A bucket of tokens, a byte each, that several threads share.

    Args:
        bytes_per_second: how many tokens it gets; 0: any number.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._paid_until = 0.0
        self._lock = threading.Lock()

    def take(self, count: int, now: float) -> float:
        """Take tokens for ``count`` bytes that have come; return for how many seconds to wait.

        Args:
            count: how many bytes.
            now: the time by a monotonic clock.
        """
        if not self._bytes_per_second:
            return 0
        with self._lock:
            begin = max(self._paid_until, now - _BURST_SECONDS)
            self._paid_until = begin + count / self._bytes_per_second
            return max(0.0, self._paid_until - now)

    def bound(self, count: int) -> int:
        """Return how many bytes to read at once, at most ``count``."""
        if not self._bytes_per_second:
            return count
        return min(count, max(_MIN_READ_BYTES, int(self._bytes_per_second * _BURST_SECONDS)))
