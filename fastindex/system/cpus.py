"""Which CPUs share a core, whose units two busy hyper-threads have to share."""

from __future__ import annotations

import os
from contextlib import suppress

from fastindex.system.files import read_small_file


def list_core_cpus(jobs: int) -> list[int]:
    """Return the CPUs of one core that are busy at the same time when ``jobs`` workers are.

    A virtual machine may not tell which of its CPUs share a core. Where none are said to, it is
    taken for possible that two neighbours do.

    Returns:
        At least one number; none if the system does not tell which CPUs may be used.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    usable = os.sched_getaffinity(0)
    siblings = _read_siblings(min(usable))
    candidates = sorted(usable, key=lambda cpu: (cpu not in siblings, cpu))
    shared = max(2, len(siblings & usable))
    busy = -(-jobs * shared // len(usable))
    return candidates[: min(shared, busy)]


def _read_siblings(cpu: int) -> set[int]:
    """Return the CPUs that share a core with ``cpu``, which is one of them.

    Source: Documentation/ABI/stable/sysfs-devices-system-cpu of Linux; such as ``0,4`` or ``0-1``.
    """
    path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    siblings = {cpu}
    with suppress(OSError, ValueError):
        for part in read_small_file(path, 4096).decode("ascii").split(","):
            first, _, last = part.partition("-")
            siblings.update(range(int(first), int(last or first) + 1))
    return siblings
