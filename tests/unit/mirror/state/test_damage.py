"""``.damaged.json``: which files are damaged, and what that costs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NoReturn

import pytest

from fastindex.errors import PublishError, TreeError
from fastindex.formats.names import FileRole
from fastindex.formats.simplestreams import CachedItem
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import (
    CHANGED,
    Damage,
    DamagedFiles,
    describe_damage,
    read_records,
)
from fastindex.mirror.tree import FoundFile, FoundVersion
from fastindex.system.stamps import Stamp
from tests.support.trees import write_file, write_tree

PRODUCT = "images/debian/12/amd64/default"
PATH = f"{PRODUCT}/20240505"


def file(name: str, mtime_ns: int = 1) -> FoundFile:
    return FoundFile(name, FileRole("root", name), Stamp(7, mtime_ns, 1, 1))


RIGHT = "ab" * 32
META, ROOT = file("incus.tar.xz"), file("rootfs.squashfs")


def version_of(*files: FoundFile) -> FoundVersion:
    return FoundVersion("20240505", PATH, files)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror.at(tmp_path)


@pytest.fixture
def damaged(mirror: Mirror) -> DamagedFiles:
    """Return a record of two damaged files of one version."""
    record = DamagedFiles(mirror)
    for one in (ROOT, META):
        record.add(f"{PATH}/{one.name}", one.stamp.key, RIGHT)
    return record


def describe(record: DamagedFiles) -> list[tuple[str, Damage, int]]:
    return record.describe_product(PRODUCT)


def paths_in(record: DamagedFiles) -> list[str]:
    return [path for path, _, _ in describe(record)]


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"], ["a", "b", "c"]])
def test_damaged_files_of_a_version_cost_one_version(names: list[str]) -> None:
    findings = list(describe_damage(PATH, dict.fromkeys(reversed(names), CHANGED)))
    assert [finding.path for finding in findings] == [f"{PATH}/{name}" for name in names]
    assert sum(finding.versions_left_out for finding in findings) == bool(names)
    assert not any(finding.files_left_out for finding in findings)


def test_a_record_outlives_its_run_as_long_as_its_file(mirror: Mirror) -> None:
    record = DamagedFiles(mirror)
    Path(mirror.path(PATH)).mkdir(parents=True)
    for one in (ROOT, META):
        Path(mirror.path(f"{PATH}/{one.name}")).write_bytes(b"bytes")
        record.add(f"{PATH}/{one.name}", one.stamp.key, RIGHT)
    record.save_changes()
    again = DamagedFiles(mirror)
    assert describe(again) == describe(record)
    assert paths_in(again) == [f"{PATH}/{META.name}", f"{PATH}/{ROOT.name}"]
    Path(mirror.path(f"{PATH}/{ROOT.name}")).unlink()
    again = DamagedFiles(mirror)
    assert paths_in(again) == [f"{PATH}/{META.name}"]
    again.save_changes()
    assert ROOT.name not in Path(mirror.output, "streams/.damaged.json").read_text()


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [(FileNotFoundError, False), (NotADirectoryError, False), (PermissionError, True)],
)
def test_what_cannot_be_looked_at_is_not_gone(
    mirror: Mirror,
    damaged: DamagedFiles,
    monkeypatch: pytest.MonkeyPatch,
    error: type[OSError],
    is_kept: bool,
) -> None:
    damaged.save_changes()

    def refuse(path: str) -> NoReturn:
        raise error(path)

    monkeypatch.setattr(os, "lstat", refuse)
    assert bool(DamagedFiles(mirror).list_all()) == is_kept


def test_a_path_that_no_file_can_have_is_forgotten(mirror: Mirror) -> None:
    path = Path(mirror.state_path(".damaged.json"))
    path.parent.mkdir()
    path.write_bytes(rb'{"images/a\u0000b": "key"}')
    assert DamagedFiles(mirror).is_empty


def test_only_files_that_count_and_have_not_changed_are_found(damaged: DamagedFiles) -> None:
    version = version_of(META, ROOT)

    def found(*files: FoundFile) -> list[str]:
        return list(damaged.find_in(version, files))

    assert found(META, ROOT) == [META.name, ROOT.name]
    assert found(ROOT) == [ROOT.name]
    assert found(META, file(ROOT.name, mtime_ns=2)) == [META.name]
    assert found(file("disk.qcow2")) == []


@pytest.mark.parametrize(
    ("now", "is_accepted", "remaining"),
    [
        ((META, ROOT), False, [META, ROOT]),
        ((META, file(ROOT.name, mtime_ns=2)), False, [META]),
        ((META,), False, [META, ROOT]),
        ((META, ROOT), True, []),
        ((META,), True, [ROOT]),
        ((), True, [META, ROOT]),
    ],
)
def test_what_has_changed_or_is_accepted_is_forgotten(
    damaged: DamagedFiles,
    now: tuple[FoundFile, ...],
    is_accepted: bool,
    remaining: list[FoundFile],
) -> None:
    damaged.forget_changed(version_of(*now), is_accepted=is_accepted)
    assert paths_in(damaged) == [f"{PATH}/{one.name}" for one in remaining]


def test_each_product_has_its_own_damage(damaged: DamagedFiles) -> None:
    other = "images/debian/12/amd64/default2"
    damaged.add(f"{other}/20240505/disk.qcow2", "0" * 16, RIGHT)
    assert damaged.list_products() == {PRODUCT, other}
    assert len(paths_in(damaged)) == 2
    assert [path for path, _, _ in damaged.describe_product(other)] == [
        f"{other}/20240505/disk.qcow2"
    ]
    assert damaged.describe_product("images/debian") != []  # all below it
    assert damaged.describe_product("images/other") == []


def test_a_record_is_empty_until_something_is_damaged(
    mirror: Mirror, damaged: DamagedFiles
) -> None:
    assert DamagedFiles(mirror).is_empty
    assert not damaged.is_empty
    assert DamagedFiles(mirror).list_products() == set()


def test_another_version_is_not_forgotten(damaged: DamagedFiles) -> None:
    other = FoundVersion("20240506", PATH.replace("05", "06"), (META, ROOT))
    damaged.forget_changed(other, is_accepted=True)
    assert len(paths_in(damaged)) == 2


def test_only_a_change_is_written(mirror: Mirror, damaged: DamagedFiles, tmp_path: Path) -> None:
    path = tmp_path / "streams/.damaged.json"
    DamagedFiles(mirror).save_changes()
    assert not path.exists()
    damaged.save_changes()
    path.unlink()
    damaged.save_changes()
    assert not path.exists()
    damaged.add(f"{PATH}/disk.qcow2", "0" * 16, RIGHT)
    damaged.save_changes()
    assert path.exists()


def test_a_torn_record_is_told_and_a_failed_write_too(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "streams").mkdir()
    path = tmp_path / "streams/.damaged.json"
    path.write_bytes(b'{"a": 5}')
    with pytest.raises(TreeError, match=r"cannot be read .*remove it and run with --rehash"):
        DamagedFiles(mirror)
    path.unlink()
    record = DamagedFiles(mirror)
    record.add("x", "y", RIGHT)
    path.mkdir()
    with pytest.raises(PublishError, match=r"\.damaged\.json: cannot be written"):
        record.save_changes()


def test_the_digest_of_the_right_bytes_outlives_what_is_learned_later(
    damaged: DamagedFiles,
) -> None:
    """A read error knows no digest; a later comparison knows what the cache says by then."""
    path = f"{PATH}/{ROOT.name}"
    for sha256 in ("", "cd" * 32):
        damaged.add(path, ROOT.stamp.key, sha256, "cannot be read")
        (damage,) = damaged.find_in(version_of(ROOT), [ROOT]).values()
        assert (damage.sha256, damage.problem) == (RIGHT, "cannot be read")
    damaged.add(path, "0" * 16, "cd" * 32)
    assert [one.sha256 for _, one, _ in describe(damaged)] == [RIGHT, "cd" * 32]


def item_of(one: FoundFile, damaged: str = CHANGED, key: str | None = None) -> CachedItem:
    return CachedItem(
        ftype="x",
        path=f"{PATH}/{one.name}",
        size=7,
        sha256="cd" * 32,
        key=one.stamp.key if key is None else key,
        damaged=damaged,
        changed_ns=5,
    )


def test_what_a_cache_says_of_damage_is_recorded(mirror: Mirror) -> None:
    record = DamagedFiles(mirror)
    record.adopt(version_of(META, ROOT), {META.name: item_of(META, ""), ROOT.name: item_of(ROOT)})
    found = record.find_in(version_of(META, ROOT), [META, ROOT])
    assert found == {ROOT.name: Damage(ROOT.stamp.key, CHANGED, "cd" * 32, 5)}


def test_what_is_recorded_goes_before_what_a_cache_says(damaged: DamagedFiles) -> None:
    before = describe(damaged)
    damaged.adopt(version_of(ROOT), {ROOT.name: item_of(ROOT, key="0" * 16)})
    assert describe(damaged) == before


def test_records_of_other_outputs_count_unless_they_are_empty(tmp_path: Path) -> None:
    empty, torn = tmp_path / "empty", tmp_path / "torn"
    write_tree(empty, {"streams/.damaged.json": b"{}\n"})
    write_tree(torn, {"streams/.damaged.json": b"torn"})
    others = map(str, (tmp_path / "absent", empty, torn))
    assert list(read_records(others, None)) == [b"torn"]


def test_damage_is_told_to_all_that_share_the_caches(tmp_path: Path) -> None:
    """ROOT may be read-only, so that no run can record there for which output it is."""
    caches = tmp_path / "caches"
    damaged = DamagedFiles(Mirror.at(tmp_path, output=tmp_path / "out", cache_dir=caches))
    damaged.save_changes()
    assert list(read_records((), str(caches))) == []
    damaged.add("images/a/1/amd64/default/20240505/disk.qcow2", "0" * 16, "")
    damaged.save_changes()
    (record,) = read_records((), str(caches))
    assert record == (tmp_path / "out/streams/.damaged.json").read_bytes()


def test_a_file_that_is_all_right_is_forgotten(damaged: DamagedFiles) -> None:
    for _ in range(2):
        damaged.forget(f"{PATH}/{ROOT.name}")
    assert paths_in(damaged) == [f"{PATH}/{META.name}"]


@pytest.mark.parametrize("change", ["chmod", "same bytes", "replace", "remove"])
def test_a_file_is_worth_reading_as_soon_as_its_inode_changes(
    mirror: Mirror, tmp_path: Path, change: str
) -> None:
    """Size and modification time can be set; the time of the inode's change cannot."""
    path = write_tree(tmp_path, {f"{PATH}/{ROOT.name}": b"wrong"}) / PATH / ROOT.name
    record = DamagedFiles(mirror)
    record.add(f"{PATH}/{ROOT.name}", ROOT.stamp.key, RIGHT)

    def is_worth_reading() -> bool:
        found = record.find_in(version_of(ROOT), [ROOT])
        return record.is_worth_reading(version_of(ROOT), found)

    before = describe(record)
    assert not is_worth_reading()
    time.sleep(0.02)  # for the clock of inodes
    match change:
        case "chmod":
            path.chmod(0o600)
        case "same bytes":
            write_file(path, path.read_bytes())
        case "replace":
            other = path.with_name("other")
            write_file(other, b"right")
            other.replace(path)
        case "remove":
            path.unlink()
    assert is_worth_reading()
    assert describe(record) != before
    record.add(f"{PATH}/{ROOT.name}", ROOT.stamp.key, RIGHT)
    assert not is_worth_reading()


def test_what_earlier_releases_recorded_still_counts(mirror: Mirror, tmp_path: Path) -> None:
    old = json.dumps({f"{PATH}/{ROOT.name}": ROOT.stamp.key}).encode()
    write_tree(tmp_path, {"streams/.damaged.json": old, f"{PATH}/{ROOT.name}": b"x"})
    record = DamagedFiles(mirror)
    found = record.find_in(version_of(META, ROOT), [META, ROOT])
    assert found == {ROOT.name: Damage(ROOT.stamp.key)}
    assert found[ROOT.name].problem == CHANGED
    assert record.is_worth_reading(version_of(META, ROOT), found)
