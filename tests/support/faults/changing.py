"""Builds of a tree that others change all the time: never a digest that no file had.

python -m tests.support.faults.changing --seconds 300 --seed 1
python -m tests.support.faults.changing --seconds 60 --place /a/coarse/file/system

Writers append, truncate, overwrite in place, replace, link, swap, delete, rename and make
anew, and note what each file holds when (``ledger``). Builds run all the while. Whatever
they publish must have been in the file while they ran; whatever they put into a cache for
later must have been in it under that stamp, and be there now if the stamp is. When the
writers have ended, one more build publishes just what one publishes that starts from nothing.

Modification times are the kernel's, and no file is put into the place of another that has
its size and its stamp, too: that is not noticed, as README says. So nothing is renamed,
swapped or linked where the file system keeps whole seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastindex.system.stamps import Stamp
from tests.support.command import COMMAND
from tests.support.faults.ledger import Content, Ledger, State, fresh, page_count

WRITERS = 2
PRODUCTS = 4
"""Of each writer; one of them is changed, the others rest, and are trusted after a while."""
REST_SECONDS = 2.6
"""How long a product is changed before it is another's turn; some rest past the 2 s from
which on a stamp is trusted."""
NAMES = ("20240501_05:24", "20240502_05:24", "20240503_05:24", "20240504_05:24")
METADATA, SQUASHFS, TARBALL, OTHER = (
    "incus.tar.xz",
    "rootfs.squashfs",
    "rootfs.tar.xz",
    "lxd.tar.xz",
)
PAGES = {METADATA: 2, OTHER: 1, SQUASHFS: 64, TARBALL: 256}
COMBINED = {"squashfs": "combined_squashfs_sha256", "root.tar.xz": "combined_rootxz_sha256"}
REFUSALS = ("would be dropped", "no versions to publish", "cannot be listed")

_writes = itertools.count(1)

SLOW = """
import random, sys, time
from fastindex.cli import main as cli
from fastindex.hashing import digest, reader
digest.BUFFER_BYTES = 16384
read = reader._read_into
def slowly(*arguments):
    time.sleep(random.random() / 300)
    return read(*arguments)
