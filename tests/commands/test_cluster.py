"""``--cluster``: hashing by workers of dask.distributed, with real schedulers and workers."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from latency_fs import PACKAGES, CannotMountError, mounted_with_latency

import fastindex as package
from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.clusters import Cluster, cluster_of, wait_until
from tests.support.command import COMMAND, Run
from tests.support.contents import make_content, make_squashfs
from tests.support.large_files import stretch
from tests.support.tools import needs
from tests.support.trees import published, version, write_file, write_tree

pytestmark = pytest.mark.slow
PATIENCE = "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"
"""How long somebody is waited for who does not answer: usually for half a minute."""
LARGE_BYTES = 2 << 30
"""Takes long enough to hash that something can happen meanwhile."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster of two workers, which tests leave as it is."""
    with cluster_of(2, tmp_path_factory.mktemp("cluster") / "dask") as started:
        yield started


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """Return a scheduler of the test's own, without workers."""
    with cluster_of(0, tmp_path / "dask") as started:
        yield started


def fill(root: Path) -> None:
    """Write versions of two products, with files of several kinds."""
    for number in range(6):
        release = ("12", "13")[number % 2]
        path = f"debian/{release}/amd64/default/2024051{number}_05:24"
        content = make_content("rootfs.squashfs", bytes([number]) * 40_000 * (number + 1))
        disk = b"disk %d" % number
        files = {"rootfs.squashfs": content, "incus.tar.xz": b"%d" % number, "disk.qcow2": disk}
        write_tree(root, version(path, **files))


def add_large(root: Path) -> Path:
    """Add a version with a root that takes seconds to hash; return its directory."""
    path = "alpine/3.20/amd64/default/20240101_05:24"
    write_tree(root, version(path, **{"rootfs.squashfs": b"large", "incus.tar.xz": b"m"}))
    stretch(root / "images" / path / "rootfs.squashfs", LARGE_BYTES)
    return root / "images" / path


def read_catalogue(root: Path) -> dict[str, bytes]:
    """Return name → content of what is published."""
    return {path.name: path.read_bytes() for path in (root / "streams/v1").iterdir()}


class Running:
    """The command, while a test does something else.

    Args:
        directory: for what it says.
        words: its command line.
        patience: how long it waits for who does not answer.
        environment: variables that it has besides those of this process.
    """

    def __init__(
        self,
        directory: Path,
        *words: object,
        patience: str = "30s",
        environment: dict[str, str] | None = None,
    ) -> None:
        self._said = directory / "said"
        with self._said.open("w") as output:
            self._process = subprocess.Popen(
                [COMMAND, "-v", *map(str, words)],
                env=os.environ | {PATIENCE: patience} | (environment or {}),
                stdout=output,
                stderr=output,
            )

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until it has said ``words`` so often."""
        wait_until(lambda: self._said.read_text().count(words) >= times, words)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said."""
        return self._process.wait(60), self._said.read_text()


def run_impatiently(directory: Path, *words: object, **variables: str) -> tuple[int, str]:
    """Run the command, which waits for three seconds; return its exit code and what it said."""
    return Running(directory, *words, patience="3s", environment=variables).end()


