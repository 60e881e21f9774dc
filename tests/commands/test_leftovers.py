"""What ``fastindex prune`` cleans up: hidden leftovers and incomplete versions, and what it leaves.

Nobody can make a change time older, so the tests of what is deleted in the end pass a later time.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.run import prune
from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.trees import Files, in_stream, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"


def prune_later(root: Path, *streams: str, keep: int = 9, grace_seconds: float = 0) -> PruneReport:
    """Prune three days later."""
    mirror = Mirror.at(root, streams=streams or ("images",))
    options = PruneOptions(keep=keep, grace_seconds=grace_seconds)
    return prune(mirror, options, clock=lambda: time.time() + 3 * 86_400)


def move_aside(root: Path, name: str) -> Path:
    """Hide a version behind a symlink, as an atomic switch does; return the hidden directory."""
    path = root / "images" / PRODUCT / name
    hidden = path.with_name(f".{name}")
    path.rename(hidden)
    path.symlink_to(hidden.name)
    return hidden


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return an indexed mirror of two versions."""
    made = write_tree(tmp_path / "root", version(f"{PRODUCT}/{OLD}") | version(f"{PRODUCT}/{NEW}"))
    assert fastindex("-q", made).returncode == 0
    return made


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "images" / PRODUCT).iterdir())


def test_what_nobody_works_in_goes(root: Path) -> None:
    product = root / "images" / PRODUCT
    for name in (".20240401", ".20240403.pruned", ".20240403.pruned.7", ".mine", "20240404"):
        (product / name).mkdir()
        (product / name / "incus.tar.xz").write_bytes(b"x")
    report = prune_later(root)
    assert set(report.deleted) == {
        f"images/{PRODUCT}/{name}"
        for name in (".20240401", ".20240403.pruned", ".20240403.pruned.7", "20240404")
    }
    assert names(root) == [".mine", OLD, NEW]


def test_what_was_uploaded_a_moment_ago_stays_whatever_times_it_was_given(
    fastindex: Run, root: Path
) -> None:
    hidden, half = (root / "images" / PRODUCT / name for name in (".20240507_05:24", "20240404"))
    for path in (hidden, half):
        path.mkdir()
        write_file(path / "incus.tar.xz", b"x")
        os.utime(path, (1, 1))
    (root / "images" / PRODUCT / ".20240403.pruned").mkdir()
    assert fastindex("prune", root).stdout == f"deleted images/{PRODUCT}/.20240403.pruned\n"
    assert hidden.is_dir()
    assert half.is_dir()


def test_the_target_of_a_published_link_stays(fastindex: Run, root: Path) -> None:
    hidden = move_aside(root, NEW)
    report = prune_later(root)
    assert (report.deleted, report.findings) == ((), ())
    assert hidden.is_dir()
    assert fastindex("verify", root).returncode == 0


def test_the_hidden_target_goes_when_its_version_has_gone(root: Path) -> None:
    hidden = move_aside(root, OLD)
    report = prune_later(root, keep=1)
    assert report.deleted == (f"images/{PRODUCT}/{OLD}", f"images/{PRODUCT}/{hidden.name}")
    assert report.exit_code == 0
    assert names(root) == [NEW]


def test_of_a_version_that_links_to_another_only_the_link_goes(root: Path) -> None:
    (root / "images" / PRODUCT / OLD / "rootfs.squashfs").unlink()
    shutil.rmtree(root / "images" / PRODUCT / OLD)
    (root / "images" / PRODUCT / OLD).symlink_to(NEW)
    write_tree(root, version(f"{PRODUCT}/20240507_05:24"))
    report = prune_later(root, keep=1)
    assert report.deleted == (f"images/{PRODUCT}/{OLD}", f"images/{PRODUCT}/{NEW}")
    assert names(root) == ["20240507_05:24"]


