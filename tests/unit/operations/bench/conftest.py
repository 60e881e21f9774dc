from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.large_files import directory_on_disk, large_files


@pytest.fixture(scope="package")
def images() -> Iterator[Path]:
    """Return a directory with just enough to measure."""
    with large_files() as root:
        yield root


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """Return an empty directory that is not in memory."""
    with directory_on_disk() as path:
        yield path