reader._read_into = slowly
sys.exit(cli.main(sys.argv[1:]))
"""
"""Runs the command with a disk so slow that much changes between two reads of a file."""


class Writer(threading.Thread):
    """Changes products of its own until it is told to stop."""

    def __init__(self, ledger: Ledger, number: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None
        self.changes: Counter[str] = Counter()
        self._ledger = ledger
        self._chance = chance
        self._end = threading.Event()
        self._kinds = _CHANGES_IN_PLACE if is_coarse(ledger.root) else _CHANGES
        self._products = [
            f"images/writer{number}/{release}/amd64/default" for release in range(PRODUCTS)
        ]
        for product in self._products:
            for name in NAMES[:3]:
                self._make(f"{product}/{name}")

    def stop(self) -> None:
        """End the changes; raises what a change raised."""
        self._end.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        try:
            while not self._end.is_set():
                product = self._chance.choice(self._products)
                until = time.monotonic() + REST_SECONDS * self._chance.random()
                if not self._versions(product):
                    self._make(f"{product}/{NAMES[0]}")
                while time.monotonic() < until and not self._end.is_set():
                    change = self._chance.choice(self._kinds)
                    change(self, product)
                    self.changes[change.__name__.strip("_")] += 1
                    time.sleep(self._chance.choice((0, 0, 0.001, 0.01, 0.03)))
        except BaseException as failure:
            self.failure = failure

    def _make(self, version: str) -> None:
        (self._ledger.root / version).mkdir(parents=True)
        for name in (METADATA, SQUASHFS, *self._chance.choice(((), (TARBALL,), (TARBALL, OTHER)))):
            self._ledger.put(f"{version}/{name}", fresh(next(_writes), PAGES[name]))

    def _versions(self, product: str) -> list[str]:
        return sorted({os.path.dirname(path) for path in self._ledger.below(product)})

    def _file(self, product: str) -> str | None:
        files = self._ledger.below(product)
        return self._chance.choice(files) if files else None

    def _pages(self, path: str) -> int:
        return page_count(self._ledger.inodes[path].content)

    def _overwrite(self, product: str) -> None:
        """Rewrite a file in place, at the same size; often at once again, or slowly."""
        if path := self._file(product):
            pause_seconds = self._chance.choice((0, 0, 0.001))
            for _ in range(self._chance.choice((1, 1, 3))):
                write = next(_writes)
                for page in range(0, self._pages(path), 4):
                    pages = range(page, min(page + 4, self._pages(path)))
                    self._ledger.write_pages(path, pages, write)
                    time.sleep(pause_seconds)

    def _touch_up(self, product: str) -> None:
        """Overwrite some pages somewhere, slowly."""
        if path := self._file(product):
            pages = self._pages(path)
            for _ in range(8 if pages else 0):
                page = self._chance.randrange(pages)
                self._ledger.write_pages(path, range(page, page + 1), next(_writes))
                time.sleep(self._chance.choice((0, 0.0005, 0.005)))

    def _append(self, product: str) -> None:
        path = self._file(product)
        if path and self._pages(path) < 2 * PAGES[os.path.basename(path)]:
            pages = self._pages(path)
            more = range(pages, pages + self._chance.choice((1, 4, 16)))
            self._ledger.write_pages(path, more, next(_writes))

    def _truncate(self, product: str) -> None:
        if path := self._file(product):
            pages = self._pages(path)
            self._ledger.truncate(path, self._chance.randint(0, pages))
            rest = range(self._pages(path), pages)
            self._ledger.write_pages(path, rest, next(_writes))

    def _replace(self, product: str) -> None:
        """Put a new file of the same size in the place of one."""
        if path := self._file(product):
            self._ledger.put(path, fresh(next(_writes), self._pages(path)))

    def _swap_files(self, product: str) -> None:
        """Let two files of a name and a size trade places, unless their stamps are the same."""
        path = self._file(product)
        if path is None:
            return
        inodes = self._ledger.inodes
        others = [
            other
            for other in self._ledger.below(product)
            if os.path.basename(other) == os.path.basename(path)
            and self._pages(other) == self._pages(path)
            and inodes[other].mtime_ns != inodes[path].mtime_ns
        ]
        if others:
            self._swap(path, self._chance.choice(others))

    def _swap_roots(self, product: str) -> None:
        """Let two files of one version trade names."""
        path = self._file(product)
        if path is not None:
            others = [p for p in self._ledger.below(os.path.dirname(path)) if p != path]
            if others:
                self._swap(path, self._chance.choice(others))

    def _swap(self, one: str, other: str) -> None:
        aside = os.path.join(os.path.dirname(one), ".swapped.part")
        self._ledger.rename(one, aside)
        self._ledger.rename(other, one)
        self._ledger.rename(aside, other)

    def _swap_versions(self, product: str) -> None:
        versions = self._versions(product)
        if len(versions) > 1:
            self._swap(*self._chance.sample(versions, 2))

    def _link(self, product: str) -> None:
        """Let two versions share a file."""
        path = self._file(product)
        if path is not None:
            others = [
                other
                for other in self._ledger.below(product)
                if os.path.basename(other) == os.path.basename(path) and other != path
            ]
            if others:
                target = self._chance.choice(others)
                if self._ledger.inodes[target] is not self._ledger.inodes[path]:
                    self._ledger.link(path, target)

    def _remove_file(self, product: str) -> None:
        """Remove a file; often it comes again, page by page, maybe as the same inode."""
        if path := self._file(product):
            self._ledger.remove(path)
            if self._chance.random() < 0.9:
                self._ledger.create(path)
                pages = range(PAGES[os.path.basename(path)])
                self._ledger.write_pages(path, pages, next(_writes))
            elif not self._ledger.below(os.path.dirname(path)):
                _remove_tree(self._ledger.root / os.path.dirname(path))

    def _remove_version(self, product: str) -> None:
        """Remove a version with all that lies in it; often it is made anew."""
        versions = self._versions(product)
        if not versions:
            return
        version = self._chance.choice(versions)
        hidden = os.path.join(product, f".gone{next(_writes)}")
        self._ledger.rename(version, hidden)
        if self._chance.random() < 0.7:
            self._make(version)
        for path in self._ledger.below(hidden):
            self._ledger.remove(path)
        _remove_tree(self._ledger.root / hidden)

    def _delete_version(self, product: str) -> None:
        """Delete a version as ``rm -r`` does; often it is made anew."""
        versions = self._versions(product)
        if not versions:
            return
        version = self._chance.choice(versions)
        for path in self._ledger.below(version):
            self._ledger.remove(path)
        _remove_tree(self._ledger.root / version)
        if self._chance.random() < 0.7:
            self._make(version)

    def _rename_version(self, product: str) -> None:
        versions = self._versions(product)
        free = [f"{product}/{name}" for name in NAMES if f"{product}/{name}" not in versions]
        if versions and free:
            self._ledger.rename(self._chance.choice(versions), self._chance.choice(free))
        elif free:
            self._make(free[0])

    def _rename_product(self, product: str) -> None:
        """Let a product have another name for a moment."""
        other = f"{os.path.dirname(product)}/cloud"
        if self._versions(product):
            self._ledger.rename(product, other)
            time.sleep(self._chance.choice((0, 0.01, 0.1)))
            self._ledger.rename(other, product)


def _remove_tree(directory: Path) -> None:
    """Remove a directory into which a build may be putting its cache just now."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def is_coarse(directory: Path) -> bool:
    """Return whether the file system keeps whole seconds only."""
    directory.mkdir(exist_ok=True)
    probe = directory / ".probe"
    stamps = []
    for _ in range(3):
        probe.touch()
        stamps.append(probe.stat().st_mtime_ns)
        time.sleep(0.003)
    probe.unlink()
    return not any(stamp % 1_000_000_000 for stamp in stamps)


