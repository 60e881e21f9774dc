"""``--settle``: which versions have files that are too young."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fastindex.formats.names import FileRole
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.tree import FoundFile, FoundVersion
from fastindex.system.stamps import Stamp

PATH = "images/debian/12/amd64/default/20240505"
NAMES = ("incus.tar.xz", "rootfs.squashfs")
SECOND_NS = 1_000_000_000


def version_of(*mtimes_ns: int) -> FoundVersion:
    files = [
        FoundFile(name, FileRole("root", name), Stamp(1, mtime_ns, 1, 1))
        for name, mtime_ns in zip(NAMES, mtimes_ns, strict=False)
    ]
    return FoundVersion("20240505", PATH, tuple(files))


@pytest.mark.parametrize(
    ("settle_seconds", "ages", "is_young"),
    [
        (60, (61, 100), False),
        (60, (60, 60), False),
        (60, (100, 59), True),
        (60, (0, 100), True),
        (0.5, (0.4, 100), True),
        (0.5, (0.6, 100), False),
        (60, (), False),
        (0, (0, 0), False),
        (0, (-10, 0), False),
    ],
)
def test_the_youngest_file_counts(
    monkeypatch: pytest.MonkeyPatch,
    settle_seconds: float,
    ages: tuple[float, ...],
    is_young: bool,
) -> None:
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    period = SettlePeriod(Mirror.at("/nowhere"), settle_seconds)
    version = version_of(*(now_ns - round(age * 1e9) for age in ages))
    assert period.is_young(version) is is_young
    assert settle_seconds == 0 or period.find_future_files(version) == []


@pytest.mark.parametrize(
    ("clock_seconds", "is_young", "is_future"),
    [(-3600, True, True), (-1, True, False), (100, False, False)],
)
def test_of_a_time_in_the_future_the_change_of_the_inode_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock_seconds: int,
    is_young: bool,
    is_future: bool,
) -> None:
    """Nobody can set that time; the clock is set back and forth instead."""
    (tmp_path / PATH).mkdir(parents=True)
    for name in NAMES:
        (tmp_path / PATH / name).write_bytes(b"x")
        os.utime(tmp_path / PATH / name, (9e9, 9e9))
    changed_ns = os.stat(tmp_path / PATH / NAMES[0]).st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + clock_seconds * SECOND_NS)
    period = SettlePeriod(Mirror.at(tmp_path), 60)
    version = version_of(changed_ns + 7200 * SECOND_NS, 0)
    assert period.is_young(version) is is_young
    told = period.find_future_files(version)
    assert [finding.path for finding in told] == [f"{PATH}/incus.tar.xz"] * is_future
    assert sum(finding.versions_left_out for finding in told) == is_future


def test_a_file_from_the_future_that_is_gone_is_being_changed(tmp_path: Path) -> None:
    version = version_of(time.time_ns() + 7200 * SECOND_NS)
    period = SettlePeriod(Mirror.at(tmp_path), 60)
    assert period.is_young(version)
    assert period.find_future_files(version) == []