def test_a_file_that_a_version_of_another_product_links_to_stays(
    fastindex: Run, root: Path
) -> None:
    """Whether the build publishes through such a link or leaves it out."""
    shared = root / "images" / PRODUCT / ".20240401"
    write_tree(shared, {"rootfs.squashfs": b"shared", "incus.tar.xz": b"i"})
    other = root / "images/alpine/3/arm64/default/20240501"
    write_tree(other, {"incus.tar.xz": b"another"})
    (other / "rootfs.squashfs").symlink_to(shared / "rootfs.squashfs")
    assert prune_later(root).deleted == ()
    assert (other / "rootfs.squashfs").read_bytes() == make_content("rootfs.squashfs", b"shared")


def test_an_incomplete_version_that_another_takes_a_file_from_stays(root: Path) -> None:
    lone = root / "images" / PRODUCT / "20240404"
    write_tree(lone, {"rootfs.squashfs": b"s"})
    new = write_tree(root / "images" / PRODUCT / "20240507", {"incus.tar.xz": b"i"})
    (new / "rootfs.squashfs").symlink_to("../20240404/rootfs.squashfs")
    assert prune_later(root).deleted == ()
    assert lone.is_dir()


def test_a_link_to_an_incomplete_version_stays(root: Path) -> None:
    write_tree(root / "images" / PRODUCT / ".20240404", {"rootfs.squashfs": b"s"})
    (root / "images" / PRODUCT / "20240404").symlink_to(".20240404")
    assert prune_later(root).deleted == ()
    assert (root / "images" / PRODUCT / "20240404/rootfs.squashfs").is_file()


def test_links_of_streams_that_are_not_asked_for_count(fastindex: Run, root: Path) -> None:
    hidden = root / "images" / PRODUCT / ".20240401"
    write_tree(hidden, {"rootfs.squashfs": b"shared", "incus.tar.xz": b"i"})
    daily = root / "daily" / PRODUCT / "20240401"
    daily.parent.mkdir(parents=True)
    daily.symlink_to(hidden)
    assert prune_later(root).deleted == ()
    daily.unlink()
    assert prune_later(root).deleted == (f"images/{PRODUCT}/.20240401",)


def test_versions_that_link_to_each_other_go_together(root: Path) -> None:
    product = root / "images" / PRODUCT
    for number, (old, new) in enumerate(((OLD, NEW), (NEW, "20240507_05:24"))):
        write_tree(product / new, {"lxd.tar.xz": b"l%d" % number})
        for name in ("incus.tar.xz", "rootfs.squashfs"):
            (product / new / name).unlink(missing_ok=True)
        (product / new / "rootfs.squashfs").symlink_to(f"../{old}/rootfs.squashfs")
    write_tree(root, version(f"{PRODUCT}/20240508_05:24"))
    report = prune_later(root, keep=1)
    assert len(report.deleted) == 3
    assert names(root) == ["20240508_05:24"]


def test_a_chain_that_something_published_hangs_on_stays_whole(fastindex: Run, root: Path) -> None:
    product = root / "images" / PRODUCT
    newest = "20240507_05:24"
    for number, (old, new) in enumerate(((OLD, NEW), (NEW, newest))):
        write_tree(product / new, {"lxd.tar.xz": b"l%d" % number})
        (product / new / "rootfs.squashfs").unlink(missing_ok=True)
        (product / new / "rootfs.squashfs").symlink_to(f"../{old}/rootfs.squashfs")
    report = prune_later(root, keep=1)
    assert report.deleted == ()
    assert {finding.path for finding in report.findings if "not deleted" in finding.problem} == {
        f"images/{PRODUCT}/{name}" for name in (OLD, NEW)
    }
    assert fastindex("verify", root).returncode == 0


def test_a_version_of_a_former_name_is_pruned_again(fastindex: Run, root: Path) -> None:
    """However often: what is left of the former ones is in nobody's way."""
    for number in range(3):
        write_tree(root, version(f"{PRODUCT}/{OLD}"))
        notes = root / "images" / PRODUCT / OLD / "notes.txt"
        notes.write_text(str(number))
        assert fastindex("prune", "--keep", "1", "--grace", "0", root).returncode == 0
        assert not notes.exists()
    left = [f".{OLD}.pruned{end}" for end in ("", ".1", ".2")]
    assert names(root) == sorted([*left, NEW])
    kept = [(root / "images" / PRODUCT / name / "notes.txt").read_text() for name in left]
    assert kept == ["0", "1", "2"]


