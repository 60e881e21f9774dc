from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from fastindex.system import signals
from tests.support.command import COMMAND, UNMEASURED
from tests.support.large_files import stretch
from tests.support.trees import version, write_tree


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_that_was_swallowed_is_raised_at_the_next_safe_point(number: int) -> None:
    before = signal.getsignal(number)
    with signals.handled():
        signals.check()
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), number)
        with pytest.raises(signals.Interrupted) as caught:
            signals.check()
    assert caught.value.number == number
    assert signal.getsignal(number) == before
    with signals.handled():
        signals.check()  # a new run owes nothing to the last


def test_a_blocked_signal_arrives_after_the_context() -> None:
    """In a process of its own: this one may have threads that take the signal first."""
    code = """if True:
        import os, signal
        from fastindex.system import signals
        try:
            with signals.handled(), signals.blocked():
                os.kill(os.getpid(), signal.SIGTERM)
                print("not interrupted")
        except signals.Interrupted as end:
            print("then", end.number)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == b"not interrupted\nthen 15\n"


def test_workers_leave_ctrl_c_and_hang_ups_to_the_parent_and_die_of_sigterm() -> None:
    code = """if True:
        import signal
        from fastindex.system import signals
        with signals.handled(), signals.blocked():
            signals.set_worker_handlers()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path, number: int) -> None:
    """In the workers too: as a shell does for what it starts with ``&``, and nohup."""
    write_tree(tmp_path, version())
    root = tmp_path / "images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
    stretch(root, 3 << 30)
    ignoring = f"trap '' {signal.Signals(number).name[3:]}; exec \"$@\""
    process = subprocess.Popen(
        ["sh", "-c", ignoring, "sh", COMMAND, "-q", "-j2", "--no-blake3", tmp_path],
        env=UNMEASURED,
        start_new_session=True,
    )
    time.sleep(0.7)
    os.killpg(process.pid, number)
    assert process.wait(60) == 0


@pytest.mark.parametrize("moment", range(6))
def test_a_signal_at_any_moment_ends_the_run(tmp_path: Path, moment: int) -> None:
    """Through start, imports, forks and hashing; a run that has not begun just dies."""
    tree = {**version(), **version("debian/13/amd64/default/20240505_05:24")}
    write_tree(tmp_path, tree)
    for root in tmp_path.rglob("rootfs.squashfs"):
        stretch(root, 16 << 30)
    process = subprocess.Popen(
        [COMMAND, "-j2", tmp_path],
        env=UNMEASURED,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(0.05 + 0.03 * moment)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) in {130, -signal.SIGINT, 1}
    assert not list(tmp_path.glob("streams/v1/*"))


def test_a_terminal_that_is_closed_ends_the_run(tmp_path: Path) -> None:
    """The progress bar and the last words can no longer be written, which is no other error."""
    write_tree(tmp_path, {**version(), **version("debian/13/amd64/default/20240505_05:24")})
    for root in tmp_path.rglob("rootfs.squashfs"):
        stretch(root, 8 << 30)
    # Its first process leads a session of its own, so that the terminal controls it.
    child, terminal = pty.fork()
    if child == 0:
        os.execve(COMMAND, ["fastindex", "-j2", str(tmp_path)], UNMEASURED)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    seen = b""
    while b"hashing:" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert not list(tmp_path.glob("streams/v1/*"))
