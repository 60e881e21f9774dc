from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fastindex as package
from fastindex.cli.main import main
from fastindex.formats.names import FileRole
from fastindex.formats.simplestreams import CachedItem, encode
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.system.stamps import Stamp
from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.trees import (
    OLD_NS,
    catalogue,
    forget_state,
    sha256,
    version,
    write_file,
    write_tree,
)

VERSION = "images/debian/12/amd64/default/20240505_05:24"
SECOND_NS = 1_000_000_000
DIGEST = "ab" * 32


def found(mtime_ns: int = OLD_NS, size_bytes: int = 7, name: str = "incus.tar.xz") -> FoundFile:
    return FoundFile(name, FileRole("metadata", "incus.tar.xz"), Stamp(size_bytes, mtime_ns, 1, 2))


def item(**fields: object) -> CachedItem:
    base = {"ftype": "x", "path": "images/v/incus.tar.xz", "size": 7, "sha256": DIGEST}
    return CachedItem(**{**base, **fields})  # type: ignore[arg-type]


KEY = Stamp(7, OLD_NS, 1, 2).key


@pytest.mark.parametrize(
    ("known", "file", "is_accepted"),
    [
        (item(key=KEY), found(), True),
        (None, found(), False),
        (item(key=KEY), found(mtime_ns=OLD_NS + 1), False),  # touched
        (item(key=KEY), found(size_bytes=8), False),  # grown
        (item(key=KEY, size=8), found(), False),  # the item is of another length
        (item(key=""), found(), False),  # was too young to trust
        (item(key=KEY, path="images/v/lxd.tar.xz"), found(), False),  # the other's copy
        (item(), found(), True),  # the seed tool's
        (item(), found(mtime_ns=OLD_NS + 90 * SECOND_NS), False),  # newer than the cache
        (item(), found(mtime_ns=OLD_NS + 59 * SECOND_NS), False),  # not clearly older
        (item(path="images/v/lxd.tar.xz"), found(), False),
    ],
)
def test_what_a_cache_is_believed(
    known: CachedItem | None, file: FoundFile, is_accepted: bool
) -> None:
    accepted = cache.accept_item(known, file, OLD_NS + 60 * SECOND_NS)
    assert (accepted is not None) is is_accepted
    if accepted is not None:
        assert accepted.key == KEY
        assert accepted.sha256 == DIGEST


@pytest.mark.parametrize(
    ("mtime_ns", "has_key"),
    [
        (OLD_NS, False),
        (OLD_NS - 2 * SECOND_NS + 1, False),
        (OLD_NS - 2 * SECOND_NS, True),
        (OLD_NS + 10**18, False),  # in the future
        (0, True),
        (-(10**18), True),
        (2**63 + 5, False),
    ],
)
def test_a_file_too_young_gets_no_key(mtime_ns: int, has_key: bool) -> None:
    assert bool(Stamp(7, mtime_ns, 1, 2).key_if_trusted(OLD_NS)) is has_key


def build_twice(fastindex: Run, root: Path, spoil: bytes | None) -> str:
    write_tree(root, version())
    fastindex(root)
    before = catalogue(root)
    forget_state(root)
    path = root / VERSION / ".items.json"
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil)
    result = fastindex(root)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert catalogue(root) == before
    return result.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\0" * 4096,
        b'{"incus.tar.xz": {"ftype": "incus.tar.xz", "path"',
        b'{"incus.tar.xz": {"ftype": 1, "path": [], "size": "x", "sha256": null}}',
        b"[" * 100_000,
        b'{"a": "\xff\xfe"}',
        b'{"rootfs.squashfs": {"ftype": "", "path": "x", "size": -1, "sha256": "q"}}',
        b"x" * (2 << 20),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_an_unusable_cache_counts_as_absent(
    fastindex: Run, tmp_path: Path, spoil: bytes | None
) -> None:
    assert "2 files hashed, 0 reused" in build_twice(fastindex, tmp_path, spoil)


