from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.formats.checksums import Checksums
from fastindex.formats.content import HEAD_BYTES
from fastindex.formats.names import ProductName, classify
from fastindex.formats.simplestreams import CachedItem, decode_cache, encode
from fastindex.hashing.batches import BATCH_BYTES, MAX_BATCH_TASKS, count_bytes, group_tasks
from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, Digested, Failed, FileDigest
from fastindex.mirror.cache import NO_CACHE, Cached
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import CHANGED, Damage
from fastindex.mirror.state.deltas import DeltaRules
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations.plan import (
    PlannedVersion,
    can_recover,
    check_against_checksums,
    count_reused,
    find_damaged,
    find_delta_bases,
    find_future_stamps,
    find_missing_part,
    list_tasks,
    merge,
    note_damage,
    plan_version,
    read_again,
    read_damaged_again,
    select,
)
from fastindex.system.stamps import Stamp
from tests.support.contents import make_squashfs, make_tarball

PRODUCT = FoundProduct("images", ProductName("debian", "12", "amd64", "default"), "images/p", ())
DIGEST = "ab" * 32
OTHER = "cd" * 32


def found(name: str = "20240505", **sizes: int) -> FoundVersion:
    """A version of files, ``_`` for ``.``; a file's size is its inode too."""
    files: list[FoundFile] = []
    for key, size in sizes.items():
        role = classify(key.replace("_", "."))
        assert role is not None
        files.append(FoundFile(key.replace("_", "."), role, Stamp(size, 5, 1, size)))
    return FoundVersion(name, f"images/p/{name}", tuple(files))


def planned(version: FoundVersion, cached: Cached = NO_CACHE) -> PlannedVersion:
    selection, _ = select(version, frozenset())
    return plan_version(PRODUCT, version, selection, cached)


def names(files: Iterable[FoundFile]) -> list[str]:
    return [file.name for file in files]


def test_one_file_an_ftype_takes_part() -> None:
    version = found(incus_tar_xz=1, root_squashfs=2, rootfs_squashfs=3, rootfs_tar_gz=4)
    selection, (finding,) = select(version, frozenset())
    assert names(selection.roots) == ["rootfs.squashfs", "rootfs.tar.gz"]
    assert finding.path == "images/p/20240505/root.squashfs"
    assert finding.files_left_out == 1


def test_a_file_that_took_over_an_inode_is_another() -> None:
    """The first was removed between the looks at both."""
    role = classify("rootfs.squashfs")
    assert role is not None
    roots = [FoundFile("rootfs.squashfs", role, Stamp(size, 5, 1, 7)) for size in (2, 3)]
    old, new = (
        FoundVersion(
            f"2024050{root.stamp.size_bytes}", f"images/p/{root.stamp.size_bytes}", (root,)
        )
        for root in roots
    )
    tasks = list_tasks(Mirror.at("/r"), [planned(old), planned(new)])
    assert [task.root.stamp.size_bytes for task in tasks] == [2, 3]


def test_the_delta_from_the_newest_base_takes_part() -> None:
    old = found("20240501", incus_tar_xz=1, rootfs_squashfs=2)
    middle = found("20240502", incus_tar_xz=3, rootfs_squashfs=4)
    without_squashfs = found("20240503", incus_tar_xz=3, disk_qcow2=4)
    files = found("20240505", incus_tar_xz=5, rootfs_squashfs=6).files
    deltas = []
    for base in ("20240501", "20240502", "20240503", "20240404", "20240505"):
        role = classify(f"rootfs.{base}.vcdiff")
        assert role is not None
        deltas.append(FoundFile(f"rootfs.{base}.vcdiff", role, Stamp(9, 5, 1, 9)))
    new = FoundVersion("20240505", "images/p/20240505", (*files, *deltas))
    selection, findings = select(new, find_delta_bases([old, middle, without_squashfs, new]))
    assert names(selection.singles) == ["rootfs.20240502.vcdiff"]
    assert not findings


