"""What all tests share: the installed command, and a user whom file modes bind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.builders import Workshop
from tests.support.command import AsNobody, Run, load_all_modules, run_as_nobody, run_command
from tests.support.file_systems import coarse_file_system


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """Return a file system that keeps whole seconds."""
    with coarse_file_system(tmp_path / "coarse") as path:
        yield path


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return what runs the installed command, in ``tmp_path`` unless told otherwise."""
    return partial(run_command, cwd=tmp_path)


@pytest.fixture
def fastindex_as_nobody() -> AsNobody:
    """Return what builds as a user whom file modes bind."""
    load_all_modules()
    return run_as_nobody


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return what makes builders' output."""
    return Workshop(tmp_path_factory.mktemp("workshop"))