def test_a_build_gives_the_catalogue_of_a_build_here(
    fastindex: Run, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    here = tmp_path / "here"
    shutil.copytree(root, here)
    assert fastindex(here).returncode == 0
    built = fastindex("-v", "--cluster", cluster.address, root)
    assert built.returncode == 0, built.stderr
    assert "hashes, 1 at a time, SHA-256 by " in built.stderr
    assert read_catalogue(root) == read_catalogue(here)
    caches = [path.relative_to(root) for path in root.rglob(".items.json")]
    assert len(caches) == 6
    assert all((root / path).read_bytes() == (here / path).read_bytes() for path in caches)


IN_A_THREAD = """
import sys, threading, fastindex
root, cluster = sys.argv[1:]
def work():
    mirror = fastindex.Mirror(root)
    built, verified = mirror.build(cluster=cluster, jobs=1), mirror.verify(cluster=cluster)
    print(built.exit_code, built.files_hashed, verified.exit_code)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_the_api_hashes_there_in_any_thread(cluster: Cluster, root: Path) -> None:
    fill(root)
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD, root, cluster.address],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    exit_code, hashed, verified = map(int, ended.stdout.split())
    assert (exit_code, verified) == (0, 0)
    assert hashed > 6


def test_files_that_fail_are_told_of_as_here(
    fastindex: Run, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    versions = root / "images/debian/12/amd64/default"
    write_file(versions / "20240512_05:24/rootfs.squashfs", make_squashfs(b"root", 1000))
    (versions / "20240514_05:24/incus.tar.xz").write_bytes(b"<html>")
    here = tmp_path / "here"
    shutil.copytree(root, here)
    built, built_here = fastindex("--cluster", cluster.file, root), fastindex(here)
    assert built.returncode == built_here.returncode == 3
    assert built.stderr.splitlines()[:-1] == built_here.stderr.splitlines()[:-1]
    assert read_catalogue(root) == read_catalogue(here)


@pytest.mark.parametrize("method", [[], ["--sha256"]])
def test_verify_finds_the_same(
    fastindex: Run, cluster: Cluster, root: Path, method: list[str]
) -> None:
    fill(root)
    assert fastindex(root).returncode == 0
    assert fastindex("verify", *method, "--cluster", cluster.file, root).returncode == 0
    damaged = root / "images/debian/12/amd64/default/20240512_05:24/rootfs.squashfs"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    write_file(damaged, bytes(content))
    here = fastindex("verify", *method, root)
    there = fastindex("verify", *method, "--cluster", cluster.file, root)
    assert there.returncode == here.returncode == 4
    assert there.stdout == here.stdout


def test_a_pull_ends_with_a_build_on_the_cluster(
    fastindex: Run, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    upstream = tmp_path / "upstream"
    write_tree(upstream, version("alpine/3.20/amd64/default/20240101_05:24"))
    assert fastindex(upstream).returncode == 0
    fill(root)
    pulled = fastindex(
        *("pull", "-v", "--cluster", cluster.file, "--config", "none"), upstream.as_uri(), root
    )
    assert pulled.returncode == 0, pulled.stderr
    assert "hashes, 1 at a time" in pulled.stderr
    assert len(published(root)) == 7


def test_an_import_hashes_there_what_it_links_and_here_what_it_copies(
    fastindex: Run, cluster: Cluster, root: Path, source: Path
) -> None:
    copied = fastindex("import", "-v", "--copy", "--cluster", cluster.file, source, root)
    assert copied.returncode == 0, copied.stderr
    assert "at a time" not in copied.stderr
    shutil.rmtree(root / "images")
    linked = fastindex("import", "-v", "--link", "--cluster", cluster.file, source, root)
    assert linked.returncode == 0, linked.stderr
    assert "hashes, 1 at a time" in linked.stderr
    built = fastindex(root)
    assert " 0 files hashed" in built.stderr


PROGRESS = """
import sys
from fastindex.events import Observer
from fastindex.hashing.options import HashingOptions
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.pipeline import build

class Told(Observer):
    wants_progress = True
    def hashing_started(self, total_bytes):
        print(total_bytes)
    def bytes_hashed(self, done_bytes):
        print(done_bytes)

hashing = HashingOptions(cluster=sys.argv[2])
build(Mirror.at(sys.argv[1]), BuildOptions(hashing=hashing), observer=Told())
"""


def test_progress_is_told_within_a_file(cluster: Cluster, root: Path) -> None:
    add_large(root)
    words: list[str | Path] = [sys.executable, "-c", PROGRESS, root, cluster.address]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    total, *done = map(int, told)
    assert done == sorted(done)
    assert done[-1] == total > LARGE_BYTES
    assert any(0 < one < LARGE_BYTES for one in done)


def test_progress_never_goes_back(own: Cluster, root: Path, tmp_path: Path) -> None:
    add_large(root)
    victim = own.start_worker()
    said = tmp_path / "said"
    with said.open("w") as output:
        words: list[str | Path] = [sys.executable, "-u", "-c", PROGRESS, root, own.address]
        build = subprocess.Popen(words, stdout=output)
    wait_until(lambda: any(int(word) for word in said.read_text().split()[1:]), "progress")
    victim.kill()
    own.start_worker()
    assert build.wait(60) == 0
    total, *done = map(int, said.read_text().split())
    assert done == sorted(done)
    assert done[-1] == total


LIES = """
import time
from distributed import Client
client = Client({!r})
print("ready", flush=True)
while True:
    for payload in ([1], None, 5, ["x"], [[], 1], ["a", "b", "c"], {{"name": 1}}):
        client.log_event("fastindex-progress", payload)
    time.sleep(0.1)
"""


def test_events_of_strangers_are_no_progress(own: Cluster, root: Path) -> None:
    add_large(root)
    own.start_worker()
    lies = [sys.executable, "-c", LIES.format(own.address)]
    with subprocess.Popen(lies, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"ready\n"
        words: list[str | Path] = [sys.executable, "-c", PROGRESS, root, own.address]
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        stranger.kill()
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1] == told.stdout.splitlines()[0]


def test_what_a_killed_worker_had_goes_to_others(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    add_large(root)
    victim = own.start_worker()
    build = Running(tmp_path, "--cluster", own.address, root)
    build.wait_for("hashes, ")
    victim.kill()
    own.start_worker()
    code, said = build.end()
    assert code == 0, said
    assert said.count("hashes, ") == 2
    assert said.count("lost the worker tcp://127.0.0.1:") == 1
    assert f" on {platform.node()}; others hash what it had" in said
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_what_a_hanging_worker_had_goes_to_others(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    add_large(root)
    victim = own.start_worker()
    build = Running(tmp_path, "--cluster", own.address, root, patience="5s")
    build.wait_for("hashes, ")
    victim.send_signal(signal.SIGSTOP)
    own.start_worker()
    code, said = build.end()
    assert code == 0, said
    assert f" on {platform.node()}, which was silent for 10 s; others hash what it had" in said
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_a_file_that_kills_workers_is_given_up(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    large = add_large(root)
    build = Running(tmp_path, "--cluster", own.address, root)
    for number in (1, 2):
        victim = own.start_worker()
        build.wait_for("hashes, ", number)
        victim.kill()
    own.start_worker()
    code, said = build.end()
    assert code == 3, said
    (told,) = (line for line in said.splitlines() if "the workers that were reading it" in line)
    assert f"{large.relative_to(root)}/rootfs.squashfs: the workers that were reading it" in told
    assert told.count("tcp://127.0.0.1:") == told.count(f" on {platform.node()}") == 2
    assert len(published(root)) == 6


LATER_BLIND = """
import errno, os
import fastindex.hashing.cluster_worker as worker
worker.real = digest = getattr(worker, "real", worker.digest)  # this is loaded twice
open_file, stat, is_blind = os.open, os.stat, []
def look(function):
    def do(path, *rest, **words):
        if is_blind and isinstance(path, str | bytes) and "/images/" in os.fsdecode(path):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return function(path, *rest, **words)
    return do
os.open, os.stat = look(open_file), look(stat)
def digest_blind(parcel):
    is_blind.append(True)
    return digest(parcel)
worker.digest = digest_blind
"""
HANGS = """
import threading
import fastindex.hashing.cluster_worker as worker
worker.digest = lambda parcel: threading.Event().wait()
"""
RECURSES = """
import fastindex.hashing.cluster_worker as worker
def digest(parcel):
    return digest(parcel)
worker.digest = digest
"""


@pytest.mark.parametrize(
    ("patience", "source", "told"),
    [
        ("5s", LATER_BLIND, "cannot be read (Stale file handle), but here it can be read; look at"),
        ("2s", HANGS, "it read nothing for 20 s; look whether a mount hangs there"),
        ("5s", RECURSES, "; look into its log"),  # whether it can be read, Python's release decides
    ],
)
def test_a_worker_that_breaks_is_not_believed(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path, patience: str, source: str, told: str
) -> None:
    fill(root)
    preload = tmp_path / "broken.py"
    preload.write_text(source)
    own.start_worker("--preload", preload)
    build = Running(tmp_path, "--cluster", own.address, root, patience=patience)
    build.wait_for("hashes, ")
    own.start_worker()
    build.wait_for("gets no more work: ")
    code, said = build.end()
    assert code == 0, said
    assert told in said
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_scheduler_a_run_ends_and_keeps_what_it_learned(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write_tree(root, version())
    assert fastindex(root).returncode == 0
    before = read_catalogue(root)
    fill(root)
    add_large(root)
    for _ in range(2):
        own.start_worker()
    build = Running(tmp_path, "--cluster", own.address, root)
    build.wait_for(": hashed", 6)
    own.scheduler.send_signal(number)
    code, said = build.end()
    assert code == 1, said
    assert f"error: lost the scheduler {own.address} (" in said.splitlines()[-1]
    assert "start the scheduler and its workers again" in said
    assert all(line.startswith("fastindex: ") for line in said.splitlines())
    assert read_catalogue(root) == before
    assert len(list(root.rglob(".items.json"))) == 7


def test_ctrl_c_ends_a_run_and_its_work(
    fastindex: Run, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    add_large(root)
    build = Running(tmp_path, "--cluster", cluster.address, root)
    build.wait_for("hashes, ")
    build.signal(signal.SIGINT)
    code, said = build.end()
    assert code == 130, said
    assert said.endswith("finished work is kept, and nothing was half-written\n")
    assert not (root / "streams/v1").exists()


def test_ctrl_c_ends_the_wait_for_a_scheduler(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    own.scheduler.send_signal(signal.SIGSTOP)
    build = Running(tmp_path, "--cluster", own.address, root)
    build.wait_for("SHA-256 by")
    time.sleep(2)  # it imports the library, and connects
    build.signal(signal.SIGINT)
    code, said = build.end()
    assert code == 130, said
    assert "Traceback" not in said


def test_a_worker_that_sees_other_files_ends_the_run(
    own: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    own.start_worker(before=see(other, root))
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert said.splitlines()[-1].startswith("fastindex: error: the worker tcp://127.0.0.1:")
    assert "does not see the files that are here: " in said
    assert "mount the same file system at the same path there" in said
    assert not (root / "streams/v1").exists()


def test_a_device_may_have_another_number_there(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    mount_point = tmp_path / "again"
    mount_point.mkdir()
    try:
        with mounted_with_latency(root, mount_point, wait_ms=0):
            assert mount_point.stat().st_dev != root.stat().st_dev
            worker = own.start_worker(before=see(mount_point, root))
            code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
            worker.kill()
            worker.wait()
    except CannotMountError as error:
        pytest.skip(f"{error}: apt-get install {PACKAGES}")
    assert code == 0, said
    assert " 0 files hashed" in fastindex("--dry-run", root).stderr


def see(directory: Path, place: Path) -> list[object]:
    """Return what starts a command that sees ``directory`` at ``place``; skip without the right."""
    unshare = needs("unshare", "apt-get install util-linux")
    begin = [unshare, "--mount", "sh", "-ec", 'mount --bind "$0" "$1"; shift; exec "$@"']
    tried = subprocess.run([*begin, directory, place, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("no right to mount a file system")
    return [*begin, directory, place]


def test_a_worker_of_another_release_ends_the_run(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    place = Path(package.__file__).parent
    shutil.copytree(place, tmp_path / "path/fastindex")
    front = tmp_path / "path/fastindex/__init__.py"
    front.write_text(front.read_text().replace(f'"{package.__version__}"', '"0.0.1"'))
    own.start_worker(environment={"PYTHONPATH": str(tmp_path / "path")})
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert f"has fastindex 0.0.1, not {package.__version__} as here; install the same" in said
    assert not (root / "streams/v1").exists()


def test_what_dask_warns_of_is_not_printed(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    metadata = tmp_path / "path/toolz-0.0.1.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: toolz\nVersion: 0.0.1\n")
    own.start_worker(environment={"PYTHONPATH": str(tmp_path / "path")})
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 0, said
    assert all(line.startswith("fastindex: ") for line in said.splitlines())


def test_a_worker_without_fastindex_ends_the_run(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    (tmp_path / "path/fastindex").mkdir(parents=True)
    (tmp_path / "path/fastindex/__init__.py").touch()
    own.start_worker(environment={"PYTHONPATH": str(tmp_path / "path")})
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert "No module named 'fastindex.hashing'" in said
    assert "install fastindex there as here" in said


def test_a_late_worker_that_differs_gets_no_work(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    add_large(root)
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    before = see(other, root)
    own.start_worker()
    build = Running(tmp_path, "--cluster", own.address, root)
    build.wait_for("hashes, ")
    own.start_worker(before=before)
    build.wait_for("gets no work: it does not see the files that are here: ")
    code, said = build.end()
    assert code == 0, said


def test_without_workers_a_run_waits_a_little(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert f"the scheduler {own.address} has no worker, for 3 s; what was hashed is kept" in said
    assert said.count(f"waiting for workers of {own.address}, at most 3 s") == 1


def test_a_worker_that_does_not_answer_is_named(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    own.start_worker().send_signal(signal.SIGSTOP)
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert "error: the worker tcp://127.0.0.1:" in said
    assert " does not answer for 3 s; " in said
    assert said.count("waiting for the worker tcp://127.0.0.1:") == 1


def test_no_scheduler_is_told(root: Path, tmp_path: Path) -> None:
    fill(root)
    code, said = run_impatiently(tmp_path, "--cluster", "tcp://127.0.0.1:1", root)
    assert code == 1
    waiting, end = said.splitlines()[-2:]
    assert waiting == (
        "fastindex: waiting for the scheduler tcp://127.0.0.1:1, at most 3 s (connection refused)"
    )
    assert "tcp://127.0.0.1:1 cannot be reached, for 3 s (connection refused); start it" in end


def test_a_scheduler_that_starts_late_is_waited_for(root: Path, tmp_path: Path) -> None:
    fill(root)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    build = Running(tmp_path, "--cluster", f"tcp://127.0.0.1:{port}", root)
    build.wait_for("waiting for the scheduler")
    (tmp_path / "dask").mkdir()
    with Cluster(tmp_path / "dask", port) as late:
        late.start_worker()
        code, said = build.end()
    assert code == 0, said
    assert said.count("waiting for the scheduler") == 1


def test_a_name_that_is_not_known_is_told_at_once(root: Path, tmp_path: Path) -> None:
    fill(root)
    code, said = Running(tmp_path, "--cluster", "tcp://scheduler.invalid:8786", root).end()
    assert code == 1
    assert "--cluster tcp://scheduler.invalid:8786: the name scheduler.invalid is not" in said
    assert "waiting" not in said


def test_the_address_of_a_worker_is_told(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    own.start_worker("--worker-port", address.rpartition(":")[2])
    code, said = Running(tmp_path, "--cluster", address, root).end()
    assert code == 1
    told = f"{address}: that is a worker, of the scheduler {own.address}, not a scheduler; give"
    assert told in said.splitlines()[-1]


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_web_server_is_no_scheduler(
    root: Path, tmp_path: Path, certificate: Certificate, scheme: str
) -> None:
    fill(root)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"{scheme}://127.0.0.1:{server.server_port}"
        code, said = run_impatiently(tmp_path, "--cluster", address, root, **trust(certificate))
        server.shutdown()
    assert code == 1
    told = {"tcp": "no scheduler of dask listens there", "tls": "no TLS is spoken there"}
    assert f"error: --cluster {address}: {told[scheme]}" in said.splitlines()[-1]
    assert "Traceback" not in said


def trust(certificate: Certificate) -> dict[str, str]:
    """Return variables that name a certificate as one's own, and as the only one to trust."""
    return {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate.path),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": str(certificate.path),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": str(certificate.key),
    }


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ((), "needs certificates; name certificates that"),
        (("CERT", "KEY"), "needs certificates; name certificates that"),
        (("CA_FILE",), "needs certificates; name certificates that"),
        (("CA_FILE", "CERT"), "the certificates cannot be used ("),
    ],
)
def test_certificates_that_lack_are_named(
    root: Path, tmp_path: Path, certificate: Certificate, kept: tuple[str, ...], told: str
) -> None:
    fill(root)
    variables = {name: at for name, at in trust(certificate).items() if name.endswith(kept or "-")}
    address = "tls://127.0.0.1:1"
    code, said = Running(tmp_path, "--cluster", address, root, environment=variables).end()
    assert code == 1
    last = said.splitlines()[-1]
    assert f"error: --cluster {address}: {told}" in last
    assert "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY" in last


