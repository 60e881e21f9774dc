"""A crowd of commands on one mirror, by all of its names, and who held its lock when."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builders import Workshop
from tests.support.command import COMMAND
from tests.support.faults.scenarios import check_caches, check_files, generation, run
from tests.support.trees import forget_state, version, write_tree

CROWD = 12
WITNESS = """
import os, sys, time
from contextlib import contextmanager
from fastindex.cli import main as cli
from fastindex.system import locks
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
real = locks.lock
def note(what, path):
    if path.endswith("/.lock"):
        place = os.stat(path).st_ino
        os.write(log, f"{time.monotonic_ns()} {what} {os.getpid()} {place}\\n".encode())
@contextmanager
def lock(path, wait_seconds, *directory):
    with real(path, wait_seconds, *directory):
        note("in", path)
        try:
            yield
        finally:
            note("out", path)
locks.lock = lock
sys.exit(cli.main(sys.argv[2:]))
"""
"""Runs the command, and notes whenever it gets a mirror's lock and before it lets go of it."""

PRODUCTS = ("debian/12/amd64/default", "alpine/3.20/arm64/cloud", "void/current/amd64/default")
_HELD = re.compile(r"another run \(pid (\d+|unknown)\) holds the lock")
_RIVAL = ("another import of this version is running", "is there already", "cannot be written")
"""How an import of a version ends that another one has been quicker with."""


class Crowds:
    """A mirror with several names, and crowds of commands on it.

    Args:
        directory: an empty one.
        workshop: makes what is imported.
        seed: of which commands come, with which names.
    """

    def __init__(self, directory: Path, workshop: Workshop, seed: int) -> None:
        self.codes: Counter[tuple[str, int]] = Counter()
        self._chance = random.Random(seed)
        self._delivery = workshop.split(directory / "delivery")
        self.root = directory / "there/mirror"
        for number in range(1, 7):
            for product in PRODUCTS:
                write_tree(self.root, version(f"{product}/2024050{number}_05:24"))
        run(str(COMMAND), "-q", str(self.root))
        (directory / "link").symlink_to("there/mirror")
        (directory / "here").symlink_to("there/mirror/images")
        self.names = [
            str(self.root),
            f"{directory}/link",
            f"{directory}/here/..",
            f"{self.root}/../mirror/",
        ]
        self._log = directory / "log"
        self._elsewhere = directory / "elsewhere"
        self._imports = 0

    def play(self) -> None:
        """Let one crowd loose; raises AssertionError where something is wrong after it."""
        self._log.unlink(missing_ok=True)
        chosen = [self._arguments() for _ in range(CROWD)]
        crowd = [
            subprocess.Popen(
                [sys.executable, "-c", WITNESS, self._log, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for arguments in chosen
        ]
        told = [process.communicate(timeout=120)[1] for process in crowd]
        pids = {str(process.pid) for process in crowd}
        for arguments, process, complaint in zip(chosen, crowd, told, strict=True):
            self._check_end(arguments, process.returncode, complaint, pids)
        self._check_turns()
        check_files(self.root, generation(self.root))
        check_caches(self.root)
        left = list(self.root.rglob("*.tmp"))
        assert not left, left

    def finish(self) -> None:
        """Build once more, and hold it against a build of a copy that knows of nothing."""
        # 3: imported versions have one fingerprint, so only the newest is published.
        assert run(str(COMMAND), "-q", str(self.root)).returncode in {0, 3}
        published = generation(self.root)
        check_files(self.root, published)
        copy = self._elsewhere / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.root, copy, symlinks=True)
        for cache in copy.rglob(".items.json"):
            cache.unlink()
        forget_state(copy)
        shutil.rmtree(copy / "streams/v1")
        done = run(str(COMMAND), "-q", str(copy))
        assert done.returncode in {0, 3}, done.stderr
        assert generation(copy) == published
        for name in ("images.json", "index.json"):
            ours, theirs = ((top / "streams/v1" / name).read_bytes() for top in (self.root, copy))
            assert ours == theirs

    def _arguments(self) -> list[str]:
        chance = self._chance
        root = chance.choice(self.names)
        wait = chance.choice(([], ["--wait", "60"]))
        jobs = ["-q", f"-j{chance.randint(1, 3)}"]
        elsewhere = str(self._elsewhere / chance.choice("ab"))
        match chance.choice("bbbbeeiiippr"):
            case "b":
                return [*jobs, *wait, *chance.choice(([], ["--rehash"])), root]
            case "e":
                caches = chance.choice(([], ["--cache-dir", f"{elsewhere}/cache"]))
                options = ["--rehash", "--force", "--output", elsewhere, *caches]
                return [*jobs, *wait, *options, root]
            case "i":
                self._imports += chance.choice((0, 1))  # some want the same version
                name = f"202406{self._imports % 28 + 1:02}_05:24"
                index = chance.choice(([], ["--index"]))
                options = ["--copy", *index, "--version-name", name]
                return ["import", *jobs, *options, str(self._delivery), root]
            case "p":
                return ["prune", *jobs, *wait, "--keep", "2", "--grace", "0", root]
            case _:
                return ["remove", *jobs, *wait, "--grace", "0", "void/current", root]

    def _check_end(self, arguments: list[str], code: int, told: str, pids: set[str]) -> None:
        what = f"{arguments} ended with {code}: {told}"
        name = arguments[0] if arguments[0][0] != "-" else "build"
        self.codes[name, code] += 1
        assert "Traceback" not in told, what
        if code == 75:
            match = _HELD.search(told)
            assert match is not None, what
            assert match[1] in pids, what
            assert "60" not in arguments, what
        elif code == 1:
            assert name == "import", what
            assert any(word in told for word in _RIVAL), what
        elif code == 2:
            assert name == "remove", what
            assert "no published image" in told, what
        else:
            assert code in {0, 3}, what
            assert "cannot be written" not in told or name == "import", what

    def _check_turns(self) -> None:
        """See that never two held one lock."""
        holder: dict[str, str] = {}
        for line in sorted(self._log.read_text().splitlines(), key=_moment):
            _, what, pid, place = line.split()
            if what == "in":
                assert place not in holder, f"{pid} and {holder[place]} at once"
                holder[place] = pid
            else:
                assert holder.pop(place) == pid
        assert not holder


def _moment(line: str) -> int:
    return int(line.split(maxsplit=1)[0])


@contextmanager
def second_name(root: Path, name: Path) -> Iterator[bool]:
    """Mount ``root`` at ``name`` a second time; yields whether that is allowed."""
    name.mkdir()
    mount = ["mount", "--bind", str(root), str(name)]
    is_mounted = run(*mount).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", name], check=True)