@pytest.mark.parametrize(
    ("rules", "chosen"),
    [
        (DeltaRules(), ["rootfs.20240502.vcdiff"]),
        (DeltaRules(2), ["rootfs.20240501.vcdiff", "rootfs.20240502.vcdiff"]),
        (DeltaRules(9), ["rootfs.20240501.vcdiff", "rootfs.20240502.vcdiff"]),
        (
            DeltaRules(1, with_machines=True),
            ["rootfs.20240502.vcdiff", "disk.20240502.qcow2.vcdiff"],
        ),
    ],
)
def test_as_many_deltas_as_are_wanted_take_part(rules: DeltaRules, chosen: list[str]) -> None:
    bases = [found(f"2024050{n}", incus_tar_xz=1, rootfs_squashfs=2, disk_qcow2=3) for n in (1, 2)]
    deltas = [
        FoundFile(name, role, Stamp(9, 5, 1, 9))
        for base in ("20240501", "20240502")
        for name in (
            f"delta-{base}.vcdiff",
            f"rootfs.{base}.vcdiff",  # one from each base is enough
            f"disk.{base}.qcow2.vcdiff",
        )
        if (role := classify(name)) is not None
    ]
    files = found("20240503", incus_tar_xz=5, rootfs_squashfs=6, disk_qcow2=7).files
    new = FoundVersion("20240503", "images/p/20240503", (*files, *deltas))
    selection, _ = select(new, find_delta_bases([*bases, new]), rules)
    assert sorted(names(selection.singles)) == sorted(chosen)


def test_a_delta_without_a_squashfs_beside_it_takes_no_part() -> None:
    base = found("20240501", incus_tar_xz=1, rootfs_squashfs=2)
    role = classify("rootfs.20240501.vcdiff")
    assert role is not None
    delta = FoundFile("rootfs.20240501.vcdiff", role, Stamp(9, 5, 1, 9))
    files = found(incus_tar_xz=3, disk_qcow2=4).files
    new = FoundVersion("20240505", "images/p/20240505", (*files, delta))
    selection, _ = select(new, find_delta_bases([base, new]))
    assert not selection.singles


def test_a_version_needs_metadata_and_a_root_or_a_unified_image() -> None:
    for version, is_whole in (
        (found(incus_tar_xz=1, disk_qcow2=2), True),
        (found(lxd_tar_gz=1, uefi1_img=2), True),
        (found(incus_tar_xz=1), False),
        (found(disk_qcow2=2), False),
        (found(), False),
        (FoundVersion("20240505", "p", unified().files), True),
    ):
        selection, _ = select(version, frozenset())
        missing = find_missing_part(version, selection)
        assert (missing is None) is is_whole
        if missing is not None:
            assert missing.versions_left_out == 1


def unified() -> FoundVersion:
    role = classify("incus_combined.tar.xz")
    assert role is not None
    file = FoundFile("incus_combined.tar.xz", role, Stamp(3, 5, 1, 3))
    return FoundVersion("20240505", "images/p/20240505", (file,))


def cached_item(file: FoundFile, **fields: str) -> CachedItem:
    item = CachedItem(
        ftype=file.role.ftype,
        path=f"images/p/20240505/{file.name}",
        size=file.stamp.size_bytes,
        sha256=DIGEST,
        key=file.stamp.key,
    )
    return replace(item, **fields)


def full_cache(version: FoundVersion) -> dict[str, CachedItem]:
    fingerprints = {"combined_squashfs_sha256": DIGEST, "combined_disk_kvm_img_sha256": DIGEST}
    return {
        file.name: cached_item(file, **(fingerprints if file.role.kind == "metadata" else {}))
        for file in version.files
    }


VERSION = found(incus_tar_xz=1, lxd_tar_xz=2, rootfs_squashfs=3, disk_qcow2=4)


def test_nothing_is_read_where_all_keys_hold() -> None:
    plan = planned(VERSION, Cached(full_cache(VERSION), 0))
    assert not plan.pending
    assert count_reused(plan) == 4


