"""Running other programs: no shell, a time limit, and nothing of theirs is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess  # nosec B404  # what the operator has configured, and tools
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext, suppress

from fastindex.system import signals

_POLL_SECONDS = 0.05
_PIECE_BYTES = 1 << 20
_MAX_WORDS_BYTES = 1000
_NICENESS = 10
"""Of a tool that works in the background: builds and web servers come first."""


class ToolError(Exception):
    """A tool has failed; the message says how."""


class StoppedError(ToolError):
    """A tool was killed because nobody wants its result any more."""


def stream_tool(
    arguments: Sequence[str],
    stdin: int,
    others: Sequence[int],
    limit_seconds: float,
    is_unwanted: Callable[[], bool],
) -> Generator[bytes, None, None]:
    """Run a tool in the background; yield what it writes to stdout, piece by piece.

    It is killed, with all that it started, when the generator is closed. If this process is killed,
    it ends at its next write. It may run in any thread.

    Args:
        arguments: the tool, by its absolute path, and its arguments; no shell reads them.
        stdin: descriptor of its input.
        others: descriptors that it inherits; to it they are ``/proc/self/fd/NUMBER``.
        limit_seconds: how long it may take.
        is_unwanted: asked from time to time whether to give up.

    Raises:
        ToolError: it cannot be started, takes too long, or fails.
        Interrupted: a signal arrived.
    """
    with os.fdopen(os.memfd_create("fastindex"), "w+b") as words:
        until = time.monotonic() + limit_seconds
        is_main = threading.current_thread() is threading.main_thread()
        pipe, process = -1, None
        try:
            with signals.deferred() if is_main else nullcontext():
                pipe, process = _start(arguments, stdin, others, words.fileno())
            yield from _read_until(pipe, process.pid, until, limit_seconds, is_unwanted)
            while not _has_ended(process.pid):
                _check_wanted(until, limit_seconds, is_unwanted)
                time.sleep(_POLL_SECONDS / 10)
        finally:
            if process is not None:
                os.close(pipe)
                os.killpg(process.pid, signal.SIGKILL)  # before the number can be another group's
                process.wait()
        problem = _explain_end(process.returncode)
        if problem:
            words.seek(max(0, words.seek(0, os.SEEK_END) - _MAX_WORDS_BYTES))
            said = words.read(_MAX_WORDS_BYTES).decode(errors="replace").splitlines()
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            raise ToolError(f"{problem}: {last}" if last else problem)


def _start(
    arguments: Sequence[str], stdin: int, others: Sequence[int], stderr: int
) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a tool; return the end of the pipe that it writes to, and its process."""
    pipe, end = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603  # nosec B603  # no shell, words of ours
            arguments,
            cwd="/",
            stdin=stdin,
            stdout=end,
            stderr=stderr,
            pass_fds=others,
            env={"LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        os.close(pipe)
        raise ToolError(f"cannot be started ({error.strerror or error})") from error
    finally:
        os.close(end)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    return pipe, process


def _read_until(
    pipe: int, pid: int, until: float, limit_seconds: float, is_unwanted: Callable[[], bool]
) -> Generator[bytes, None, None]:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        _check_wanted(until, limit_seconds, is_unwanted)
        if poll.poll(_POLL_SECONDS * 1000):
            piece = os.read(pipe, _PIECE_BYTES)
            if not piece:
                return
            yield piece
        elif _has_ended(pid):  # what it has left running holds the pipe
            return


def _check_wanted(until: float, limit_seconds: float, is_unwanted: Callable[[], bool]) -> None:
    signals.check()
    if is_unwanted():
        raise StoppedError("is not wanted any more")
    if time.monotonic() > until:
        raise ToolError(f"was killed after {limit_seconds:.0f} s")


def run_program(
    arguments: Sequence[str], variables: Mapping[str, str], limit_seconds: float
) -> str:
    """Run a program in the root directory; what it prints goes to stderr.

    Args:
        arguments: the program and its arguments; no shell reads them.
        variables: added to the environment.
        limit_seconds: how long it may take; then it is killed, with all that it started and that is
            still in its process group.

    Returns:
        Why it failed; empty: it did not.

    Raises:
        Interrupted: a signal arrived; the program is killed.
    """
    try:
        with signals.deferred():
            process = subprocess.Popen(  # noqa: S603  # nosec B603  # the operator's own words
                arguments,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=2,
                env={**os.environ, **variables},
                start_new_session=True,
            )
    except OSError as error:
        return f"cannot be started ({error.strerror or error})"
    try:
        until = time.monotonic() + limit_seconds
        while not _has_ended(process.pid):
            signals.check()
            if time.monotonic() > until:
                return f"was killed after {limit_seconds:g} s"
            time.sleep(_POLL_SECONDS)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # before the number can be that of another group
        process.wait()
    return _explain_end(process.returncode)


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended, and leave it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _explain_end(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with {code}" if code else ""
