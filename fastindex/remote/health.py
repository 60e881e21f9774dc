"""Which servers work: one that fails again and again is not asked any more."""

from __future__ import annotations

import threading
from collections import defaultdict

from fastindex.remote.options import RemoteOptions


class Health:
    """What is known of servers; any thread may call it.

    Args:
        options: how the caller wants servers to be asked.
    """

    def __init__(self, options: RemoteOptions) -> None:
        self._options = options
        self._exhausted: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._lock = threading.Lock()

    def find_retries(self, origin: tuple[str, str, int]) -> int:
        """Return how often to retry at a server; less than 0: do not try at all.

        Args:
            origin: scheme, host and port.
        """
        with self._lock:
            exhausted = self._exhausted.get(origin, 0)
        if exhausted >= 2 * self._options.connections:
            return -1
        return 0 if exhausted >= self._options.connections else self._options.retries

    def note(self, origin: tuple[str, str, int], *, is_well: bool) -> None:
        """Note that a server has answered, or has failed with all retries."""
        if is_well and not self._exhausted.get(origin):
            return
        with self._lock:
            self._exhausted[origin] = 0 if is_well else self._exhausted[origin] + 1
