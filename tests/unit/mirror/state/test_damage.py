"""``.damaged.json``: which files are damaged, and what that costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastindex.errors import PublishError, TreeError
from fastindex.formats.names import FileRole
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import DamagedFiles, describe_damage
from fastindex.mirror.tree import FoundFile, FoundVersion
from fastindex.system.stamps import Stamp

PATH = "images/debian/12/amd64/default/20240505"


def file(name: str, mtime_ns: int = 1) -> FoundFile:
    return FoundFile(name, FileRole("root", name), Stamp(7, mtime_ns, 1, 1))


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
        record.add(f"{PATH}/{one.name}", one.stamp.key)
    return record


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"], ["a", "b", "c"]])
def test_damaged_files_of_a_version_cost_one_version(names: list[str]) -> None:
    findings = describe_damage(PATH, names)
    assert [finding.path for finding in findings] == [f"{PATH}/{name}" for name in names]
    assert sum(finding.versions_left_out for finding in findings) == bool(names)
    assert not any(finding.files_left_out for finding in findings)


def test_a_record_outlives_its_run(mirror: Mirror, damaged: DamagedFiles) -> None:
    damaged.save_changes()
    again = DamagedFiles(mirror)
    assert again.items() == damaged.items()
    assert [path for path, _ in again.items()] == [f"{PATH}/{META.name}", f"{PATH}/{ROOT.name}"]


def test_only_files_that_count_and_have_not_changed_are_found(damaged: DamagedFiles) -> None:
    version = version_of(META, ROOT)

    def found(*files: FoundFile) -> list[str]:
        return [finding.path for finding in damaged.find_in(version, files)]

    assert found(META, ROOT) == [f"{PATH}/{META.name}", f"{PATH}/{ROOT.name}"]
    assert found(ROOT) == [f"{PATH}/{ROOT.name}"]
    assert found(META, file(ROOT.name, mtime_ns=2)) == [f"{PATH}/{META.name}"]
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
    assert [path for path, _ in damaged.items()] == [f"{PATH}/{one.name}" for one in remaining]


def test_another_version_is_not_forgotten(damaged: DamagedFiles) -> None:
    other = FoundVersion("20240506", PATH.replace("05", "06"), (META, ROOT))
    damaged.forget_changed(other, is_accepted=True)
    assert len(damaged.items()) == 2


def test_only_a_change_is_written(mirror: Mirror, damaged: DamagedFiles, tmp_path: Path) -> None:
    path = tmp_path / "streams/.damaged.json"
    DamagedFiles(mirror).save_changes()
    assert not path.exists()
    damaged.save_changes()
    path.unlink()
    damaged.save_changes()
    assert not path.exists()
    damaged.add(f"{PATH}/disk.qcow2", "0" * 16)
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
    record.add("x", "y")
    path.mkdir()
    with pytest.raises(PublishError, match=r"\.damaged\.json: cannot be written"):
        record.save_changes()
