"""Which products a prune need not look at: those that are as the last build published them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import fastindex
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.inputs import list_settled
from tests.support.trees import version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
BOTH = {f"images/{DEBIAN}", f"images/{ALPINE}"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = {
        **version(f"{DEBIAN}/{OLD}"),
        **version(f"{DEBIAN}/{NEW}"),
        **version(f"{ALPINE}/{NEW}"),
    }
    return write_tree(tmp_path / "mirror", tree)


def find(root: Path, keep: int = 9) -> set[str]:
    return set(list_settled(Mirror.at(str(root)), keep).listings)


def test_what_a_build_published_whole_is_settled(root: Path) -> None:
    assert find(root) == set()
    fastindex.Mirror(root).build()
    assert find(root) == BOTH
    assert find(root, 2) == BOTH
    assert find(root, 1) == {f"images/{ALPINE}"}


def test_what_a_build_left_out_is_not(root: Path) -> None:
    (root / f"images/{DEBIAN}/{OLD}/rootfs.squashfs").unlink()
    fastindex.Mirror(root).build()
    assert find(root) == {f"images/{ALPINE}"}


def test_what_is_a_copy_of_another_product_is_not(root: Path) -> None:
    for number in range(2):
        copy = root / f"images/void/{number}/amd64/default/{NEW}"
        shutil.copytree(root / f"images/{ALPINE}/{NEW}", copy)
    write_tree(root, version("void/1/amd64/default/20240507_05:24"))
    report = fastindex.Mirror(root).build()
    left_out = {one.path for one in report.findings if one.code == "duplicate-image"}
    assert len(left_out) == 2
    assert not [path for path in find(root) for other in left_out if other.startswith(f"{path}/")]


def test_what_is_withdrawn_is_not(root: Path) -> None:
    mirror = fastindex.Mirror(root)
    mirror.prune(keep=1)
    mirror.build()
    assert find(root) == {f"images/{ALPINE}"}


def test_nothing_is_where_the_catalogue_is_another(root: Path) -> None:
    fastindex.Mirror(root).build()
    path = root / "streams/v1/images.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert find(root) == set()


def test_a_prune_still_sees_what_has_changed_since(root: Path) -> None:
    mirror = fastindex.Mirror(root)
    mirror.build()
    assert mirror.prune(keep=2, grace_seconds=0).withdrawn == ()
    write_tree(root, version(f"{DEBIAN}/20240507_05:24"))
    assert mirror.prune(keep=2, grace_seconds=0).withdrawn == (f"images/{DEBIAN}/{OLD}",)
    assert mirror.prune(keep=1, grace_seconds=0).withdrawn == (f"images/{DEBIAN}/{NEW}",)
