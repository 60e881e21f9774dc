"""What was published when, down to the files that stay for a moment."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from tests.support.command import COMMAND
from tests.support.tools import needs

INDEX, IMAGES = "streams/v1/index.json", "streams/v1/images.json"
_RENAMES = Path(__file__).with_name("renames")


def read_signed(keyring: Path, content: bytes) -> bytes:
    """Return the text of a clear-signed message.

    Raises:
        ValueError: there is no good signature by a key of the keyring.
    """
    gpgv = needs("gpgv", "apt-get install gpgv")
    command = [gpgv, "--keyring", str(keyring), "--output", "-", "/dev/stdin"]
    done = subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise ValueError(f"gpgv: {done.stderr.decode(errors='replace')}")
    return done.stdout


def plain_path(path: str) -> str:
    """Return the path of the catalogue file whose content a companion has, too, or ``path``."""
    for suffix in (".gz", ".zst"):
        path = path.removesuffix(suffix)
    return f"{path.removesuffix('.sjson')}.json" if path.endswith(".sjson") else path


@dataclass(frozen=True, slots=True)
class Generation:
    """A file, while clients could be given it."""

    digest: str
    since: float
    """When, by the monotonic clock, it was about to take its place."""
    until: float
    """By when the next one had taken its place."""


@dataclass
class Record:
    """What is published in ``root``, as each command that runs by ``run`` publishes it."""

    root: Path
    kept: Path
    """A directory for a copy of each distinct file, named by its digest."""
    environment: Mapping[str, str]
    """Of the commands, beside that of the tests."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What was run → how often."""
    wrong: list[str] = field(default_factory=list)
    """Commands that failed."""
    _ended: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def run(self, *words: str | Path, allowed: Iterable[int] = (0,)) -> None:
        """Run a command, and note how it went."""
        with self._lock:
            self._number += 1
            number = self._number
            self.counts[str(words[0])] += 1
        environment = {
            **os.environ,
            **self.environment,
            "PYTHONPATH": str(_RENAMES),
            "RENAMES_ROOT": str(self.root),
            "RENAMES_KEPT": str(self.kept),
            "RENAMES_BY": str(number),
        }
        command = [COMMAND, *words] if words[0] != "build" else [COMMAND, *words[1:]]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        self._ended[number] = time.monotonic()
        if done.returncode not in allowed:
            told = done.stderr.strip()[-600:]
            self.wrong.append(f"{' '.join(map(str, words))} ended with {done.returncode}: {told}")

    @cached_property
    def generations(self) -> dict[str, list[Generation]]:
        """Path → its files, in order; to be asked for when all commands have ended."""
        seen: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        for line in (self.kept / "log").read_text().splitlines():
            one = json.loads(line)
            seen[one["path"]].append((one["digest"], one["since"], self._ended[one["by"]]))
        return {
            path: [
                Generation(digest, since, until)
                for (digest, since, _), until in zip(
                    files, [*(end for _, _, end in files[1:]), float("inf")], strict=True
                )
            ]
            for path, files in seen.items()
        }

    def read(self, digest: str) -> bytes:
        """Return a file that was published."""
        return (self.kept / digest).read_bytes()

    @cached_property
    def withdrawn(self) -> dict[str, float]:
        """Product → since when, at the earliest, the index lacks it although it had it before."""
        found: dict[str, float] = {}
        before: set[str] = set()
        for one in self.generations[INDEX]:
            now = {
                key
                for entry in json.loads(self.read(one.digest))["index"].values()
                for key in entry["products"]
            }
            for key in before - now:
                found.setdefault(key, one.since)
            before = now
        return found

    def count_deltas(self) -> int:
        """Return how many deltas were published."""
        return len(
            {
                item["path"]
                for one in self.generations[IMAGES]
                for product in json.loads(self.read(one.digest))["products"].values()
                for version in product["versions"].values()
                for item in version["items"].values()
                if item["ftype"] == "squashfs.vcdiff"
            }
        )

    def find_foreign_companions(self, keyring: Path) -> list[str]:
        """Return the companions that are not of the generation of the file that they are beside."""
        unpack: dict[str, Callable[[bytes], bytes]] = {
            ".gz": gzip.decompress,
            ".zst": zstd.decompress,
            ".sjson": lambda content: read_signed(keyring, content),
        }
        wrong: list[str] = []
        for path, generations in self.generations.items():
            change = unpack.get(os.path.splitext(path)[1])
            if change is None:
                continue
            for one in generations:
                before = [
                    plain.digest
                    for plain in self.generations[plain_path(path)]
                    if plain.since <= one.since
                ]
                of = json.loads(self.read(before[-1]))
                has = json.loads(change(self.read(one.digest)))
                for entry in has.get("index", {}).values():
                    entry["path"] = plain_path(entry["path"])
                if has != of:
                    wrong.append(f"{path}: not of the generation beside it ({one.digest})")
        return wrong


def digest(content: bytes) -> str:
    """Return the name of a file in ``Record.kept``."""
    return hashlib.sha256(content).hexdigest()