@pytest.fixture(scope="module")
def encrypted(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Cluster]:
    """Return a cluster of one worker that speaks TLS."""
    files = ("--tls-cert", certificate.path, "--tls-key", certificate.key)
    options = ("--protocol", "tls", "--tls-ca-file", certificate.path, *files)
    directory = tmp_path_factory.mktemp("encrypted") / "dask"
    with cluster_of(1, directory, *options) as started:
        yield started


def test_a_cluster_may_speak_tls(
    encrypted: Cluster, root: Path, tmp_path: Path, certificate: Certificate
) -> None:
    fill(root)
    code, said = run_impatiently(
        tmp_path, "--cluster", encrypted.address, root, **trust(certificate)
    )
    assert code == 0, said


@pytest.mark.parametrize("foreign", ["CA_FILE", "CLIENT"])
def test_certificates_that_others_do_not_know_are_told(
    encrypted: Cluster, root: Path, tmp_path: Path, certificate: Certificate, foreign: str
) -> None:
    fill(root)
    other = trust(make_certificate(tmp_path))
    variables = trust(certificate) | {name: other[name] for name in other if foreign in name}
    code, said = run_impatiently(tmp_path, "--cluster", encrypted.address, root, **variables)
    assert code == 1
    told = {"CA_FILE": "its certificate is not accepted here", "CLIENT": "TLS fails ("}
    last = said.splitlines()[-1]
    assert f"error: --cluster {encrypted.address}: " in last
    assert told[foreign] in last
    assert "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT" in last


