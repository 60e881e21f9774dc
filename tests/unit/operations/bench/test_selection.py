"""Which files are read."""

from __future__ import annotations

import errno
import mmap
import os
import time
from pathlib import Path

import pytest
from msgspec import structs

from fastindex.errors import TreeError
from fastindex.events import Finding, Observer
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench import selection
from fastindex.operations.bench.selection import MIN_BYTES, File, Selection, select_files
from tests.support.large_files import write_filled


class Warnings(Observer):
    """Keeps the findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def warn(self, finding: Finding) -> None:
        self.findings.append(finding)


def select(path: Path, observer: Observer | None = None) -> Selection:
    """Select what must be there."""
    selected = select_files(str(path), observer or Observer())
    assert selected is not None
    return selected


def selected_bytes(selected: Selection) -> int:
    return sum(file.size_bytes for file in selected.files)


def test_regular_files_once_and_no_symlinks(images: Path) -> None:
    warnings = Warnings()
    selected = select(images, warnings)
    names = {os.path.relpath(file.path, images) for file in selected.files}
    assert {name for name in names if not name[0].isdigit()} <= {"hard-link"}
    assert len(selected.files) == len(names) == 4
    assert selected_bytes(selected) == MIN_BYTES
    assert selected.total_bytes == MIN_BYTES + len(b"small")
    assert not warnings.findings


def test_a_single_file_will_do_even_through_a_symlink(disk_path: Path) -> None:
    file = write_filled(disk_path / "disk.qcow2", MIN_BYTES)
    with file.open("ab") as stream:
        stream.write(b"x" * 12345)
    link = disk_path / "link"
    link.symlink_to(file)
    for path in (file, link):
        selected = select(path)
        assert [each.path for each in selected.files] == [str(file)]
        assert selected_bytes(selected) == MIN_BYTES  # whole buffers
        assert selected.total_bytes == MIN_BYTES + 12345


def test_a_file_is_read_up_to_its_first_hole(disk_path: Path) -> None:
    file = write_filled(disk_path / "disk.qcow2", MIN_BYTES)
    os.truncate(file, 1 << 40)
    assert selected_bytes(select(file)) == MIN_BYTES


def test_the_largest_files_are_chosen(disk_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_MAX_FILES", 2)
    monkeypatch.setattr(selection, "MIN_BYTES", 1)
    for mebibytes in (5, 4, 6, 3):
        write_filled(disk_path / f"{mebibytes}", mebibytes << 20)
    selected = select(disk_path)
    assert [Path(file.path).name for file in selected.files] == ["6", "5"]
    assert selected.total_bytes == 18 << 20


def test_a_tree_with_too_many_files_has_no_known_total(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    monkeypatch.setattr(selection, "MIN_BYTES", 1)
    selected = select(images)  # 3 of the 5 directories
    assert selected.total_bytes is None
    assert 0 < selected_bytes(selected) < MIN_BYTES


@pytest.mark.parametrize(
    "kind", ["absent", "NUL", "surrogate", "fifo", "device", "empty", "small", "hole"]
)
def test_what_cannot_be_measured_is_an_error(disk_path: Path, kind: str) -> None:
    path = disk_path / "it"
    match kind:
        case "NUL":
            path = disk_path / "a\0b"
        case "surrogate":
            path = disk_path / "\ud800"
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path(os.devnull)
        case "empty":
            path.mkdir()
        case "small":
            write_filled(path / "file", MIN_BYTES - (1 << 20))
        case "hole":
            path.touch()
            os.truncate(path, 1 << 40)
    with pytest.raises(TreeError, match=r"cannot be read \(|not a regular|not enough data"):
        select_files(str(path), Observer())


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_measured(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_filled(images / "4" / "rootfs.squashfs", 8 << 20)
    refuse_to_open(monkeypatch, bad, errno.EACCES)
    warnings = Warnings()
    selected = select(images, warnings)
    bad.unlink()
    (finding,) = warnings.findings
    assert finding.path == str(bad)
    assert finding.problem == "cannot be read (Permission denied); the rest is measured without it"
    assert str(bad) not in {file.path for file in selected.files}


def test_a_directory_that_cannot_be_read_is_named_and_the_rest_is_measured(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = images / "bad"
    bad.mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if path == str(bad):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    warnings = Warnings()
    selected = select(images, warnings)
    bad.rmdir()
    assert [finding.path for finding in warnings.findings] == [str(bad)]
    assert selected_bytes(selected) == MIN_BYTES


def test_other_file_systems_are_named_and_not_measured(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        File(str(images / f"{number}/rootfs.squashfs"), MIN_BYTES // 4, device)
        for number, device in enumerate((7, 8, 7))
    ]
    monkeypatch.setattr(selection, "_find_files", lambda *_: (files, False))
    monkeypatch.setattr(selection, "MIN_BYTES", 1 << 20)
    warnings = Warnings()
    selected = select(images, warnings)
    assert {file.path for file in selected.files} == {files[0].path, files[2].path}
    assert selected.total_bytes is None
    assert "0.0 GB are on other file systems" in warnings.findings[0].problem


def test_memory_is_not_taken_for_a_disk(memory: Path) -> None:
    """A tmpfs can be opened with O_DIRECT, too."""
    file = memory / "x"
    warnings = Warnings()
    write_filled(file, 8 << 20)
    assert select_files(str(file), warnings) is None
    assert warnings.findings[0].problem == (
        "tmpfs cannot be read past the page cache, so the disk is not measured"
    )


def test_o_direct_is_used_where_it_works(images: Path) -> None:
    assert select(images).method == "direct"


def test_a_file_system_without_o_direct_is_measured_by_dropping_pages(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = select(images)
    refuse_to_open(monkeypatch, None, errno.EINVAL, os.O_DIRECT)
    warnings = Warnings()
    assert select(images, warnings) == structs.replace(before, method="dropped")
    assert not warnings.findings


@pytest.mark.parametrize("place", [0, MIN_BYTES - 1])
def test_a_file_that_cannot_be_dropped_is_not_measured(
    disk_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.delattr(os, "O_DIRECT")
    path = write_filled(disk_path / "mapped", MIN_BYTES)
    warnings = Warnings()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        assert pages[place] == place % 256  # a page in use stays
        assert select_files(str(path), warnings) is None
        (finding,) = warnings.findings
        assert finding.problem.endswith("so the disk is not measured")
        other = write_filled(disk_path / "other", MIN_BYTES)
        assert [file.path for file in select(disk_path).files] == [str(other)]


def test_an_unreadable_file_does_not_decide_how_the_others_are_read(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_filled(images / "4" / "rootfs.squashfs", 32 << 20)  # the largest
    refuse_to_open(monkeypatch, None, errno.EINVAL, os.O_DIRECT)
    refuse_to_open(monkeypatch, bad, errno.EACCES)
    selected = select(images)
    bad.unlink()
    assert selected.method == "dropped"
    assert selected_bytes(selected) == MIN_BYTES


@pytest.mark.parametrize("has_calls", [True, False])
def test_where_nothing_tells_what_was_dropped_no_disk_is_measured(
    images: Path, monkeypatch: pytest.MonkeyPatch, *, has_calls: bool
) -> None:
    """A file system without RWF_NOWAIT; a system without the calls."""
    monkeypatch.delattr(os, "O_DIRECT")
    if has_calls:
        monkeypatch.setattr(os, "preadv", refuse_to_read)
    else:
        monkeypatch.delattr(os, "posix_fadvise")
        monkeypatch.delattr(os, "RWF_NOWAIT")
    warnings = Warnings()
    assert select_files(str(images), warnings) is None
    assert len(warnings.findings) == 1


def refuse_to_read(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_sizes_are_multiples_of_the_buffer() -> None:
    assert MIN_BYTES % BUFFER_BYTES == selection.MIN_FILE_BYTES % BUFFER_BYTES == 0


def refuse_to_open(
    monkeypatch: pytest.MonkeyPatch, path: Path | None, number: int, refused: int = -1
) -> None:
    """Let ``os.open`` fail for ``path`` (None: for all) with any of the flags ``refused``."""
    real = os.open

    def refuse(name: str, flags: int) -> int:
        if flags & refused and (path is None or name == str(path)):
            raise OSError(number, os.strerror(number), name)
        return real(name, flags)

    monkeypatch.setattr(os, "open", refuse)
