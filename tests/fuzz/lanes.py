"""Compare the extension with hashlib: random states, lengths, split points, lanes, kernels.

python -m tests.fuzz.lanes                            a million updates
python -m tests.fuzz.lanes --updates 10000000 --seed 7
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys

from fastindex.hashing import _lanes

EDGES = (0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 191, 192, 193, 2047, 2048)
DATA_BYTES = 1 << 16


def fuzz(updates: int, seed: int) -> int:
    """Update states of ours and of hashlib alike; return how many updates were compared.

    Raises:
        AssertionError: a digest differs; the message names the seed and the round.
    """
    chance = random.Random(seed)
    data = chance.randbytes(DATA_BYTES)
    done = number = 0
    while done < updates:
        number += 1
        count = chance.randint(1, 6 if chance.random() < 0.5 else 18)  # sometimes more than lanes
        setup = chance.randint(0, 17), chance.randint(0, 4)
        prefixes = [_piece(data, chance) for _ in range(count)]
        ours = [_lanes.sha256(prefix) for prefix in prefixes]
        theirs = [hashlib.sha256(prefix) for prefix in prefixes]
        shared = chance.random() < 0.4  # one buffer for all, as with a root
        for _ in range(chance.randint(1, 12)):
            pieces = [_piece(data, chance)] * count
            if not shared:
                pieces = [_piece(data, chance) for _ in range(count)]
            _lanes.update(ours, pieces, *setup)
            for state, piece in zip(theirs, pieces, strict=True):
                state.update(piece)
            done += count
            if chance.random() < 0.2:
                copies = [state.copy() for state in ours]
                _lanes.update(ours, pieces, *setup)  # must not reach the copies
                ours = copies
        for ours_one, theirs_one in zip(ours, theirs, strict=True):
            assert ours_one.digest() == theirs_one.digest(), f"seed {seed}, round {number}"
            assert ours_one.hexdigest() == theirs_one.hexdigest(), f"seed {seed}, round {number}"
    return done


def _piece(data: bytes, chance: random.Random) -> memoryview:
    length = chance.choice(EDGES) if chance.random() < 0.6 else chance.randint(0, 700)
    if chance.random() < 0.01:
        length = chance.randint(0, DATA_BYTES)
    start = chance.randint(0, DATA_BYTES - length)
    return memoryview(data)[start : start + length]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = fuzz(arguments.updates, arguments.seed)
    print(f"{done} updates with seed {arguments.seed}: no digest differs from hashlib's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
