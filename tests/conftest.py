"""What all tests share: the installed command, and tools that must be there in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("fastindex")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


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
def needs() -> Callable[[str, str], str]:
    """Return where a tool is; skip the test without it, or fail where ``CI`` is set."""

    def find(tool: str, package: str) -> str:
        path = shutil.which(tool)
        if path is not None:
            return path
        reason = f"{tool} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture
def unprivileged(needs: Callable[[str, str], str]) -> list[str]:
    """Return a command prefix that runs as a user whom file modes bind."""
    if os.geteuid() != 0:
        return []
    return [needs("setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"]
