from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from fastindex.errors import FastindexError
from fastindex.formats.names import FileRole
from fastindex.hashing import digest, pool
from fastindex.hashing.batches import Queue, group_tasks
from fastindex.hashing.digest import Digester
from fastindex.hashing.engine import why_no_lanes
from fastindex.hashing.speeds import Timings, choose_kernels
from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, Digested, Failed, FileRef, Outcome, RootTask
from fastindex.system import processes
from fastindex.system.stamps import stamp_of
from tests.support.command import COMMAND, UNMEASURED
from tests.support.large_files import stretch
from tests.support.trees import (
    catalogue,
    published,
    sha256,
    version,
    write_file,
    write_tree,
)


def batches_of(directory: Path, sizes: Sequence[int]) -> list[Batch]:
    made: list[Batch] = []
    for number, size in enumerate(sizes):
        path = directory / f"root{number}"
        write_file(path, os.urandom(size))
        status = path.stat()
        ref = FileRef(str(path), stamp_of(status))
        made.append(Batch((RootTask(ref),), size, False))
    return made


STEEP = (1.0, 2.0, 3.0, 4.0)
"""Of a CPU on which four lanes are as quick as one."""


def shared_batches_of(directory: Path, sizes: Sequence[int]) -> list[Batch]:
    """Return batches that workers read side by side."""
    made = batches_of(directory, sorted(sizes, reverse=True))
    return [msgspec.structs.replace(batch, speeds=STEEP) for batch in made]


def digests(results: Sequence[tuple[Batch, tuple[Outcome, ...]]]) -> dict[str, str]:
    return {
        task.root.path: outcome.root.sha256
        for batch, outcomes in results
        for task, outcome in zip(batch.tasks, outcomes, strict=True)
        if isinstance(outcome, Digested)
    }


