"""The seed tool's own output for a tree of its own is ours (tests/golden)."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.command import Run
from tests.support.trees import catalogue

GOLDEN = Path(__file__).parents[1] / "support/golden"


@pytest.fixture
def seed_tree(tmp_path: Path) -> Path:
    with tarfile.open(GOLDEN / "seed-tree.tar.gz") as archive:
        archive.extractall(tmp_path, filter="tar")
    return tmp_path / "tree"


def expected() -> dict[str, object]:
    document: dict[str, dict[str, dict[str, object]]] = json.loads(
        (GOLDEN / "seed-images.json").read_bytes()
    )
    for product in document["products"].values():
        if product["lxd_requirements"] == {}:
            del product["lxd_requirements"]  # its presence alone would unset the others
    return dict(document)


def test_our_catalogue_is_the_seed_tools(fastindex: Run, seed_tree: Path) -> None:
    result = fastindex(seed_tree)
    assert result.returncode == 0, result.stderr
    assert catalogue(seed_tree) == expected()
    index = json.loads((seed_tree / "streams/v1/index.json").read_bytes())
    seed_index = json.loads((GOLDEN / "seed-index.json").read_bytes())
    for document in (index, seed_index):
        document["index"]["images"]["products"].sort()
    assert index == seed_index


def test_the_seed_tools_caches_are_adopted(fastindex: Run, seed_tree: Path) -> None:
    with tarfile.open(GOLDEN / "seed-items.tar.gz") as archive:
        archive.extractall(seed_tree, filter="tar")
    result = fastindex(seed_tree)
    assert "0 files hashed, 25 reused; nothing read" in result.stderr
    assert catalogue(seed_tree) == expected()


def test_our_caches_have_the_seed_tools_shape(fastindex: Run, seed_tree: Path) -> None:
    fastindex(seed_tree)
    with tarfile.open(GOLDEN / "seed-items.tar.gz") as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            if content is None:
                continue
            seed = json.load(content)
            ours = json.loads((seed_tree / member.name).read_bytes())
            for item in ours.values():
                assert len(item.pop("key")) == 16
                assert len(item.pop("blake3")) == 64
                assert item.pop("checked") is True
            assert ours == seed
