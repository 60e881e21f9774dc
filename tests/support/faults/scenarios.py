"""What is disturbed: a build, an import, a prune; and what must hold whenever it ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.builders import Workshop
from tests.support.command import COMMAND
from tests.support.trees import OLD_NS, Files, version, write_tree

PRODUCTS = ("debian/12/amd64/default", "alpine/3.20/arm64/cloud")
OLD, MIDDLE, NEW = "20240501_05:24", "20240502_05:24", "20240503_05:24"
ROOT_BYTES = 300_000
"""Of a root: more than one buffer's worth is read where the buffer is a test's."""

BIG_BYTES = 33 << 20
"""Of a root that a worker gets alone; two of them are worth workers."""

BASE: Files = {
    **version(f"{PRODUCTS[0]}/{OLD}"),
    **version(f"{PRODUCTS[0]}/{MIDDLE}"),
    **version(f"{PRODUCTS[1]}/{OLD}"),
}
IMPORTED = "images/debian/12/amd64/default/20240505_05:24"
"""Where the delivery goes: as its metadata says."""
ADDED: Files = {
    f"images/{PRODUCTS[0]}/{NEW}/incus.tar.xz": b"incus",
    f"images/{PRODUCTS[0]}/{NEW}/lxd.tar.xz": b"lxd",
    f"images/{PRODUCTS[0]}/{NEW}/rootfs.squashfs": bytes(ROOT_BYTES),
    **version(f"{PRODUCTS[1]}/{NEW}"),
}


@dataclass(frozen=True)
class Scenario:
    """A command that is disturbed, on a mirror with one generation published.

    Attributes:
        name: what it is called.
        arguments: the command's, before ROOT.
        prepare: changes a published tree so that there is something to do.
    """

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], None]

    def command(self, root: Path) -> list[str]:
        """Return the command line; ``{work}`` in an argument is what ROOT lies in."""
        words = [word.format(work=root.parent) for word in self.arguments]
        return [str(COMMAND), *words, str(root)]

    @property
    def has_workers(self) -> bool:
        """Whether it starts processes."""
        return "-j2" in self.arguments


def _add(root: Path) -> None:
    write_tree(root, ADDED)


def _add_big(root: Path) -> None:
    _add(root)
    for product in PRODUCTS:
        path = root / f"images/{product}/{NEW}/rootfs.squashfs"
        with path.open("r+b") as file:
            file.truncate(BIG_BYTES)
        os.utime(path, ns=(OLD_NS, OLD_NS))


def _nothing(root: Path) -> None:
    del root


def _deliver(root: Path) -> None:
    shutil.copytree(root.parent.parent / "delivery", root.parent / "delivery")


SCENARIOS = (
    Scenario("build", ("-j1",), _add),
    Scenario("build, two workers", ("-j2", "--rehash"), _add_big),
    Scenario("prune", ("prune", "--keep", "1", "--grace", "0"), _nothing),
    Scenario("import, move", ("import", "--move", "{work}/delivery"), _deliver),
    Scenario("import, copy", ("import", "--copy", "{work}/delivery"), _deliver),
)


class Place:
    """A directory in which one scenario is played again and again.

    Args:
        directory: an empty one.
        scenario: what is played.
        workshop: makes what is imported.

    ``seconds`` is what an undisturbed run took.
    """

    def __init__(self, directory: Path, scenario: Scenario, workshop: Workshop) -> None:
        self.scenario = scenario
        workshop.split(directory / "delivery")
        self.root = directory / "work/mirror"
        self._pristine = directory / "pristine"
        self._pristine.mkdir(parents=True)
        write_tree(self._pristine, BASE)
        run(str(COMMAND), "-q", str(self._pristine))
        self.before = generation(self._pristine)
        self.start_afresh()
        began = time.monotonic()
        done = run(*scenario.command(self.root))
        self.seconds = time.monotonic() - began
        if scenario.name.startswith("import"):
            run(str(COMMAND), "-q", str(self.root))
        assert done.returncode == 0, done.stderr
        self.after = generation(self.root)
        assert self.before != self.after

    def start_afresh(self) -> None:
        """Make the mirror anew, with the old generation published and something to do."""
        shutil.rmtree(self.root.parent, ignore_errors=True)
        self.root.parent.mkdir()
        shutil.copytree(self._pristine, self.root, symlinks=True)
        self.scenario.prepare(self.root)

    def check(self, *, is_left_out: bool = False) -> None:
        """Hold what lies there now, after a disturbed run, against what must always hold.

        Args:
            is_left_out: whether the run told that it left something out.
        """
        root = self.root
        published = generation(root)
        if is_left_out:
            known = versions(self.before) | versions(self.after)
            assert versions(published) <= known, "a version that never was"
        elif self.scenario.name.startswith("import"):
            assert published == self.before, "the catalogue is not an import's to change"
        else:
            assert published in (self.before, self.after), "neither one generation nor the next"
        check_files(root, published)
        check_caches(root)

    def finish(self) -> None:
        """Run once more, undisturbed; all is to be as if nothing had been."""
        is_moved = self.scenario.name == "import, move" and (self.root / IMPORTED).exists()
        done = run(*self.scenario.command(self.root))
        assert done.returncode == 0 or is_moved, done.stderr  # its sources may be gone
        run(str(COMMAND), "-q", str(self.root))
        if self.scenario.name == "prune":
            run(*self.scenario.command(self.root))
        assert generation(self.root) == self.after
        check_files(self.root, self.after)
        check_caches(self.root)
        left = {path for path in self.root.rglob("*") if _is_temporary(path.name)}
        if is_moved:  # a mark whose removal was made to fail; harms nobody
            left -= {self.root / IMPORTED / ".importing"}
        assert not left, left


def _is_temporary(name: str) -> bool:
    hidden = {".items.json", ".lock", ".snapshot.json", ".withdrawn.json", ".damaged.json"}
    return (name.startswith(".") and name not in hidden) or name.endswith(".tmp")


def run(
    *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, undisturbed."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def generation(root: Path) -> dict[str, Any]:
    """Return the published catalogue, as clients decode it; raises where it is torn."""
    index = json.loads((root / "streams/v1/index.json").read_bytes())
    files = {
        entry["path"]: json.loads((root / entry["path"]).read_bytes())
        for entry in index["index"].values()
    }
    for entry in index["index"].values():
        assert sorted(entry["products"]) == sorted(files[entry["path"]]["products"])
    return {"products": files, "index": {k: v["products"] for k, v in index["index"].items()}}


def versions(published: dict[str, Any]) -> set[str]:
    """Return the names of all versions of a generation."""
    return {
        f"{path} {key} {name}"
        for path, file in published["products"].items()
        for key, product in file["products"].items()
        for name in product["versions"]
    }


def check_files(root: Path, published: dict[str, Any]) -> None:
    """Hold each published file's presence, size and digest against the disk."""
    for file in published["products"].values():
        for product in file["products"].values():
            for entry in product["versions"].values():
                for item in entry["items"].values():
                    data = (root / item["path"]).read_bytes()
                    assert len(data) == item["size"], item["path"]
                    assert hashlib.sha256(data).hexdigest() == item["sha256"], item["path"]


def check_caches(root: Path) -> None:
    """Hold each digest of each cache that decodes against the file beside it."""
    for cache in root.rglob(".items.json"):
        try:
            items = json.loads(cache.read_bytes())
        except ValueError:
            continue  # ignored by the next run, too
        for name, item in items.items():
            path = cache.with_name(name)
            if isinstance(item, dict) and "sha256" in item and path.is_file():
                data = path.read_bytes()
                if os.stat(path).st_mtime_ns == OLD_NS and len(data) == item.get("size"):
                    assert hashlib.sha256(data).hexdigest() == item["sha256"], path