def expected(batches: Sequence[Batch]) -> dict[str, str]:
    paths = [task.root.path for batch in batches for task in batch.tasks]
    return {path: sha256(Path(path).read_bytes()) for path in paths}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers however little there is to read."""
    # With another thread there would be no workers, and what kills one would kill this process.
    assert threading.enumerate() == [threading.main_thread()]
    monkeypatch.setattr(pool, "LITTLE_BYTES", 0)


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("wants_progress", [False, True])
def test_every_way_gives_the_same_digests(
    tmp_path: Path, eager: None, jobs: int, wants_progress: bool
) -> None:
    batches = batches_of(tmp_path, [0, 1, 1000, 50_000, 3, 70_000])
    told: list[int] = []
    progress = told.append if wants_progress else None
    results = list(pool.digest_all(deque(batches), jobs, None, progress))
    assert digests(results) == expected(batches)
    if wants_progress:
        assert told == sorted(told)
        assert told[-1] == sum(batch.size_bytes for batch in batches)


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("wants_progress", [False, True])
def test_batches_side_by_side_give_the_same_digests_and_their_progress(
    tmp_path: Path, eager: None, jobs: int, wants_progress: bool
) -> None:
    batches = shared_batches_of(tmp_path, [1000 * number for number in range(1, 41)])
    Path(batches[7].tasks[0].root.path).unlink()
    told: list[int] = []
    progress = told.append if wants_progress else None
    waiting = deque(batches)
    results = list(pool.digest_all(waiting, jobs, None, progress))
    assert not waiting
    (gone,) = [o for _, outcomes in results for o in outcomes if isinstance(o, Failed)]
    assert gone.problem.startswith("was removed")
    assert digests(results) == expected([*batches[:7], *batches[8:]])
    if wants_progress:
        assert told == sorted(told)
        if jobs > 1:
            assert told[-1] == sum(batch.size_bytes for batch in batches)


@pytest.mark.parametrize("executor_type", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_will_do(tmp_path: Path, executor_type: type[Executor]) -> None:
    batches = batches_of(tmp_path, [1, 1000, 50_000])
    told: list[int] = []
    with executor_type() as executor:
        results = list(pool.digest_all(deque(batches), 1, executor, told.append))
        assert executor.submit(int, "7").result() == 7  # left running
    assert digests(results) == expected(batches)
    assert told[-1] == 51_001


def test_a_foreign_executor_that_breaks_is_an_error(
    tmp_path: Path, before_reading: BeforeReading
) -> None:
    before_reading(kill_on("root0"))
    with ProcessPoolExecutor(1) as executor, pytest.raises(FastindexError, match="failed"):
        list(pool.digest_all(deque(batches_of(tmp_path, [1])), 1, executor, None))


BeforeReading = Callable[[Callable[[Batch], None]], None]


@pytest.fixture
def before_reading(monkeypatch: pytest.MonkeyPatch) -> BeforeReading:
    """Return what sets a function that sees each batch where it is read, just before that."""
    real = Digester.take

    def patch(look: Callable[[Batch], None]) -> None:
        def take(self: Digester, number: int, batch: Batch) -> None:
            look(batch)
            real(self, number, batch)

        monkeypatch.setattr(Digester, "take", take)

    return patch


def kill_on(name: str, times: Path | None = None) -> Callable[[Batch], None]:
    """Return a function that kills its process when that comes to ``name``.

    With ``times``, a file, only as long as that file is not there; it is then made.
    """

    def kill(batch: Batch) -> None:
        for task in batch.tasks:
            if Path(task.root.path).name == name and not (times and times.exists()):
                if times:
                    times.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return kill


@pytest.mark.skipif(bool(why_no_lanes()), reason=why_no_lanes())
def test_files_in_sixteen_lanes_have_the_digests_of_hashlib(tmp_path: Path, eager: None) -> None:
    numbers = random.Random(16)

    def make(name: str, size_bytes: int) -> FileRef:
        path = tmp_path / name
        write_file(path, os.urandom(size_bytes))
        return FileRef(str(path), stamp_of(path.stat()))

    tasks = [
        RootTask(
            make(f"root{number}", numbers.randrange(300_000, 3_000_000)),
            tuple(make(f"{number}.{part}", 999 + part) for part in range(number % 4)),
        )
        for number in range(40)
    ]
    as_on_zen_5 = choose_kernels(Timings((0.48, 0.66, 0.81, 1.03), 2.2, 16))
    strategy = Strategy(2, as_on_zen_5.setup, as_on_zen_5.relative)
    grouped = group_tasks(tasks, strategy, wants_blake3=True)
    done = 0
    for batch, outcomes in pool.digest_all(grouped, 2, None, None):
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            assert isinstance(outcome, Digested)
            root = Path(task.root.path).read_bytes()
            assert outcome.root.sha256 == sha256(root)
            assert outcome.fingerprints == {
                ref.stamp: sha256(Path(ref.path).read_bytes() + root) for ref in task.metadata
            }
            done += 1
    assert done == 40


def _stop_waiting(*_: object) -> None:
    raise AssertionError("they wait for each other")


def test_long_messages_both_ways_do_not_wait_for_each_other(tmp_path: Path, eager: None) -> None:
    directory = tmp_path / ("x" * 200) / ("x" * 200)
    directory.mkdir(parents=True)

    def make(name: str, content: bytes, role: str = "") -> FileRef:
        path = directory / name
        write_file(path, content)
        roles = (FileRole("metadata", role),) if role else ()
        return FileRef(str(path), stamp_of(path.stat()), roles=roles)

    def make_task(number: int) -> RootTask:
        page = b"<html>" + bytes(700)  # told with its first bytes
        metadata = [make(f"{number}.{part}", page, "incus.tar.xz") for part in range(6)]
        root = make(f"{number}", os.urandom(256 << 10))
        return RootTask(root, (make(f"{number}.good", b"good"), *metadata))

    tasks = tuple(make_task(number) for number in range(64))
    steep = tuple(map(float, range(1, 17)))
    batches = [
        Batch(tasks[: 64 - number], (64 - number) << 18, True, speeds=steep) for number in range(40)
    ]
    before = signal.signal(signal.SIGALRM, _stop_waiting)
    signal.alarm(120)
    try:
        results = list(pool.digest_all(deque(batches), 2, None, None))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert len(results) == 40


def test_a_worker_that_dies_once_costs_nothing(
    tmp_path: Path, eager: None, before_reading: BeforeReading
) -> None:
    batches = batches_of(tmp_path, [1000 + number for number in range(20)])
    before_reading(kill_on("root3", tmp_path / "killed"))
    assert digests(list(pool.digest_all(deque(batches), 3, None, None))) == expected(batches)


def test_a_worker_that_dies_loses_what_it_held_and_that_is_tried_again(
    tmp_path: Path, eager: None, before_reading: BeforeReading
) -> None:
    batches = shared_batches_of(tmp_path, [10_000 * number for number in range(1, 31)])
    assert not Queue(deque(batches), 2).plan.group_files
    before_reading(kill_on("root5", tmp_path / "killed"))
    told: list[int] = []
    results = list(pool.digest_all(deque(batches), 2, None, told.append))
    assert (tmp_path / "killed").exists()
    assert digests(results) == expected(batches)
    assert told == sorted(told)
    assert told[-1] == sum(batch.size_bytes for batch in batches)


def test_a_worker_that_dies_twice_costs_its_file_only(
    tmp_path: Path, eager: None, before_reading: BeforeReading
) -> None:
    batches = batches_of(tmp_path, [1000 + number for number in range(20)])
    big = Batch(tuple(task for batch in batches[:8] for task in batch.tasks), 8000, False)
    before_reading(kill_on("root3"))
    results = list(pool.digest_all(deque([big, *batches[8:]]), 3, None, lambda done: None))
    wanted = expected(batches)
    del wanted[str(tmp_path / "root3")]
    assert digests(results) == wanted
    (failure,) = [o for _, outcomes in results for o in outcomes if isinstance(o, Failed)]
    assert failure.costs_version


def test_workers_are_killed_when_the_run_ends_early(
    tmp_path: Path, eager: None, before_reading: BeforeReading
) -> None:
    import multiprocessing

    def dawdle(batch: Batch) -> None:
        if Path(batch.tasks[0].root.path).name != "root0":
            time.sleep(600)

    before_reading(dawdle)
    results = pool.digest_all(deque(batches_of(tmp_path, [1, 2, 3, 4])), 2, None, None)
    next(results)
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_not_registered_yet_is_killed_too(
    tmp_path: Path, before_reading: BeforeReading
) -> None:
    ended = tmp_path / "ended"

    def dawdle(batch: Batch) -> None:
        time.sleep(3)
        ended.touch()

    before_reading(dawdle)

    def be_interrupted() -> None:
        with pool._Pool(1, counts=False) as started:
            started.begin(deque(batches_of(tmp_path, [1])))
            started._assignees.clear()  # as if the signal had come just before it was registered
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert not ended.exists()


def test_what_a_worker_raises_comes_with_where(
    tmp_path: Path, eager: None, before_reading: BeforeReading
) -> None:
    def fail(batch: Batch) -> None:
        raise LookupError("a defect")

    before_reading(fail)
    with pytest.raises(LookupError, match="a defect") as caught:
        list(pool.digest_all(deque(batches_of(tmp_path, [1, 2])), 2, None, None))
    assert "in fail" in caught.value.__notes__[0]


def test_a_worker_out_of_memory_ends_the_run(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch, before_reading: BeforeReading
) -> None:
    def fail(batch: Batch) -> None:
        raise MemoryError

    before_reading(fail)
    for say in (processes._send_error, lambda pipe, error: os._exit(1)):
        monkeypatch.setattr(processes, "_send_error", say)
        with pytest.raises(MemoryError):
            list(pool.digest_all(deque(batches_of(tmp_path, [1, 2])), 2, None, None))


@pytest.mark.parametrize("descriptors", [7, 8, 9, 10, 12, 16, 24])
def test_too_few_descriptors_are_an_error_and_no_traceback(
    tmp_path: Path, descriptors: int
) -> None:
    write_tree(tmp_path, {**version(), **version("debian/13/amd64/default/20240505_05:24")})
    for root in tmp_path.rglob("rootfs.squashfs"):
        stretch(root, 40 << 20)

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    result = subprocess.run(
        [COMMAND, "-j8", tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=few_descriptors,
    )
    assert "Traceback" not in result.stderr
    if result.returncode != 0:
        assert result.returncode == 1
        assert "Too many open files" in result.stderr
        assert not list(tmp_path.glob("streams/v1/*"))


@pytest.fixture
def host_thread(eager: None) -> Iterator[None]:
    """Let the process have several threads, as that of a host program may."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def pool_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("fastindex")]


