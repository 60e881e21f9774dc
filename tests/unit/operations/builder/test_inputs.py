"""What a product follows from: if none of it has changed, it stays as it is published."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import ScannedProduct, scan
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.known import KnownProduct, KnownStream, KnownStreams
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.operations.builder.inputs import BuildInputs, ExaminedProduct, Examiner
from fastindex.operations.builder.options import BuildOptions
from tests.support.trees import OLD_NS, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
OTHER = "images/debian/13/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"
ROOT = f"{VERSION}/rootfs.squashfs"
YAML, CHECKSUMS = f"{VERSION}/image.yaml", f"{VERSION}/SHA256SUMS"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    other = version("debian/13/amd64/default/20240505_05:24")
    tree = {**version(), **other, "images/.requirements": b"{}", "images/debian/13/x": None}
    return Mirror.at(write_tree(tmp_path / "root", tree), output=tmp_path / "output")


def make_inputs(
    mirror: Mirror,
    known: list[KnownProduct] | None = None,
    withdrawn: Withdrawals | None = None,
    damaged: str = "",
) -> BuildInputs:
    record = DamagedFiles(mirror)
    if damaged:
        record.add(damaged, "0" * 16, "ab" * 32)
    stream = KnownStream(b"c", b"p", known or [], {}, b"")
    return BuildInputs(
        SettingsReader(mirror),
        SettlePeriod(mirror, 0),
        record,
        withdrawn or {},
        b"c",
        KnownStreams({"images": stream}, {"images": b""}),
    )


def examine_all(
    mirror: Mirror,
    inputs: BuildInputs | None = None,
    options: BuildOptions | None = None,
    change: Callable[[ScannedProduct], object] = str,
) -> dict[str, ExaminedProduct]:
    """Return each product of a mirror, by path; ``change`` may spoil what the scan says."""
    examiner = Examiner(mirror, options or BuildOptions(), inputs or make_inputs(mirror))
    found: dict[str, ExaminedProduct] = {}
    for scanned in scan(mirror):
        change(scanned)
        found[scanned.product.path] = examiner.examine(scanned)
    return found


def digests(mirror: Mirror, inputs: BuildInputs | None = None) -> dict[str, bytes]:
    return {path: one.inputs for path, one in examine_all(mirror, inputs).items()}


def known_products(mirror: Mirror, listing: bytes = b"") -> list[KnownProduct]:
    """Return what a run would know of all products as they are now."""
    return [
        KnownProduct(path, listing, inputs, 1, 2, True, None, None, ())
        for path, inputs in digests(mirror).items()
    ]


def write(path: str, content: bytes, mtime_ns: int = OLD_NS) -> Callable[[Path], object]:
    return lambda root: write_tree(root, {path: content}, mtime_ns)


def move(path: str, target: str) -> Callable[[Path], object]:
    return lambda root: (root / path).rename(root / target)


def touch(path: str) -> Callable[[Path], object]:
    return lambda root: os.utime(root / path, ns=(1, 1))


def shorten(root: Path) -> None:
    os.truncate(root / ROOT, 5)
    os.utime(root / ROOT, ns=(OLD_NS, OLD_NS))


CHANGES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object] | None]] = {
    "settings above": (write("images/.requirements", b"[]"), None),
    "no settings above": (lambda root: (root / "images/.requirements").unlink(), None),
    "the level of settings above": (move("images/.requirements", f"{PRODUCT}/.requirements"), None),
    "the name of settings above": (move("images/.requirements", "images/.lxd_requirements"), None),
    "settings": (write(f"{PRODUCT}/.product.toml", b""), None),
    "settings of LXD": (write(f"{PRODUCT}/.lxd_requirements", b""), None),
    "checksums": (write(CHECKSUMS, b"x"), None),
    "the content of checksums": (write(CHECKSUMS, b"y"), write(CHECKSUMS, b"x")),
    "the size of checksums": (write(CHECKSUMS, b"xx"), write(CHECKSUMS, b"x")),
    "image.yaml": (write(YAML, b"x"), None),
    "the content of image.yaml": (write(YAML, b"y"), write(YAML, b"x")),
    "the size of image.yaml": (write(YAML, b"xx"), write(YAML, b"x")),
    "the time of a file": (touch(ROOT), None),
    "the size of a file": (shorten, None),
    "a file": (write(f"{VERSION}/disk.qcow2", b"disk"), None),
    "no file": (lambda root: (root / ROOT).unlink(), None),
    "a file that cannot be used": (write(f"{VERSION}/disk.qcow2", b""), None),
    "the name of a file": (move(ROOT, f"{VERSION}/rootfs.tar.xz"), None),
    "a version": (write(f"{PRODUCT}/20240506/incus.tar.xz", b"x"), None),
    "the name of a version": (move(VERSION, f"{PRODUCT}/20240506"), None),
    "what the scan says": (lambda root: (root / PRODUCT / "not a date").mkdir(), None),
    "rights": (lambda root: (root / ROOT).chmod(0o600), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_product_follows_from_all_that_its_catalogue_depends_on(
    mirror: Mirror, change: str
) -> None:
    act, prepare = CHANGES[change]
    root = Path(mirror.root)
    if prepare is not None:
        prepare(root)
    before = digests(mirror)
    assert before == digests(mirror)
    known = known_products(mirror)
    assert all(one.known for one in examine_all(mirror, make_inputs(mirror, known)).values())
    act(root)
    after = digests(mirror)
    assert after[PRODUCT] != before[PRODUCT]
    assert len(after[PRODUCT]) == 16
    is_about_all = "above" in change
    assert (after[OTHER] != before[OTHER]) is is_about_all
    examined = examine_all(mirror, make_inputs(mirror, known))
    assert examined[PRODUCT].known is None
    assert (examined[OTHER].known is None) is is_about_all


def test_what_is_as_before_follows_from_the_same(mirror: Mirror, tmp_path: Path) -> None:
    root = Path(mirror.root)
    first = digests(mirror)
    assert first == digests(Mirror.at(root))  # wherever it is published
    write_tree(root, {"images/.requirements": b"[]"})
    assert digests(mirror) != first
    write_tree(root, {"images/.requirements": b"{}"})
    (root / ROOT).replace(tmp_path / "aside")
    (root / ROOT).write_bytes((tmp_path / "aside").read_bytes())
    os.utime(root / ROOT, ns=(OLD_NS, OLD_NS))
    write_tree(root, {f"{VERSION}/.hidden": b"x", f"{VERSION}/README": b"x"})
    assert digests(mirror) == first


@pytest.mark.parametrize("word", ["p", "p\udcff"])
def test_what_the_scan_says_of_a_product_counts(mirror: Mirror, word: str) -> None:
    finding = Finding(Code.UNREADABLE, word, "a", "b")

    def add(scanned: ScannedProduct) -> None:
        if scanned.product.path == PRODUCT:
            scanned.findings.append(finding)

    before = digests(mirror)
    examined = examine_all(mirror, change=add)
    assert examined[PRODUCT].inputs != before[PRODUCT]
    assert examined[OTHER].inputs == before[OTHER]


def test_damage_counts_for_its_product_and_so_does_a_touch(mirror: Mirror) -> None:
    before = digests(mirror)
    damaged = digests(mirror, make_inputs(mirror, damaged=ROOT))
    assert damaged[PRODUCT] != before[PRODUCT]
    assert damaged[OTHER] == before[OTHER]
    inputs = make_inputs(mirror, damaged=ROOT)
    time.sleep(0.02)  # for the clock of inodes
    (Path(mirror.root) / ROOT).chmod(0o640)
    (Path(mirror.root) / ROOT).chmod(0o644)
    assert digests(mirror, inputs)[PRODUCT] not in (damaged[PRODUCT], before[PRODUCT])


@pytest.mark.parametrize("files", [(), ("rootfs.squashfs",)])
def test_what_is_withdrawn_counts_for_its_product(mirror: Mirror, files: tuple[str, ...]) -> None:
    before = digests(mirror)
    withdrawn = {VERSION: Withdrawal(files=files, withdrawn_at=OLD_NS / 1e9 + 1)}
    examined = examine_all(mirror, make_inputs(mirror, withdrawn=withdrawn))
    assert examined[PRODUCT].inputs != before[PRODUCT]
    assert examined[OTHER].inputs == before[OTHER]
    left = examined[PRODUCT].scanned.versions
    assert left is not None
    assert [[file.name for file in one.files] for one in left] == [["incus.tar.xz"]] * len(files)
    assert not examined[PRODUCT].scanned.findings
    newer = {VERSION: Withdrawal(files=files, withdrawn_at=OLD_NS / 1e9 - 1)}
    again = examine_all(mirror, make_inputs(mirror, withdrawn=newer))[PRODUCT]
    (finding,) = again.scanned.findings
    assert (finding.code, finding.path) == (Code.VERSION_WITHDRAWN, VERSION)
    assert again.inputs != examined[PRODUCT].inputs


@pytest.mark.parametrize(("days", "is_made_again"), [(-1, False), (0, False), (3, True)])
def test_a_product_with_a_version_dated_in_the_future_is_made_again(
    mirror: Mirror, days: int, is_made_again: bool
) -> None:
    """What is said of it is true only until then."""
    day = f"{datetime.now(UTC) + timedelta(days=days):%Y%m%d}"
    write_tree(Path(mirror.root), {f"{PRODUCT}/{day}/incus.tar.xz": b"x"})
    found = digests(mirror)
    assert (found[PRODUCT] == b"") is is_made_again
    assert found[OTHER] != b""
    known = known_products(mirror)
    examined = examine_all(mirror, make_inputs(mirror, known))
    assert (examined[PRODUCT].known is None) is is_made_again


def test_who_rehashes_knows_nothing(mirror: Mirror) -> None:
    inputs = make_inputs(mirror, known_products(mirror, b"l"))
    options = BuildOptions(rehash=True)
    assert Examiner(mirror, options, inputs).listings == {}
    assert not any(one.known for one in examine_all(mirror, inputs, options).values())


def test_who_rechecks_looks_at_the_products_that_are_due(mirror: Mirror) -> None:
    inputs = make_inputs(mirror, known_products(mirror, b"l"))
    everything = BuildOptions(recheck="1/1")
    assert Examiner(mirror, everything, inputs).listings == {}
    assert not any(one.known for one in examine_all(mirror, inputs, everything).values())
    due = [
        path
        for day in range(2)
        for path, one in examine_all(
            mirror, inputs, BuildOptions(recheck="1/2", recheck_day=day)
        ).items()
        if one.known is None
    ]
    assert sorted(due) == [PRODUCT, OTHER]  # each once in two days


def test_a_product_that_must_be_made_again_has_no_inputs(mirror: Mirror) -> None:
    known = [replace(one, inputs=b"", listing=b"l") for one in known_products(mirror)]
    inputs = make_inputs(mirror, known)
    assert Examiner(mirror, BuildOptions(), inputs).listings == {}
    assert not any(one.known for one in examine_all(mirror, inputs).values())


def test_a_listing_vouches_for_a_product_of_which_nothing_else_is_noted(mirror: Mirror) -> None:
    known = known_products(mirror, b"l")

    def listings(**noted: object) -> set[str]:
        inputs = make_inputs(mirror, known, **noted)  # type: ignore[arg-type]
        return set(Examiner(mirror, BuildOptions(), inputs).listings)

    assert listings() == {PRODUCT, OTHER}
    assert listings(damaged=ROOT) == {OTHER}
    assert listings(withdrawn={VERSION: Withdrawal()}) == {OTHER}
    known[0] = replace(known[0], listing=b"")
    assert listings() == {known[1].path}


def test_what_a_listing_vouches_for_is_not_looked_at(mirror: Mirror) -> None:
    known = known_products(mirror, b"l")
    inputs = make_inputs(mirror, known)
    examiner = Examiner(mirror, BuildOptions(), inputs)
    by_path = {one.path: one for one in known}
    for scanned in scan(mirror):
        unread = ScannedProduct(scanned.product, b"l", None, [])
        examined = examiner.examine(unread)
        assert examined.known == by_path[scanned.product.path]
        assert examined.inputs == by_path[scanned.product.path].inputs


@pytest.mark.parametrize(
    "noted", [{"damaged": ROOT}, {"withdrawn": {VERSION: Withdrawal()}}, {"withdrawn": {}}]
)
def test_a_listing_does_not_vouch_for_what_is_noted_now(
    mirror: Mirror, noted: dict[str, Any]
) -> None:
    """Else the next run would keep the product when the note is gone, as prune --undo does."""

    def list_it(scanned: ScannedProduct) -> None:
        scanned.listing = b"l"

    examined = examine_all(mirror, make_inputs(mirror, **noted), change=list_it)
    is_noted = any(noted.values())
    assert examined[PRODUCT].scanned.listing == (b"" if is_noted else b"l")
    assert examined[OTHER].scanned.listing == b"l"
