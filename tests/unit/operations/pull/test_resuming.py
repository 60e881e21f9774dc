"""What a pull leaves of a version for the next run to go on with."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fastindex.events import Observer
from fastindex.formats.names import ProductName, classify
from fastindex.hashing.options import HashingOptions
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.pull.fetching import Fetcher
from fastindex.operations.pull.job import PullJob, Staged, find_staged
from fastindex.operations.pull.mapping import WantedFile
from fastindex.operations.pull.planning import PullPlan
from fastindex.operations.pull.wanted import WantedVersion
from fastindex.remote.client import Client
from fastindex.remote.download import Source, download
from fastindex.remote.options import RemoteOptions
from tests.support.contents import make_content

NAME = ProductName("debian", "12", "amd64", "default")
PRODUCT = "images/debian/12/amd64/default"
VERSION = "20240505_05:24"
ROOT = make_content("rootfs.squashfs", bytes(5_000_000))
HALF = 2_500_000
PATIENCE_SECONDS = 20
INCUS = make_content("incus.tar.xz", "metadata")


def want(**contents: bytes) -> WantedVersion:
    """Return a version with files of these contents: ``incus``, ``root``."""
    names = {"incus": "incus.tar.xz", "root": "rootfs.squashfs"}
    files: list[WantedFile] = []
    for key, content in contents.items():
        role = classify(names[key])
        assert role is not None
        digest = hashlib.sha256(content).hexdigest()
        files.append(WantedFile(names[key], role, names[key], len(content), digest))
    return WantedVersion(FoundProduct("images", NAME, PRODUCT, ()), VERSION, tuple(files))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    """Return an empty mirror."""
    root = tmp_path / "mirror"
    root.mkdir()
    return Mirror.at(root)


def job_of(mirror: Mirror, wanted: WantedVersion, staged: Staged | None = None) -> PullJob:
    return PullJob(mirror, wanted, HashingOptions(), staged or find_staged(mirror, wanted), {})


def test_half_a_file_is_left_with_what_vouches_for_it(mirror: Mirror) -> None:
    wanted = want(root=ROOT)
    job = job_of(mirror, wanted)
    job.arrivals[0].begin('"1"')
    job.arrivals[0].write(memoryview(ROOT)[:HALF])
    # No close: as if it was killed here.
    staged = find_staged(mirror, wanted)
    assert staged == Staged({"rootfs.squashfs": HALF}, {"rootfs.squashfs": '"1"'})
    job.close()
    again = job_of(mirror, wanted)
    assert again.find_validator("rootfs.squashfs") == '"1"'
    again.arrivals[0].write(memoryview(ROOT)[HALF:])
    assert again.finish() is None
    again.close()
    version = Path(mirror.path(f"{PRODUCT}/{VERSION}"))
    assert (version / "rootfs.squashfs").read_bytes() == ROOT
    assert {path.name for path in version.iterdir()} == {"rootfs.squashfs", ".items.json"}


def test_what_comes_at_once_needs_no_note(mirror: Mirror) -> None:
    wanted = want(root=ROOT)
    job = job_of(mirror, wanted)
    job.arrivals[0].begin('"1"')
    job.arrivals[0].write(memoryview(ROOT))
    assert find_staged(mirror, wanted) == Staged({"rootfs.squashfs": len(ROOT)})
    job.close()


def test_a_new_validator_never_vouches_for_old_bytes(mirror: Mirror) -> None:
    wanted = want(root=ROOT)
    job = job_of(mirror, wanted)
    arrival = job.arrivals[0]
    arrival.begin('"1"')
    arrival.write(memoryview(ROOT)[:HALF])
    arrival.restart()
    assert find_staged(mirror, wanted) == Staged()  # killed before the next bytes came
    arrival.begin('"2"')
    arrival.write(memoryview(ROOT)[:100])
    staged = find_staged(mirror, wanted)
    assert staged == Staged({"rootfs.squashfs": 100}, {"rootfs.squashfs": '"2"'})
    arrival.write(memoryview(ROOT)[100:])
    assert job.finish() is None
    job.close()


def test_bytes_of_an_unknown_state_lose_the_note(mirror: Mirror) -> None:
    wanted = want(root=ROOT)
    job = job_of(mirror, wanted)
    arrival = job.arrivals[0]
    arrival.begin('"1"')
    arrival.write(memoryview(ROOT)[:100])
    arrival.begin("")  # another server goes on, and says nothing
    arrival.write(memoryview(ROOT)[100:HALF])
    assert not find_staged(mirror, wanted).validators.get("rootfs.squashfs")
    job.close()


class Told:
    """A sink that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str | int] = []

    def begin(self, validator: str) -> None:
        self.calls.append(validator)

    def write(self, piece: memoryview) -> None:
        self.calls.append(len(piece))

    def restart(self) -> None:
        self.calls.append("restart")


def fetch(path: Path, start: int, validator: str) -> list[str | int]:
    sink = Told()
    source = Source((f"file://{path}",), path.stat().st_size, start, validator)
    options = RemoteOptions(user_agent="test", connections=1)
    with Client(options) as client:
        list(download(client, [(source, sink)]))
    return sink.calls


def test_a_sink_learns_the_validator_before_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    etag, count = fetch(path, 0, "")
    assert (str(etag)[0], count) == ('"', 10)
    assert fetch(path, 4, str(etag)) == [6]  # nothing new
    assert fetch(path, 4, "") == [etag, 6]
    os.utime(path, ns=(1, 1))
    word, newer, count = fetch(path, 4, str(etag))
    assert (word, count) == ("restart", 10)
    assert newer not in (etag, "")


def test_a_pull_that_is_stopped_waits_for_no_metadata(mirror: Mirror) -> None:
    wanted = want(incus=INCUS, root=ROOT)
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "incus" in self.path:
                is_over.wait(PATIENCE_SECONDS)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(ROOT)))
            self.end_headers()
            self.wfile.write(ROOT)

        def log_message(self, *words: object) -> None:
            pass

    class Stopping(Observer):
        def bytes_hashed(self, done_bytes: int) -> None:
            raise KeyboardInterrupt

    plan = PullPlan((), (wanted,), {}, wanted.size_bytes)

    def fetch_until_stopped(url: str) -> None:
        with Client(RemoteOptions(user_agent="test")) as client, suppress(KeyboardInterrupt):
            Fetcher(mirror, client, HashingOptions(), Stopping()).fetch(plan, [url])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=fetch_until_stopped, args=(url,), daemon=True)
            thread.start()
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        finally:
            is_over.set()
            server.shutdown()
