"""What the benchmarks share: pinned files, contenders side by side, medians, a record.

A record is JSON: ``title``, ``facts`` (what the figures depend on) and all runs, either as
*bars* (``runs``: contender → its runs, in ``unit``) or as *lines* (``panels``: unit →
contender → x → its runs). ``plot.py`` draws both.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import multiprocessing
import os
import platform
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

CANNOT_MEASURE = 77
"""Exit code where this machine or this user cannot take the figures at all."""

Runs = Mapping[str, Sequence[float]]
"""Contender → its runs, in order."""
Panels = Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]
"""Unit → contender → x → its runs, in order."""

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")
_LAUNCHER = """
import os, sys, time
began = time.perf_counter()
silence = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silence)
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - began, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")

# An installed program has its bytecode. Where none is written, each run that is measured would
# compile the program again, which takes longer than all else that it does on a small tree.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def argument_parser(description: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--dir", type=Path, help="where files are made (default: a new one)")
    parser.add_argument("--record", type=Path, help="write the figures as JSON")
    return parser


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


def drop_caches() -> None:
    """Write back what is dirty and drop the page cache of the whole machine.

    Raises SystemExit, with a message, where this user may not.
    """
    _drop("3")


def drop_dentries() -> None:
    """Let the kernel forget names and inodes, those of the whole machine.

    Raises SystemExit, with a message, where this user may not.
    """
    _drop("2")


def _drop(kinds: str) -> None:
    os.sync()  # what is dirty stays
    try:
        _DROP_CACHES.write_text(f"{kinds}\n")
    except OSError as error:
        print(
            f"{_DROP_CACHES} cannot be written ({error.strerror}): cold runs drop the kernel's "
            "caches, for which they must be root, and not in a container that forbids it",
            file=sys.stderr,
        )
        raise SystemExit(CANNOT_MEASURE) from error


def wall_seconds(command: Sequence[str | Path], directory: Path | None = None) -> float:
    """Run ``command`` to its end; return how long it took. Raises if it fails."""
    began = time.perf_counter()
    subprocess.run(
        command, check=True, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def seconds_and_mib(command: Sequence[str | Path]) -> tuple[float, float]:
    """Run ``command``; return its time and the peak resident memory of its largest process.

    The memory is ``ru_maxrss`` of it and of those that it has waited for. A process begins
    with that of the one that starts it, so a small launcher does that, of 10 MiB.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, command)]
    said = subprocess.run(launcher, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak_kib = said.split()
    return float(seconds), int(peak_kib) / 1024


def own_peak_mib() -> float:
    """Return the peak resident memory of this process since its program was started."""
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


def in_own_process(
    work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """Return what ``work`` returns in a new interpreter, which ends with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def in_workers(work: Callable[[list[Path]], None], paths: Sequence[Path], jobs: int) -> float:
    """Let ``jobs`` processes do ``work``, each to its share of ``paths``; return the time."""
    fork = multiprocessing.get_context("fork")
    began = time.perf_counter()
    shares = [share for start in range(jobs) if (share := list(paths[start::jobs]))]
    workers = [fork.Process(target=work, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(f"{work} failed")
    return seconds


def alternate(
    contenders: Mapping[_Key, Callable[[], _Result]], rounds: int
) -> dict[_Key, list[_Result]]:
    """Let all contenders run in turn, ``rounds`` times; return their results, in order."""
    results: dict[_Key, list[_Result]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            results[name].append(run())
    return results


def tell(
    title: str,
    runs: Runs,
    baseline: str,
    notes: Mapping[str, object],
    record: Path | None,
    *,
    unit: str = "s",
    pairs: Iterable[tuple[str, str]] = (),
) -> None:
    """Print a table of medians, ranges and ratios to ``baseline``; write it to ``record``.

    Args:
        title: what was measured.
        runs: the runs of each contender.
        baseline: the contender that the others are held against.
        notes: what else the figures depend on.
        record: a file for all of it, or None.
        unit: of the runs.
        pairs: contenders (new, old) whose speeds are compared, too.
    """
    facts = {**machine(), **notes}
    print(f"{title}\n  " + "; ".join(f"{name} {value}" for name, value in facts.items()))
    width = max(map(len, runs))
    for name, of_one in runs.items():
        print(f"  {name:<{width}}  {in_words(of_one)} {unit}", end="")
        if unit == "s":
            ratio = speed(of_one, runs[baseline])
            print(f"  time {1 / ratio:5.2f}, speed {ratio:5.2f} of {baseline}", end="")
        print()
    compared = {f"{new} / {old}": speed(runs[new], runs[old]) for new, old in pairs}
    for names, ratio in compared.items():
        print(f"  speed of {names}: {ratio:.2f}")
    if record is not None:
        _write(
            record,
            {
                "title": title,
                "facts": facts,
                "unit": unit,
                "baseline": baseline,
                "speeds": {names: round(ratio, 3) for names, ratio in compared.items()},
                "runs": runs,
            },
        )


def tell_lines(
    title: str, x: str, panels: Panels, notes: Mapping[str, object], record: Path | None
) -> None:
    """Print medians and ranges by ``x``; write them to ``record``."""
    facts = {**machine(), **notes}
    print(f"{title}\n  " + "; ".join(f"{name} {value}" for name, value in facts.items()))
    for unit, series in panels.items():
        width = max(map(len, series))
        for name, points in series.items():
            for value, runs in points.items():
                print(f"  {name:<{width}}  {x} {value:>10,}  {in_words(runs)} {unit}")
    if record is not None:
        _write(record, {"title": title, "facts": facts, "x": x, "panels": panels})


def in_words(runs: Sequence[float]) -> str:
    """Return the median and the range of ``runs``."""
    return f"{statistics.median(runs):9.3f} ({min(runs):.3f} to {max(runs):.3f})"


def speed(new: Sequence[float], old: Sequence[float]) -> float:
    """Return how many times as fast ``new`` is as ``old``, by the medians of their times."""
    return statistics.median(old) / statistics.median(new)


def _write(record: Path, document: Mapping[str, object]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(document), indent=1, ensure_ascii=False)
    record.write_text(text + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    """Return ``value`` as JSON has it, with the digits of a number that mean something."""
    if isinstance(value, Mapping):
        return {str(key): _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value


def machine() -> dict[str, object]:
    """Return what a figure depends on: processor, CPUs, kernel, versions."""
    from fastindex.hashing import engine

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
        "SHA-256": engine.describe_engine(),
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        **{name: version(name) for name in ("fastindex", "msgspec", "blake3", "xxhash")},
    }


def engines() -> list[str]:
    """Return the SHA-256 engines that this machine has."""
    from fastindex.hashing import engine

    return ["hashlib"] if engine.why_no_lanes() else ["hashlib", "lanes"]


def fastindex_command() -> Path:
    """Return the installed ``fastindex`` of this interpreter."""
    return Path(sys.executable).with_name("fastindex")
