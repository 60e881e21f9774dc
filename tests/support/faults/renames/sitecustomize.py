"""Keeps a copy of each file of a catalogue, at the moment before it takes its place.

Python imports this in each process whose PYTHONPATH leads here. What a command publishes only for
a moment is seen, too.
"""

import hashlib
import json
import os
import sys
import time

_ROOT, _KEPT, _COMMAND = (os.environ.get(f"RENAMES_{name}", "") for name in ("ROOT", "KEPT", "BY"))


def _watch(event: str, words: tuple[object, ...]) -> None:
    if event != "os.rename":
        return
    source, target, source_at, target_at = words
    if not (isinstance(target_at, int) and target_at >= 0 and isinstance(target, str)):
        return
    directory = os.path.relpath(os.readlink(f"/proc/self/fd/{target_at}"), _ROOT)
    path = os.path.normpath(os.path.join(directory, target))
    is_page = path in {"index.html", "feed.atom"}
    if target.startswith(".") or not (is_page or path.startswith("streams/")):
        return
    with open(f"/proc/self/fd/{source_at}/{source}", "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    place = os.path.join(_KEPT, digest)
    if not os.path.exists(place):
        with open(place, "wb") as file:
            file.write(data)
    seen = {"path": path, "digest": digest, "since": time.monotonic(), "by": int(_COMMAND)}
    with open(os.path.join(_KEPT, "log"), "a", encoding="utf-8") as log:
        log.write(f"{json.dumps(seen)}\n")


if _ROOT:
    sys.addaudithook(_watch)
