"""``fastindex verify``: every planted fault is named, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

import fastindex as package
from fastindex.hashing.batches import BATCH_BYTES
from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import FileRef, RootTask
from fastindex.operations.verify import run
from fastindex.operations.verify.options import Method
from fastindex.operations.verify.reading import _make_batches
from fastindex.system.stamps import Stamp
from tests.support.command import Run
from tests.support.contents import make_squashfs
from tests.support.trees import OLD_NS, version, write_file, write_tree
from tests.unit.hashing.test_reader import bytes_read_below

BASE = "20240504_05:24"
ROOTS = ("rootfs.squashfs", "rootfs.tar.xz", "disk.qcow2")
FILES = (
    "incus.tar.xz",
    "lxd.tar.xz",
    *ROOTS,
    "incus_combined.tar.gz",
    "rootfs.20240504_05:24.vcdiff",
)


def mirror(root: Path, releases: int) -> Path:
    """Make and index a mirror: releases 0, 1 …, each with a base version and one of all kinds."""
    tree: dict[str, bytes | str | None] = {}
    for release in range(releases):
        product = f"debian/{release}/amd64/default"
        tree |= version(f"{product}/{BASE}")
        for name in FILES:
            path = f"images/{product}/20240505_05:24/{name}"
            tree[path] = f"{path} ".encode() * 50
    return write_tree(root, tree)


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return an indexed mirror of 15 releases."""
    made = mirror(tmp_path / "root", 15)
    assert fastindex("-q", made).returncode == 0
    return made


def where(release: int) -> str:
    return f"images/debian/{release}/amd64/default/20240505_05:24"


