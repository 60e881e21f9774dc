"""Clients never meet a missing file, while versions come and go under them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import METADATA, Workshop
from tests.support.clients.mirror_server import Certificate, Mirror, opener
from tests.support.command import COMMAND
from tests.support.sizes import sized
from tests.support.trees import OLD_NS

load_seconds = sized("--load-seconds", short=8, full=300)
GRACE_SECONDS = 3
CLIENTS = 6
RELEASES = 4


class Traffic:
    """Clients that take a catalogue, wait, then fetch what it names; and what went wrong."""

    def __init__(self, url: str, certificate: Path) -> None:
        self._opener = opener(certificate)
        self._url = url
        self.fetched = 0
        self.wrong: list[str] = []
        self.is_over = threading.Event()

    def be_a_client(self, seed: int) -> None:
        """Loop until all is over."""
        randomness = random.Random(seed)
        while not self.is_over.is_set():
            items = self._items()
            if not items:
                continue
            # Up to the grace, less what the answer itself may take.
            self.is_over.wait(randomness.uniform(0, GRACE_SECONDS - 0.5))
            item = randomness.choice(items)
            content = self._get(item["path"])
            if content is not None:
                self.fetched += 1
                if hashlib.sha256(content).hexdigest() != item["sha256"]:
                    self.wrong.append(f"{item['path']}: another hash")

    def _items(self) -> list[Any]:
        try:
            index = json.loads(self._get("streams/v1/index.json") or b"null")
            document = json.loads(self._get(index["index"]["images"]["path"]) or b"null")
            return [
                item
                for product in document["products"].values()
                for version in product["versions"].values()
                for item in version["items"].values()
            ]
        except (ValueError, KeyError, TypeError) as error:
            self.wrong.append(f"catalogue: {error!r}")
            return []

    def _get(self, path: str) -> bytes | None:
        try:
            with self._opener.open(f"{self._url}/{path}", timeout=10) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            self.wrong.append(f"{path}: {error.code}")
            return None


def operate(
    mirror: Mirror, workshop: Workshop, work: Path, seconds: float, grace: str, rounds: int = 0
) -> int:
    """Import, build, prune and remove over and over, from round ``rounds`` on; return the last."""
    randomness = random.Random(1)
    ends = time.monotonic() + seconds

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode in (0, 2), result.stderr  # 2: removed already
        return result.stdout

    root = str(mirror.root)
    while time.monotonic() < ends:
        rounds += 1
        created = 1_600_000_000 + rounds * 3600
        release = rounds % RELEASES
        text = METADATA.replace("1714886640", str(created)).replace(": 12", f": {release}")
        source = workshop.split(work / str(rounds), text)
        for path in source.iterdir():
            os.utime(path, ns=(OLD_NS, OLD_NS))
        with (source / "rootfs.squashfs").open("ab") as file:
            file.write(b"%d" % rounds)  # content of its own
        os.utime(source / "rootfs.squashfs", ns=(OLD_NS, OLD_NS))
        run("import", "--index", str(source), root)
        run("prune", "--keep", "2", "--grace", grace, root)
        rows = json.loads(run("list", "--json", "--all", root))
        if len(rows) > RELEASES:
            victim = randomness.choice(rows)["fingerprint"]
            run("remove", "--grace", grace, victim, root)
    return rounds


def load(
    mirror: Mirror,
    certificate: Certificate,
    workshop: Workshop,
    work: Path,
    grace: str,
    seconds: float,
    first_round: int = 0,
) -> Traffic:
    """Let clients and the operator loose on the mirror."""
    before = operate(mirror, workshop, work, 1, grace, first_round)
    traffic = Traffic(mirror.url, certificate.path)
    clients = [threading.Thread(target=traffic.be_a_client, args=(n,)) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        rounds = operate(mirror, workshop, work, seconds, grace, before) - before
    finally:
        traffic.is_over.set()
        for client in clients:
            client.join()
    print(f"{traffic.fetched} files fetched in {rounds} rounds, {len(traffic.wrong)} wrong")
    return traffic


@pytest.mark.slow
def test_no_client_misses_a_file_within_the_grace(
    mirror: Mirror,
    certificate: Certificate,
    workshop: Workshop,
    tmp_path: Path,
    load_seconds: int,
) -> None:
    grace = f"{GRACE_SECONDS}s"
    traffic = load(mirror, certificate, workshop, tmp_path / "work", grace, load_seconds)
    assert traffic.wrong == []
    assert traffic.fetched > load_seconds


@pytest.mark.slow
def test_without_a_grace_clients_do_miss_files(
    mirror: Mirror, certificate: Certificate, workshop: Workshop, tmp_path: Path
) -> None:
    """What shows that the test above can fail."""
    for attempt in range(30):
        work = tmp_path / f"work{attempt}"
        traffic = load(mirror, certificate, workshop, work, "0", 4, 1000 * attempt)
        if any(": 404" in problem for problem in traffic.wrong):
            return
    pytest.fail("not one file was missed")
