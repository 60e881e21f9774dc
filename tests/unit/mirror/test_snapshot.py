"""A run ends early only where it would do the very same again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Run
from tests.support.tools import needs
from tests.support.trees import catalogue, published, sha256, version, write_file, write_tree

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
    assert fastindex("--stream", "daily", built).returncode == 0
    assert len(published(built, "daily")) == 1


def test_a_failure_is_looked_at_again(
    fastindex: Run, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink("nowhere", built / VERSION / "disk.qcow2")
    assert fastindex(built).returncode == 3
    (built / VERSION / "nowhere").write_bytes(b"here")
    assert fastindex(built).returncode == 0
    items = catalogue(built)["products"]["debian:12:amd64:default"]["versions"]
    assert items["20240505_05:24"]["items"]["disk.qcow2"]["sha256"] == sha256(b"here")