def test_a_dry_run_names_what_is_due_once(fastindex: Run, root: Path) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    (root / "images" / PRODUCT / OLD / "rootfs.squashfs").unlink()  # incomplete as well now
    result = fastindex("prune", "-n", "--grace", "0", root)
    assert result.stdout == f"delete images/{PRODUCT}/{OLD}\n"


def test_a_dry_run_does_not_promise_what_is_in_use(fastindex: Run, root: Path) -> None:
    write_tree(root, {f"images/{PRODUCT}/20240507/incus.tar.xz": b"another"})
    link = root / "images" / PRODUCT / "20240507/rootfs.squashfs"
    link.symlink_to(f"../{OLD}/rootfs.squashfs")
    result = fastindex("prune", "-n", "--keep", "1", "--grace", "0", root)
    assert result.stdout.splitlines() == [
        f"withdraw images/{PRODUCT}/{OLD}",
        f"withdraw images/{PRODUCT}/{NEW}",
        f"delete later images/{PRODUCT}/{OLD}",
        f"delete images/{PRODUCT}/{NEW}",
    ]
    assert "20240507/rootfs.squashfs leads to its files" in result.stderr
    done = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert done.stdout.splitlines() == [
        f"withdrawn images/{PRODUCT}/{OLD}",
        f"withdrawn images/{PRODUCT}/{NEW}",
        f"deleted images/{PRODUCT}/{NEW}",
    ]


def test_a_stream_on_another_disk_is_cleaned_up(fastindex: Run, tmp_path: Path) -> None:
    tree: Files = in_stream("daily", version(f"{PRODUCT}/{OLD}"))
    root = write_tree(tmp_path / "root", version(f"{PRODUCT}/{OLD}"))
    write_tree(tmp_path / "disk", {path.removeprefix("daily/"): tree[path] for path in tree})
    (root / "daily").symlink_to(tmp_path / "disk")
    write_tree(tmp_path / "disk" / PRODUCT, {f".{NEW}/incus.tar.xz": b"i"})
    assert prune_later(root, "daily").deleted == (f"daily/{PRODUCT}/.{NEW}",)


@pytest.mark.parametrize("place", ["latest", "streams/latest", "streams/v1/latest"])
def test_what_a_link_in_root_leads_to_stays(fastindex: Run, root: Path, place: str) -> None:
    """A web server follows it."""
    link = root / place
    link.symlink_to(root / "images" / PRODUCT / OLD)
    assert prune_later(root, keep=1).deleted == ()
    assert (link / "rootfs.squashfs").exists()
    link.unlink()
    assert prune_later(root, keep=1).deleted == (f"images/{PRODUCT}/{OLD}",)


def test_what_was_published_until_now_is_not_deleted_at_once(root: Path) -> None:
    """It was left out for lack of metadata; clients may still ask for its root."""
    version_of = root / "images" / PRODUCT / OLD
    (version_of / "incus.tar.xz").unlink()
    assert prune_later(root).deleted == ()
    assert (version_of / "rootfs.squashfs").exists()
    assert prune_later(root).deleted == (f"images/{PRODUCT}/{OLD}",)


def test_a_removal_that_was_interrupted_holds_up_what_it_links_to_for_one_run(
    fastindex: Run, root: Path
) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    left = root / "images" / PRODUCT / ".20240101.pruned"
    left.mkdir()
    (left / "rootfs.squashfs").symlink_to(f"../{OLD}/rootfs.squashfs")
    first = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert first.returncode == 0
    assert "leads to its files" not in first.stderr
    assert fastindex("prune", "--keep", "1", "--grace", "0", root).returncode == 0
    assert not left.exists()
    assert not (root / "images" / PRODUCT / OLD).exists()
