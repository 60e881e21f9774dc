"""What a stranger's files cost a build: in proportion to their number, and bounded.

Counted in calls, not in seconds.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fastindex
from fastindex.errors import Code
from fastindex.operations.builder import planning
from tests.support.contents import make_content
from tests.support.trees import published, version, write_tree

PRODUCT = "images/mal/1/amd64/default"


def count_calls(work: Callable[[], object]) -> int:
    """Return how many functions and generators ``work`` enters."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def link_versions(root: Path, count: int, *, with_deltas: bool) -> None:
    """Make versions of hard links to three small files, which cost no space."""
    names = ("incus.tar.xz", "rootfs.squashfs", "x.vcdiff")
    write_tree(root, {f"pool/{name}": make_content(name, name) for name in names})
    for number in range(count):
        directory = root / PRODUCT / f"20240101_{number:06}"
        directory.mkdir(parents=True)
        for name in names[:2]:
            os.link(root / "pool" / name, directory / name)
        if with_deltas:
            base = (number + 1) % count
            os.link(root / "pool/x.vcdiff", directory / f"rootfs.20240101_{base:06}.vcdiff")


def first_and_next_build(root: Path) -> int:
    mirror = fastindex.Mirror(root)

    def build() -> None:
        mirror.build(jobs=1)
        os.utime(root / "pool/incus.tar.xz", ns=(5, 5))
        mirror.build(jobs=1)

    return count_calls(build)


@pytest.mark.parametrize("with_deltas", [False, True])
def test_versions_with_deltas_cost_in_proportion_to_their_number(
    tmp_path: Path, with_deltas: bool
) -> None:
    calls = []
    for count in (60, 240):
        root = tmp_path / str(count)
        link_versions(root, count, with_deltas=with_deltas)
        calls.append(first_and_next_build(root))
    assert calls[1] < 4.5 * calls[0]


@pytest.mark.parametrize("kind", ["chain", "fan", "loop"])
def test_links_cost_in_proportion_to_their_number(tmp_path: Path, kind: str) -> None:
    """A chain of N links, and N links to its start, would be N² steps."""
    calls = []
    for count in (40, 160):
        root = tmp_path / str(count)
        directory = write_tree(root, version()) / "images/debian/12/amd64/default"
        for number in range(count):
            target = {
                "chain": f"20240601_{number + 1:06}",
                "fan": "20240505_05:24",
                "loop": f"20240601_{(number + 1) % count:06}",
            }[kind]
            (directory / f"20240601_{number:06}").symlink_to(target)
        mirror = fastindex.Mirror(root)
        calls.append(count_calls(lambda mirror=mirror: mirror.build(jobs=1)))  # type: ignore[misc]
    assert calls[1] < 4.5 * calls[0]


def test_one_settings_file_in_many_places_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it takes as long as such a file may."""
    content = b"x" + b".a" * 499 + b"=1\n# unlike that of any other test"
    write_tree(tmp_path, {"toml": content})
    for number in range(30):
        write_tree(tmp_path, version(f"mal/{number}/amd64/default/20240505"))
        os.link(tmp_path / "toml", tmp_path / f"images/mal/{number}/.product.toml")
    loads = tomllib.loads
    parsed: list[str] = []

    def loads_counted(text: str) -> dict[str, Any]:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", loads_counted)
    report = fastindex.Mirror(tmp_path).build()
    assert len(parsed) == 1
    findings = [finding for finding in report.findings if finding.code is Code.BAD_SETTINGS]
    assert len(findings) == 30
    assert len(published(tmp_path)) == 30


@pytest.mark.parametrize("metadata", [1, 2])
def test_one_root_under_very_many_metadata_files_takes_several_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: int
) -> None:
    """Each fingerprint takes as long as reading the root; a hard link costs nothing."""
    monkeypatch.setattr(planning, "MAX_METADATA_OF_ROOT", 6)
    names = ("incus.tar.xz", "lxd.tar.xz")[:metadata]
    root = write_tree(tmp_path, version("good/1/amd64/default/20240505"))
    write_tree(root, {"pool/root": make_content("rootfs.squashfs", "x")})
    for number in range(8):
        path = f"{PRODUCT}/2024010{number + 1}"
        write_tree(root, {f"{path}/{name}": f"{name} {number}".encode() for name in names})
        os.link(root / "pool/root", root / path / "rootfs.squashfs")
    mirror = fastindex.Mirror(root)
    at_once = 6 // metadata
    for done in (at_once, min(8, 2 * at_once), 8):
        report = mirror.build(jobs=1)
        left = [finding for finding in report.findings if finding.code is Code.TOO_MUCH_WORK]
        assert len(left) == report.versions_left_out == 8 - done
        assert all(finding.path.startswith(PRODUCT) for finding in left)
        assert report.exit_code == (3 if left else 0)
        assert len(published(root)) == done + 1
        assert report.files_hashed <= 6 + 1 + 2


def test_metadata_that_many_versions_share_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAX_METADATA_OF_ROOT", 1)
    link_versions(tmp_path, 5, with_deltas=True)
    report = fastindex.Mirror(tmp_path).build(jobs=1)
    assert Code.TOO_MUCH_WORK not in {finding.code for finding in report.findings}
