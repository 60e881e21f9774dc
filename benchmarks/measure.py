"""What the benchmarks share: pinned files, contenders side by side, medians, a record."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path


@contextmanager
def pinned_in_memory(paths: Sequence[Path]) -> Iterator[bool]:
    """Hold the bytes of ``paths`` in memory (``mlock``); yields whether that worked.

    Some machines give idle page cache back within seconds, so that a warm run is none.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    maps: list[tuple[mmap.mmap, ctypes.Array[ctypes.c_char]]] = []
    is_pinned = True
    try:
        for path in paths:
            with path.open("r+b") as file:
                mapped = mmap.mmap(file.fileno(), 0)
            view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
            maps.append((mapped, view))
            is_pinned = not libc.mlock(ctypes.addressof(view), len(mapped)) and is_pinned
        yield is_pinned
    finally:
        while maps:
            mapped, view = maps.pop()
            del view
            mapped.close()


def wall_seconds(command: Sequence[str | Path]) -> float:
    """Run ``command`` to its end; return how long it took. Raises if it fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let all contenders run in turn, ``rounds`` times; return their seconds, in order."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(run())
    return seconds


def tell(
    title: str,
    seconds: Mapping[str, Sequence[float]],
    baseline: str,
    notes: Mapping[str, object],
    record: Path | None,
) -> None:
    """Print a table of medians, ranges and ratios to ``baseline``; write it to ``record``."""
    facts: dict[str, object] = {**machine(), **notes}
    base = statistics.median(seconds[baseline])
    print(f"{title}\n  " + "; ".join(f"{name} {value}" for name, value in facts.items()))
    width = max(map(len, seconds))
    for name, runs in seconds.items():
        middle = statistics.median(runs)
        print(
            f"  {name:<{width}}  {middle:8.3f} s  ({min(runs):.3f} to {max(runs):.3f})"
            f"  time {middle / base:5.2f}, speed {base / middle:5.2f} of {baseline}"
        )
    if record is not None:
        document = {"title": title, "facts": facts, "baseline": baseline, "seconds": seconds}
        record.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=list) + "\n")


def machine() -> dict[str, object]:
    """Return what a figure depends on: processor, CPUs, kernel, versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "CPUs": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("fastindex", "msgspec", "blake3", "xxhash")},
    }


def fastindex_command() -> Path:
    """Return the installed ``fastindex`` of this interpreter."""
    return Path(sys.executable).with_name("fastindex")