def test_a_cache_that_holds_is_believed(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    fastindex(tmp_path)
    forget_state(tmp_path)
    result = fastindex(tmp_path)
    assert "0 files hashed, 2 reused; nothing read" in result.stderr


@pytest.mark.parametrize("field", ["sha256", "blake3", "combined_squashfs_sha256"])
@pytest.mark.parametrize("value", ["Z" * 64, "A" * 64, "", "ab"])
def test_a_planted_digest_that_is_none_is_hashed_again(
    fastindex: Run, tmp_path: Path, field: str, value: str
) -> None:
    write_tree(tmp_path, version())
    fastindex(tmp_path)
    before = catalogue(tmp_path)
    path = tmp_path / VERSION / ".items.json"
    items = json.loads(path.read_bytes())
    for entry in items.values():
        if field in entry:
            entry[field] = value
    path.write_text(json.dumps(items))
    (tmp_path / "streams").rename(tmp_path / "gone")
    assert fastindex(tmp_path).returncode == 0
    assert catalogue(tmp_path) == before


def test_a_write_in_the_same_tick_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ns = time.time_ns()
    one, two = (make_content("rootfs.squashfs", salt) for salt in ("one", "two"))
    write_tree(tmp_path, version(incus_tar_xz=b"meta", rootfs_squashfs=one), now_ns)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + SECOND_NS)
    assert main([str(tmp_path)]) == 0
    assert "2 files hashed" in capsys.readouterr().err
    write_file(tmp_path / VERSION / "rootfs.squashfs", two, now_ns)
    assert main([str(tmp_path)]) == 0
    assert "2 files hashed" in capsys.readouterr().err
    items = catalogue(tmp_path)["products"]["debian:12:amd64:default"]["versions"]
    assert items["20240505_05:24"]["items"]["rootfs.squashfs"]["sha256"] == sha256(two)


def test_a_metadata_file_is_not_mistaken_for_the_others_copy(
    fastindex: Run, tmp_path: Path
) -> None:
    incus_tarball, lxd_tarball = b"\xfd7zXZ\0incus", b"\xfd7zXZ\0 lxd "
    root = make_content("rootfs.squashfs", "root")
    write_tree(tmp_path, version(lxd_tar_xz=lxd_tarball, rootfs_squashfs=root))
    fastindex(tmp_path)
    write_file(tmp_path / VERSION / "incus.tar.xz", incus_tarball)  # same length, same mtime
    fastindex(tmp_path)
    items = catalogue(tmp_path)["products"]["debian:12:amd64:default"]["versions"]
    incus = items["20240505_05:24"]["items"]["incus.tar.xz"]
    assert incus["sha256"] == sha256(incus_tarball)
    assert incus["combined_squashfs_sha256"] == sha256(incus_tarball, root)


def test_a_new_metadata_file_gets_its_fingerprints(fastindex: Run, tmp_path: Path) -> None:
    root, lxd_tarball = make_content("rootfs.squashfs", "root"), make_content("lxd.tar.xz", "lxd")
    write_tree(tmp_path, version(incus_tar_xz=b"incus", rootfs_squashfs=root))
    fastindex(tmp_path)
    write_file(tmp_path / VERSION / "lxd.tar.xz", lxd_tarball)
    fastindex(tmp_path)
    items = catalogue(tmp_path)["products"]["debian:12:amd64:default"]["versions"]
    lxd = items["20240505_05:24"]["items"]["lxd.tar.xz"]
    assert lxd["combined_squashfs_sha256"] == sha256(lxd_tarball, root)


def test_caches_can_live_elsewhere_and_the_tree_be_read_only(
    fastindex: Run, tmp_path: Path
) -> None:
    root = write_tree(tmp_path / "root", version())
    arguments = ("--cache-dir", tmp_path / "cache", "--output", tmp_path / "out", root)
    before = sorted(path for path in root.rglob("*"))
    assert fastindex(*arguments).returncode == 0
    # Where it is published is told in ROOT, if that can be written.
    assert sorted(path for path in root.rglob("*")) == sorted([*before, root / ".outputs.json"])
    assert (tmp_path / "cache" / VERSION / ".items.json").is_file()
    forget_state(tmp_path / "out")
    assert "0 files hashed" in fastindex(*arguments).stderr


def test_a_cache_directory_that_is_added_later_is_filled_by_one_run_with_adopt(
    fastindex: Run, tmp_path: Path
) -> None:
    """From then on, what an uploader writes to the tree's own cache does not count."""
    root = write_tree(tmp_path / "root", version())
    assert fastindex(root).returncode == 0
    before = catalogue(root)
    caches = tmp_path / "caches"
    result = fastindex("--cache-dir", caches, "--adopt", root)
    assert "0 files hashed, 2 reused" in result.stderr
    in_tree, apart = root / VERSION / ".items.json", caches / VERSION / ".items.json"
    assert apart.read_bytes() == in_tree.read_bytes()
    items = json.loads(in_tree.read_bytes())
    items["rootfs.squashfs"]["sha256"] = DIGEST
    in_tree.write_text(json.dumps(items))
    for option in ((), ("--adopt",)):
        forget_state(root)
        result = fastindex("--cache-dir", caches, *option, root)
        assert "0 files hashed, 2 reused" in result.stderr
        assert catalogue(root) == before