def test_a_scheduler_with_tls_is_not_spoken_to_without(
    encrypted: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    plain = encrypted.address.replace("tls:", "tcp:")
    code, said = run_impatiently(tmp_path, "--cluster", plain, root)
    assert code == 1
    told = f"--cluster {plain}: who listens there ends the connection"
    hint = f"if it is a scheduler with TLS, write {encrypted.address}"
    assert f"{told}; {hint}" in said.splitlines()[-1]


def test_a_scheduler_without_tls_is_not_spoken_to_with(
    cluster: Cluster, root: Path, tmp_path: Path, certificate: Certificate
) -> None:
    fill(root)
    address = cluster.address.replace("tcp:", "tls:")
    code, said = run_impatiently(tmp_path, "--cluster", address, root, **trust(certificate))
    assert code == 1
    assert f"--cluster {address}: no TLS is spoken there; " in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is no scheduler file"),
        ('{"address": "inproc://1"}', "is no scheduler file: must be tcp://HOST:PORT"),
        ('{"address": "s.json"}', "is no scheduler file"),
    ],
)
def test_a_scheduler_file_that_cannot_be_used_is_told(
    root: Path, tmp_path: Path, content: str | None, told: str
) -> None:
    fill(root)
    file = tmp_path / "s.json"
    if content is not None:
        file.write_text(content)
    code, said = run_impatiently(tmp_path, "--cluster", file, root)
    assert code == 1
    assert f"error: --cluster {file}: {told}" in said


