from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastindex.errors import LockHeldError, PublishError
from fastindex.system import locks
from tests.support.command import COMMAND, Run
from tests.support.trees import published, version, write_tree


def test_a_lock_that_no_pid_can_be_written_to_holds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = str(tmp_path / "lock")
    monkeypatch.setattr(os, "pwrite", fail)
    with (
        locks.lock(path, 0),
        pytest.raises(LockHeldError, match="pid unknown"),
        locks.lock(path, 0),
    ):
        pass


def test_a_signal_while_a_lock_is_released_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = str(tmp_path / "lock")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), locks.lock(path, 0):
        patched.setattr(os, "ftruncate", interrupt)
    with locks.lock(path, 0):
        pass


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "streams/.lock")
    with locks.lock(path, 0):
        began = time.monotonic()
        with pytest.raises(LockHeldError, match=f"pid {os.getpid()}"), locks.lock(path, 0.3):
            pass
        assert time.monotonic() - began >= 0.3
    with locks.lock(path, 0):
        pass
    assert os.path.exists(path)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    with locks.lock(path, 0):
        child.start()
    try:
        with locks.lock(path, 5):  # the child may need a moment to start
            pass
    finally:
        child.kill()
        child.join()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "streams").write_bytes(b"")
    lock = locks.lock(str(tmp_path / "streams/.lock"), 0)
    with pytest.raises(PublishError, match="cannot open the lock file"), lock:
        pass


def test_a_second_run_fails_at_once_or_waits(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    path = str(tmp_path / "streams/.lock")
    with locks.lock(path, 0):
        result = fastindex(tmp_path)
        assert result.returncode == 75
        holder = f"{path}: another run (pid {os.getpid()})"
        told = f"{holder} holds the lock; try again when it has ended, or use --wait\n"
        assert result.stderr == f"fastindex: error: {told}"
        result = fastindex("--wait", "0.2", tmp_path)
        assert result.returncode == 75
        told = f"{holder} still holds the lock after 0.2 s; wait longer, or try again later\n"
        assert result.stderr == f"fastindex: error: {told}"
        assert fastindex("--dry-run", tmp_path).returncode == 0
        assert fastindex("--print", tmp_path).returncode == 0
        waiting = subprocess.Popen([COMMAND, "-q", "--wait", tmp_path])
        time.sleep(0.5)
        assert waiting.poll() is None
    assert waiting.wait(10) == 0
    assert len(published(tmp_path)) == 1


def test_runs_started_together_all_succeed_when_they_wait(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    alias = tmp_path.with_name(f"{tmp_path.name}-alias")
    alias.symlink_to(tmp_path)
    runs = [
        subprocess.Popen([COMMAND, "-q", "--wait", root], stderr=subprocess.PIPE)
        for root in (tmp_path, alias) * 3
    ]
    assert [run.wait(30) for run in runs] == [0] * 6
    assert all(run.communicate()[1] == b"" for run in runs)


def test_who_has_come_by_a_lock_file_that_was_removed_takes_the_new_one(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    got = threading.Event()

    def wait() -> None:
        with locks.lock(path, float("inf")):
            got.set()

    waiting = threading.Thread(target=wait)
    with locks.lock(path, 0):
        waiting.start()
        time.sleep(0.3)  # it has opened the file by now
        os.unlink(path)
        second = locks.lock(path, 0)
        second.__enter__()
    assert not got.wait(0.3)
    second.__exit__(None, None, None)
    assert got.wait(10)
    waiting.join()


@pytest.mark.parametrize(
    "content",
    [b"", b"1\n", b"4194303\n", b"%d\n" % os.getpid(), b"\x1b[31m\0\xff" * 99],
    ids=["nothing", "init", "nobody", "this process", "garbage"],
)
def test_what_a_dead_holder_left_holds_nobody_up(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    with locks.lock(str(path), 0):
        assert path.read_bytes() == b"%d\n" % os.getpid()
    assert path.read_bytes() == b""


def test_no_garbage_is_told_for_a_pid(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"\x1b[31m\0\xff")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockHeldError, match=r"\(pid unknown\)"), locks.lock(str(path), 0):
            pass


HOLD = """
import os, sys, time
from fastindex.system import locks
with locks.lock(sys.argv[1], 0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout as told:
        assert told.readline() == b"held\n"
    with pytest.raises(LockHeldError, match=rf"\(pid {holder.pid}\)"), locks.lock(str(path), 0):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locks.lock(str(path), 0):
        pass


@pytest.mark.root
def test_a_lock_file_of_another_user_is_no_obstacle(
    tmp_path_factory: pytest.TempPathFactory,
    fastindex_as_nobody: Callable[[Path], tuple[int, str]],
) -> None:
    root = write_tree(tmp_path_factory.mktemp("mirror"), version())
    locked = root / "streams/.lock"
    locked.parent.mkdir()
    locked.write_bytes(b"1\n")
    os.chown(locked.parent, 65534, 65534)
    for path in (root, *root.parents[:3]):
        path.chmod(0o755)
    code, told = fastindex_as_nobody(root)
    assert (code, published(root)) == (0, {"debian:12:amd64:default 20240505_05:24"}), told
    locked.chmod(0)
    code, told = fastindex_as_nobody(root)
    assert code == 1
    assert f"{locked}: cannot open the lock file (Permission denied)" in told
