"""A version directory appears complete or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fastindex.formats.simplestreams import CachedItem
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import MARK, OvertakenError, Staging, StagingError, hidden_path
from fastindex.system.stamps import stamp_of
from tests.support.trees import OLD_NS, write_tree

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505"
HIDDEN = f"{PRODUCT}/.20240505"


@contextmanager
def staged(root: Path, cache_dir: Path | None = None) -> Iterator[Staging]:
    with closing(Staging(Mirror.at(root, cache_dir=cache_dir), VERSION)) as made:
        yield made


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_version_is_hidden_until_it_is_published(tmp_path: Path) -> None:
    with staged(tmp_path) as version:
        assert version.path == hidden_path(f"{tmp_path}/{VERSION}") == f"{tmp_path}/{HIDDEN}"
        version.write("incus.tar.xz", b"meta", OLD_NS)
        assert names(tmp_path / PRODUCT) == {".20240505"}
        version.publish()
        version.complete()
    assert names(tmp_path / PRODUCT) == {"20240505"}
    assert names(tmp_path / VERSION) == {"incus.tar.xz"}
    assert (tmp_path / VERSION / "incus.tar.xz").stat().st_mtime_ns == OLD_NS


def test_what_is_not_published_is_removed(tmp_path: Path) -> None:
    with staged(tmp_path) as version:
        version.write("incus.tar.xz", b"meta", OLD_NS)
    assert names(tmp_path / PRODUCT) == set()


def test_the_remains_of_a_killed_import_are_cleared(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{HIDDEN}/{MARK}": b"", f"{HIDDEN}/half": b"x"})
    with staged(tmp_path) as version:
        version.publish()
        version.complete()
    assert names(tmp_path / VERSION) == set()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({f"{HIDDEN}/upload": b"x"}, "in the way: it contains files that no import put there"),
        ({HIDDEN: b"x"}, "in the way: it is not a directory"),
        ({HIDDEN: "elsewhere"}, "in the way: it is not a directory"),
        ({"images": b"x"}, "cannot create .*Not a directory"),
        ({"images/debian": "/tmp"}, "is or goes through a symlink that leads elsewhere"),
    ],
)
def test_an_obstacle_is_told_and_kept(
    tmp_path: Path, tree: dict[str, bytes | str], words: str
) -> None:
    write_tree(tmp_path, tree)
    with pytest.raises(StagingError) as caught, staged(tmp_path):
        pass
    assert re.search(words, caught.value.problem)
    for path, content in tree.items():
        if isinstance(content, bytes):
            assert (tmp_path / path).read_bytes() == content
        else:
            assert os.readlink(tmp_path / path) == content


def test_two_imports_of_a_version_exclude_each_other(tmp_path: Path) -> None:
    with staged(tmp_path) as first:
        first.write("incus.tar.xz", b"meta", OLD_NS)
        with pytest.raises(StagingError) as caught, staged(tmp_path):
            pass
        assert caught.value.problem == "another import of this version is running"
        first.publish()
        first.complete()
    assert names(tmp_path / VERSION) == {"incus.tar.xz"}


def test_a_directory_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    with staged(tmp_path) as version:
        version.write("incus.tar.xz", b"new", OLD_NS)
        write_tree(tmp_path, {f"{VERSION}/kept": b"old"})
        with pytest.raises(OSError, match="not empty"):
            version.publish()
    assert (tmp_path / VERSION / "kept").read_bytes() == b"old"
    assert names(tmp_path / PRODUCT) == {"20240505"}


def test_only_the_file_that_was_meant_is_linked(tmp_path: Path) -> None:
    write_tree(tmp_path, {"source": b"x", "other": b"y", "link": "source"})
    status = (tmp_path / "source").stat()
    with staged(tmp_path) as version:
        assert version.link(f"{tmp_path}/source", "a", status)
        assert not version.link(f"{tmp_path}/other", "b", status)
        assert not version.link(f"{tmp_path}/link", "c", status)
        assert not version.link(f"{tmp_path}/missing", "d", status)
        assert not version.link(f"{tmp_path}/source", "a", status)  # the name is taken
        version.link_twin("a", "e")
        version.publish()
        version.complete()
    assert names(tmp_path / VERSION) == {"a", "e"}
    assert {path.stat().st_ino for path in (tmp_path / VERSION).iterdir()} == {status.st_ino}


@pytest.mark.parametrize(
    ("mode", "may_change", "is_readable", "mode_after"),
    [
        (0o644, False, True, 0o644),
        (0o444, True, True, 0o444),
        (0o600, False, False, 0o600),
        (0o600, True, True, 0o644),
        (0o640, True, True, 0o644),
    ],
)
def test_a_linked_file_is_made_readable_only_if_it_may_be(
    tmp_path: Path, mode: int, may_change: bool, is_readable: bool, mode_after: int
) -> None:
    source = write_tree(tmp_path, {"source": b"x"}) / "source"
    source.chmod(mode)
    with staged(tmp_path) as version:
        version.link(str(source), "a", source.stat())
        assert version.sync_link("a", may_change=may_change) is is_readable
    assert source.stat().st_mode & 0o777 == mode_after


@pytest.mark.parametrize("has_cache_dir", [False, True])
def test_the_cache_goes_where_the_mirror_keeps_it(tmp_path: Path, has_cache_dir: bool) -> None:
    caches = tmp_path / "caches" if has_cache_dir else None
    item = CachedItem(ftype="squashfs", path="p", size=1, sha256="0" * 64)
    with staged(tmp_path, caches) as version:
        version.write_cache({"rootfs.squashfs": item}, frozenset())
        version.publish()
        version.complete()
    assert names(tmp_path / VERSION) == (set() if caches else {".items.json"})
    assert ((caches or tmp_path) / VERSION / ".items.json").is_file()


def test_a_mark_that_was_left_after_publishing_is_removed(tmp_path: Path) -> None:
    mirror = Mirror.at(write_tree(tmp_path, {f"{VERSION}/{MARK}": b"", f"{VERSION}/a": b""}))
    for _ in range(2):
        staging.remove_mark(mirror, VERSION)
        assert names(tmp_path / VERSION) == {"a"}


@pytest.mark.parametrize(
    ("change", "reason", "remains"),
    [
        ("", "", False),
        ("removed", "", False),
        ("replaced", "it has changed", True),
        ("touched", "it has changed", True),
        ("symlink", "it has changed", True),
    ],
)
def test_a_source_is_removed_only_if_it_is_still_the_one(
    tmp_path: Path, change: str, reason: str, remains: bool
) -> None:
    source = write_tree(tmp_path, {"source": b"x", f"root/{VERSION}/a": b"x"}) / "source"
    status = source.stat()
    match change:
        case "removed":
            source.unlink()
        case "replaced":
            source.rename(tmp_path / "kept")
            write_tree(tmp_path, {"source": b"x"})
        case "touched":
            os.utime(source)
        case "symlink":
            source.symlink_to(source.rename(tmp_path / "kept"))
    mirror = Mirror.at(tmp_path / "root")
    told = staging.remove_source(mirror, str(source), status, mirror.path(f"{VERSION}/a"))
    assert bool(told) == bool(reason)
    assert reason in told
    assert os.path.lexists(source) is remains


@pytest.mark.parametrize(
    ("copy", "is_kept"),
    [
        ("file", False),
        ("hard link", False),
        ("symlink in the product", False),
        ("symlink in the tree", True),
        ("touched", True),
        ("absent", True),
        ("directory", True),
        ("symlink to the source", True),
        ("symlink to elsewhere", True),
        ("version is the source's directory", True),
        ("product is above the source's directory", True),
    ],
)
def test_a_source_is_removed_only_if_the_tree_has_another_entry_for_its_bytes(
    tmp_path: Path, copy: str, is_kept: bool
) -> None:
    source = write_tree(tmp_path, {"builds/20240505/a": b"x", "else/a": b"x"}) / "builds/20240505/a"
    root = tmp_path / "root"
    target = root / VERSION / "a"
    (target.parent if "is the" not in copy else target.parent.parent).mkdir(parents=True)
    stamp = None
    match copy:
        case "file" | "touched":
            target.write_bytes(b"x")
            stamp = stamp_of(target.stat())
            if copy == "touched":
                os.utime(target)
        case "hard link":
            target.hardlink_to(source)
        case "symlink in the product":
            target.symlink_to(write_tree(target.parent.parent, {"b": b"x"}) / "b")
        case "symlink in the tree":
            target.symlink_to(write_tree(root, {"images/b": b"x"}) / "images/b")
        case "directory":
            target.mkdir()
        case "symlink to the source":
            target.symlink_to(source)
        case "symlink to elsewhere":
            target.symlink_to(tmp_path / "else/a")
        case "version is the source's directory":
            target.parent.symlink_to(source.parent)
        case "product is above the source's directory":
            target.parent.rmdir()
            target.parent.parent.rmdir()
            target.parent.parent.symlink_to(tmp_path / "builds")
    mirror = Mirror.at(root, allow_links=[tmp_path / "builds"])  # so that links lead to the source
    told = staging.remove_source(mirror, str(source), source.stat(), str(target), stamp)
    assert bool(told) is is_kept
    assert source.exists() is is_kept


def test_a_version_that_another_import_makes_meanwhile_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the directory and locking it, as a scheduler may do."""
    look = Staging._require_ours

    def make_it_first(self: Staging) -> None:
        look(self)
        monkeypatch.undo()
        with staged(tmp_path) as first:
            first.write("incus.tar.xz", b"meta", OLD_NS)
            first.publish()
            first.complete()

    monkeypatch.setattr(Staging, "_require_ours", make_it_first)
    with pytest.raises(OvertakenError), staged(tmp_path):
        pass
    assert names(tmp_path / VERSION) == {"incus.tar.xz"}
    assert names(tmp_path / PRODUCT) == {"20240505"}