def flip(path: Path, *, keeps_stamp: bool = True) -> None:
    """Change one bit; on a failing disk, the time stamp stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keeps_stamp:
        os.utime(path, ns=(OLD_NS, OLD_NS))


def edit(root: Path, change: Callable[[Any], None]) -> None:
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    change(document["products"])
    path.write_text(json.dumps(document))


def items(products: Any, release: int) -> Any:
    return products[f"debian:{release}:amd64:default"]["versions"]["20240505_05:24"]["items"]


def plant(root: Path) -> dict[tuple[str, str], str]:
    """Plant 15 faults of all kinds; return (version, file) → what is to be said of it."""
    expected: dict[tuple[str, str], str] = {}
    for number, name in enumerate(FILES):  # seven bit flips, one in each kind of file
        flip(root / where(number) / name)
        expected[where(number), name] = "BLAKE3|SHA-256"
    flip(root / where(7) / "disk.qcow2", keeps_stamp=False)
    expected[where(7), "disk.qcow2"] = "SHA-256"
    os.truncate(root / where(8) / "rootfs.squashfs", 100)
    expected[where(8), "rootfs.squashfs"] = "is 100 bytes long"
    (root / where(9) / "rootfs.tar.xz").unlink()
    expected[where(9), "rootfs.tar.xz"] = "no such file"
    one, other = (root / where(10) / name for name in ("incus.tar.xz", "rootfs.squashfs"))
    content = one.read_bytes()
    same_size = content[: len(content) // 2].ljust(other.stat().st_size, b"x")
    assert len(same_size) == other.stat().st_size
    other.write_bytes(same_size)
    expected[where(10), "rootfs.squashfs"] = "SHA-256"

    def spoil(products: Any) -> None:
        items(products, 11)["lxd.tar.xz"]["combined_squashfs_sha256"] = "0" * 64
        items(products, 12)["disk.qcow2"]["size"] = "many"
        twin = items(products, 14)["incus.tar.xz"]["combined_rootxz_sha256"]
        items(products, 13)["incus.tar.xz"]["combined_rootxz_sha256"] = twin

    edit(root, spoil)
    expected[where(11), "lxd.tar.xz"] = "its fingerprint with rootfs.squashfs is"
    expected[where(12), ""] = "clients reject the whole catalogue because of it"
    # A duplicate is told where clients stumble over it, and where it is not true.
    expected[where(14), "rootfs.tar.xz"] = "the same image"
    expected[where(13), "incus.tar.xz"] = "its fingerprint with rootfs.tar.xz is"
    return expected


def told(stdout: str) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for mismatch in json.loads(stdout)["verify"]["mismatches"]:
        key = (mismatch["version"], mismatch["file"])
        found[key] = found.get(key, "") + mismatch["problem"]
    return found


@pytest.mark.parametrize("method", [(), ("--sha256",), ("--jobs", "1")])
def test_all_planted_faults_are_named_and_nothing_else(
    fastindex: Run, root: Path, method: tuple[str, ...]
) -> None:
    assert fastindex("verify", *method, root).returncode == 0
    expected = plant(root)
    result = fastindex("verify", "--json", *method, root)
    assert result.returncode == 4
    found = told(result.stdout)
    assert found.keys() == expected.keys()
    for key, problem in expected.items():
        assert re.search(problem, found[key]), (key, found[key])


def test_quick_names_what_a_stat_and_the_catalogue_show(fastindex: Run, root: Path) -> None:
    expected = plant(root)
    result = fastindex("verify", "--json", "--quick", root)
    seen = ("bytes long", "no such", "clients reject", "the same image")
    visible = {key for key, problem in expected.items() if any(word in problem for word in seen)}
    assert result.returncode == 4
    assert told(result.stdout).keys() == visible


def test_mismatches_are_grouped_by_version(fastindex: Run, root: Path) -> None:
    for name in ("rootfs.squashfs", "disk.qcow2"):
        (root / where(3) / name).unlink()
    result = fastindex("verify", root)
    assert result.stdout.splitlines() == [
        where(3),
        "  disk.qcow2: no such file",
        "  rootfs.squashfs: no such file",
    ]
    assert "2 mismatches" in result.stderr


def test_what_the_caches_know_is_held_against_blake3_in_one_read(
    fastindex: Run, tmp_path: Path
) -> None:
    root = mirror(tmp_path / "root", 3)
    big = root / where(1) / "rootfs.squashfs"
    write_file(big, make_squashfs(os.urandom(40 << 20)))
    assert fastindex("-q", root).returncode == 0
    size = sum(path.stat().st_size for path in root.rglob("images/**/[!.]*") if path.is_file())
    for options in ((), ("--sha256",)):
        read = bytes_read_below(root, "verify", *options)
        assert size <= read <= 1.02 * size


def test_without_caches_sha256_is_held_against_the_catalogue(fastindex: Run, root: Path) -> None:
    for path in root.rglob(".items.json"):
        path.unlink()
    assert fastindex("verify", root).returncode == 0
    flip(root / where(2) / "rootfs.tar.xz")
    result = fastindex("verify", root)
    assert result.returncode == 4
    assert "its SHA-256 is" in result.stdout


def test_a_cache_that_contradicts_the_catalogue_decides_nothing(fastindex: Run, root: Path) -> None:
    """Who can write the cache must not be able to hide damage, nor to feign it."""
    path = root / where(2) / ".items.json"
    cached = json.loads(path.read_bytes())
    for item in cached.values():
        item["sha256"] = "1" * 64
    path.write_text(json.dumps(cached))
    assert fastindex("verify", root).returncode == 0
    flip(root / where(2) / "rootfs.squashfs")
    assert fastindex("verify", root).returncode == 4


def test_a_cache_of_no_digests_decides_nothing(fastindex: Run, root: Path) -> None:
    path = root / where(2) / ".items.json"
    cached = json.loads(path.read_bytes())
    for item in cached.values():
        item["blake3"] = "x" * 64
    path.write_text(json.dumps(cached))
    assert fastindex("verify", root).returncode == 0


def test_sha256_believes_no_cache(fastindex: Run, root: Path) -> None:
    flip(root / where(2) / "disk.qcow2")
    path = root / where(2) / ".items.json"
    cached = json.loads(path.read_bytes())
    content = (root / where(2) / "disk.qcow2").read_bytes()
    cached["disk.qcow2"]["blake3"] = blake3(content).hexdigest()
    path.write_text(json.dumps(cached))
    assert fastindex("verify", root).returncode == 0
    result = fastindex("verify", "--sha256", root)
    assert result.returncode == 4
    assert "disk.qcow2: its SHA-256 is" in result.stdout


@pytest.mark.parametrize("method", [(), ("--sha256",)])
def test_a_wrong_digest_in_the_catalogue_is_named(
    fastindex: Run, root: Path, method: tuple[str, ...]
) -> None:
    edit(root, lambda products: items(products, 1)["disk.qcow2"].update(sha256="0" * 64))
    result = fastindex("verify", *method, root)
    assert result.returncode == 4
    assert f"{where(1)}\n  disk.qcow2: its SHA-256 is" in result.stdout
    assert "1 mismatch\n" in result.stderr


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 3}])
@pytest.mark.parametrize("client", ["incus.tar.xz", "lxd.tar.xz"])
def test_both_items_of_one_metadata_file_are_held_against_it(
    fastindex: Run, root: Path, client: str, change: dict[str, Any]
) -> None:
    """A lone metadata file stands in the catalogue twice, once for each client."""
    product = "debian:1:amd64:default"
    edit(root, lambda products: products[product]["versions"][BASE]["items"][client].update(change))
    result = fastindex("verify", "--json", root)
    assert result.returncode == 4
    assert told(result.stdout).keys() == {(f"images/debian/1/amd64/default/{BASE}", "incus.tar.xz")}


def test_caches_and_catalogue_may_lie_elsewhere(fastindex: Run, tmp_path: Path) -> None:
    root = mirror(tmp_path / "root", 1)
    elsewhere = ("--cache-dir", tmp_path / "caches", "--output", tmp_path / "output")
    assert fastindex("-q", *elsewhere, root).returncode == 0
    assert fastindex("verify", *elsewhere, root).returncode == 0
    assert fastindex("verify", root).returncode == 1
    flip(root / where(0) / "disk.qcow2")
    assert "disk.qcow2: its BLAKE3 is" in fastindex("verify", *elsewhere, root).stdout


def test_a_stream_that_is_the_operators_link_is_inside(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    (root / "images").symlink_to((root / "images").rename(tmp_path / "disk"))
    assert fastindex("verify", root).returncode == 0


def test_what_no_client_shows_is_named(fastindex: Run, root: Path) -> None:
    def spoil(products: Any) -> None:
        products["debian:1:amd64:default"]["arch"] = "amd65"
        versions = products["debian:2:amd64:default"]["versions"]
        versions["latest"] = versions.pop("20240505_05:24")
        for name in ("incus.tar.xz", "lxd.tar.xz"):
            del items(products, 3)[name]
        for field in ("combined_rootxz_sha256", "combined_sha256"):
            del items(products, 4)["lxd.tar.xz"][field]

    edit(root, spoil)
    result = fastindex("verify", "--quick", "--json", root)
    assert result.returncode == 4
    found = told(result.stdout)
    for key, problem in {
        "images/debian/1/amd64/default": "clients do not know the architecture 'amd65'",
        "images/debian/2/amd64/default/latest": "clients do not accept the version name 'latest'",
        where(3): "lacks metadata",
        where(4): "rootfs.tar.xz: lacks a fingerprint with lxd.tar.xz",
    }.items():
        assert problem in found.pop((key, ""))
    assert found == {}


def test_a_name_that_two_products_claim_is_told_and_no_mismatch(fastindex: Run, root: Path) -> None:
    edit(root, lambda products: products["debian:1:amd64:default"].update(aliases="debian/2"))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 0
    assert "shares the alias 'debian/2' with" in result.stderr


def test_what_vanishes_before_it_is_read_is_named(root: Path) -> None:
    class Vandal(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            (root / where(1) / "disk.qcow2").unlink(missing_ok=True)
            return super().submit(*arguments, **options)

    with Vandal(1) as executor:
        report = package.Mirror(root).verify(executor=executor)
    assert [(one.version, one.file) for one in report.mismatches] == [(where(1), "disk.qcow2")]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"path": "../../etc/passwd"}, "clients cannot download the path"),
        ({"path": "/etc/passwd"}, "clients cannot download the path"),
        ({"path": "images/a%41"}, "clients cannot download the path"),
        ({"ftype": "root.squashfs"}, "clients do not know the ftype"),
        ({"sha256": "X" * 64}, "not 64 lowercase hex digits"),
        ({"combined_squashfs_sha256": "X" * 64}, "not 64 lowercase hex digits"),
        ({"sha256": "0"}, "not 64 lowercase hex digits"),
        ({"size": -1}, "bytes long; the catalogue says -1"),
    ],
)
def test_an_item_that_clients_cannot_use_is_named(
    fastindex: Run, root: Path, change: dict[str, Any], problem: str
) -> None:
    edit(root, lambda products: items(products, 1)["rootfs.squashfs"].update(change))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert where(1) in result.stdout
    assert problem in result.stdout


def test_a_product_with_a_wrong_field_is_named_and_its_files_are_read(
    fastindex: Run, root: Path
) -> None:
    def spoil(products: Any) -> None:
        products["debian:1:amd64:default"]["requirements"] = {"secureboot": False}

    edit(root, spoil)
    flip(root / where(1) / "rootfs.squashfs")
    result = fastindex("verify", root)
    assert result.returncode == 4
    assert "clients reject it because of debian:1:amd64:default: Expected `str`, got `bool`" in (
        result.stdout
    )
    assert f"{where(1)}\n  rootfs.squashfs" in result.stdout
    assert "2 mismatches" in result.stderr


def test_a_product_all_of_whose_versions_are_rejected_is_told_by_them(
    fastindex: Run, root: Path
) -> None:
    def spoil(products: Any) -> None:
        product = products["debian:1:amd64:default"]
        product["versions"] = dict.fromkeys(product["versions"], "none")

    edit(root, spoil)
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert f"{where(1)}\n" in result.stdout
    assert "2 mismatches\n" in result.stderr


def test_a_product_that_is_none_is_told_once(fastindex: Run, root: Path) -> None:
    edit(root, lambda products: products.update({"debian:1:amd64:default": 5}))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert "because of debian:1:amd64:default: Expected `object`, got `int`" in result.stdout
    assert "1 mismatch\n" in result.stderr


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"[]", b'{"format": "index:1.0"'])
@pytest.mark.parametrize("name", ["index.json", "images.json"])
def test_a_torn_catalogue_is_damage(fastindex: Run, root: Path, name: str, content: bytes) -> None:
    (root / "streams/v1" / name).write_bytes(content)
    result = fastindex("verify", root)
    assert result.returncode == 4
    assert f"streams/v1/{name}\n" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("change", [{"content_id": 5}, {"format": "products:2.0"}])
def test_what_stands_beside_the_products_must_be_right(
    fastindex: Run, root: Path, change: dict[str, Any]
) -> None:
    path = root / "streams/v1/images.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    flip(root / where(1) / "disk.qcow2")
    result = fastindex("verify", root)
    assert result.returncode == 4
    assert "streams/v1/images.json\n  clients reject it: " in result.stdout
    assert f"{where(1)}\n  disk.qcow2" in result.stdout
    assert "2 mismatches" in result.stderr


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"datatype": "image-ids"}, "clients skip the stream 'images'"),
        ({"format": "products:2.0"}, "clients skip the stream 'images'"),
        ({"path": "../outside.json"}, "leads out of the mirror"),
        ({"path": "/etc/passwd"}, "leads out of the mirror"),
        ({"path": "streams/v1/none.json"}, "streams/v1/none.json\n  cannot be read"),
    ],
)
def test_an_index_that_leads_clients_nowhere_is_damage(
    fastindex: Run, root: Path, change: dict[str, Any], problem: str
) -> None:
    shutil.copy(root / "streams/v1/images.json", root.parent / "outside.json")
    path = root / "streams/v1/index.json"
    index = json.loads(path.read_bytes())
    index["index"]["images"] |= change
    path.write_text(json.dumps(index))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert problem in result.stdout
    assert "1 mismatch\n" in result.stderr


def test_two_product_files_of_one_name_are_damage(fastindex: Run, root: Path) -> None:
    """Clients cache a product file by the last part of its path."""
    (root / "streams/v2").mkdir()
    shutil.copy(root / "streams/v1/images.json", root / "streams/v2")
    path = root / "streams/v1/index.json"
    index = json.loads(path.read_bytes())
    index["index"]["other"] = index["index"]["images"] | {"path": "streams/v2/images.json"}
    path.write_text(json.dumps(index))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert "clients mistake streams/v2/images.json for streams/v1/images.json" in result.stdout


def test_an_index_that_names_too_much_or_too_little_is_told_of(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/index.json"
    index = json.loads(path.read_bytes())
    index["index"]["images"]["products"][0] = "no:such:amd64:product"
    path.write_text(json.dumps(index))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert "lacks the product no:such:amd64:product, which the index names;" in result.stdout
    assert "has the product debian:0:amd64:default, which the index does not" in result.stderr


def test_a_stream_that_is_empty_is_no_damage(fastindex: Run, root: Path) -> None:
    (root / "other").mkdir()
    assert fastindex("--force", "--stream", "other", root).returncode == 0
    result = fastindex("verify", "--quick", root)
    assert (result.returncode, result.stdout) == (0, "")
    # But where only the index has none, clients miss what the product file has.
    path = root / "streams/v1/index.json"
    index = json.loads(path.read_bytes())
    index["index"]["images"]["products"] = []
    path.write_text(json.dumps(index))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert "clients skip the stream 'images': the index names none of its" in result.stdout


def test_a_link_that_leads_out_is_damage(fastindex: Run, root: Path, tmp_path: Path) -> None:
    path = root / where(1) / "disk.qcow2"
    outside = path.rename(tmp_path / "outside")
    path.symlink_to(outside)
    result = fastindex("verify", root)
    assert result.returncode == 4
    assert "disk.qcow2: is a symlink that leads out of the mirror" in result.stdout


def test_a_directory_in_the_place_of_a_file_is_damage(fastindex: Run, root: Path) -> None:
    path = root / where(1) / "disk.qcow2"
    path.unlink()
    path.mkdir()
    size = path.stat().st_size
    edit(root, lambda products: items(products, 1)["disk.qcow2"].update(size=size))
    result = fastindex("verify", "--quick", root)
    assert result.returncode == 4
    assert "disk.qcow2: is not a regular file" in result.stdout


def test_nothing_published_is_no_success(fastindex: Run, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        result = fastindex("verify", root)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr


def test_from_python(root: Path) -> None:
    (root / where(1) / "disk.qcow2").unlink()
    report = package.Mirror(root).verify(method="quick")
    assert report.mismatches == (
        package.Mismatch(package.Code.MISSING_FILE, where(1), "disk.qcow2", "no such file"),
    )
    assert report.exit_code == 4


class _Progress(package.Observer):
    wants_progress = True

    def __init__(self) -> None:
        self.started: list[int] = []
        self.done: list[int] = []
        self.ended = 0
        self.told: list[str] = []

    def hashing_started(self, total_bytes: int) -> None:
        self.started.append(total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        self.done.append(done_bytes)

    def hashing_finished(self) -> None:
        self.ended += 1

    def log(self, message: str) -> None:
        self.told.append(message)


@pytest.mark.parametrize("group_files", [1, 10, 100])
@pytest.mark.parametrize("method", ["known", "sha256", "quick"])
def test_groups_of_any_size_are_found_to_be_the_same(
    root: Path, method: Method, group_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(root)
    whole = package.Mirror(root).verify(method=method)
    monkeypatch.setattr(run, "_GROUP_FILES", group_files)
    progress = _Progress()
    parts = package.Mirror(root).verify(method=method, observer=progress)
    assert whole.mismatches
    no_time = {"seconds": 0.0, "hashing_seconds": 0.0}
    assert replace(parts, **no_time) == replace(whole, **no_time)
    is_read = method != "quick"
    assert (len(progress.started), progress.ended, len(progress.told)) == (is_read,) * 3
    assert progress.done == sorted(progress.done)
    if is_read:
        assert 0 < progress.done[-1] <= progress.started[0]
        # Some of the files that are planted are gone or have another size.
        assert progress.started[0] == pytest.approx(whole.bytes_read, rel=0.2)


def test_memory_does_not_grow_with_the_mirror(
    fastindex: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_GROUP_FILES", 100)
    peaks = []
    for releases in (20, 200):
        root = mirror(tmp_path / str(releases), releases)
        assert fastindex("-q", root).returncode == 0
        with ThreadPoolExecutor(1) as executor:
            package.Mirror(root).verify(executor=executor)  # imports what it needs
            tracemalloc.start()
            report = package.Mirror(root).verify(executor=executor)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert (report.versions, report.mismatches) == (2 * releases, ())
    assert peaks[1] < peaks[0] + 180 * 1000  # bytes a product of nine files


def test_only_a_big_file_gets_threads() -> None:
    def task(number: int, size_bytes: int) -> RootTask:
        return RootTask(FileRef(f"/{number}", Stamp(size_bytes, OLD_NS, 1, number)))

    quick = [task(0, 10 * BATCH_BYTES), *(task(number, 1000) for number in range(1, 100))]
    batches = _make_batches([], quick, Strategy(jobs=4))
    assert {(len(batch.tasks), batch.threads) for batch in batches} == {(1, 4), (64, 1), (35, 1)}
    assert {batch.threads for batch in _make_batches([], quick[1:], Strategy(jobs=4))} == {1}
    assert not _make_batches([], [], Strategy(jobs=4))