def test_a_root_is_read_where_its_own_or_a_metadatas_key_fails() -> None:
    for stale, pending in (
        ("rootfs.squashfs", ["rootfs.squashfs"]),
        ("disk.qcow2", ["disk.qcow2"]),
        ("lxd.tar.xz", ["rootfs.squashfs", "disk.qcow2"]),
    ):
        items = full_cache(VERSION)
        del items[stale]
        plan = planned(VERSION, Cached(items, 0))
        assert names(plan.pending) == pending


def test_a_root_is_read_where_a_fingerprint_is_missing() -> None:
    items = full_cache(VERSION)
    items["incus.tar.xz"] = cached_item(VERSION.files[0], combined_squashfs_sha256=DIGEST)
    plan = planned(VERSION, Cached(items, 0))
    assert names(plan.pending) == ["disk.qcow2"]
    assert count_reused(plan) == 1


def test_hard_links_are_one_task_with_all_their_metadata() -> None:
    one = found("20240505", incus_tar_xz=1, rootfs_squashfs=3)
    other = found("20240506", incus_tar_xz=2, rootfs_squashfs=3)
    (task,) = list_tasks(Mirror.at("/r"), [planned(one), planned(other)])
    assert task.root.path == "/r/images/p/20240505/rootfs.squashfs"
    assert [ref.stamp.inode for ref in task.metadata] == [1, 2]
    assert count_bytes([task]) == 1 + 2 + 3


def batches(versions: Iterable[FoundVersion]) -> deque[Batch]:
    return group_tasks(
        list_tasks(Mirror.at("/r"), map(planned, versions)), Strategy(1), wants_blake3=False
    )


def test_the_largest_are_first_and_alone_the_small_together() -> None:
    versions = [
        found(f"{20240000 + number}", incus_tar_xz=1, rootfs_squashfs=size)
        for number, size in enumerate((7, BATCH_BYTES, 8, 2 * BATCH_BYTES, 9))
    ]
    made = batches(versions)
    assert [[task.root.stamp.size_bytes for task in batch.tasks] for batch in made] == [
        [2 * BATCH_BYTES],
        [BATCH_BYTES],
        [7, 8, 9],
    ]


def test_batches_of_small_roots_stay_small() -> None:
    versions = [
        found(f"{20240000 + number}", incus_tar_xz=1, rootfs_squashfs=10 + number)
        for number in range(3 * MAX_BATCH_TASKS)
    ]
    made = batches(versions)
    assert [len(batch.tasks) for batch in made] == [MAX_BATCH_TASKS] * 3
    half = [found(f"{20240000 + n}", incus_tar_xz=1, disk_qcow2=BATCH_BYTES - n) for n in (1, 2)]
    assert [len(batch.tasks) for batch in batches(half)] == [1, 1]


def digested(fingerprint: str = OTHER, key: str = "k", lxd_fails: bool = False) -> Digested:
    lxd = (
        Failed(Code.UNREADABLE, "cannot be read", "fix it")
        if lxd_fails
        else FileDigest(OTHER, "", key)
    )
    fingerprints = (
        {Stamp(1, 5, 1, 1): fingerprint}
        if lxd_fails
        else {Stamp(1, 5, 1, 1): fingerprint, Stamp(2, 5, 1, 2): DIGEST}
    )
    metadata: dict[Stamp, FileDigest | Failed] = {
        Stamp(1, 5, 1, 1): FileDigest(OTHER, "", key),
        Stamp(2, 5, 1, 2): lxd,
    }
    return Digested(FileDigest(OTHER, "", key), metadata, fingerprints, 6, 3)


def test_merging_keeps_exactly_the_fingerprints_that_hold() -> None:
    items = full_cache(VERSION)
    del items["disk.qcow2"]
    plan = planned(VERSION, Cached(items, 0))
    merged, findings = merge(plan, {Stamp(4, 5, 1, 4): digested()})
    assert not findings
    assert merged["disk.qcow2"].sha256 == OTHER
    incus = merged["incus.tar.xz"]
    assert incus.combined_disk_kvm_img_sha256 == OTHER
    assert incus.combined_squashfs_sha256 == DIGEST
    unread, _ = merge(plan, {})
    assert unread["incus.tar.xz"].combined_disk_kvm_img_sha256 == ""
    assert "disk.qcow2" not in unread


