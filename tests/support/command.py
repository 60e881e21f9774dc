"""The installed command, run as the user who tests and as a user whom file modes bind."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from fastindex.cli.main import main
from tests.support.command_server import CommandServer, unmeasured

COMMAND = Path(sys.executable).with_name("fastindex")

RECORDS = "streams/.run-*.json"
"""What runs leave of what they told, in ROOT or the output directory."""

UNMEASURED = unmeasured()
"""The environment of what measuring would disturb: a signal may come while it holds its own
lock, a call that is counted or watched may be its own."""

NOBODY = 65534

_SERVER = CommandServer()

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class AsNobody(Protocol):
    """Runs a build as nobody."""

    def __call__(
        self, root: Path, *arguments: str, most_processes: int | None = None
    ) -> tuple[int, str]:
        """Build ``root``; return the exit code and what came on stderr, workers' words too."""


def run_command(
    *arguments: object, cwd: Path, patience: float = 60, is_forgetful: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd``; its stdout and stderr come back as text.

    Where a test has changed the environment, it is started anew, as its users start it.

    Args:
        arguments: the command line.
        cwd: where it runs.
        patience: seconds until it must have ended.
        is_forgetful: forget what earlier runs told, so that it tells all of that again.
    """
    words = [*map(str, arguments)]
    if is_forgetful and not {"-n", "--dry-run"} & {*words}:  # those tell all anyway
        for word in (".", *words):
            with contextlib.suppress(OSError):  # no path, or where nothing can be written
                for record in (cwd / word.partition("=")[2 * word.startswith("--")]).glob(RECORDS):
                    record.unlink()
    served = _SERVER.run(words, cwd, patience)
    if served is not None:
        return served
    return subprocess.run(
        [COMMAND, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def load_all_modules() -> None:
    """Load all that a build may load later, when it may no longer be allowed to read it."""
    package = Path(importlib.import_module("fastindex").__file__ or "").parent
    modules = [
        ".".join(("fastindex", *path.relative_to(package).with_suffix("").parts))
        for path in package.rglob("[a-z]*.py")
    ]
    starting = ("multiprocessing.sharedctypes", "multiprocessing.popen_fork")
    for module in ("blake3", *starting, *modules):
        importlib.import_module(module)


def run_as_nobody(
    root: Path, *arguments: str, most_processes: int | None = None
) -> tuple[int, str]:
    """Build ``root`` as a user whom file modes bind; return the exit code and stderr.

    In a forked process that gives root's rights up, not a new one: the user may not be
    allowed to run this very Python.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)

    def build() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        if most_processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (most_processes, most_processes))
        os.dup2(told.fileno(), 2)
        with os.fdopen(2, "w", buffering=1) as stderr, contextlib.redirect_stderr(stderr):
            code = main([*(arguments or ["-j1"]), str(root)])
        writer.send(code)

    with tempfile.TemporaryFile("w+") as told:
        child = multiprocessing.get_context("fork").Process(target=build)
        child.start()
        child.join(60)
        assert reader.poll(), "it hangs"
        code: int = reader.recv()
        told.seek(0)
        return code, told.read()


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Give this process another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
