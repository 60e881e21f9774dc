"""A mirror of many versions that is published again and again, and a record of what was."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from fastindex.catalogue.drafts import Draft
from fastindex.formats.simplestreams import Index, ProductFile, decode
from fastindex.mirror.mirror import Mirror
from tests.support.catalogues import draft_product_file, publish_drafts
from tests.support.command import COMMAND
from tests.support.faults.load_clients import IMAGES, INDEX
from tests.support.trees import forget_state, in_stream, version, write_tree

_A_PRODUCT = 10
_SMALL = "daily"
_SMALL_VERSIONS = 20
_PATIENCE_SECONDS = 600.0
_LEAST_ROUNDS = 5
"""However slow the machine is, this often each is done."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A published file, while clients could be given it."""

    path: str
    digest: str
    since: float
    """When, by the monotonic clock, the publisher that wrote it began."""
    until: float
    """When the publisher that wrote the next one had ended."""


@dataclass
class Record:
    """What was published when, and what that took."""

    root: Path
    kept: Path
    """A directory for a copy of each distinct file, named by its digest."""
    changes: dict[str, list[tuple[float, float, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Path → (begun, ended, digest) of all that changed it."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """What published → the seconds that each took."""
    peak_mib: float = 0.0
    """Of the largest build."""
    _inodes: dict[str, int] = field(default_factory=dict)

    def publish(self, what: str, work: Callable[[], None]) -> None:
        """Do ``work`` and note its time, and what it changed."""
        begun = time.monotonic()
        work()
        ended = time.monotonic()
        self.seconds[what].append(ended - begun)
        for path in (INDEX, IMAGES):
            inode = (self.root / path).stat().st_ino
            if self._inodes.get(path) != inode:  # not given again, as a copy is kept
                self._inodes[path] = inode
                self.changes[path].append((begun, ended, self._keep(path)))

    def _keep(self, path: str) -> str:
        with (self.root / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = self.kept / f"{digest}.{Path(path).stem}"
        if kept.exists():
            # Its inode must not be given to another file that is not noticed then.
            kept.with_suffix(f".{self._inodes[path]}").hardlink_to(self.root / path)
        else:
            kept.hardlink_to(self.root / path)
        return digest

    def generations(self) -> list[Generation]:
        """Return all that was published, one after the other."""
        found: list[Generation] = []
        for path, changes in self.changes.items():
            ends = [ended for _, ended, _ in changes[1:]] + [float("inf")]
            found += [
                Generation(path, digest, begun, until)
                for (begun, _, digest), until in zip(changes, ends, strict=True)
            ]
        return found

    def decode_all(self) -> int:
        """Decode each distinct file strictly; return how many. Raises where one is broken."""
        decoded = 0
        for kept in self.kept.iterdir():
            if kept.suffix == f".{Path(INDEX).stem}":
                decode(kept.read_bytes(), Index)
            elif kept.suffix == f".{Path(IMAGES).stem}":
                decode(kept.read_bytes(), ProductFile)
            else:
                continue
            decoded += 1
        return decoded


def make_tree(root: Path, versions: int) -> None:
    """Make a stream of so many versions of two tiny files, ten a product, and a small stream."""
    for number in range(versions):
        write_tree(root, version(_path(number)))
    for number in range(_SMALL_VERSIONS):
        write_tree(root, in_stream(_SMALL, version(_path(number).replace("debian", "small", 1))))


def _path(number: int) -> str:
    product, age = divmod(number, _A_PRODUCT)
    return f"debian/{product:06}/amd64/default/202405{age + 1:02}_05:24"


class Publisher:
    """Publishes a mirror anew, always with something changed.

    Args:
        record: takes note of it.
        versions: how many the mirror has.
    """

    def __init__(self, record: Record, versions: int) -> None:
        self._record = record
        self._root = record.root
        self._versions = versions
        self._round = 0
        self._prepared: list[Draft] = []

    def build_in_a_loop(self, seconds: float) -> None:
        """Change the tree and build, one real build after the other."""
        ends = time.monotonic() + seconds
        last_round = self._round + _LEAST_ROUNDS
        while time.monotonic() < ends or self._round < last_round:
            self._change_tree()
            self._record.publish("builds of all", self._build)

    def publish_at_a_pace(self, seconds: float, pause_seconds: float) -> None:
        """Publish the large stream by the program's last stage, and build a small one.

        Both each ``pause_seconds``; a build of the large one takes longer than that.
        """
        self._prepare()
        began = time.monotonic()
        rounds = 0
        while time.monotonic() < began + seconds or rounds < _LEAST_ROUNDS:
            prepared = self._prepared[rounds % len(self._prepared)]
            self._record.publish("last stages of all", partial(self._publish, prepared))
            self._change_small_stream(rounds)
            self._record.publish("builds of a small stream", self._build_small)
            rounds += 1
            time.sleep(max(0.0, began + rounds * pause_seconds - time.monotonic()))

    def finish(self) -> None:
        """Build a last time, so that what is published is what lies in the tree."""
        self._prepared.clear()
        forget_state(self._root)
        self._record.publish("builds of all", self._build)

    def _build(self) -> None:
        self._run(str(self._root))

    def _build_small(self) -> None:
        self._run("--force", "--stream", _SMALL, str(self._root))

    def _run(self, *arguments: str) -> None:
        command = [str(COMMAND), "-q", "--wait", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        # What this publisher takes away is told of; nothing else may be.
        warnings = [line for line in told.splitlines() if b" is published any more" not in line]
        assert (process.returncode, warnings) == (0, []), told.decode()
        self._record.peak_mib = max(self._record.peak_mib, usage.ru_maxrss / 1024)

    def _change_tree(self) -> None:
        """Add a version, a product, take both away, put one version in another's place."""
        self._round += 1
        # The dates differ from round to round: what is added has not been there before.
        aside = self._root / f".aside{self._round}"
        product = f"debian/{self._round % max(1, self._versions // _A_PRODUCT):06}/amd64/default"
        match self._round % 4:
            case 0:
                write_tree(self._root, version(f"{product}/202406{self._round % 28 + 1:02}_05:24"))
            case 1:
                write_tree(self._root, version(f"new/{self._round}/amd64/default/20240601_05:24"))
            case 2:
                (self._root / f"images/new/{self._round - 1}").rename(aside)
            case 3:
                victim = self._root / "images" / product / "20240501_05:24"
                if victim.exists():
                    victim.rename(aside)
                write_tree(self._root, version(f"{product}/20240701_05:24"))

    def _change_small_stream(self, rounds: int) -> None:
        """Let the index change each time: a product more, a product less."""
        path = self._root / _SMALL / "new"
        if rounds % 2:
            path.rename(self._root / f".small{rounds}")
        else:
            write_tree(self._root, in_stream(_SMALL, version("new/1/amd64/default/20240601_05:24")))

    def _prepare(self) -> None:
        """Make catalogues to alternate between: two of one length, and one of other products."""
        path = self._root / IMAGES
        document = decode(path.read_bytes(), ProductFile)
        keys = [key for key, product in document.products.items() if len(product.versions) > 1]
        others = [self._without_a_version(document, key) for key in keys[-2:]]
        fewer = dict(document.products)
        del fewer[keys[0]]
        others.append(msgspec.structs.replace(document, products=fewer))
        for other in (document, *others):
            draft = draft_product_file(str(self._root), other)
            self._prepared.append(msgspec.structs.replace(draft, is_published=False))
        self._prepared.append(self._prepared.pop(0))

    @staticmethod
    def _without_a_version(document: ProductFile, key: str) -> ProductFile:
        product = document.products[key]
        versions = dict(product.versions)
        del versions[min(versions)]
        changed = msgspec.structs.replace(product, versions=versions)
        return msgspec.structs.replace(document, products={**document.products, key: changed})

    def _publish(self, draft: Draft) -> None:
        with Mirror.at(self._root).lock(_PATIENCE_SECONDS):
            publish_drafts(str(self._root), [draft])
