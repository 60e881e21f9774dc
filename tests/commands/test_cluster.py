"""``--cluster``: hashing by workers of dask.distributed, with real schedulers and workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from latency_fs import PACKAGES, CannotMountError, mounted_with_latency

import fastindex as package
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
    """

    def __init__(self, directory: Path, *words: object, patience: str = "30s") -> None:
        self._said = directory / "said"
        with self._said.open("w") as output:
            self._process = subprocess.Popen(
                [COMMAND, "-v", *map(str, words)],
                env=os.environ | {PATIENCE: patience},
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


def run_impatiently(directory: Path, *words: object) -> tuple[int, str]:
    """Run the command, which waits for three seconds; return its exit code and what it said."""
    return Running(directory, *words, patience="3s").end()


def test_a_build_gives_the_catalogue_of_a_build_here(
    fastindex: Run, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    fill(root)
    here = tmp_path / "here"
    shutil.copytree(root, here)
    assert fastindex(here).returncode == 0
    built = fastindex("-v", "--cluster", cluster.address, root)
    assert built.returncode == 0, built.stderr
    assert "hashes, 1 at a time" in built.stderr
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
    assert f"{large.relative_to(root)}/rootfs.squashfs: the workers that were reading it" in said
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
RECURSES = """
import fastindex.hashing.cluster_worker as worker
def digest(parcel):
    return digest(parcel)
worker.digest = digest
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (LATER_BLIND, "cannot be read (Stale file handle), but here it can be read; look at"),
        (RECURSES, "its answer cannot be read; look into its log"),
    ],
)
def test_a_worker_that_breaks_is_not_believed(
    fastindex: Run, own: Cluster, root: Path, tmp_path: Path, source: str, told: str
) -> None:
    fill(root)
    preload = tmp_path / "broken.py"
    preload.write_text(source)
    own.start_worker("--preload", preload)
    build = Running(tmp_path, "--cluster", own.address, root, patience="5s")
    build.wait_for("gets no more work: ")
    own.start_worker()
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
    assert f"the scheduler {own.address} has no worker, for 3 s; start some with dask" in said


def test_a_worker_that_does_not_answer_is_named(own: Cluster, root: Path, tmp_path: Path) -> None:
    fill(root)
    own.start_worker().send_signal(signal.SIGSTOP)
    code, said = run_impatiently(tmp_path, "--cluster", own.address, root)
    assert code == 1
    assert "error: the worker tcp://127.0.0.1:" in said
    assert " does not answer for 3 s; " in said


def test_no_scheduler_is_told(root: Path, tmp_path: Path) -> None:
    fill(root)
    code, said = run_impatiently(tmp_path, "--cluster", "tcp://127.0.0.1:1", root)
    assert code == 1
    assert "error: the scheduler tcp://127.0.0.1:1 does not answer (" in said


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
