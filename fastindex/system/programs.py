"""Running the operator's own programs: no shell, a time limit, and nothing of theirs is left."""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404  # what the operator has configured
import time
from collections.abc import Mapping, Sequence

from fastindex.system import signals

_POLL_SECONDS = 0.05


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