def test_old_clients_find_the_tarballs_fingerprint() -> None:
    version = found(incus_tar_xz=1, lxd_tar_xz=2, rootfs_tar_xz=3)
    merged, _ = merge(planned(version), {Stamp(3, 5, 1, 3): digested()})
    assert merged["incus.tar.xz"].combined_sha256 == OTHER
    assert merged["incus.tar.xz"].combined_rootxz_sha256 == OTHER


def test_failures_become_findings_of_the_files_own_path() -> None:
    version = found(incus_tar_xz=1, lxd_tar_xz=2, rootfs_squashfs=3)
    merged, (finding,) = merge(planned(version), {Stamp(3, 5, 1, 3): digested(lxd_fails=True)})
    assert finding.path == "images/p/20240505/lxd.tar.xz"
    assert "lxd.tar.xz" not in merged
    merged, (finding,) = merge(
        planned(version), {Stamp(3, 5, 1, 3): Failed(Code.UNREADABLE, "was removed", "run again")}
    )
    assert finding.path == "images/p/20240505/rootfs.squashfs"
    assert (finding.files_left_out, finding.versions_left_out) == (1, 0)
    _, (finding,) = merge(
        planned(version),
        {Stamp(3, 5, 1, 3): Failed(Code.UNREADABLE, "died", "", costs_version=True)},
    )
    assert (finding.files_left_out, finding.versions_left_out) == (0, 1)


def test_stamps_in_the_future_are_told() -> None:
    plan = planned(found(incus_tar_xz=1, lxd_tar_xz=2, rootfs_squashfs=3))
    items, _ = merge(plan, {Stamp(3, 5, 1, 3): digested()})
    assert not find_future_stamps(plan, items, now_ns=5)
    assert len(find_future_stamps(plan, items, now_ns=4)) == 3


def with_head(content: bytes) -> FileDigest:
    return FileDigest(OTHER, "", "k", True, content[:HEAD_BYTES])


def linked(*names: str) -> list[FoundVersion]:
    """Return a version for each name of one and the same file, each with its own metadata."""
    versions = []
    for number, name in enumerate(names):
        metadata, root = classify("incus.tar.xz"), classify(name)
        assert metadata is not None
        assert root is not None
        day = f"2024050{number}"
        files = (
            FoundFile("incus.tar.xz", metadata, Stamp(1, 5, 1, number)),
            FoundFile(name, root, Stamp(2000, 5, 1, 99)),
        )
        versions.append(FoundVersion(day, f"images/p/{day}", files))
    return versions


def test_a_file_of_several_names_is_one_task_with_all_of_its_paths_and_roles() -> None:
    versions = linked("rootfs.squashfs", "disk.qcow2", "rootfs.squashfs")
    (task,) = list_tasks(Mirror.at("/r"), map(planned, versions))
    assert task.root.path == "/r/images/p/20240500/rootfs.squashfs"
    assert task.root.other_paths == (
        "/r/images/p/20240501/disk.qcow2",
        "/r/images/p/20240502/rootfs.squashfs",
    )
    assert [role.ftype for role in task.root.roles] == ["squashfs", "disk-kvm.img"]
    assert [metadata.path for metadata in task.metadata] == [
        f"/r/images/p/2024050{number}/incus.tar.xz" for number in range(3)
    ]


def test_each_name_of_a_file_is_judged_by_itself() -> None:
    """A stranger's link called ``disk.qcow2`` costs his own version, not the squashfs of others."""
    squashfs, disk = map(planned, linked("rootfs.squashfs", "disk.qcow2"))
    content = make_squashfs(bytes(1904))
    tarball = make_tarball({})
    outcome = Digested(
        with_head(content),
        {Stamp(1, 5, 1, number): with_head(tarball) for number in range(2)},
        {Stamp(1, 5, 1, number): DIGEST for number in range(2)},
        1,
        1,
    )
    outcomes = {Stamp(2000, 5, 1, 99): outcome}
    items, findings = merge(squashfs, outcomes)
    assert not findings
    assert items["rootfs.squashfs"].checked
    assert items["incus.tar.xz"].checked
    items, (finding,) = merge(disk, outcomes)
    assert "disk.qcow2" not in items
    assert (finding.code, finding.files_left_out) == (Code.WRONG_CONTENT, 1)
    assert finding.path == "images/p/20240501/disk.qcow2"


