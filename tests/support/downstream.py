"""A mirror of the mirror, made as docs/how-to/mirror-this-mirror.md says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.clients.mirror_server import free_port
from tests.support.documentation import CHECKOUT
from tests.support.tools import needs

PAGE = CHECKOUT / "docs/how-to/mirror-this-mirror.md"


def read_block(name: str) -> str:
    """Return the block of the page below ``<!-- lists: NAME -->``."""
    found = re.search(rf"<!-- lists: {name} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def run_rsyncd(root: Path, work: Path) -> Iterator[str]:
    """Serve ``root`` as the page says; yield the URL."""
    rsync, port = needs("rsync", "apt-get install rsync"), free_port()
    config = work / "rsyncd.conf"
    text = read_block("rsyncd").replace("/srv/images", str(root))
    config.write_text(f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n{text}")
    words = ["--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}"]
    with subprocess.Popen([rsync, *words, f"--config={config}"]) as daemon:
        try:
            url = f"rsync://127.0.0.1:{port}/images"
            for _ in range(100):
                if subprocess.run([rsync, url], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.1)
            yield url
        finally:
            daemon.terminate()


class Downstream:
    """A mirror that the script of the page makes."""

    def __init__(self, work: Path, url: str) -> None:
        self.root = work / "downstream"
        self._script = work / "mirror-images"
        self._script.write_text(read_block("downstream"))
        self._url = url

    def fetch(self) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(self._script), self._url, str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def find_missing(self) -> list[str]:
        """Return what the catalogue names, as a client reads it now, and is not there whole."""
        index = json.loads((self.root / "streams/v1/index.json").read_bytes())
        missing = []
        for entry in index["index"].values():
            file = json.loads((self.root / entry["path"]).read_bytes())
            missing += [
                f"{key} in {entry['path']}" for key in {*entry["products"]} - {*file["products"]}
            ]
            for product in file["products"].values():
                for one in product["versions"].values():
                    for item in one["items"].values():
                        path = self.root / item["path"]
                        if not path.exists() or path.stat().st_size != item["size"]:
                            missing.append(item["path"])
        return missing
