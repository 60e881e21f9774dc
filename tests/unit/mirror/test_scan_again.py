"""A scan that knows what it saw before, and one by many threads: nothing else comes of it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastindex.errors import Code
from fastindex.mirror import scan as scan_module
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import Scan, ScannedProduct, scan
from fastindex.system import listing
from fastindex.system.listing import SPARSE_BYTES
from tests.support.trees import Files, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"
OTHER = "images/debian/12/arm64/default"
NAMES = (".requirements", ".lxd_requirements", ".product.toml")


def scan_all(root: Path, **options: object) -> list[ScannedProduct]:
    return list(scan(Mirror.at(root), **options))  # type: ignore[arg-type]


def known_of(products: Sequence[ScannedProduct]) -> dict[str, bytes]:
    return {one.product.path: one.listing for one in products}


def make_root(root: Path) -> Path:
    tree: Files = {**version(), **version("debian/12/arm64/default/20240505_05:24")}
    for level in ("images", "images/debian", "images/debian/12", "images/debian/12/amd64", PRODUCT):
        tree |= {f"{level}/{name}": b"{}" for name in NAMES}
    write_tree(root, tree)
    time.sleep(2.1)  # younger settings may change once more without a change of their times
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("made"))


def test_what_is_as_before_is_not_parsed(made: Path) -> None:
    first = scan_all(made)
    assert {len(one.listing) for one in first} == {16}
    assert len({one.listing for one in first}) == 2
    again = scan(Mirror.at(made), known=known_of(first))
    assert [(one.product, one.listing, one.versions, one.findings) for one in again] == [
        (one.product, one.listing, None, []) for one in first
    ]
    assert again.findings == []
    assert again.statistics.directories == 9
    assert again.statistics.files == 4 + 15
    assert again.statistics.scanners == 1


def test_nothing_is_known_by_an_empty_digest(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), f"{VERSION}/disk.qcow2": "rootfs.squashfs"})
    (product,) = scan_all(tmp_path, known={PRODUCT: b""})
    assert product.listing == b""
    assert product.versions is not None


def swap(path: Path) -> None:
    """Put another file of the same size, time and name in the place of one."""
    status = path.stat()
    path.rename(path.with_name(".old"))
    path.write_bytes(b"[]")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file grew": lambda root: (root / VERSION / "rootfs.squashfs").write_bytes(b"x" * 99),
    "a file is newer": lambda root: os.utime(root / VERSION / "rootfs.squashfs"),
    "a file is gone": lambda root: (root / VERSION / "incus.tar.xz").unlink(),
    "a file is new": lambda root: (root / VERSION / "disk.qcow2").write_bytes(b"x"),
    "a file is renamed": lambda root: (root / VERSION / "rootfs.squashfs").rename(
        root / VERSION / "root.squashfs"
    ),
    "a file is private": lambda root: (root / VERSION / "rootfs.squashfs").chmod(0o600),
    "a file has holes": lambda root: os.truncate(
        root / VERSION / "rootfs.squashfs", SPARSE_BYTES + 1
    ),
    "a file is a directory": lambda root: (root / VERSION / "lxd.tar.xz").mkdir(),
    "checksums are new": lambda root: (root / VERSION / "SHA256SUMS").write_bytes(b""),
    "a version is new": lambda root: (root / PRODUCT / "20240506").mkdir(),
    "a version is renamed": lambda root: (root / VERSION).rename(root / PRODUCT / "20240506"),
    "a version is a link": lambda root: (root / PRODUCT / "20240507").symlink_to("20240505_05:24"),
    "a version is gone": lambda root: shutil.rmtree(root / VERSION),
    "a file is in its place": lambda root: (root / PRODUCT / "20240506").write_bytes(b""),
}
CHANGES |= {
    f"settings changed: {path}": partial(lambda path, root: swap(root / path), path)
    for path in ("images/debian/12/amd64/.requirements", f"{PRODUCT}/.product.toml")
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_seen(made: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(made, root, symlinks=True)
    time.sleep(2.1)
    before = scan_all(root)
    assert all(one.listing for one in before)
    CHANGES[name](root)
    changed, other = scan_all(root, known=known_of(before))
    fresh = scan_all(root)
    assert changed.versions == fresh[0].versions
    assert changed.versions is not None
    assert changed.findings == fresh[0].findings
    assert changed.listing != before[0].listing
    assert (other.listing, other.versions) == (before[1].listing, None)


@pytest.mark.parametrize(("level", "count"), [("images", 2), ("images/debian/12", 2), (PRODUCT, 1)])
def test_settings_count_for_all_below(made: Path, tmp_path: Path, level: str, count: int) -> None:
    root = tmp_path / "root"
    shutil.copytree(made, root, symlinks=True)
    time.sleep(2.1)
    known = known_of(scan_all(root))
    swap(root / level / ".product.toml")
    seen = scan_all(root, known=known)
    assert [one.listing for one in seen].count(b"") == count  # too young to be trusted
    assert [bool(one.versions) for one in seen].count(True) == count
    time.sleep(2.1)
    seen = scan_all(root, known=known)
    assert all(one.listing for one in seen)
    changed = [one for one in seen if one.listing != known[one.product.path]]
    assert [bool(one.versions) for one in changed] == [True] * count


def test_settings_that_are_a_link_are_known_by_their_target(tmp_path: Path) -> None:
    tree: Files = {"images/.requirements": b"{}", "images/.lxd_requirements": ".requirements"}
    write_tree(tmp_path, {**version(), **tree})
    assert scan_all(tmp_path)[0].listing == b""
    time.sleep(2.1)
    known = known_of(scan_all(tmp_path))
    assert known[PRODUCT]
    assert scan_all(tmp_path, known=known)[0].versions is None
    swap(tmp_path / "images/.requirements")
    time.sleep(2.1)
    assert scan_all(tmp_path, known=known)[0].versions


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (f"{VERSION}/disk.qcow2", "rootfs.squashfs"),
        (f"{PRODUCT}/20240506", "20240505_05:24"),
        (f"{PRODUCT}/.requirements", "20240505_05:24/incus.tar.xz"),
        (f"{PRODUCT}/.requirements", None),
        ("images/.requirements", None),
        (f"{PRODUCT}/latest", None),
        (f"{PRODUCT}/20240506/below", None),
        (f"{VERSION}/image.yaml", None),
        (f"{VERSION}/disk.qcow2", b""),
    ],
)
def test_names_and_stamps_do_not_vouch_for(
    tmp_path: Path, path: str, content: bytes | str | None
) -> None:
    write_tree(tmp_path, {**version(), path: content})
    (product,) = scan_all(tmp_path)
    assert product.listing == b""


@pytest.mark.parametrize("scanners", [1, 4])
def test_directories_that_only_their_owner_can_use_are_told_once(
    tmp_path: Path, scanners: int
) -> None:
    for number in range(40):
        write_tree(tmp_path, version(f"debian/{number:02}/amd64/default/20240505"))
    for path in ("images/debian", "images/debian/03/amd64", "images/debian/05/amd64/default"):
        (tmp_path / path).chmod(0o700)
    seen = scan_all(tmp_path, scanners=scanners)
    told = [
        (one.product.path[len("images/debian/") :][:2], finding.path)
        for one in seen
        for finding in one.findings
    ]
    assert told == [
        ("00", "images/debian"),
        ("03", "images/debian/03/amd64"),
        ("05", "images/debian/05/amd64/default"),
    ]
    assert {one.listing for one in seen} == {b""}  # told again until it is mended


def test_directories_that_lead_to_no_product_are_told_with_none(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), "images/a/b": None, "images/c:d/e": None})
    for path in ("images/a", "images/c:d"):
        (tmp_path / path).chmod(0o700)
    seen = scan(Mirror.at(tmp_path))
    assert [one.findings for one in seen] == [[]]
    assert {(finding.code, finding.path) for finding in seen.findings} == {
        (Code.NOT_SERVABLE, "images/a"),
        (Code.NOT_SERVABLE, "images/c:d"),
        (Code.BAD_NAME, "images/c:d"),
    }


def make_wait(seen: Scan) -> Scan:
    """Let a scan take its calls for slow ones."""
    seen._meter.does_wait = True
    seen._meter._calls = -(10**9)
    return seen


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wide")
    for number in range(50):
        for arch in ("amd64", "arm64"):
            write_tree(root, version(f"os{number:02}/1/{arch}/default/20240505"))
    for number in range(30):
        write_tree(root, version(f"os07/1/amd64/default/202405{number + 1:02}_05:24"))
        write_tree(root, {f"images/os{number:02}/1/arm64/default/bad{number}": None})
    write_tree(root, {"images/os01/1/amd64/default/20240601": "20240505"})
    write_tree(root, {"images/os02/x,y/z": b"", "images/os03/rootfs.squashfs": b"x"})
    return root


@pytest.mark.parametrize("scanners", [1, 2, 8, 64])
@pytest.mark.parametrize("waits", [False, True])
def test_any_number_of_scanners_finds_the_same(wide: Path, scanners: int, waits: bool) -> None:
    expected = scan(Mirror.at(wide))
    products = list(expected)
    assert len(products) == 100
    assert products[14].product.path == "images/os07/1/amd64/default"
    seen = scan(Mirror.at(wide), scanners=scanners)
    before = threading.active_count()
    assert list(make_wait(seen) if waits else seen) == products
    assert threading.active_count() == before
    assert seen.findings == expected.findings
    assert seen.statistics.files == expected.statistics.files
    assert seen.statistics.scanners <= scanners


def test_more_threads_scan_where_calls_wait(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scan_all(wide)
    list_directories = listing._list_directories

    def list_slowly(
        at: int, paths: Sequence[bytes], what: int, stop: bytearray
    ) -> tuple[list[listing.Records], int, int, int, int, int]:
        records, calls, _, _, opened, inspected = list_directories(at, paths, what, stop)
        return records, calls, calls, calls * 1_000_000, opened, inspected

    monkeypatch.setattr(listing, "_list_directories", list_slowly)
    seen = scan(Mirror.at(wide))
    assert list(seen) == expected
    assert seen.statistics.scanners > 8
    seen = scan(Mirror.at(wide), scanners=3)
    assert list(seen) == expected
    assert seen.statistics.scanners == 3


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("scanners", [1, 2, 8])
def test_a_shortage_in_any_thread_ends_the_scan(
    wide: Path, monkeypatch: pytest.MonkeyPatch, scanners: int, waits: bool
) -> None:
    list_directories = listing._list_directories
    calls: list[int] = []

    def run_out(
        at: int, paths: Sequence[bytes], what: int, stop: bytearray
    ) -> tuple[list[listing.Records], int, int, int, int, int]:
        calls.append(1)
        if len(calls) > 15:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "here")
        return list_directories(at, paths, what, stop)

    monkeypatch.setattr(listing, "_list_directories", run_out)
    before = threading.active_count()
    seen = scan(Mirror.at(wide), scanners=scanners)
    with pytest.raises(OSError, match="Too many open files"):
        list(make_wait(seen) if waits else seen)
    assert threading.active_count() == before


@pytest.mark.parametrize("waits", [False, True])
def test_a_scan_that_is_given_up_leaves_no_thread_and_no_descriptor(
    wide: Path, waits: bool
) -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    seen = scan(Mirror.at(wide), scanners=8)
    products = iter(make_wait(seen) if waits else seen)
    next(products)
    products.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_no_more_is_scanned_ahead_than_is_bearable(
    wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "_MAX_VERSIONS_AHEAD", 10)
    monkeypatch.setattr(scan_module, "_MAX_PRODUCTS_AHEAD", 32)
    levels = 1 + 50 + 50 + 100
    for scanners, most_products in ((1, 16), (4, 48)):
        seen = scan(Mirror.at(wide), scanners=scanners)
        products = iter(seen)
        next(products)
        time.sleep(0.2)
        # Each has a version, and some a bad name; one has 30 versions more.
        assert seen._meter.directories <= levels + most_products * 3 + 31
        assert len(list(products)) == 99
        assert seen._meter.directories > levels + 100 * 2 + 30


def test_what_goes_while_it_is_scanned_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, version())
    list_directories = listing._list_directories

    def remove_first(
        at: int, paths: Sequence[bytes], what: int, stop: bytearray
    ) -> tuple[list[listing.Records], int, int, int, int, int]:
        if any(os.fsencode(PRODUCT) in path for path in paths):
            shutil.rmtree(tmp_path / PRODUCT, ignore_errors=True)
        return list_directories(at, paths, what, stop)

    monkeypatch.setattr(listing, "_list_directories", remove_first)
    (product,) = scan_all(tmp_path)
    assert (product.versions, product.listing) == ([], b"")
    assert [finding.code for finding in product.findings] == [Code.UNREADABLE]
    (again,) = list(make_wait(scan(Mirror.at(tmp_path)))) or [product]
    assert again.versions == []


FILES = st.sampled_from(["incus.tar.xz", "rootfs.squashfs", "SHA256SUMS", "image.yaml", "log", "x"])
PLACES = st.tuples(
    st.sampled_from(["debian", "a,b", "x.part", "README"]),
    st.sampled_from(["12", ".requirements", "\udcff"]),
    st.sampled_from(["amd64", "AMD64"]),
    st.sampled_from(["default", "cloud", "20240505"]),
    st.sampled_from(["20240505", "20240506", "latest", ".product.toml", "rootfs.squashfs"]),
    FILES,
)
ENTRIES = st.tuples(
    st.tuples(PLACES, st.integers(1, 6)).map(lambda drawn: drawn[0][: drawn[1]]),
    st.sampled_from([b"x", b"x", b"x", b"", None, "..", "20240505", "incus.tar.xz", "/etc/passwd"]),
)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=12))
def test_all_ways_to_scan_a_tree_find_the_same(
    entries: list[tuple[tuple[str, ...], bytes | str | None]],
) -> None:
    root = Path(tempfile.mkdtemp())
    list_directories = listing._list_directories
    try:
        (root / "images").mkdir()
        for names, content in entries:
            path = root.joinpath("images", *names)
            try:
                write_tree(root, {str(path.relative_to(root)): content})
            except OSError:
                continue  # something else is there already
        first = scan(Mirror.at(root))
        products = list(first)
        for scanners, waits, lister in (
            (1, False, listing.list_in_python),
            (3, True, list_directories),
            (2, True, listing.list_in_python),
        ):
            listing._list_directories = lister
            seen = scan(Mirror.at(root), scanners=scanners)
            assert list(make_wait(seen) if waits else seen) == products
            assert seen.findings == first.findings
        again = scan(Mirror.at(root), known=known_of(products))
        for one, before in zip(again, products, strict=True):
            assert (one.product, one.listing) == (before.product, before.listing)
            assert one.versions == (None if one.listing else before.versions)
            assert one.findings == before.findings
        assert again.findings == first.findings
    finally:
        listing._list_directories = list_directories
        shutil.rmtree(root)
