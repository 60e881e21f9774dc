"""Disturbing one system call of a run, by ``strace``: a signal, or an error instead of it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import defaultdict
from dataclasses import dataclass

from tests.faults.scenarios import Place
from tests.needed_tools import needs

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "EMFILE", "ENOMEM", "EINTR")

_WRITING = frozenset(
    (
        *("write", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "ftruncate"),
        *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
        *("link", "linkat", "symlink", "fchmod", "utimensat", "openat"),
    )
)
_TRACED = "%file,%desc"
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


@dataclass(frozen=True)
class Point:
    """The ``number``-th use of a system call by one process."""

    call: str
    number: int

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return self.call in _WRITING


def points(place: Place) -> list[Point]:
    """Return all points of an undisturbed run at which it deals with the mirror or its sources."""
    place.start_afresh()
    log = place.root.parent.with_name("trace")
    strace = needs("strace", "apt-get install strace")
    options = ["-f", "-y", "-qq", "-e", f"trace={_TRACED}", "-e", "signal=none", "-o", str(log)]
    subprocess.run(
        [strace, *options, *place.scenario.command(place.root)], check=True, capture_output=True
    )
    counts: dict[tuple[str, str], int] = defaultdict(int)
    found: dict[Point, None] = {}
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None or "resumed>" in line:
            continue
        process, call, rest = match.groups()
        counts[process, call] += 1
        if str(place.root.parent) in rest:
            found[Point(call, counts[process, call])] = None
    return list(found)


def kill(place: Place, point: Point) -> int:
    """Kill the process that comes to ``point``; return how the run ended."""
    return _disturb(place, f"inject={point.call}:signal=KILL:when={point.number}").returncode


def fail(place: Place, point: Point, error: str) -> subprocess.CompletedProcess[str]:
    """Let the call at ``point`` fail with ``error``; return the run."""
    return _disturb(place, f"inject={point.call}:error={error}:when={point.number}")


def _disturb(place: Place, injection: str) -> subprocess.CompletedProcess[str]:
    strace = needs("strace", "apt-get install strace")
    call = injection.split("=")[1].split(":", maxsplit=1)[0]
    options = ["-f", "-qq", "-e", f"trace={call}", "-e", "signal=none", "-e", injection]
    command = [strace, *options, "-o", "/dev/null", *place.scenario.command(place.root)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        told, complained = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"hangs after {injection}") from None
    return subprocess.CompletedProcess(command, process.returncode, told, complained)


def survives_kill(place: Place, point: Point) -> None:
    """Kill the run at ``point``; raise AssertionError where something is lost."""
    place.start_afresh()
    kill(place, point)
    place.check()
    place.finish()


def survives_error(place: Place, point: Point, error: str) -> int:
    """Let the call at ``point`` fail; raise AssertionError where something is lost.

    Returns:
        What the run ended with.
    """
    place.start_afresh()
    done = fail(place, point, error)
    what = f"{point.call} {point.number} {error}: {done.returncode}\n{done.stderr}"
    assert "Traceback" not in done.stderr, what
    assert done.returncode in {0, 1, 3, 75}, what
    if done.returncode:
        assert re.search(r"images|/", done.stderr), what  # it names what is concerned
    try:
        place.check(is_left_out=done.returncode == 3)
        place.finish()
    except AssertionError as lost:
        raise AssertionError(f"{what}\n{lost}") from lost
    return done.returncode