_CHANGES_IN_PLACE: tuple[Callable[[Writer, str], None], ...] = (
    *(Writer._overwrite, Writer._touch_up, Writer._append, Writer._truncate, Writer._replace),
    *(Writer._remove_file, Writer._remove_version, Writer._delete_version),
)
_CHANGES = (
    *_CHANGES_IN_PLACE,
    *(Writer._swap_files, Writer._swap_roots, Writer._swap_versions, Writer._link),
    *(Writer._rename_version, Writer._rename_version, Writer._rename_product),
)


@dataclass
class Figures:
    """What a campaign did.

    Attributes:
        codes: exit code → builds that ended with it.
        changes: what was changed → how often.
        calls: system calls that changed something.
        published: digests in catalogues that were held against the ledger.
        trusted: digests in caches that were.
        wrong: what was wrong.
    """

    codes: Counter[int] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    published: int = 0
    trusted: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        codes = ", ".join(f"{count} × exit {code}" for code, count in sorted(self.codes.items()))
        changes = ", ".join(f"{count} {name}" for name, count in sorted(self.changes.items()))
        return (
            f"{self.codes.total()} builds ({codes})\n"
            f"{self.changes.total()} changes in {self.calls} calls ({changes})\n"
            f"{self.published} published and {self.trusted} trusted digests checked, "
            f"{len(self.wrong)} wrong"
        )


