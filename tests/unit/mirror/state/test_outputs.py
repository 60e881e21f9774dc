"""In which directories a tree is published."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs
from tests.support.trees import write_tree


@pytest.mark.parametrize(
    ("code", "is_told"), [(errno.EIO, True), (errno.EACCES, True), (errno.ENOENT, False)]
)
def test_a_catalogue_that_cannot_be_looked_at_may_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, is_told: bool
) -> None:
    write_tree(tmp_path / "root", {"streams/v1/images.json": b"{}"})
    mirror = Mirror.at(tmp_path / "root", output=tmp_path / "www")
    assert outputs.find_others(mirror) == [str(tmp_path / "root")]

    def fail(path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "scandir", fail)
    assert outputs.find_others(mirror) == ([str(tmp_path / "root")] if is_told else [])
