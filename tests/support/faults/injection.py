"""Disturbing one system call of a run, by ``strace``: a signal, or an error instead of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fastindex
from tests.support.command import UNMEASURED
from tests.support.faults import telling
from tests.support.faults.scenarios import PAGE_SETTINGS, TORN, Place
from tests.support.tools import needs

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "EMFILE", "ENOMEM", "EINTR")
NO_MORE = "no more bytes"
"""Of a read: 0 bytes, as if the file ended there."""

_READING = frozenset(("read", "readv", "pread64", "preadv", "preadv2"))
_WRITING = frozenset(
    (
        *("write", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "ftruncate"),
        *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
        *("link", "linkat", "symlink", "fchmod", "utimensat", "openat"),
    )
)
_CODE = re.compile(
    "|".join(
        (
            *map(re.escape, {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}),
            *(re.escape(str(Path(fastindex.__file__).parent)), r"\.so\b", r"\.py[co]?\b"),
        )
    )
)
"""In a line of the log: the file is a part of a program."""
_TRACED = "%file,%desc,clone,clone3,fork,vfork"
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)$")
_FORKED = re.compile(r"^(?:clone3?|v?fork)\(.* = (\d+)$")


@dataclass(frozen=True)
class Point:
    """The ``number``-th use of a system call by one process; on ``path`` only, where there is one.

    Attributes:
        call: the system call's name.
        number: from 1 on.
        path: what the call deals with; empty: whatever.
        is_worker: whether workers alone come there.
    """

    call: str
    number: int
    path: str = ""
    is_worker: bool = False

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return self.call in _WRITING

    @property
    def errors(self) -> tuple[str, ...]:
        """What it may fail with."""
        return (*ERRORS, NO_MORE) if self.call in _READING else ERRORS

    def __str__(self) -> str:
        who = "a worker's " if self.is_worker else ""
        return f"{who}{self.call} {self.number} {Path(self.path).name}".strip()


def points(place: Place) -> list[Point]:
    """Return all points of an undisturbed run at which it deals with the mirror or its sources."""
    place.start_afresh()
    log = _log(place)
    strace = needs("strace", "apt-get install strace")
    options = ["-f", "-y", "-qq", "-e", f"trace={_TRACED}", "-e", "signal=none", "-o", str(log)]
    subprocess.run(
        [strace, *options, *place.scenario.command(place.root)],
        env=UNMEASURED,
        check=place.code == 0,
        capture_output=True,
    )
    return list(_points_in(log.read_text(errors="replace"), str(place.root.parent)))


def _calls(log: str) -> Iterator[tuple[str, str, str]]:
    """Yield process, system call and the rest of each line; of two halves, one line."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        process, call, _, rest = match.groups()
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest
        else:
            yield process, call, begun.pop(process, "") + rest


def _points_in(log: str, directory: str) -> dict[Point, None]:
    any_file: dict[tuple[str, str], int] = defaultdict(int)
    one_file: dict[tuple[str, str, str], int] = defaultdict(int)
    below = re.compile(rf"{re.escape(directory)}[^\">]*")
    workers: set[str] = set()
    threads: set[str] = set()
    by_parent: dict[Point, None] = {}
    by_worker: dict[Point, None] = {}
    by_thread: dict[Point, None] = {}
    not_workers: set[Point] = set()
    for process, call, rest in _calls(log):
        forked = _FORKED.search(f"{call}({rest}")
        if forked:
            is_thread = "CLONE_THREAD" in rest and process not in workers
            (threads if is_thread else workers).add(forked[1])
        if forked:
            continue
        any_file[process, call] += 1
        path = below.search(rest)
        if path is None or call == "execve":  # ROOT among the arguments
            continue
        one_file[process, call, path[0]] += 1
        if process in threads:  # whose calls are counted apart from the parent's
            by_thread[Point(call, one_file[process, call, path[0]], path[0])] = None
        elif process in workers:
            if call == "newfstatat":
                continue  # the parent looks at each file, too
            by_worker[Point(call, one_file[process, call, path[0]], path[0], is_worker=True)] = None
        else:
            by_parent[Point(call, any_file[process, call])] = None
        if process not in workers:  # as a worker's point it would be the parent's, too
            number = one_file[process, call, path[0]]
            not_workers.add(Point(call, number, path[0], is_worker=True))
    alone = {point: None for point in by_worker if point not in not_workers}
    return by_parent | alone | by_thread