@pytest.mark.parametrize("wants_progress", [False, True])
def test_in_a_process_of_several_threads_threads_give_the_same_digests(
    tmp_path: Path, host_thread: None, monkeypatch: pytest.MonkeyPatch, wants_progress: bool
) -> None:
    names: set[str] = set()
    real = digest.digest_batch

    def watched(batch: Batch, advance: digest.Advance) -> tuple[Outcome, ...]:
        names.add(threading.current_thread().name)
        return real(batch, advance)

    monkeypatch.setattr(pool, "digest_batch", watched)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it is forked"))
    batches = batches_of(tmp_path, [0, 1, 1000, 50_000, 3, 70_000])
    told: list[int] = []
    progress = told.append if wants_progress else None
    results = list(pool.digest_all(deque(batches), 3, None, progress))
    assert digests(results) == expected(batches)
    assert 1 <= len(names) <= 3
    assert all(name.startswith("fastindex") for name in names)
    assert not pool_threads()
    if wants_progress:
        assert told == sorted(told)
        assert told[-1] == sum(batch.size_bytes for batch in batches)


def test_threads_end_when_the_run_ends_early(
    tmp_path: Path, host_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = digest.digest_batch
    ended: list[str] = []

    def slow(batch: Batch, advance: digest.Advance) -> tuple[Outcome, ...]:
        name = Path(batch.tasks[0].root.path).name
        if name != "root0":
            for _ in range(6000):  # a minute, unless it is told to stop
                time.sleep(0.01)
                advance(1)
            ended.append(name)
        return real(batch, advance)

    monkeypatch.setattr(pool, "digest_batch", slow)
    results = pool.digest_all(deque(batches_of(tmp_path, [1, 2, 3, 4])), 2, None, None)
    next(results)
    assert pool_threads()
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 10
    assert not pool_threads()
    assert ended == []


@pytest.mark.parametrize("error", [MemoryError(), LookupError("a defect")], ids=type)
def test_what_a_thread_raises_comes_out_and_ends_the_others(
    tmp_path: Path, host_thread: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(batch: Batch, advance: digest.Advance) -> tuple[Outcome, ...]:
        if Path(batch.tasks[0].root.path).name == "root1":
            raise error
        for _ in range(6000):
            time.sleep(0.01)
            advance(1)
        return ()

    monkeypatch.setattr(pool, "digest_batch", fail)
    with pytest.raises(type(error)) as caught:
        list(pool.digest_all(deque(batches_of(tmp_path, [1, 2, 3])), 2, None, None))
    assert caught.value is error
    assert not pool_threads()


def children_of(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listing.split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_reading(pid: int) -> bool:
    """Return whether a process has a root open."""
    with suppress(OSError):
        opened = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        return any(path.endswith("/rootfs.squashfs") for path in opened)
    return False


def wait_until(condition: object, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def busy_root(tmp_path: Path) -> Path:
    """A tree that two workers are busy with for long: sparse files, and one that is done."""
    tree = {**version("done/12/amd64/default/20240505_05:24")}
    small = tmp_path / "images/done/12/amd64/default/20240505_05:24"
    write_tree(tmp_path, tree)
    stretch(small / "rootfs.squashfs", 40 << 20)
    write_tree(tmp_path, {**version("busy/12/amd64/default/20240505_05:24")})
    big = tmp_path / "images/busy/12/amd64/default/20240505_05:24/rootfs.squashfs"
    stretch(big, 32 << 30)
    return tmp_path


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_workers_keeps_digests_and_publishes_nothing(
    busy_root: Path, number: int, code: int
) -> None:
    process = subprocess.Popen(
        [COMMAND, "-j2", busy_root],
        env=UNMEASURED,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    cache = busy_root / "images/done/12/amd64/default/20240505_05:24/.items.json"
    assert wait_until(cache.exists)
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, number)  # as a terminal or a service manager does
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert "nothing was half-written" in stderr
    assert not any(map(is_alive, workers))
    assert not list(busy_root.glob("streams/v1/*"))
    assert not list(busy_root.rglob("*.tmp"))


def test_of_a_version_half_read_the_half_is_kept(busy_root: Path) -> None:
    busy = busy_root / "images/busy/12/amd64/default/20240505_05:24"
    (busy_root / "images/done").rename(busy_root / "images/.done")
    write_file(busy / "disk.qcow2", b"disk")
    stretch(busy / "disk.qcow2", 40 << 20)
    process = subprocess.Popen(
        [COMMAND, "-q", "-j2", busy_root], env=UNMEASURED, stderr=subprocess.DEVNULL
    )
    assert wait_until(lambda: len(children_of(process.pid)) == 2)
    time.sleep(2)  # for the small one: nothing tells from outside that it is read
    process.terminate()
    assert process.wait(60) == 143
    items = json.loads((busy / ".items.json").read_bytes())
    assert items["disk.qcow2"]["sha256"] == sha256((busy / "disk.qcow2").read_bytes())
    assert "rootfs.squashfs" not in items
    assert "combined_squashfs_sha256" not in items["incus.tar.xz"]


def test_ctrl_c_in_one_process_keeps_what_was_hashed(busy_root: Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "-j1", busy_root], env=UNMEASURED, stderr=subprocess.PIPE, text=True
    )
    assert wait_until(lambda: is_reading(process.pid))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_workers_end_with_a_killed_parent_and_the_lock_is_free(busy_root: Path) -> None:
    process = subprocess.Popen([COMMAND, "-j2", busy_root], stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(children_of(process.pid)) == 2)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    busy = busy_root / "images/busy"
    busy.rename(busy_root / "images/.busy")
    result = subprocess.run([COMMAND, busy_root], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert wait_until(lambda: not any(map(is_alive, workers)), 30)


def test_a_killed_worker_costs_no_version(busy_root: Path) -> None:
    busy = busy_root / "images/busy/12/amd64/default/20240505_05:24/rootfs.squashfs"
    stretch(busy, 1 << 30)
    process = subprocess.Popen(
        [COMMAND, "-j2", "--no-blake3", busy_root], stderr=subprocess.PIPE, text=True
    )
    assert wait_until(lambda: len(children_of(process.pid)) == 2)
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert len(published(busy_root)) == 2
    assert catalogue(busy_root)["products"]["busy:12:amd64:default"]


HOST = """
import multiprocessing, signal, sys
import fastindex
from fastindex.hashing import batches, pool

batches.BATCH_BYTES = 1
pool.LITTLE_BYTES = pool.LITTLE_TASKS = 0

def build(root):
    report = fastindex.Mirror(root).build(jobs=2)
    assert report.files_hashed == 4, report
    return report.exit_code

if __name__ == "__main__":
    if sys.argv[2] == "daemonic":
        with multiprocessing.get_context("fork").Pool(1) as processes:
            code = processes.apply(build, (sys.argv[1],))
    else:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        code = build(sys.argv[1])
    print("exit code", code)
"""


@pytest.mark.parametrize("kind", ["daemonic", "ignores its children"])
def test_a_build_works_in_a_process_that(tmp_path: Path, kind: str) -> None:
    root = write_tree(tmp_path / "root", version() | version("debian/13/amd64/default/20240506"))
    (tmp_path / "host.py").write_text(HOST)
    command = [sys.executable, str(tmp_path / "host.py"), str(root), kind]
    told = subprocess.run(command, env=UNMEASURED, capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("exit code 0\n", "")