@pytest.mark.parametrize("runs_before", [0, 1, 2])
def test_a_digest_forged_in_the_tree_never_counts_beside_a_cache_directory(
    fastindex: Run, tmp_path: Path, runs_before: int
) -> None:
    root = write_tree(tmp_path / "root", version())
    fastindex(root)
    before = catalogue(root)
    for number in range(runs_before):
        write_tree(root, version(f"ubuntu/{number}/amd64/default/20240505"))
        fastindex("--cache-dir", tmp_path / "caches", root)
    forged = root / VERSION / ".items.json"
    items = json.loads(forged.read_bytes())
    for item in items.values():
        for field in ("sha256", "combined_squashfs_sha256"):
            if field in item:
                item[field] = DIGEST
    forged.write_text(json.dumps(items))
    write_tree(root, version("ubuntu/24.04/amd64/default/20240505"))
    assert fastindex("--cache-dir", tmp_path / "caches", root).returncode == 0
    product = "debian:12:amd64:default"
    assert catalogue(root)["products"][product] == before["products"][product]
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize(
    ("has_directory", "adopts", "apart", "in_tree", "expected", "is_worth_saving"),
    [
        (False, False, "good", "other", "other", False),
        (False, True, "good", "other", "other", False),
        (False, False, "good", "torn", None, False),
        (True, True, "good", "other", "good", False),
        (True, True, "good", None, "good", False),
        (True, True, None, "other", "other", True),
        (True, True, "torn", "other", "other", True),
        (True, True, None, "torn", None, False),
        (True, True, None, None, None, False),
        (True, False, None, "other", None, False),
        (True, False, "torn", "other", None, False),
        (True, False, "good", "other", "good", False),
    ],
)
def test_the_cache_directory_wins_over_the_tree(
    tmp_path: Path,
    has_directory: bool,
    adopts: bool,
    apart: str | None,
    in_tree: str | None,
    expected: str | None,
    is_worth_saving: bool,
) -> None:
    mirror = Mirror.at(tmp_path / "root", cache_dir=tmp_path / "caches" if has_directory else None)
    for place, content in (("caches", apart), ("root", in_tree)):
        items = {"f": item(delta_base=content or "")}
        data = encode(items)[: 9 if content == "torn" else None]
        if content is not None:
            write_tree(tmp_path / place, {f"{VERSION}/.items.json": data})
    cached = cache.load(mirror, VERSION, adopts=adopts)
    assert [one.delta_base for one in cached.items.values()] == [expected][: expected is not None]
    assert cached.is_worth_saving is is_worth_saving
    assert cached.mtime_ns == (0 if expected is None else OLD_NS)


def test_a_cache_that_cannot_be_written_is_told_and_nothing_more(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version())
    write_tree(tmp_path, {"cache": b"a file where a directory should be"})
    result = fastindex("--cache-dir", tmp_path / "cache", tmp_path)
    assert result.returncode == 0
    assert ".items.json: cannot be written (Not a directory)" in result.stderr
    assert len(catalogue(tmp_path)["products"]) == 1


class _Remover(ThreadPoolExecutor):
    """Removes a directory as soon as something has been done."""

    def __init__(self, directory: Path) -> None:
        super().__init__(1)
        self._directory = directory

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        done = super().submit(*arguments, **options)
        done.result()
        shutil.rmtree(self._directory, ignore_errors=True)
        return done


def test_a_version_that_is_removed_while_it_is_hashed_does_not_come_back(tmp_path: Path) -> None:
    root = write_tree(tmp_path, version())
    directory = root / VERSION
    report = package.Mirror(root).build(executor=_Remover(directory))
    assert report.findings == ()
    assert not directory.exists()


def test_two_roots_that_share_a_cache_directory_do_not_mix(fastindex: Run, tmp_path: Path) -> None:
    """Their files may have equal paths, sizes and times, and other bytes."""
    caches = tmp_path / "caches"
    roots = [tmp_path / name for name in ("one", "two", "three")]
    for root in roots:
        content = make_content("rootfs.squashfs", f"{root.name:5}")
        write_tree(root, version(incus_tar_xz=b"the same", rootfs_squashfs=content))
    for _ in range(2):
        for root in roots:
            result = fastindex("--cache-dir", caches, root)
            assert result.returncode == 0, result.stderr
            found = catalogue(root)["products"]["debian:12:amd64:default"]["versions"]
            digest = found["20240505_05:24"]["items"]["rootfs.squashfs"]["sha256"]
            assert digest == sha256((root / VERSION / "rootfs.squashfs").read_bytes())
            assert not list(root.rglob(".items.json"))
            assert fastindex("verify", "--cache-dir", caches, root).returncode == 0
    for root in roots:
        forget_state(root)
        assert "0 files hashed, 2 reused" in fastindex("--cache-dir", caches, root).stderr
    assert len(list(caches.rglob(".items.json"))) == 3


def test_a_dry_run_claims_no_cache_directory(fastindex: Run, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", version())
    assert fastindex("-n", "--cache-dir", tmp_path / "caches", root).returncode == 0
    assert not (tmp_path / "caches").exists()
