"""Other bytes under the name of a withdrawn version are named, and have their own grace."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.operations.prune.options import PruneOptions
from fastindex.operations.prune.run import prune
from tests.support.command import Run
from tests.support.trees import published, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
PATH = f"images/{PRODUCT}/{NEW}"
TOLD = f"{PATH}: is withdrawn, but has newer files"


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror of two versions, of which the newer one has been withdrawn."""
    made = write_tree(tmp_path / "root", version(f"{PRODUCT}/{OLD}") | version(f"{PRODUCT}/{NEW}"))
    assert fastindex("-q", made).returncode == 0
    assert fastindex("-q", "remove", NEW, made).returncode == 0
    return made


def let_grace_pass(root: Path) -> None:
    """Make all withdrawals three hours older."""
    note = root / "streams/.withdrawn.json"
    noted = json.loads(note.read_bytes())
    for one in noted.values():
        for key in one.keys() & {"unpublished_at", "withdrawn_at"}:
            one[key] -= 3 * 3600
    note.write_text(json.dumps(noted))


def upload(root: Path, mtime_ns: int | None = None) -> None:
    """Put other files in the place of the withdrawn ones."""
    shutil.rmtree(root / PATH)
    mended = version(f"{PRODUCT}/{NEW}", incus_tar_xz=b"mended", rootfs_squashfs=b"mended")
    write_tree(root, mended, time.time_ns() if mtime_ns is None else mtime_ns)


def test_each_build_names_a_withdrawn_version_with_newer_files(fastindex: Run, root: Path) -> None:
    assert TOLD not in fastindex(root).stderr
    upload(root)
    for _ in range(3):  # the last ones have nothing to do
        result = fastindex(root)
        assert result.returncode == 3
        assert TOLD in result.stderr
        assert f"fastindex prune --undo {PATH} {root}" in result.stderr
        assert published(root) == {f"debian:12:amd64:default {OLD}"}
    assert fastindex("prune", root).returncode == 3
    result = fastindex("prune", "--undo", PATH, root)
    assert (result.returncode, TOLD in result.stderr) == (0, False)
    assert len(published(root)) == 2


def test_a_file_of_an_image_withdrawn_in_part_counts_alone(fastindex: Run, root: Path) -> None:
    note = root / "streams/.withdrawn.json"
    noted = json.loads(note.read_bytes())
    noted[PATH]["files"] = ["rootfs.squashfs"]
    note.write_text(json.dumps(noted))
    write_file(root / PATH / "incus.tar.xz", b"another", time.time_ns())
    assert TOLD not in fastindex(root).stderr
    write_file(root / PATH / "rootfs.squashfs", b"another", time.time_ns())
    result = fastindex(root)
    assert result.returncode == 3
    assert TOLD in result.stderr


def test_a_time_in_the_future_that_a_file_had_before_is_no_change(
    fastindex: Run, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, version(f"{PRODUCT}/{OLD}") | version(f"{PRODUCT}/{NEW}"))
    later = time.time_ns() + 10**15
    os.utime(root / PATH / "rootfs.squashfs", ns=(later, later))
    assert fastindex("-q", root).returncode == 0
    time.sleep(0.02)  # the kernel's clock ticks less often
    assert fastindex("remove", NEW, root).returncode == 0
    assert fastindex(root).returncode == 0
    let_grace_pass(root)
    # Nor does it keep the version for ever.
    clock = time.time() + 3 * 3600
    report = prune(Mirror.at(root), PruneOptions(), clock=lambda: clock)
    assert report.deleted == (PATH,)


def test_a_version_that_is_removed_again_is_not_told(fastindex: Run, root: Path) -> None:
    upload(root)
    time.sleep(0.02)
    result = fastindex("remove", NEW, root)
    assert (result.returncode, TOLD in result.stderr) == (0, False)
    assert fastindex(root).returncode == 0


@pytest.mark.parametrize("mtime_ns", [None, 1_700_000_000 * 10**9], ids=["now", "rsync -a"])
def test_new_bytes_outlive_the_grace_of_the_old_ones(
    fastindex: Run, root: Path, mtime_ns: int | None
) -> None:
    upload(root, mtime_ns)
    let_grace_pass(root)
    result = fastindex("prune", "-n", root)
    assert f"delete later {PATH}" in result.stdout
    result = fastindex("prune", root)
    assert "deleted" not in result.stdout
    assert "1 to be deleted by a later run" in result.stderr
    assert (root / PATH / "rootfs.squashfs").exists()
    clock = time.time() + 3 * 3600
    report = prune(Mirror.at(root), PruneOptions(), clock=lambda: clock)
    assert report.deleted == (PATH,)


def test_new_bytes_behind_a_symlink_count(fastindex: Run, root: Path) -> None:
    hidden = root / f"images/{PRODUCT}/.{NEW}"
    (root / PATH).rename(hidden)
    (root / PATH).symlink_to(hidden.name)
    let_grace_pass(root)
    assert "deleted" not in fastindex("prune", root).stdout
    assert (root / PATH).is_symlink()


@pytest.mark.parametrize(
    "command", [("prune", "--grace", "0"), ("remove", "--grace", "0", NEW), ("remove", NEW)]
)
def test_without_grace_or_by_name_they_go_at_once(
    fastindex: Run, root: Path, command: tuple[str, ...]
) -> None:
    upload(root)
    let_grace_pass(root)
    assert f"deleted {PATH}" in fastindex(*command, root).stdout
    assert not (root / PATH).exists()
