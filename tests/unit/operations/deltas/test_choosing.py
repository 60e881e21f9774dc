"""Which deltas are wanted, and how many fit into memory."""

from __future__ import annotations

import pytest

from fastindex.formats.simplestreams import Item, Product, Version
from fastindex.mirror.state.deltas import DeltaRules
from fastindex.operations.deltas.choosing import (
    Root,
    WantedDelta,
    choose_deltas,
    count_jobs,
    estimate_memory,
    find_window_bytes,
    group_by_version,
)

TOP = "images/debian/12/amd64/default"


def item(version: str, name: str = "rootfs.squashfs", **fields: str) -> Item:
    ftype = {"rootfs.squashfs": "squashfs", "disk.qcow2": "disk-kvm.img"}.get(name, "")
    values = {"ftype": ftype, "path": f"{TOP}/{version}/{name}", "sha256": "0" * 64, **fields}
    return Item(size=5, **values)


def product(*items: tuple[str, Item]) -> Product:
    versions: dict[str, Version] = {}
    for number, (name, one) in enumerate(items):
        known = versions.get(name, Version(items={})).items
        versions[name] = Version(items={**known, str(number): one})
    return Product(versions=versions)


def chosen(found: Product, per_root: int = 1, *, vm: bool = False) -> list[tuple[str, bool]]:
    rules = DeltaRules(per_root, vm)
    return [(one.path, one.is_published) for one in choose_deltas("images", found, rules)]


def test_the_newest_gets_one_from_each_of_those_before_it() -> None:
    days = ["20240503", "20240501", "20240504", "20240502"]
    found = product(*((day, item(day)) for day in days))
    assert chosen(found) == [(f"{TOP}/20240504/delta-20240503.vcdiff", False)]
    assert [path[-15:-7] for path, _ in chosen(found, 2)] == ["20240502", "20240503"]
    assert len(chosen(found, 9)) == 3
    assert chosen(product(("20240501", item("20240501")))) == []
    assert chosen(product()) == []


def test_what_is_published_is_known_by_its_base() -> None:
    delta = item("20240502", "x.vcdiff", ftype="squashfs.vcdiff", delta_base="20240501")
    other = item("20240502", "y.vcdiff", ftype="disk-kvm.img.vcdiff", delta_base="20240501")
    both = [(day, item(day)) for day in ("20240501", "20240502")]
    assert [known for _, known in chosen(product(*both, ("20240502", delta)))] == [True]
    assert [known for _, known in chosen(product(*both, ("20240502", other)))] == [False]


def test_disks_count_where_they_are_asked_for() -> None:
    both = [(day, item(day, "disk.qcow2")) for day in ("20240501", "20240502")]
    assert chosen(product(*both)) == []
    assert chosen(product(*both), vm=True) == [
        (f"{TOP}/20240502/delta-20240501.qcow2.vcdiff", False)
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd/a/b/c/20240502/rootfs.squashfs",
        f"{TOP}/../20240502/rootfs.squashfs",
        "images/debian/12/../default/20240502/rootfs.squashfs",
        "images/debian/12/amd64/20240502/rootfs.squashfs",
        "daily/debian/12/amd64/default/20240502/rootfs.squashfs",
        "images/debian/13/amd64/default/20240502/rootfs.squashfs",
        f"{TOP}/20240501/rootfs.squashfs",
        f"{TOP}/20240502/other.squashfs",
        f"{TOP}/20240502/rootfs.tar.xz",
    ],
)
def test_what_another_tool_has_elsewhere_gets_none(path: str) -> None:
    found = product(("20240501", item("20240501")), ("20240502", item("20240502", path=path)))
    assert chosen(found) == []


@pytest.mark.parametrize("base", ["20240501%41", "20240501.qcow2", "20240501" + "x" * 240])
def test_a_base_by_whose_name_no_delta_can_be_called_gives_none(base: str) -> None:
    assert chosen(product((base, item(base)), ("20240502", item("20240502")))) == []


def root(size_bytes: int) -> Root:
    return Root("x", size_bytes, "")


def wanted(version: str, base_bytes: int, target_bytes: int = 1) -> WantedDelta:
    return WantedDelta("d", version, "b", root(base_bytes), root(target_bytes), "squashfs", False)


@pytest.mark.parametrize(
    ("size", "window"),
    [(1, 1 << 19), ((1 << 20) - 1, 1 << 20), (1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 21)],
)
def test_the_window_has_room_for_all_of_the_base(size: int, window: int) -> None:
    assert find_window_bytes(root(size)) == window


def test_the_window_is_no_larger_than_xdelta3_takes() -> None:
    assert find_window_bytes(root(5 << 30)) == 1 << 31
    assert estimate_memory(root(5 << 30)) == (2 << 30) + (1 << 30) + (64 << 20)


def test_as_many_jobs_as_fit() -> None:
    some = [wanted(f"v{number}", 128 << 20) for number in range(5)]
    each = estimate_memory(root(128 << 20))
    assert count_jobs(some, 9, 100 * each) == (5, 5 * each)
    assert count_jobs(some, 2, 100 * each) == (2, 2 * each)
    assert count_jobs(some, 9, 3 * each + 5) == (3, 3 * each)
    assert count_jobs(some, 9, 1) == (1, each)
    assert count_jobs([], 9, 1) == (0, 0)


def test_what_takes_longest_comes_first() -> None:
    some = [wanted("a", 1), wanted("b", 5), wanted("a", 7), wanted("c", 2, 7)]
    groups = [[one.version for one in group] for group in group_by_version(some)]
    assert groups == [["a", "a"], ["c"], ["b"]]
