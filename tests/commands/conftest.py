"""What the tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import Workshop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty mirror."""
    path = tmp_path / "mirror"
    path.mkdir()
    return path


@pytest.fixture
def source(workshop: Workshop, tmp_path: Path) -> Path:
    """Return what a builder left: incus.tar.xz and rootfs.squashfs."""
    return workshop.split(tmp_path / "source")
