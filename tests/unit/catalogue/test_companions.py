from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastindex.catalogue.companions import CatalogueFile


def test_a_file_that_becomes_shorter_has_no_copy(tmp_path: Path) -> None:
    """A compressed copy of its beginning would be whole to whoever reads it."""
    path = tmp_path / "images.json"
    path.write_bytes(bytes(3 << 20))
    chunks = CatalogueFile("streams/v1/images.json", "images", str(path)).read_chunks()
    next(chunks)
    os.truncate(path, 2 << 20)
    with pytest.raises(OSError, match=r"became shorter.*images\.json"):
        list(chunks)
