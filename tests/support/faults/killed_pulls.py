"""Killing pulls at moments of the clock, while a client looks at what they publish."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from tests.support.clients.mirror_server import Certificate, free_port, run_nginx
from tests.support.command import COMMAND, UNMEASURED
from tests.support.faults.scenarios import (
    MIDDLE,
    NEW,
    OLD,
    PRODUCTS,
    check_caches,
    check_files,
    contents,
    generation,
    run,
    versions,
)
from tests.support.trees import Files, version, write_tree

PIECE_BYTES = 4 << 20
"""The least that is asked for at once: what a kill may cost each connection."""
CONNECTIONS = 4
_MEBIBYTE = 1 << 20
_SIZES = {f"{PRODUCTS[0]}/{MIDDLE}": 17, f"{PRODUCTS[1]}/{MIDDLE}": 9, f"void/1/amd64/a/{NEW}": 6}
"""Versions that are new upstream → MiB of their roots."""
_SMALL = (f"void/1/amd64/b/{OLD}", f"void/1/arm64/b/{OLD}")
_PATIENCE_SECONDS = 120
_SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl sndbuf=64k;  # what is sent is near to what has come
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {root};
        limit_rate 5m;  # of each connection: slow enough to be killed on the way
    }}
"""


@dataclass
class Tally:
    """What has come of kills."""

    killed: int = 0
    """How many runs were killed."""
    looks: int = 0
    """How often the client looked."""
    excess: list[float] = field(default_factory=list)
    """Of each pull, however often it was killed: what the server sent beyond the files, as a
    share of them."""


class PullPlace:
    """A mirror with an older generation of an upstream, which is pulled again and again.

    Args:
        directory: an empty one.
        url: where ``upstream`` is served.
        certificate: what the server shows.
        log: the server's access log.
    """

    def __init__(self, directory: Path, url: str, certificate: Path, log: Path) -> None:
        self.root = directory / "mirror"
        self._pristine = directory / "pristine"
        self._log = log
        upstream = directory / "upstream"
        options = ["-q", "--ca", str(certificate), "--connections", str(CONNECTIONS)]
        self.command = [str(COMMAND), "pull", *options, url, str(self.root)]
        self.root.mkdir()
        _publish(upstream, {**version(f"{PRODUCTS[0]}/{OLD}"), **version(f"{PRODUCTS[1]}/{OLD}")})
        self._pull()
        self.before = generation(self.root)
        shutil.copytree(self.root, self._pristine)
        self._kept = contents(self.root)
        added: Files = {}
        for path, size in _SIZES.items():
            added |= version(path)
            name = f"images/{path}/rootfs.squashfs"
            root = added[name]
            assert isinstance(root, bytes)
            added[name] = root + random.Random(path).randbytes(size * _MEBIBYTE)
        for path in _SMALL:
            added |= version(path)
        _publish(upstream, added)
        self.sent_bytes()
        began = time.monotonic()
        self._pull()
        self.seconds = time.monotonic() - began
        self.bytes = self.sent_bytes()
        """What the server sends for a pull that nobody disturbs: files and catalogue."""
        self.after = generation(self.root)
        assert self.after != self.before

    def _pull(self) -> None:
        done = run(*self.command)
        assert done.returncode == 0, done.stderr

    def sent_bytes(self) -> int:
        """Return how many bytes of bodies the server has sent since the last call."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        os.truncate(self._log, 0)
        return sum(int(line.split('"')[2].split()[1]) for line in lines)

    def survive(self, kills: int, chance: random.Random, tally: Tally) -> None:
        """Pull with so many kills on the way; raise AssertionError where something is lost."""
        shutil.rmtree(self.root)
        shutil.copytree(self._pristine, self.root)
        self.sent_bytes()
        killed = 0
        with _watched(self.root, tally):
            for _ in range(kills):
                # Half of them at its end, where it publishes: that is soon over.
                since = chance.choice((0.05, 0.75))
                killed += self._kill(chance.uniform(since, 1) * self.seconds)
                self._check()
            self._pull()
        self._check()
        assert generation(self.root) == self.after
        verified = run(str(COMMAND), "verify", "--sha256", str(self.root))
        assert verified.returncode == 0, verified.stderr
        left = [path for path in self.root.rglob("images/**/.*") if path.name.startswith(".2")]
        assert not left, left
        self._wait_for_the_log()
        sent = self.sent_bytes()
        tally.killed += killed
        tally.excess.append(sent / self.bytes - 1)
        most = 1.05 * self.bytes + killed * CONNECTIONS * PIECE_BYTES
        assert sent <= most, f"{sent} bytes were sent after {killed} kills"

    def _kill(self, seconds: float) -> bool:
        """Start a pull and kill it after so many seconds; return whether it still lived."""
        process = subprocess.Popen(self.command, env=UNMEASURED, stdout=DEVNULL, stderr=DEVNULL)
        try:
            assert process.wait(seconds) == 0
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True

    def _check(self) -> None:
        published = generation(self.root, is_between=True)
        # It publishes what is new before it withdraws what is old.
        before, after = versions(self.before), versions(self.after)
        assert before & after <= versions(published) <= before | after
        check_files(self.root, published)
        check_caches(self.root)
        lost = self._kept - contents(self.root)
        assert not lost, lost

    def _wait_for_the_log(self) -> None:
        """Wait until the server has noticed the connections that kills have cut."""
        last = -1
        while last != (last := self._log.stat().st_size):
            time.sleep(0.2)


@contextmanager
def served(directory: Path, certificate: Certificate) -> Iterator[PullPlace]:
    """Serve an upstream below ``directory``, an empty one, and yield a mirror that pulls it."""
    port = free_port()
    url = f"https://localhost:{port}"
    work, upstream = directory / "nginx", directory / "upstream"
    work.mkdir()
    upstream.mkdir()
    server = _SERVER.format(
        port=port, certificate=certificate.path, key=certificate.key, root=upstream
    )
    with run_nginx(server, url, work, certificate):
        yield PullPlace(directory, url, certificate.path, work / "access.log")


def _publish(upstream: Path, tree: Files) -> None:
    write_tree(upstream, tree)
    done = run(str(COMMAND), "-q", str(upstream))
    assert done.returncode == 0, done.stderr


@contextmanager
def _watched(root: Path, tally: Tally) -> Iterator[None]:
    """Look all the while whether what is published is whole, as clients do."""
    is_over = threading.Event()
    problems: list[str] = []

    def watch() -> None:
        while not is_over.is_set():
            problems.extend(_look(root))
            tally.looks += 1
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(_PATIENCE_SECONDS)
    assert not problems, problems[:5]


def _look(root: Path) -> Iterator[str]:
    """Yield what is wrong with what is published now."""
    try:
        index = json.loads((root / "streams/v1/index.json").read_bytes())
        for entry in index["index"].values():
            products = json.loads((root / entry["path"]).read_bytes())["products"]
            for item in _items(products):
                size = (root / item["path"]).stat().st_size
                if size != item["size"]:
                    yield f"{item['path']} has {size} bytes"
    except (OSError, ValueError, KeyError) as error:
        yield f"{type(error).__name__}: {error}"


def _items(products: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for product in products.values():
        for one in product["versions"].values():
            yield from one["items"].values()
