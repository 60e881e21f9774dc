"""A command under watch: what it opens, how long it takes, how much memory it holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fastindex
from tests.support.command import UNMEASURED
from tests.support.tools import needs

MEMORY_BYTES = 512 << 20
"""Address space; a process that keeps to it holds less in memory."""
SECONDS = 60

_MEASURE = """
import os, sys
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
os._exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""A small process between: what it starts inherits the peak of who starts it."""

_RESULT = re.compile(r"= \d+<(.*)>$")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"')
"""A name in a call, after the open directory that it is relative to."""
_FLAGS = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC)")
_CHANGING = (
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir"
)
_OWN = tuple(
    os.path.join(os.path.realpath(place), "")
    for place in (
        *(sys.prefix, sys.base_prefix, sys.exec_prefix, Path(fastindex.__file__).parent),
        *("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/usr/bin", "/usr/share/locale"),
        *("/usr/share/zoneinfo", "/sys/fs/cgroup", "/sys/devices", "/dev/shm"),
    )
)
"""Where Python, its libraries and the system's lie."""
_OWN_FILES = re.compile(
    r"/dev/(null|urandom|tty)|/etc/(ld\.so\.(cache|preload)|localtime|locale\.alias|ssl/openssl\.cnf)"
    r"|/proc/(cpuinfo|meminfo|sys/vm/overcommit_memory|\d+/(status|mounts|mountinfo|cgroup|stat|maps))"
    r"|(pipe|socket|anon_inode):\[?.*|/memfd:.*"
    # Python lists what it imports from.
    + "|"
    + re.escape(os.path.realpath(Path(fastindex.__file__).parents[1])),
)


@dataclass(frozen=True)
class Watched:
    """How a command went.

    Attributes:
        code: what it ended with.
        printed: what it printed on stdout.
        told: what it said on stderr.
        opened: real paths of all that it opened, its own and the system's files left out.
        written: those that it opened for writing, and what it made, renamed or removed.
        seconds: how long it took.
        peak_bytes: the most memory that one of its processes held.
    """

    code: int
    printed: str
    told: str
    opened: frozenset[str]
    written: frozenset[str]
    seconds: float
    peak_bytes: int

    def outside(self, *places: Path) -> set[str]:
        """Return what it opened, made or removed that does not lie below ``places``."""
        inside = tuple(os.path.join(os.path.realpath(place), "") for place in places)
        touched = self.opened | self.written
        return {path for path in touched if not os.path.join(path, "").startswith(inside)}


def watch(command: Sequence[str | Path]) -> Watched:
    """Run ``command`` under ``strace``, with bounded memory; raises AssertionError if it hangs."""
    strace = needs("strace", "apt-get install strace")
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        calls = f"trace=open,openat,openat2,creat,{_CHANGING}"
        options = ["-f", "-y", "-qq", "--seccomp-bpf", "-s", "4096", "-e", calls, "-o", str(trace)]
        result = measure([strace, *options, *map(str, command)])
        lines = trace.read_text(errors="surrogateescape").splitlines()
    opened: set[str] = set()
    written: set[str] = set()
    for line in lines:
        call = line.partition(" ")[2].lstrip()
        if call.startswith(("open", "creat")):
            match = _RESULT.search(call)
            is_passed = "O_PATH" in call  # on the way down: nothing can be read by it
            if match is not None and not is_passed and not _is_own(match[1]):
                opened.add(match[1])
                if _FLAGS.search(call):
                    written.add(match[1])
        elif call.endswith("= 0"):
            for above, path in _NAME.findall(call):
                directory = os.path.realpath(os.path.dirname(os.path.join(above, path)))
                if not _is_own(directory):
                    written.add(directory)
    return Watched(
        result.code,
        result.printed,
        result.told,
        frozenset(opened),
        frozenset(written),
        result.seconds,
        result.peak_bytes,
    )


def _is_own(path: str) -> bool:
    return os.path.join(path, "").startswith(_OWN) or _OWN_FILES.fullmatch(path) is not None


def measure(command: Sequence[str]) -> Watched:
    """Run ``command`` with bounded memory; raises AssertionError if it hangs."""
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        tempfile.NamedTemporaryFile() as peak,
    ):
        prlimit = needs("prlimit", "apt-get install util-linux")
        began = time.monotonic()
        process = subprocess.Popen(
            [
                prlimit,
                f"--as={MEMORY_BYTES}",
                sys.executable,
                "-SEc",
                _MEASURE,
                peak.name,
                *command,
            ],
            env=UNMEASURED,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
        )
        hung = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        hung.start()
        process.wait()
        seconds = time.monotonic() - began
        hung.cancel()
        hung.join()
        assert process.returncode != -signal.SIGKILL, f"hangs: {command}"
        stdout.seek(0)
        stderr.seek(0)
        return Watched(
            process.returncode,
            stdout.read().decode("utf-8", "surrogateescape"),
            stderr.read().decode("utf-8", "surrogateescape"),
            frozenset(),
            frozenset(),
            seconds,
            int(peak.read() or 0) * 1024,
        )