def test_a_file_that_fits_none_of_its_names_is_told_for_each_in_its_words() -> None:
    squashfs, disk = map(planned, linked("rootfs.squashfs", "disk.qcow2"))
    failed = Failed(Code.WRONG_CONTENT, "is not a squashfs", "x", head=b"<html>")
    for plan, words in ((squashfs, "not a squashfs"), (disk, "not a qcow2 disk")):
        _, (finding,) = merge(plan, {Stamp(2000, 5, 1, 99): failed})
        assert words in finding.problem
        assert "(an HTML page)" in finding.problem


def test_metadata_that_is_none_is_told_under_its_own_name() -> None:
    plan = planned(found(incus_tar_xz=1, lxd_tar_xz=2, rootfs_squashfs=3))
    page = Failed(Code.WRONG_CONTENT, "x", "y", head=b"<html>")
    failures = {Stamp(1, 5, 1, 1): page, Stamp(2, 5, 1, 2): page}
    outcome = Failed(page.code, page.problem, page.remedy, metadata=failures)
    items, findings = merge(plan, {Stamp(3, 5, 1, 3): outcome})
    assert items == {}
    assert [finding.path for finding in findings] == [
        "images/p/20240505/incus.tar.xz",
        "images/p/20240505/lxd.tar.xz",
    ]
    assert {finding.code for finding in findings} == {Code.WRONG_CONTENT}


def test_what_is_read_again_for_any_reason_is_compared_with_what_is_known() -> None:
    items = full_cache(VERSION)
    del items["lxd.tar.xz"]  # a new file: all roots are read again
    plan = planned(VERSION, Cached(items, 0))
    assert set(plan.known) == {"incus.tar.xz", "rootfs.squashfs", "disk.qcow2"}
    outcomes = {Stamp(3, 5, 1, 3): digested(), Stamp(4, 5, 1, 4): digested()}
    merged, _ = merge(plan, outcomes)
    assert find_damaged(plan, merged) == ["incus.tar.xz", "rootfs.squashfs", "disk.qcow2"]
    assert find_damaged(plan, plan.known) == []
    assert find_damaged(planned(VERSION), merged) == []


def test_reading_again_takes_all_files_and_forgets_nothing() -> None:
    plan = planned(VERSION, Cached(full_cache(VERSION), 0))
    again = read_again(plan)
    assert names(again.pending) == ["rootfs.squashfs", "disk.qcow2"]
    assert again.items == {}
    assert again.known == plan.known == full_cache(VERSION)


def test_a_recorded_digest_goes_before_the_cache() -> None:
    """Another output may have accepted the wrong bytes."""
    plan = planned(VERSION, Cached(full_cache(VERSION), 0))
    damaged = {"rootfs.squashfs": Damage("k", CHANGED, OTHER), "disk.qcow2": Damage("k")}
    again = read_damaged_again(plan, damaged)
    assert (again.pending, again.items) == (read_again(plan).pending, {})
    assert again.find_right_digest("rootfs.squashfs") == OTHER
    assert again.find_right_digest("disk.qcow2") == DIGEST
    assert again.find_right_digest("another") == ""
    assert find_damaged(again, plan.known) == ["rootfs.squashfs"]


@pytest.mark.parametrize(
    ("damage", "is_cached", "can"),
    [
        (Damage("k", CHANGED, DIGEST), False, True),
        (Damage("k", CHANGED), True, True),
        (Damage("k", CHANGED), False, False),
        (Damage("k", "cannot be read"), False, True),
    ],
)
def test_wrong_bytes_can_be_judged_only_by_the_digest_of_the_right_ones(
    damage: Damage, is_cached: bool, can: bool
) -> None:
    plan = planned(VERSION, Cached(full_cache(VERSION), 0) if is_cached else NO_CACHE)
    assert can_recover(plan, {"rootfs.squashfs": damage}) is can