class Campaign:
    """Builds on a tree that is being changed.

    Args:
        root: of the mirror, not there yet.
        seed: of all that is left to chance but the machine's own.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.figures = Figures()
        self._root = root
        self._chance = random.Random(seed)
        self._ledger = Ledger(root)
        self._window = (0, 0)
        self._writers = [
            Writer(self._ledger, number, random.Random(f"{seed} {number}"))
            for number in range(WRITERS)
        ]

    def run(self, seconds: float) -> Figures:
        """Build for so long while all changes; then hold the last build against a first one."""
        with self._changing():
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self._build(*self._some_options())
        time.sleep(2.1)  # the coarsest tick of a clock: all stamps can be trusted
        self._build("--force")
        self._build("--force")
        self._check_end()
        return self.figures

    @contextmanager
    def _changing(self) -> Iterator[None]:
        for writer in self._writers:
            writer.start()
        try:
            yield
        finally:
            for writer in self._writers:
                writer.stop()
                self.figures.changes += writer.changes
            self.figures.calls = self._ledger.changes

    def _some_options(self) -> list[str]:
        chance = self._chance
        options = [f"-j{chance.randint(1, 4)}", "--engine", chance.choice(("hashlib", "lanes"))]
        options += chance.choice(((), (), (), ("--settle", "0"), ("--settle", "1")))
        options += chance.choice(((), (), ("--rehash",), ("--recheck", "1/2")))
        return [*options, *chance.choice(((), ("--force",)))]

    def _build(self, *options: str) -> None:
        is_slow = self._chance.random() < 0.6
        program = [sys.executable, "-c", SLOW] if is_slow else [str(COMMAND)]
        began = time.monotonic_ns()
        done = subprocess.run(
            [*program, "-q", *options, self._root],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        ended = time.monotonic_ns()
        self.figures.codes[done.returncode] += 1
        if done.returncode in {0, 3}:
            self._window = (began, ended)
        elif done.returncode != 1 or not re.search("|".join(REFUSALS), done.stderr):
            self._find(f"{options} ended with {done.returncode}: {done.stderr}")
        if "Traceback" in done.stderr:
            self._find(f"{options}: {done.stderr}")
        self._check_catalogue()
        self._check_caches()

    def _find(self, problem: str) -> None:
        self.figures.wrong.append(problem)

    def _check_catalogue(self) -> None:
        """Hold what is published against what was there while the last build ran."""
        path = self._root / "streams/v1/images.json"
        if not path.exists():
            return
        for key, product in json.loads(path.read_bytes())["products"].items():
            for name, version in product["versions"].items():
                self._check_version(f"{key} {name}", version["items"])

    def _check_version(self, label: str, items: dict[str, Any]) -> None:
        contents: dict[str, Content] = {}
        for item in items.values():
            self.figures.published += 1
            states = [
                state
                for state in self._states(item["path"])
                if state.was_there(*self._window) and state.size_bytes == item["size"]
            ]
            content = self._which(states, item["sha256"])
            if content is None:
                self._find(f"published {label}: {item}: never there from {self._window}")
                return
            contents[item["path"]] = content
        for item in items.values():
            for root in items.values():
                told = item.get(COMBINED.get(root["ftype"], ""))
                both = contents[item["path"]], contents[root["path"]]
                if told is not None:
                    self.figures.published += 1
                    if told != self._ledger.sha256(*both):
                        self._find(f"published {label}: the fingerprint of {item} and {root}")

    def _check_caches(self) -> None:
        """Hold what is kept for later against the last that was there under its stamp."""
        for directory, _, names in os.walk(self._root / "images"):
            if ".items.json" in names:
                self._check_cache(os.path.relpath(directory, self._root))

    def _check_cache(self, directory: str) -> None:
        path = self._root / directory / ".items.json"
        since = time.monotonic_ns()
        try:
            items: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return  # moved on
        until = time.monotonic_ns()
        contents: dict[str, Content] = {}
        for item in items.values():
            if not item["key"]:
                continue
            self.figures.trusted += 1
            content = self._which(self._with_key(item["path"], item["key"]), item["sha256"])
            if content is None:
                self._find(f"{path}: {item}: never there under that stamp")
                continue
            contents[item["path"]] = content
            if item.get("blake3", "") not in {"", self._ledger.blake3(content)}:
                self._find(f"{path}: {item}: another BLAKE3")
            here = os.path.join(directory, os.path.basename(item["path"]))
            present = [
                state
                for state in self._with_key(here, item["key"])
                if state.was_there(since, until)
            ]
            if present and self._which(present, item["sha256"]) is None:
                self._find(f"{path}: {item}: would be trusted, but the file holds something else")
        for item in items.values():
            for root in items.values():
                told = item.get(COMBINED.get(root["ftype"], ""))
                if told and item["path"] in contents and root["path"] in contents:
                    self.figures.trusted += 1
                    if told != self._ledger.sha256(contents[item["path"]], contents[root["path"]]):
                        self._find(f"{path}: the fingerprint of {item} and {root}")

    def _states(self, path: str) -> list[State]:
        return self._ledger.states.get(path, [])

    def _with_key(self, path: str, key: str) -> list[State]:
        return [
            state
            for state in self._states(path)
            if state.mtime_ns is not None
            and Stamp(state.size_bytes, state.mtime_ns, 0, 0).key == key
        ]

    def _which(self, states: list[State], digest: str) -> Content | None:
        # The newest first: most probably that.
        for state in reversed(states):
            if self._ledger.sha256(state.content) == digest:
                return state.content
        return None

    def _check_end(self) -> None:
        """Hold the catalogue of a quiet tree against one made of nothing but the files."""
        aside = self._root.with_name("aside")
        options = ["-q", "--rehash", "--output", str(aside), "--cache-dir", str(aside / "cache")]
        subprocess.run([COMMAND, *options, self._root], check=False, capture_output=True)
        if _catalogue(self._root) != _catalogue(aside):
            self._find("the last catalogue is not that of a build from nothing")
        if not json.loads(_catalogue(self._root))["products"]:
            self._find("nothing is published in the end")
        done = subprocess.run(
            [COMMAND, "verify", "--sha256", self._root],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self._find(f"verify: {done.stdout}{done.stderr}")
        known = {os.path.dirname(path) for path in self._ledger.inodes}
        for directory in self._root.glob("images/*/*/*/*/*"):
            if str(directory.relative_to(self._root)) not in known and any(directory.iterdir()):
                left = sorted(path.name for path in directory.iterdir())
                self._find(f"{directory} was made by a build: {left}")


def _catalogue(root: Path) -> bytes:
    return (root / "streams/v1/images.json").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", type=Path, help="a directory on the file system to use")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.place) as directory:
        figures = Campaign(Path(directory) / "mirror", arguments.seed).run(arguments.seconds)
    for problem in figures.wrong:
        print(f"WRONG {problem}")
    print(figures)
    print(f"seed {arguments.seed}, {arguments.seconds:g} s")
    return int(bool(figures.wrong))


if __name__ == "__main__":
    sys.exit(main())
