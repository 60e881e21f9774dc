"""What all tests share: the installed command, and a user whom file modes bind."""

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

import pytest

from fastindex.cli.main import main
from tests.support.builders import Workshop
from tests.support.tools import needs

COMMAND = Path(sys.executable).with_name("fastindex")

UNMEASURED = {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}
"""The environment of what measuring would disturb: a signal may come while it holds its own
lock, a call that is counted or watched may be its own."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextlib.contextmanager
def file_system_of(size: str, path: Path) -> Iterator[Path]:
    """Mount a file system of ``size`` (as ``1m``) at ``path``; skip the test without the right."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    yield path
    subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def coarse_file_system(path: Path) -> Iterator[Path]:
    """Mount a file system that keeps whole seconds at ``path``; skip without the right."""
    path.mkdir()
    image = path.with_name(f"{path.name}.img")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    mke2fs = needs("mke2fs", "apt-get install e2fsprogs")
    subprocess.run([mke2fs, "-q", "-I", "128", image], check=True, capture_output=True)
    mount = ["mount", "-o", "loop", str(image), str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """Return a file system that keeps whole seconds."""
    with coarse_file_system(tmp_path / "coarse") as path:
        yield path


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Give this process another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Run the installed command; its stdout and stderr come back as text."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


class AsNobody(Protocol):
    """Runs a build as nobody."""

    def __call__(
        self, root: Path, *arguments: str, most_processes: int | None = None
    ) -> tuple[int, str]:
        """Build ``root``; return the exit code and what came on stderr, workers' words too."""


@pytest.fixture
def fastindex_as_nobody() -> AsNobody:
    """Build ``root`` as a user whom file modes bind; returns the exit code and stderr.

    In a forked process that gives root's rights up, not a new one: the user may not be
    allowed to run this very Python.
    """
    package = Path(importlib.import_module("fastindex").__file__ or "").parent
    modules = [
        ".".join(("fastindex", *path.relative_to(package).with_suffix("").parts))
        for path in package.rglob("[a-z]*.py")
    ]
    starting = ("multiprocessing.sharedctypes", "multiprocessing.popen_fork")
    for module in ("blake3", *starting, *modules):
        importlib.import_module(module)  # all that a build loads, while it still may

    def run(root: Path, *arguments: str, most_processes: int | None = None) -> tuple[int, str]:
        reader, writer = multiprocessing.Pipe(duplex=False)

        def build() -> None:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
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

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return what makes builders' output."""
    return Workshop(tmp_path_factory.mktemp("workshop"))
