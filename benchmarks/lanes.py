"""How fast each kernel of lanes computes SHA-256, by the number of lanes.

    python benchmarks/lanes.py                       pieces of 32 KiB, a tenth of a second a run
    python benchmarks/lanes.py --threads 2           two threads at once, such as of one core
    python benchmarks/lanes.py --seconds 0.01 --rounds 1  a smoke run

The speed is that of all lanes of all threads. Each lane takes in a buffer of its own. "narrow" is
the kernel with the CPU's SHA instructions, whose groups of lanes are as wide as was measured to be
best; "wide" is AVX-512, if the CPU has it; "chosen" is what a run would use.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from functools import partial

from make_mirror import size_argument
from measure import CANNOT_MEASURE, alternate, argument_parser, engines, tell_lines

from fastindex.hashing.engine import usable_engine
from fastindex.hashing.speeds import measure_speeds
from fastindex.hashing.tasks import EngineSetup

_MOST_LANES = 16


def _gigabytes_a_second(
    setup: EngineSetup, lanes: int, piece_bytes: int, threads: int, seconds: float
) -> float:
    """Let each of ``threads`` threads work on ``lanes`` states for ``seconds``."""
    done_bytes: list[int] = []
    began = time.perf_counter()

    def work() -> None:
        engine = usable_engine(setup)
        memory = memoryview(mmap.mmap(-1, lanes * piece_bytes))
        memory[:] = os.urandom(len(memory))
        pieces = [memory[piece_bytes * number :][:piece_bytes] for number in range(lanes)]
        states = [engine.sha256(b"") for _ in pieces]
        done = 0
        barrier.wait()
        while time.perf_counter() < began + seconds:
            engine.update(states, pieces)
            done += len(memory)
        done_bytes.append(done)

    def start_clock() -> None:
        nonlocal began
        began = time.perf_counter()

    barrier = threading.Barrier(threads, start_clock)
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done_bytes) / (time.perf_counter() - began) / 1e9


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--piece", type=size_argument, default="32K", help="of a lane")
    parser.add_argument("--seconds", type=float, default=0.1, help="how long a run takes")
    parser.add_argument("--threads", type=int, default=1, help="at the same time")
    arguments = parser.parse_args()
    if "lanes" not in engines():
        print("this machine has no lanes", file=sys.stderr)
        return CANNOT_MEASURE
    chosen = measure_speeds(arguments.threads).setup
    setups = {"narrow": EngineSetup("lanes", 0, chosen.narrow_lanes)}
    if usable_engine(chosen).wide_lanes:
        setups |= {"wide": EngineSetup("lanes", 1), "chosen": chosen}
    contenders = {
        (name, lanes): partial(
            _gigabytes_a_second,
            setup,
            lanes,
            arguments.piece,
            arguments.threads,
            arguments.seconds,
        )
        for lanes in range(1, _MOST_LANES + 1)
        for name, setup in setups.items()
    }
    speeds = alternate(contenders, arguments.rounds)
    counts = range(1, _MOST_LANES + 1)
    tell_lines(
        f"SHA-256 of pieces in memory, threads: {arguments.threads}",
        "lanes",
        {"GB/s": {name: {count: speeds[name, count] for count in counts} for name in setups}},
        {
            "KiB of a piece": arguments.piece >> 10,
            "wide from": chosen.wide_from,
            "narrow lanes": chosen.narrow_lanes,
            "rounds": arguments.rounds,
        },
        arguments.record,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
