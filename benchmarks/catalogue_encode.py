"""Encoding the catalogue: msgspec, as fastindex does it, beside the standard library's json.

    python benchmarks/catalogue_encode.py                 1,000 to 1,000,000 versions
    python benchmarks/catalogue_encode.py --versions 1000 --rounds 1           a smoke run

Each run is a process of its own that makes the catalogue (``simulated.py``; not timed),
encodes it once and ends. *json.dumps* gets the same as dicts, lists and strings; *compact*
means without blanks and escapes, which is what fastindex writes. Garbage collection is off
for all of them. A million versions take some GiB of memory.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec
from measure import alternate, argument_parser, in_own_process, speed, tell_lines
from simulated import ITEMS_A_VERSION, document

from fastindex.formats.simplestreams import encode

_MSGSPEC = "fastindex (msgspec)"
_JSON = "json.dumps"
_COUNTS = "1000,10000,100000,1000000"


def _encode_with_msgspec(versions: int) -> tuple[float, int]:
    gc.disable()
    made = document(versions)
    began = time.perf_counter()
    data = encode(made)
    return time.perf_counter() - began, len(data)


def _encode_with_json(versions: int, *, is_compact: bool) -> tuple[float, int]:
    gc.disable()
    made = msgspec.to_builtins(document(versions))
    began = time.perf_counter()
    if is_compact:
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    else:
        text = json.dumps(made)
    return time.perf_counter() - began, len(text)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--versions", default=_COUNTS, help="how many, with commas between")
    arguments = parser.parse_args()
    counts = [int(word) for word in arguments.versions.split(",")]
    contenders: dict[str, Callable[[int], tuple[float, int]]] = {
        _MSGSPEC: _encode_with_msgspec,
        _JSON: partial(_encode_with_json, is_compact=False),
        f"{_JSON}, compact": partial(_encode_with_json, is_compact=True),
    }
    results = {
        count: alternate(
            {name: partial(in_own_process, work, count) for name, work in contenders.items()},
            arguments.rounds,
        )
        for count in counts
    }
    series = {
        name: {count: [seconds for seconds, _ in results[count][name]] for count in counts}
        for name in contenders
    }
    mib = {count: round(results[count][_MSGSPEC][0][1] / (1 << 20), 1) for count in counts}
    tell_lines(
        f"Encoding a catalogue, {ITEMS_A_VERSION} files a version",
        "versions",
        {"seconds": series},
        {"MiB": ", ".join(map(str, mib.values())), "rounds": arguments.rounds},
        arguments.record,
    )
    for count in counts:
        ratios = [
            f"{1 / speed(series[_MSGSPEC][count], series[name][count]):.3f} of {name}"
            for name in list(contenders)[1:]
        ]
        print(f"  {count:,} versions: msgspec takes {', '.join(ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
