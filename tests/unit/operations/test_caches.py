"""The process beside a big build that writes its caches."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundVersion
from fastindex.operations.builder import caches
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.plan import PlannedVersion, plan_version, select
from tests.support.trees import write_tree
from tests.unit.mirror.test_cache import item

PRODUCT = "images/debian/12/amd64/default"


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_MIN_VERSIONS", 1)


def make_versions(root: Path, count: int) -> list[PlannedVersion]:
    names = [f"{PRODUCT}/202401{number:02}" for number in range(1, count + 1)]
    write_tree(root, dict.fromkeys(names))
    return [plan(name) for name in names]


def plan(path: str) -> PlannedVersion:
    version = FoundVersion(path.rpartition("/")[2], path, ())
    selection, _ = select(version, frozenset())
    return plan_version(None, version, selection, cache.NO_CACHE)  # type: ignore[arg-type]


def saved(root: Path) -> set[str]:
    return {path.parent.name for path in root.rglob(".items.json")}


def save_each(writer: CacheWriter, versions: Sequence[PlannedVersion]) -> None:
    for version in versions:
        writer.save(version, {"incus.tar.xz": item(path=f"{version.version.path}/incus.tar.xz")})
        writer.flush()


def test_all_caches_are_there_when_the_context_ends(tmp_path: Path) -> None:
    versions = make_versions(tmp_path, 40)
    mirror = Mirror.at(tmp_path)
    writer = CacheWriter(mirror, is_dry_run=False)
    with writer.beside(len(versions), 2):
        save_each(writer, versions)
        writer.save(versions[0], {"incus.tar.xz": item(size=9)})  # not flushed
    assert saved(tmp_path) == {version.version.name for version in versions}
    assert cache.load(mirror, versions[0].version.path).items["incus.tar.xz"].size == 9
    assert not writer.failed_products


def test_another_process_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> list[tuple[str, str]]:
        return [("x", f"written by {os.getpid()}")]

    monkeypatch.setattr(cache, "save_all", fail)
    writer = CacheWriter(Mirror.at(tmp_path), is_dry_run=False)
    with writer.beside(1, 2):
        save_each(writer, make_versions(tmp_path, 1))
    (finding,) = writer.describe_failures()
    assert "written by" in finding.problem
    assert f"written by {os.getpid()}" not in finding.problem


def test_an_interrupted_run_saves_what_it_has_learned(tmp_path: Path) -> None:
    versions = make_versions(tmp_path, 20)
    writer = CacheWriter(Mirror.at(tmp_path), is_dry_run=False)

    def run() -> None:
        with writer.beside(len(versions), 2):
            save_each(writer, versions)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(saved(tmp_path)) == len(versions)


@pytest.mark.parametrize("is_last", [False, True])
def test_what_a_killed_process_has_not_written_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_last: bool
) -> None:
    versions = make_versions(tmp_path, 40)
    real, parent = cache.save_all, os.getpid()

    def save_all(mirror: Mirror, some: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
        victim = versions[-1 if is_last else 3].version.path
        if os.getpid() != parent and some[0][0] == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(mirror, some)

    monkeypatch.setattr(cache, "save_all", save_all)
    writer = CacheWriter(Mirror.at(tmp_path), is_dry_run=False)
    with writer.beside(len(versions), 2):
        save_each(writer, versions)
    assert saved(tmp_path) == {version.version.name for version in versions}
    assert not writer.failed_products


def test_caches_that_cannot_be_written_are_told_once_for_all(tmp_path: Path) -> None:
    versions = make_versions(tmp_path, 20)
    (tmp_path / "cache").write_bytes(b"a file where a directory should be")
    mirror = Mirror.at(tmp_path, cache_dir=tmp_path / "cache")
    writer = CacheWriter(mirror, is_dry_run=False)
    with writer.beside(len(versions), 2):
        save_each(writer, versions)
    (finding,) = writer.describe_failures()
    assert finding.path == f"{tmp_path}/cache/{versions[0].version.path}/.items.json"
    assert "nor can 19 other caches" in finding.problem


def test_a_version_that_is_a_link_gets_its_cache_and_one_that_leads_out_none(
    tmp_path: Path,
) -> None:
    fine, linked, leading_out, removed = make_versions(tmp_path, 4)
    (tmp_path / linked.version.path).rename(tmp_path / PRODUCT / "target")
    (tmp_path / linked.version.path).symlink_to("target")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / leading_out.version.path).rmdir()
    (tmp_path / leading_out.version.path).symlink_to(tmp_path / "elsewhere")
    (tmp_path / removed.version.path).rmdir()
    some = [(one.version.path, b"{}\n") for one in (fine, linked, leading_out, removed)]
    ((path, why),) = cache.save_all(Mirror.at(tmp_path), some)
    assert (path, why) == (leading_out.version.path, "leads out of the mirror")
    assert saved(tmp_path) == {fine.version.name, "target"}
    assert not list((tmp_path / "elsewhere").iterdir())
