"""An operator's day in a hurry: uploads, builds, prunes, imports, deltas, removes and pushes."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.builders import METADATA
from tests.support.contents import make_tarball
from tests.support.faults.served_record import INDEX, Record, digest
from tests.support.object_store import Store
from tests.support.tools import needs

DOCUMENTS = (INDEX, "streams/v1/images.json")
_CREATED = 1_600_000_000
_RELEASES = 5
_LEAST_TURNS = 8
"""However slow the machine is, all is done twice."""


class Publisher:
    """Changes a mirror and publishes it, for as long as it is told.

    Args:
        record: runs the commands.
        work: an empty directory.
        store: where to push.
        grace: how long files outlive the catalogues that name them, for the command line.
        options: what is to accompany the catalogue.
    """

    def __init__(
        self, record: Record, work: Path, store: Store, grace: str, options: tuple[str, ...]
    ) -> None:
        self.pushed: list[tuple[str, str, float, float]] = []
        """Path, digest, and when the push began and ended that put it into the bucket."""
        self._record = record
        self._work = work
        self._store = store
        self._grace = grace
        self._options = ("--wait", *options)
        self._chance = random.Random(17)
        self._turn = 0
        self._round = 0
        self._beside = 0
        self._trees: dict[str, Path] = {}

    def begin(self) -> None:
        """Publish what clients find at the beginning."""
        for _ in range(2 * _RELEASES):
            self._upload(str(self._round % _RELEASES))
        self._run("build", self._record.root)
        self._run("deltas", self._record.root)
        self._push()

    def publish(self, seconds: float) -> None:
        """Do all of it again and again."""
        ends = time.monotonic() + seconds
        is_over = threading.Event()
        beside = [
            threading.Thread(target=self._repeat, args=(work, is_over))
            for work in (self._push, self._make_deltas, self._import_beside, self._prune)
        ]
        for thread in beside:
            thread.start()
        try:
            while time.monotonic() < ends or self._turn < _LEAST_TURNS:
                self._do_turn()
        finally:
            is_over.set()
            for thread in beside:
                thread.join()
        self._run("build", self._record.root)
        self._push()

    def _do_turn(self) -> None:
        root = self._record.root
        release, passing = str(self._turn % _RELEASES), f"passing{self._turn // 4}"
        match self._turn % 4:
            case 0:
                self._upload(release)
                self._run("build", root)
            case 1:
                source = self._make(release)
                self._run("import", "--index", "--copy", source, root)
            case 2:
                self._upload(passing)
                self._upload(release)
                self._prune()
            case 3:
                self._upload(release)
                going = f"images/debian/{passing}/amd64/default"
                self._run("remove", "--grace", self._grace, going, root)
        self._turn += 1

    @staticmethod
    def _repeat(work: Callable[[], None], is_over: threading.Event) -> None:
        while not is_over.wait(0.5):
            work()

    def _push(self) -> None:
        begun = time.monotonic()
        self._record.run(
            *("push", "-q", "--wait", "--grace", self._grace),
            *("--endpoint", self._store.endpoint, self._record.root, self._store.url),
        )
        ended = time.monotonic()
        last = {path: one for path, one, _, _ in self.pushed}
        for path in DOCUMENTS:
            for suffix in ("", ".gz"):
                name = f"{path}{suffix}"
                now = digest((self._store.objects / name).read_bytes())
                if last.get(name) != now:
                    self.pushed.append((name, now, begun, ended))

    def _make_deltas(self) -> None:
        self._run("deltas", self._record.root)

    def _prune(self) -> None:
        """Publish what is new, and delete what has just had its grace."""
        self._run("prune", "--keep", "2", "--grace", self._grace, self._record.root)

    def _import_beside(self) -> None:
        """Import without a build: the next one, whichever it is, publishes it."""
        self._beside += 1
        source = self._make(f"beside{self._beside % 2}")
        self._record.run("import", "-q", "--copy", source, self._record.root)

    def _run(self, command: str, *words: str | Path) -> None:
        self._record.run(command, "-q", *self._options, *words)

    def _make(self, release: str) -> Path:
        """Make the next version of a product: real, and similar to the one before."""
        mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
        self._round += not release.startswith("beside")
        number = self._round if not release.startswith("beside") else self._beside
        tree = self._trees.get(release)
        if tree is None:
            tree = self._trees[release] = self._work / f"tree-{release}"
            tree.mkdir()
            for name in range(8):
                (tree / f"f{name}").write_bytes(self._chance.randbytes(20_000))
        (tree / f"f{number % 8}").write_bytes(self._chance.randbytes(20_000))
        source = self._work / f"source-{release}-{number}"
        source.mkdir()
        options = ["-noappend", "-quiet", "-no-progress", "-processors", "1"]
        subprocess.run([mksquashfs, tree, source / "rootfs.squashfs", *options], check=True)
        created = _CREATED + number * 3600
        text = METADATA.replace("1714886640", str(created)).replace(": 12", f": {release}")
        (source / "incus.tar.xz").write_bytes(make_tarball({"metadata.yaml": text.encode()}))
        return source

    def _upload(self, release: str) -> None:
        """Put a whole version into the tree at once, as careful uploaders do."""
        source = self._make(release)
        name = time.strftime("%Y%m%d_%H:%M", time.gmtime(_CREATED + self._round * 3600))
        place = self._record.root / "images/debian" / release / "amd64/default"
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(source, place / name)
