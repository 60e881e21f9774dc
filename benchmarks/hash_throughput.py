"""Hashing alone, of bytes in memory, by buffer size: hashlib, lanes, BLAKE3, XXH3.

    python benchmarks/hash_throughput.py                  1 GiB a run, five rounds
    python benchmarks/hash_throughput.py --read           read from a file in memory, too
    python benchmarks/hash_throughput.py --bytes 16M --buffers 512K --rounds 1  a smoke run

Each run is one process with one thread that lets its states take in the same buffer until
they have taken in so many bytes in all; the speed is that of all states together. With
``--read`` the buffer is filled from a file in memory before each update, as ``digest`` does:
what tunes its ``BUFFER_BYTES``. ``batching.LANE_SPEEDS`` are the speeds of the lanes beside
that of one of them.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from blake3 import blake3
from make_mirror import size_argument
from measure import alternate, argument_parser, engines, in_own_process, tell_lines
from xxhash import xxh3_64

from fastindex.hashing.engine import usable_engine
from fastindex.hashing.tasks import EngineSetup

_FILE_BYTES = 64 << 20
_LANES = (1, 2, 3, 4)
_QUICK = ("blake3", "xxh3")


def _gigabytes_a_second(
    name: str, states: int, buffer_bytes: int, total_bytes: int, does_read: bool
) -> float:
    """Let ``states`` states of the hash ``name`` take in ``total_bytes`` together."""
    take = _taker(name, states)
    buffer = mmap.mmap(-1, buffer_bytes)
    view = memoryview(buffer)
    view[:] = random.Random(1).randbytes(buffer_bytes)
    take(view)  # the engine has been checked, the code is in memory
    updates = max(1, total_bytes // states // buffer_bytes)
    with _file_in_memory(view) as file:
        began = time.perf_counter()
        for number in range(updates):
            if does_read:
                os.preadv(file, [view], number * buffer_bytes % _FILE_BYTES)
            take(view)
        seconds = time.perf_counter() - began
    return updates * states * buffer_bytes / seconds / 1e9


def _taker(name: str, states: int) -> Callable[[memoryview], object]:
    """Return what lets ``states`` new states take in a buffer."""
    if name == "blake3":
        return blake3(max_threads=1).update
    if name == "xxh3":
        return xxh3_64().update
    how = usable_engine(EngineSetup(name))
    several = [how.sha256(b"") for _ in range(states)]

    def take(view: memoryview) -> None:
        how.update(several, [view] * states)

    return take


@contextmanager
def _file_in_memory(view: memoryview) -> Iterator[int]:
    file = os.memfd_create("bytes")
    try:
        for _ in range(max(1, _FILE_BYTES // len(view))):
            os.write(file, view)
        yield file
    finally:
        os.close(file)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--bytes", type=size_argument, default="1G", help="of a run, all states")
    parser.add_argument(
        "--buffers",
        type=lambda words: [size_argument(word) for word in words.split(",")],
        default="16K,64K,256K,512K,1M,4M",
    )
    parser.add_argument("--read", action="store_true", help="fill the buffer from a file")
    arguments = parser.parse_args()
    hashes = {"hashlib": ("hashlib", 1)}
    if "lanes" in engines():
        hashes |= {f"lanes, {count} at once": ("lanes", count) for count in _LANES}
    hashes |= {name: (name, 1) for name in _QUICK}
    contenders = {
        (title, buffer_bytes): partial(
            in_own_process,
            _gigabytes_a_second,
            *hash_and_states,
            buffer_bytes,
            arguments.bytes,
            arguments.read,
        )
        for buffer_bytes in arguments.buffers
        for title, hash_and_states in hashes.items()
    }
    speeds = alternate(contenders, arguments.rounds)
    series = {
        title: {size >> 10: speeds[title, size] for size in arguments.buffers} for title in hashes
    }
    tell_lines(
        f"Hashing of bytes in memory{', read from a file' if arguments.read else ''}, one thread",
        "KiB of buffer",
        {"GB/s": series},
        {"MiB a run": arguments.bytes >> 20, "rounds": arguments.rounds},
        arguments.record,
    )
    for size in arguments.buffers:
        base = statistics.median(speeds["hashlib", size])
        ratios = [
            f"{title} {statistics.median(speeds[title, size]) / base:.2f}" for title in hashes
        ]
        print(f"  {size >> 10} KiB, beside hashlib: {'; '.join(ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
