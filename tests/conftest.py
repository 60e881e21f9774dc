"""What all tests share: the installed command, and a user whom file modes bind."""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastindex.cli import main
from tests.builders import Workshop

COMMAND = Path(sys.executable).with_name("fastindex")

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


@pytest.fixture
def fastindex_as_nobody() -> Callable[[Path], tuple[int, str]]:
    """Build ``root`` as a user whom file modes bind; returns the exit code and stderr.

    In a forked process that gives root's rights up, not a new one: the user may not be
    allowed to run this very Python.
    """
    package = Path(importlib.import_module("fastindex").__file__ or "").parent
    modules = [f"fastindex.{path.stem}" for path in package.glob("[a-z]*.py")]
    for module in ("blake3", *modules):
        importlib.import_module(module)  # all that a build loads, while it still may

    def run(root: Path) -> tuple[int, str]:
        reader, writer = multiprocessing.Pipe(duplex=False)

        def build() -> None:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            told = io.StringIO()
            with contextlib.redirect_stderr(told):
                code = main(["-j1", str(root)])
            writer.send((code, told.getvalue()))

        child = multiprocessing.get_context("fork").Process(target=build)
        child.start()
        child.join(60)
        assert reader.poll()
        result: tuple[int, str] = reader.recv()
        return result

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return what makes builders' output."""
    return Workshop(tmp_path_factory.mktemp("workshop"))