def test_damage_is_noted_beside_the_digests_of_the_right_bytes() -> None:
    cache = full_cache(VERSION)
    was_damaged = {"damaged": CHANGED, "changed_ns": 1}
    known = {name: replace(item, **was_damaged) for name, item in cache.items()}
    del known["lxd.tar.xz"]
    plan = planned(VERSION, Cached(known, 0))
    damaged = {
        "rootfs.squashfs": Damage("k", "cannot be read", DIGEST, 7),
        "lxd.tar.xz": Damage("k", CHANGED, OTHER, 8),
    }
    noted = note_damage(plan, {"incus.tar.xz": cache["incus.tar.xz"]}, damaged)
    assert noted.pop("incus.tar.xz") == cache["incus.tar.xz"]  # all right by now
    assert noted.pop("disk.qcow2") == known["disk.qcow2"]  # not read
    root = noted.pop("rootfs.squashfs")
    assert root == replace(cache["rootfs.squashfs"], damaged="cannot be read", changed_ns=7)
    lxd = noted.pop("lxd.tar.xz")
    assert (lxd.sha256, lxd.key, lxd.damaged, lxd.changed_ns) == (OTHER, "k", CHANGED, 8)
    assert (lxd.path, lxd.size) == (cache["lxd.tar.xz"].path, cache["lxd.tar.xz"].size)
    assert noted == {}


def test_bytes_that_another_output_accepted_are_not_noted_as_damaged() -> None:
    plan = planned(VERSION, Cached(full_cache(VERSION), 0))
    assert note_damage(plan, {}, {"disk.qcow2": Damage("k", CHANGED, OTHER, 7)}) == plan.known


def test_what_is_noted_can_be_read_back() -> None:
    problem = "cannot be read (" + "x" * 300
    plan = planned(VERSION, Cached(full_cache(VERSION), 0))
    noted = note_damage(plan, {}, {"disk.qcow2": Damage("k", problem, DIGEST, 7)})
    assert noted["disk.qcow2"].damaged == problem[:200]
    assert decode_cache(encode(noted)) == noted


BOTH = ["incus.tar.xz", "rootfs.squashfs"]


@pytest.mark.parametrize(
    ("digests", "problem", "wrong", "told"),
    [
        ({"rootfs.squashfs": DIGEST}, "", [], 0),
        ({"rootfs.squashfs": OTHER}, "", ["rootfs.squashfs"], 0),
        (
            {"rootfs.squashfs": OTHER, "incus.tar.xz": OTHER},
            "",
            ["incus.tar.xz", "rootfs.squashfs"],
            0,
        ),
        ({"rootfs.squashfs": OTHER, "incus.tar.xz": DIGEST}, "", ["rootfs.squashfs"], 0),
        ({"build.log": OTHER}, "", [], 1),
        ({"x/rootfs.squashfs": OTHER}, "", [], 1),
        ({}, "is empty", [], 1),
        ({"rootfs.squashfs": OTHER}, "contradicts itself", ["rootfs.squashfs"], 1),
    ],
)
def test_a_version_is_held_against_its_checksums(
    digests: dict[str, str], problem: str, wrong: list[str], told: int
) -> None:
    version = found(incus_tar_xz=1, rootfs_squashfs=3)
    selection, _ = select(version, frozenset())
    cached = Cached(full_cache(version), 0)
    plan = plan_version(PRODUCT, version, selection, cached, Checksums(digests, problem))
    findings = check_against_checksums(plan, plan.items)
    mismatches = [one for one in findings if one.code is Code.CHECKSUM_MISMATCH]
    assert [one.path for one in mismatches] == [f"images/p/20240505/{name}" for name in wrong]
    assert sum(one.versions_left_out for one in mismatches) == bool(wrong)
    (*useless,) = (one for one in findings if one.code is Code.BAD_CHECKSUMS)
    assert [one.path for one in useless] == ["images/p/20240505/SHA256SUMS"] * told
    assert not any(one.versions_left_out or one.files_left_out for one in useless)
    assert not check_against_checksums(planned(version), plan.items)
