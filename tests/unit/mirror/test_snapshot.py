"""A run ends early only where it would do the very same again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.mirror import scan
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.state import outputs, snapshot
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.snapshot import Snapshot
from tests.support.command import COMMAND, Run
from tests.support.contents import make_content
from tests.support.tools import needs
from tests.support.trees import (
    OLD_NS,
    catalogue,
    published,
    sha256,
    version,
    write_file,
    write_tree,
)

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"


@pytest.fixture
def built(fastindex: Run, tmp_path: Path) -> Path:
    write_tree(tmp_path, {**version(), "images/.requirements": b'{"nesting": "true"}'})
    assert fastindex(tmp_path).returncode == 0
    return tmp_path


def opened(root: Path, *arguments: str) -> str:
    """Return what a run opened, by ``strace``."""
    trace = root.with_name(f"{root.name}.trace")
    strace = needs("strace", "apt-get install strace")
    subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=openat", "-o", trace, COMMAND, *arguments, root],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return trace.read_text()


def test_an_unchanged_tree_needs_no_cache_file(built: Path) -> None:
    assert ".items.json" not in opened(built)
    assert ".items.json" in opened(built, "--rehash")


@pytest.mark.parametrize(
    "change",
    [
        "new file",
        "new version",
        "removed file",
        "touched file",
        "changed dotfile",
        "torn catalogue",
        "removed catalogue",
        "removed index",
        "torn snapshot",
    ],
)
def test_a_change_is_noticed(fastindex: Run, built: Path, change: str) -> None:
    published_path = built / "streams/v1/images.json"
    match change:
        case "new file":
            write_file(built / VERSION / "disk.qcow2", b"disk")
        case "new version":
            write_tree(built, version("debian/12/amd64/default/20240506_05:24"))
        case "removed file":
            write_file(built / VERSION / "disk.qcow2", b"disk")
            fastindex(built)
            (built / VERSION / "disk.qcow2").unlink()
        case "touched file":
            path = built / VERSION / "rootfs.squashfs"
            write_file(path, path.read_bytes()[::-1], 1_700_000_009_000_000_000)
        case "changed dotfile":
            write_tree(built, {"images/.requirements": b'{"nesting": "else"}'})
        case "torn catalogue":
            published_path.write_bytes(published_path.read_bytes()[:100])
        case "removed catalogue":
            published_path.unlink()
        case "removed index":
            (built / "streams/v1/index.json").unlink()
        case "torn snapshot":
            (built / "streams/.snapshot.json").write_bytes(b"{")
    assert fastindex(built).returncode == 0
    fresh = built.with_name("fresh")
    assert fastindex("--output", fresh, "--cache-dir", built.with_name("c"), built).returncode == 0
    assert catalogue(built) == catalogue(fresh)
    assert (built / "streams/v1/index.json").read_bytes() == (
        fresh / "streams/v1/index.json"
    ).read_bytes()


def test_other_streams_are_another_state(fastindex: Run, built: Path) -> None:
    (built / "images").rename(built / "daily")
    told = fastindex("--stream", "daily", built)
    assert told.returncode == 1  # clients would find each image in both streams
    assert "streams/v1/images.json: is published, but" in told.stderr
    (built / "streams/v1/images.json").unlink()
    assert fastindex("--stream", "daily", built).returncode == 0
    assert len(published(built, "daily")) == 1


def test_a_failure_is_looked_at_again(
    fastindex: Run, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink("nowhere", built / VERSION / "disk.qcow2")
    assert fastindex(built).returncode == 3
    disk = make_content("disk.qcow2", "here")
    write_file(built / VERSION / "nowhere", disk)
    assert fastindex(built).returncode == 0
    items = catalogue(built)["products"]["debian:12:amd64:default"]["versions"]
    assert items["20240505_05:24"]["items"]["disk.qcow2"]["sha256"] == sha256(disk)


def digest(mirror: Mirror, *, findings: tuple[Finding, ...] = (), damaged: bool = False) -> str:
    record = DamagedFiles(mirror)
    if damaged:
        record.add(f"{VERSION}/rootfs.squashfs", "0" * 16, "ab" * 32)
    seen = scan.collect(scan.scan(mirror))
    settings = SettingsReader(mirror)
    return snapshot.digest_state(mirror, seen.found, findings, settings, record)


def test_the_state_depends_on_all_that_the_catalogue_depends_on(tmp_path: Path) -> None:
    tree = {**version(), "images/.requirements": b"{}", "daily/x": None}
    root = write_tree(tmp_path / "root", tree)
    plain = Mirror.at(root)
    first = digest(plain)
    assert first == digest(Mirror.at(root, output=tmp_path))
    seen = {
        first,
        digest(Mirror.at(root, cache_dir=tmp_path)),
        digest(Mirror.at(root, cache_dir=tmp_path / "other")),
        digest(Mirror.at(root, streams=["images", "daily"])),
        digest(Mirror.at(root, streams=["daily", "images"])),
        digest(plain, findings=(Finding(Code.UNREADABLE, "p", "a", "b"),)),
        digest(plain, findings=(Finding(Code.UNREADABLE, "p\udcff", "a", "b"),)),
        digest(plain, damaged=True),
    }
    write_tree(root, {"images/.requirements": b"[]"})
    seen.add(digest(plain))
    (root / "images/.requirements").unlink()
    seen.add(digest(plain))
    write_tree(root, {"images/.requirements": b"{}"})
    assert digest(plain) == first
    for mtime_ns in (OLD_NS, 1):
        write_tree(root, {f"{VERSION}/SHA256SUMS": b"x"}, mtime_ns)
        seen.add(digest(plain))
    write_tree(root, {f"{VERSION}/SHA256SUMS": b"xx"}, 1)
    seen.add(digest(plain))
    os.utime(root / VERSION / "rootfs.squashfs", ns=(1, 1))
    seen.add(digest(plain))
    assert len(seen) == 14
    before = digest(plain)
    other = write_tree(tmp_path / "elsewhere", {"streams/.damaged.json": b'{"x": "y"}\n'})
    outputs.record(Mirror.at(root, output=other))
    assert digest(plain) != before  # what a run for another output found damaged
    write_tree(other, {"streams/.damaged.json": b"{}\n"})
    assert digest(plain) == before


def test_a_catalogue_without_one_of_its_files_has_no_digest(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path, streams=("images", "daily"))
    names = ("images.json", "daily.json", "index.json")
    write_tree(tmp_path, {f"streams/v1/{name}": b"content of " + name.encode() for name in names})
    complete = snapshot.digest_published(mirror)
    assert len(complete) == 32
    write_tree(tmp_path, {"streams/v1/daily.json": b"other"})
    assert len({complete, "", snapshot.digest_published(mirror)}) == 3
    for name in names:
        path = tmp_path / "streams/v1" / name
        path.rename(tmp_path / "gone")
        assert snapshot.digest_published(mirror) == ""
        (tmp_path / "gone").rename(path)


def test_a_snapshot_comes_back_or_is_missing_but_never_an_error(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path)
    assert snapshot.load(mirror) is None
    kept = Snapshot(
        state="s",
        published="p",
        products=1,
        versions=2,
        files=3,
        findings=[Finding(Code.UNREADABLE, "images/a", "wrong", "fix it", versions_left_out=1)],
    )
    snapshot.save(mirror, kept)
    assert snapshot.load(mirror) == kept
    snapshot.save(mirror, replace(kept, findings=[Finding(Code.UNREADABLE, "\udcff", "", "")]))
    assert snapshot.load(mirror) == kept
    path = tmp_path / "streams/.snapshot.json"
    path.write_bytes(b'{"state": 1}')
    assert snapshot.load(mirror) is None
    path.unlink()
    path.mkdir()
    snapshot.save(mirror, kept)
    assert snapshot.load(mirror) is None