@pytest.mark.parametrize("word", ["tcp://127.0.0.1", "http://h:1", "host:8786", "tcp://h:99999"])
def test_what_names_no_cluster_is_refused(
    fastindex: Run, root: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    refused = fastindex("--cluster", word, root)
    assert refused.returncode == 2
    assert "--cluster: must be tcp://HOST:PORT, tls://HOST:PORT, a scheduler" in refused.stderr
    monkeypatch.setenv("FASTINDEX_CLUSTER", word)
    refused = fastindex(root)
    assert refused.returncode == 2
    assert "error: FASTINDEX_CLUSTER: must be tcp://HOST:PORT" in refused.stderr


def test_the_configuration_names_a_cluster_and_others_win_over_it(
    fastindex: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root)
    file = tmp_path / "config.toml"
    file.write_text(f'[mirror.main]\nroot = "{root}"\ncluster = "{tmp_path}/none.json"\n')
    assert f"--cluster {tmp_path}/none.json: " in fastindex("--config", file, "main").stderr
    monkeypatch.setenv("FASTINDEX_CLUSTER", f"{tmp_path}/other.json")
    assert f"--cluster {tmp_path}/other.json: " in fastindex("--config", file, "main").stderr
    assert fastindex("--config", file, "--cluster", "none", "main").returncode == 0


def test_without_the_library_its_extra_is_named(root: Path, tmp_path: Path) -> None:
    fill(root)
    (tmp_path / "path").mkdir()
    (tmp_path / "path/dask.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [COMMAND, "--cluster", "tcp://127.0.0.1:1", root],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "path")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "install it in the environment of fastindex: pip install distributed" in done.stderr
