"""A run that reads for hours looks at the tree again before it publishes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import fastindex
from fastindex.operations.builder import rebuild
from tests.support.contents import make_content
from tests.support.trees import OLD_NS, catalogue, published, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
FIRST, SECOND = f"{PRODUCT}/20240505_05:24", f"{PRODUCT}/20240506_05:24"
NAME = "rootfs.squashfs"


class Uploader(fastindex.Observer):
    """Does something to the tree each time that files have been read.

    Args:
        act: gets the number of that time, from 1.
    """

    wants_progress = True

    def __init__(self, act: Callable[[int], object] = lambda _: None) -> None:
        self.act = act
        self.readings: list[int] = []

    def hashing_started(self, total_bytes: int) -> None:
        self.readings.append(total_bytes)

    def hashing_finished(self) -> None:
        self.act(len(self.readings))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a tree of two versions; any reading takes long."""
    monkeypatch.setattr(rebuild, "_LONG_SECONDS", 0)
    return write_tree(tmp_path / "root", version(FIRST) | version(SECOND))


def once(act: Callable[[], object]) -> Callable[[int], object]:
    """Return what does ``act`` the first time."""
    return lambda number: act() if number == 1 else None


def list_published(root: Path) -> set[str]:
    """Return the names of the versions of the product that are published."""
    return {name.split()[1] for name in published(root)}


def test_what_was_removed_while_files_were_read_is_not_published(root: Path) -> None:
    uploader = Uploader(once(lambda: shutil.rmtree(root / "images" / FIRST)))
    report = fastindex.Mirror(root).build(observer=uploader)
    assert list_published(root) == {"20240506_05:24"}
    assert (report.versions, report.files_hashed, report.files_reused) == (1, 4, 0)
    assert report.exit_code is fastindex.ExitCode.DONE


def test_what_was_replaced_has_the_digest_of_its_new_bytes(root: Path) -> None:
    new = make_content(NAME, "new")
    replace = once(lambda: write_file(root / "images" / FIRST / NAME, new, OLD_NS + 1))
    report = fastindex.Mirror(root).build(observer=Uploader(replace))
    (product,) = catalogue(root)["products"].values()
    item = product["versions"]["20240505_05:24"]["items"][NAME]
    assert item["sha256"] == sha256(new).hexdigest()
    assert report.files_hashed == 6  # a fingerprint is over the metadata, too


def test_what_was_uploaded_is_published_too(root: Path) -> None:
    another = version(f"{PRODUCT}/20240507_05:24")
    uploader = Uploader(once(lambda: write_tree(root, another)))
    report = fastindex.Mirror(root).build(observer=uploader)
    assert "20240507_05:24" in list_published(root)
    assert (report.versions, report.files_hashed, report.files_reused) == (3, 6, 0)
    assert report.bytes_read == sum(uploader.readings)
    again = fastindex.Mirror(root).build()
    assert again.is_unchanged


def test_uploads_without_end_do_not_keep_a_run_from_its_end(root: Path) -> None:
    def upload(number: int) -> None:
        write_tree(root, version(f"{PRODUCT}/2025010{number}_05:24"))

    uploader = Uploader(upload)
    report = fastindex.Mirror(root).build(observer=uploader)
    assert len(uploader.readings) == 4
    assert report.versions == len(list_published(root)) == 5  # the last upload is the next run's


@pytest.mark.parametrize("options", [{"rehash": True}, {"recheck": "1/1"}])
def test_what_must_be_read_again_is_read_once(root: Path, options: dict[str, str]) -> None:
    mirror = fastindex.Mirror(root)
    mirror.build()
    uploader = Uploader()
    report = mirror.build(observer=uploader, **options)  # type: ignore[arg-type]
    assert (report.files_hashed, len(uploader.readings)) == (4, 1)
    assert (report.versions, report.is_unchanged) == (2, False)
    assert report.exit_code is fastindex.ExitCode.DONE
    assert mirror.build().is_unchanged


@pytest.mark.parametrize("options", [{"rehash": True}, {"recheck": "1/1"}])
def test_damage_is_told_as_after_one_look(
    root: Path, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    for seconds in (10, 0):
        monkeypatch.setattr(rebuild, "_LONG_SECONDS", seconds)
        shutil.rmtree(root)
        write_tree(root, version(FIRST) | version(SECOND))
        mirror = fastindex.Mirror(root)
        mirror.build()
        path = root / "images" / FIRST / NAME
        content = path.read_bytes()
        write_file(path, content[:-1] + bytes([content[-1] ^ 1]), path.stat().st_mtime_ns)
        report = mirror.build(**options)  # type: ignore[arg-type]
        told.append((report.findings, report.exit_code, catalogue(root)))
    assert told[0] == told[1]


def test_without_caches_nothing_is_read_twice(root: Path) -> None:
    """As they cannot be written, or as it is a dry run."""
    uploader = Uploader()
    report = fastindex.Mirror(root).build(observer=uploader, dry_run=True)
    assert (report.files_hashed, len(uploader.readings)) == (4, 1)
    for path in (FIRST, SECOND):
        (root / "images" / path / ".items.json").mkdir()
    uploader = Uploader()
    report = fastindex.Mirror(root).build(observer=uploader)
    assert (report.files_hashed, report.versions, len(uploader.readings)) == (4, 2, 1)
    assert fastindex.Code.CACHE_NOT_WRITTEN in [finding.code for finding in report.findings]


def test_one_look_is_enough_if_reading_was_quick(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    another = version(f"{PRODUCT}/20240507_05:24")
    uploader = Uploader(once(lambda: write_tree(root, another)))
    assert fastindex.Mirror(root).build(observer=uploader).versions == 2
