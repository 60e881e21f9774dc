"""After hours of reading, files are looked at again before they are published."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fastindex
from fastindex.operations.builder import rebuild
from tests.support.contents import make_content
from tests.support.trees import OLD_NS, published, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
OLD, NEW = f"{PRODUCT}/20240505_05:24", f"{PRODUCT}/20240506_05:24"
OTHER = "alpine/3.20/amd64/default/20240506_05:24"
NAME = "rootfs.squashfs"
CHANGED = "changed, or was removed, after it was read"


class Meanwhile(fastindex.Observer):
    """Does something to the tree as soon as all files have been read.

    Args:
        act: what.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def hashing_finished(self) -> None:
        self.act()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a tree of three versions; any reading takes long."""
    monkeypatch.setattr(rebuild, "_LONG_SECONDS", 0)
    return write_tree(tmp_path / "root", version(OLD) | version(NEW) | version(OTHER))


def names(root: Path) -> set[str]:
    return {name.split()[1] for name in published(root) if name.startswith("debian")}


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lead_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


ACTS: dict[str, Callable[[Path], object]] = {
    "replaced": lambda path: write_file(path, make_content(NAME, "new"), OLD_NS),
    "touched": lambda path: os.utime(path, ns=(OLD_NS, OLD_NS + 1)),
    "file removed": lambda path: path.unlink(),
    "version removed": lambda path: shutil.rmtree(path.parent),
    "renamed": lambda path: path.parent.rename(path.parent.with_name("20240507_05:24")),
    "made a directory": make_directory,
    "led elsewhere": lead_elsewhere,
}


@pytest.mark.parametrize("act", ACTS)
def test_what_has_changed_since_is_left_out(root: Path, act: str) -> None:
    path = root / "images" / OLD / NAME
    report = fastindex.Mirror(root).build(observer=Meanwhile(lambda: ACTS[act](path)))
    assert names(root) == {"20240506_05:24"}
    assert (report.products, report.versions, report.versions_left_out) == (2, 2, 1)
    assert report.exit_code is fastindex.ExitCode.LEFT_OUT
    finding = next(one for one in report.findings if one.problem == CHANGED)
    assert finding.code is fastindex.Code.CHANGED
    assert finding.path.startswith(f"images/{OLD}/")


@pytest.mark.parametrize("act", ["replaced", "touched", "renamed"])
def test_the_next_run_takes_it_as_it_is_now(root: Path, act: str) -> None:
    path = root / "images" / OLD / NAME
    mirror = fastindex.Mirror(root)
    mirror.build(observer=Meanwhile(lambda: ACTS[act](path)))
    report = mirror.build()
    assert (report.versions, report.findings) == (3, ())
    assert mirror.verify(method="sha256").mismatches == ()
    assert mirror.build().is_unchanged


def test_nothing_else_is_touched(root: Path) -> None:
    mirror = fastindex.Mirror(root)
    report = mirror.build(observer=Meanwhile(lambda: None))
    assert (report.versions, report.findings) == (3, ())
    assert mirror.build().is_unchanged


def test_a_product_of_which_nothing_is_left_goes(root: Path) -> None:
    gone = root / "images/alpine"
    report = fastindex.Mirror(root).build(observer=Meanwhile(lambda: shutil.rmtree(gone)))
    assert (report.products, report.versions) == (1, 2)


def test_most_of_what_is_published_does_not_go(root: Path) -> None:
    """If others have changed it meanwhile, a brake decides as if it had been found so."""
    mirror = fastindex.Mirror(root)
    mirror.build()
    before = published(root)
    images = root / "images"

    def change_all() -> None:
        for path in images.rglob(NAME):
            os.utime(path, ns=(OLD_NS, OLD_NS + 1))

    with pytest.raises(fastindex.FastindexError, match="nothing was published"):
        mirror.build(rehash=True, observer=Meanwhile(change_all))
    assert published(root) == before


def test_after_a_short_time_nobody_looks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = root / "images" / OLD / NAME
    report = fastindex.Mirror(root).build(observer=Meanwhile(path.unlink))
    assert (report.versions, report.findings) == (3, ())
