"""A run ends early only where it would do the very same again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from xxhash import xxh3_128_digest

from fastindex.catalogue.product_files import PublishedFile
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import encode
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs, snapshot
from fastindex.mirror.state.snapshot import Snapshot
from tests.support.catalogues import product_file
from tests.support.command import COMMAND, Run
from tests.support.contents import make_content
from tests.support.tools import needs
from tests.support.trees import (
    catalogue,
    forget_state,
    published,
    sha256,
    version,
    write_file,
    write_tree,
)

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"
OTHER = VERSION.replace("debian/12", "debian/13")
IMAGES, INDEX = "streams/v1/images.json", "streams/v1/index.json"
STATE = "streams/.products-images.state"


@pytest.fixture
def built(fastindex: Run, tmp_path: Path) -> Path:
    other = version("debian/13/amd64/default/20240505_05:24")
    other[f"{OTHER}/disk.qcow2"] = b"disk"
    write_tree(tmp_path, {**version(), **other, "images/.requirements": b'{"nesting": "true"}'})
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


def flip(path: Path) -> None:
    """Give a file other bytes and another time."""
    write_file(path, path.read_bytes()[::-1], 1_700_000_009_000_000_000)


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": str,
    "new file": lambda root: write_file(root / VERSION / "disk.qcow2", b"disk"),
    "new version": lambda root: write_tree(root, version("debian/12/amd64/default/20240506_05:24")),
    "removed file": lambda root: (root / OTHER / "disk.qcow2").unlink(),
    "touched file": lambda root: flip(root / VERSION / "rootfs.squashfs"),
    "changed dotfile": lambda root: write_tree(
        root, {"images/.requirements": b'{"nesting": "else"}'}
    ),
    "new dotfile": lambda root: write_tree(root, {f"{PRODUCT}/.product.toml": b'os = "D"'}),
    "removed dotfile": lambda root: (root / "images/.requirements").unlink(),
    "removed product": lambda root: shutil.rmtree(root / "images/debian/13"),
    "claim of another's alias": lambda root: write_tree(
        root, {"images/debian/13/.product.toml": b'aliases = ["debian/12"]'}
    ),
    "torn catalogue": lambda root: os.truncate(root / IMAGES, 100),
    "other catalogue": lambda root: (root / IMAGES).write_bytes(b'{"products": {}}'),
    "removed catalogue": lambda root: (root / IMAGES).unlink(),
    "removed index": lambda root: (root / INDEX).unlink(),
    "torn snapshot": lambda root: (root / "streams/.snapshot.json").write_bytes(b"{"),
    "removed snapshot": lambda root: (root / "streams/.snapshot.json").unlink(),
    "torn state": lambda root: os.truncate(root / STATE, 100),
    "removed state": lambda root: (root / STATE).unlink(),
    "no state at all": forget_state,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(fastindex: Run, built: Path, change: str) -> None:
    CHANGES[change](built)
    assert fastindex(built).returncode == 0
    fresh = built.with_name("fresh")
    assert fastindex("--output", fresh, "--cache-dir", built.with_name("c"), built).returncode == 0
    for path in (IMAGES, INDEX):
        assert (built / path).read_bytes() == (fresh / path).read_bytes()


def test_other_streams_are_another_state(fastindex: Run, built: Path) -> None:
    (built / "images").rename(built / "daily")
    told = fastindex("--stream", "daily", built)
    assert told.returncode == 1  # clients would find each image in both streams
    assert "streams/v1/images.json: is published, but" in told.stderr
    (built / "streams/v1/images.json").unlink()
    assert fastindex("--stream", "daily", built).returncode == 0
    assert len(published(built, "daily")) == 2


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


def test_the_context_is_what_all_products_follow_from(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", version())
    plain = Mirror.at(root)
    first = snapshot.digest_context(plain)
    assert first == snapshot.digest_context(Mirror.at(root, output=tmp_path))
    seen = {
        first,
        snapshot.digest_context(Mirror.at(root, cache_dir=tmp_path)),
        snapshot.digest_context(Mirror.at(root, cache_dir=tmp_path / "other")),
    }
    assert len(seen) == 3
    other = write_tree(tmp_path / "elsewhere", {"streams/.damaged.json": b'{"x": "y"}\n'})
    outputs.record(Mirror.at(root, output=other))
    assert snapshot.digest_context(plain) != first  # what a run for another output found damaged
    write_tree(other, {"streams/.damaged.json": b"{}\n"})
    assert snapshot.digest_context(plain) == first


def test_another_release_is_another_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = [snapshot.digest_context(Mirror.at(tmp_path))]
    for name, value in (("__version__", "0"), ("_RULES", 0)):
        monkeypatch.setattr(snapshot, name, value)
        contexts.append(snapshot.digest_context(Mirror.at(tmp_path)))
    assert len(set(contexts)) == 3


def test_what_is_known_is_that_of_streams_in_their_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {"daily/x": None, "images/x": None})
    checksums = [b"a" * 16, b"b" * 16]
    seen = {
        snapshot.digest_known(Mirror.at(tmp_path, streams=streams), some)
        for streams in (["images"], ["images", "daily"], ["daily", "images"])
        for some in (checksums, checksums[::-1], checksums[:1], [])
    }
    assert len(seen) == 12


def digests(mirror: Mirror) -> tuple[dict[str, bytes], str]:
    found = snapshot.digest_published(mirror)
    return found.streams, found.everything


def test_a_catalogue_without_one_of_its_files_has_no_digest(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path, streams=("images", "daily"))
    names = ("images.json", "daily.json", "index.json")
    write_tree(tmp_path, {f"streams/v1/{name}": b"content of " + name.encode() for name in names})
    streams, complete = digests(mirror)
    assert len(complete) == 32
    assert set(streams) == {"images", "daily"}
    write_tree(tmp_path, {"streams/v1/daily.json": b"other"})
    others, changed = digests(mirror)
    assert len({complete, "", changed}) == 3
    assert others["images"] == streams["images"]
    assert others["daily"] != streams["daily"]
    for name in names:
        path = tmp_path / "streams/v1" / name
        path.rename(tmp_path / "gone")
        found, everything = digests(mirror)
        assert everything == ""
        assert found == {key: one for key, one in others.items() if f"{key}.json" != name}
        (tmp_path / "gone").rename(path)


def test_the_digest_of_a_product_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """The state of a stream is held against it, however the product file was read."""
    content = encode(product_file({}))
    write_tree(tmp_path, {"streams/v1/images.json": content})
    with PublishedFile(str(tmp_path / "streams/v1/images.json")) as file:
        assert digests(Mirror.at(tmp_path))[0] == {"images": file.digest}
    assert file.digest == xxh3_128_digest(content)


def test_other_streams_count_and_whether_their_directories_are_there(tmp_path: Path) -> None:
    names = ("images.json", "index.json")
    write_tree(tmp_path, {f"streams/v1/{name}": b"{}" for name in names})
    mirror = Mirror.at(tmp_path)
    seen = [digests(mirror)[1]]
    write_tree(tmp_path, {"streams/v1/weekly.json": b"{}"})
    seen.append(digests(mirror)[1])
    write_tree(tmp_path, {"streams/v1/weekly.json": b"{ }"})
    seen.append(digests(mirror)[1])
    write_tree(tmp_path, {"weekly": None})
    seen.append(digests(mirror)[1])
    assert len(set(seen)) == 4
    assert list(digests(mirror)[0]) == ["images"]
    (tmp_path / "streams/v1/weekly.json").unlink()
    (tmp_path / "streams/v1/weekly.json").mkdir()
    assert digests(mirror)[1] == ""  # it cannot be read


def test_a_snapshot_comes_back_or_is_missing_but_never_an_error(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path)
    assert snapshot.load(mirror) is None
    kept = Snapshot(
        known="k",
        published="p",
        findings=[Finding(Code.UNREADABLE, "images/a", "wrong", "fix it", versions_left_out=1)],
    )
    snapshot.save(mirror, kept)
    assert snapshot.load(mirror) == kept
    snapshot.save(mirror, replace(kept, findings=[Finding(Code.UNREADABLE, "\udcff", "", "")]))
    assert snapshot.load(mirror) == kept
    path = tmp_path / "streams/.snapshot.json"
    path.write_bytes(b'{"known": 1}')
    assert snapshot.load(mirror) is None
    path.write_bytes(b'{"state":"s","published":"p","products":1,"versions":2,"files":3}')
    assert snapshot.load(mirror) is None  # of an earlier release
    path.unlink()
    path.mkdir()
    snapshot.save(mirror, kept)
    assert snapshot.load(mirror) is None


def test_what_compares_two_runs_is_not_told_by_the_next(tmp_path: Path) -> None:
    findings = [Finding(code, "p", "a", "b") for code in Code]
    lasting = Snapshot.select_lasting(findings)
    assert {one.code for one in findings} - {one.code for one in lasting} == set(snapshot.PASSING)
