"""What all tests share: the installed command, and a user whom file modes bind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needed_tools import needs

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
def unprivileged() -> list[str]:
    """Return a command prefix that runs as a user whom file modes bind."""
    if os.geteuid() != 0:
        return []
    return [
        needs("setpriv", "apt-get install util-linux"),
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]