def kill(place: Place, point: Point) -> int:
    """Kill the process that comes to ``point``; return how the run ended."""
    return _disturb(place, point, "signal=KILL").returncode


def fail(
    place: Place, point: Point, error: str
) -> tuple[subprocess.CompletedProcess[str], bool, bool]:
    """Let the call at ``point`` fail with ``error``.

    Returns:
        The run; whether a call of it failed; whether one did by which Python or another program
        loads itself. Which call is the N-th may change from run to run.
    """
    done = _disturb(place, point, "retval=0" if error == NO_MORE else f"error={error}")
    log = _log(place).read_text(errors="replace").splitlines()
    failed = [line for line in log if "(INJECTED)" in line]
    return done, bool(failed), any(map(_CODE.search, failed))


def _log(place: Place) -> Path:
    return place.root.parent.with_name("trace")


def _disturb(place: Place, point: Point, effect: str) -> subprocess.CompletedProcess[str]:
    strace = needs("strace", "apt-get install strace")
    injection = f"inject={point.call}:{effect}:when={point.number}"
    options = ["-f", "-y", "-qq", "-e", f"trace={point.call}", "-e", "signal=none", "-e", injection]
    if point.path:
        options += ["-P", point.path]
    command = [strace, *options, "-o", str(_log(place)), *place.scenario.command(place.root)]
    process = subprocess.Popen(
        command,
        env=UNMEASURED,
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


def survives_kill(place: Place, point: Point) -> bool:
    """Kill the run, or a worker of it, at ``point``; raise AssertionError where something is lost.

    A worker that is killed is replaced; as the next one comes to the same point, what it
    reads may be left out.

    Returns:
        Whether it was killed. A run need not come to each point of another, as what is
        done may depend on the time of day.
    """
    place.start_afresh()
    code = kill(place, point)
    expected = {place.code, 3} if point.is_worker else {place.code, -signal.SIGKILL}
    if place.scenario.is_signed:  # its N-th call may be one of GnuPG's
        expected.add(1)
    assert code in expected, f"{point}: ended with {code}"
    place.check(is_left_out=code == 3)
    place.finish()
    return point.is_worker or code != place.code


def survives_error(place: Place, point: Point, error: str) -> int | None:
    """Let the call at ``point`` fail; raise AssertionError where something is lost.

    Returns:
        What the run ended with; None where it did not come to that point.
    """
    place.start_afresh()
    done, has_failed, is_loading = fail(place, point, error)
    what = f"{point} {error}: {done.returncode}\n{done.stderr}"
    if is_loading:  # Python's own words say what it could not load
        place.check(is_left_out=True)
        place.finish()
        return None
    assert "Traceback" not in done.stderr, what
    # 2: its configuration cannot be read, or GnuPG not its key
    is_unread = any(name in done.stderr for name in (telling.SETTINGS, PAGE_SETTINGS, "--sign"))
    assert done.returncode in {0, 1, 3, 75} or (done.returncode == 2 and is_unread), what
    if done.returncode:
        # It names what is concerned; of what is imported late, the module.
        told = done.stdout + done.stderr
        assert re.search(r"images|daily|/|cannot start \(No module", told), what
    try:
        # A night goes on after a step that failed.
        may_leave_out = {1, 3} if place.scenario.settings else {3}
        place.check(is_left_out=done.returncode in may_leave_out, has_failed=True)
        place.finish()
    except TORN as lost:
        raise AssertionError(f"{what}\n{lost}") from lost
    return done.returncode if has_failed else None