def test_a_directory_that_was_put_in_the_place_of_the_hidden_one_is_noticed(
    tmp_path: Path,
) -> None:
    with staged(tmp_path) as version:
        version.write("incus.tar.xz", b"meta", OLD_NS)
        (tmp_path / HIDDEN).rename(tmp_path / "away")
        (tmp_path / HIDDEN).mkdir()
        with pytest.raises(OSError, match="in its place"):
            version.publish()


def test_what_has_its_visible_name_is_not_emptied_whatever_fails_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def rename_and_fail(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        raise OSError(errno.EIO, "Input/output error")

    with staged(tmp_path) as version:
        version.write("incus.tar.xz", b"meta", OLD_NS)
        monkeypatch.setattr(os, "rename", rename_and_fail)
        with pytest.raises(OSError, match="Input"):
            version.publish()
    assert names(tmp_path / VERSION) == {"incus.tar.xz", MARK}


def test_only_a_regular_file_has_a_status(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": b"x", "link": "file", "directory": None})
    os.mkfifo(tmp_path / "fifo")
    status = staging.stat_regular_file(f"{tmp_path}/file")
    assert status is not None
    assert status.st_size == 1
    for name in ("link", "directory", "fifo", "missing"):
        assert staging.stat_regular_file(f"{tmp_path}/{name}") is None
