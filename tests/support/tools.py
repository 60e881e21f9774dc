"""Tools that tests need beside Python."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(tool: str, install_line: str) -> str:
    """Return the path of ``tool``; skip the test without it, or fail it where CI is set."""
    # Servers lie in /usr/sbin, which an ordinary user's PATH leaves out.
    path = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is not None:
        return path
    reason = f"{tool} is not installed: {install_line}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
