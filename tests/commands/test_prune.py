"""``fastindex prune`` and ``remove``: out of the catalogue first, off the disk later."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex import Mirror
from fastindex.catalogue.published import read_published_paths
from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.formats.names import ProductName, classify
from fastindex.mirror import mirror as places
from fastindex.mirror.tree import Found, FoundFile, FoundProduct, FoundVersion
from fastindex.operations.prune.deletion import Deletion
from fastindex.operations.prune.retention import choose_versions_to_withdraw
from fastindex.system.stamps import Stamp
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.contents import make_squashfs
from tests.support.file_systems import file_system_of
from tests.support.sizes import sized, spread
from tests.support.trees import (
    OLD_NS,
    Files,
    catalogue,
    in_stream,
    published,
    stamps,
    version,
    write_file,
    write_tree,
)

PRODUCT = "debian/12/amd64/default"
DAYS = [f"2024050{day}_05:24" for day in range(1, 7)]


def found(*versions: tuple[str, Iterable[str]]) -> Found:
    made = []
    for name, files in versions:
        roles = [(file, classify(file)) for file in files]
        made.append(
            FoundVersion(
                name,
                f"images/{PRODUCT}/{name}",
                tuple(FoundFile(file, role, Stamp(1, 1, 1, 1)) for file, role in roles if role),
            )
        )
    product = FoundProduct("images", ProductName(*PRODUCT.split("/")), f"images/{PRODUCT}", ())
    return product, made


WHOLE = ("incus.tar.xz", "rootfs.squashfs")


def going(
    product: Found,
    *,
    keep: int = 2,
    keep_days: int = 0,
    today: date = date(2024, 5, 6),
    published: Iterable[str] | None = None,
    young: Iterable[str] = (),
) -> list[str]:
    """Return the names of the versions that go; without ``published`` all are."""
    names = [one.name for one in product[1]] if published is None else published
    paths = {f"images/{PRODUCT}/{name}" for name in names}
    chosen = choose_versions_to_withdraw(
        [product], paths, keep, keep_days, today, lambda version: version.name in young
    )
    return [one.name for one in chosen]


@pytest.mark.parametrize(
    ("keep", "keep_days", "gone"),
    [(1, 0, 5), (2, 0, 4), (6, 0, 0), (9, 0, 0), (1, 1, 5), (1, 3, 3), (1, 99, 0), (3, 2, 3)],
)
def test_the_newest_and_the_young_stay(keep: int, keep_days: int, gone: int) -> None:
    product = found(*((day, WHOLE) for day in DAYS))
    assert going(product, keep=keep, keep_days=keep_days) == DAYS[:gone]


def test_without_days_no_date_keeps_a_version() -> None:
    product = found(*((day, WHOLE) for day in DAYS))
    assert going(product, keep=1, today=date(2024, 5, 1)) == DAYS[:5]


@pytest.mark.parametrize("keep_days", [630_000, 738_000, 800_000, 10**12])
def test_any_number_of_days_can_be_kept(keep_days: int) -> None:
    product = found(*((day, WHOLE) for day in DAYS))
    assert going(product, keep=1, keep_days=keep_days) == []


def test_what_is_no_image_does_not_count_as_one_that_stays() -> None:
    product = found((DAYS[0], WHOLE), (DAYS[1], WHOLE), (DAYS[2], ("incus.tar.xz",)))
    assert going(product, keep=1) == DAYS[:1]


def test_only_published_ones_count_as_those_that_stay() -> None:
    """The newest may turn out to be unreadable, and be left out by the build."""
    product = found(*((day, WHOLE) for day in DAYS))
    assert going(product, keep=2, published=DAYS[:3]) == DAYS[:1]
    assert going(product, keep=2, published=DAYS[1:5:2]) == DAYS[:1]
    assert going(product, keep=3, published=DAYS[3:5]) == []
    assert going(product, keep=1, published=()) == []


def test_an_old_version_that_is_being_uploaded_stays() -> None:
    product = found(*((day, WHOLE) for day in DAYS))
    assert going(product, keep=1, published=DAYS[3:], young=DAYS[:2]) == DAYS[2:5]
    assert going(product, keep=1, young=DAYS) == DAYS[:5]  # what is published is complete


def test_a_delta_keeps_no_version() -> None:
    """Where each version has one from the version before it, nothing would ever go."""
    days = [(day, (*WHOLE, f"delta-{base}.vcdiff")) for base, day in pairwise(DAYS)]
    assert going(found((DAYS[0], WHOLE), *days), keep=2) == DAYS[:-2]


@given(
    st.lists(st.sampled_from(DAYS), unique=True),
    st.integers(0, 5),
    st.integers(0, 9),
    st.sets(st.sampled_from(DAYS)),
)
def test_never_the_last_one(
    names: list[str], keep: int, keep_days: int, published: set[str]
) -> None:
    product = found(*((name, WHOLE) for name in sorted(names)))
    gone = going(product, keep=keep, keep_days=keep_days, published=published)
    assert not names or max(names) not in gone
    known = published & set(names)
    assert len(known - set(gone)) >= min(len(known), max(1, keep))


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return an indexed mirror of six versions of one product, and one of another."""
    tree = version("alpine/3/amd64/default/20240501")
    for day in DAYS:
        tree |= version(f"{PRODUCT}/{day}")
    made = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", made).returncode == 0
    return made


def on_disk(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "images" / PRODUCT).iterdir())


def in_catalogue(root: Path) -> list[str]:
    return sorted(name.split()[1] for name in published(root) if name.startswith("debian"))


def test_old_versions_are_withdrawn_first_and_deleted_after_the_grace(
    fastindex: Run, root: Path
) -> None:
    result = fastindex("prune", root)
    assert result.returncode == 0
    assert result.stdout.splitlines() == [f"withdrawn images/{PRODUCT}/{d}" for d in DAYS[:3]]
    assert in_catalogue(root) == DAYS[3:]
    assert on_disk(root) == DAYS
    # A nightly build in between does not publish them again.
    assert fastindex("--rehash", root).returncode == 0
    assert in_catalogue(root) == DAYS[3:]
    assert fastindex("prune", root).stdout == ""
    assert on_disk(root) == DAYS
    time.sleep(1.1)
    result = fastindex("prune", "--grace", "1s", root)
    assert result.stdout.splitlines() == [f"deleted images/{PRODUCT}/{d}" for d in DAYS[:3]]
    assert on_disk(root) == DAYS[3:]
    assert json.loads((root / "streams/.withdrawn.json").read_bytes()) == {}
    assert fastindex("verify", root).returncode == 0


def test_without_grace_all_happens_in_one_run(fastindex: Run, root: Path) -> None:
    result = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert result.returncode == 0
    assert on_disk(root) == in_catalogue(root) == DAYS[5:]


def test_more_than_half_may_go_on_purpose(fastindex: Run, root: Path) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    assert in_catalogue(root) == DAYS[5:]
    # But what goes for another reason is still held up by the brake.
    shutil.move(root / "images", root / "elsewhere")
    (root / "images").mkdir()
    assert fastindex("prune", root).returncode == 1
    assert in_catalogue(root) == DAYS[5:]


def test_a_dry_run_prints_the_plan_and_changes_nothing(fastindex: Run, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    result = fastindex("prune", "--dry-run", "--keep", "5", root)
    assert result.stdout.splitlines() == [
        f"withdraw images/{PRODUCT}/{DAYS[0]}",
        f"delete later images/{PRODUCT}/{DAYS[0]}",
    ]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_withdrawal_can_be_taken_back(fastindex: Run, root: Path) -> None:
    assert fastindex("prune", "--keep", "5", root).returncode == 0
    result = fastindex("prune", "--undo", f"{PRODUCT}/{DAYS[0]}", root)
    assert (result.returncode, result.stdout) == (0, f"published images/{PRODUCT}/{DAYS[0]}\n")
    assert in_catalogue(root) == DAYS
    result = fastindex("prune", "--undo", DAYS[0], root)
    assert result.returncode == 2
    assert "is not a withdrawn version" in result.stderr


@pytest.mark.parametrize(
    "word",
    [
        DAYS[0],
        f"default/{DAYS[0]}/",
        f"./images//{PRODUCT}/{DAYS[0]}",
        f"ROOT/images/{PRODUCT}/{DAYS[0]}",
        f"NAME/images/{PRODUCT}/{DAYS[0]}",
    ],
)
def test_what_is_published_again_may_be_named_as_for_remove(
    fastindex: Run, root: Path, word: str
) -> None:
    assert fastindex("prune", "--keep", "4", root).returncode == 0
    word = word.replace("ROOT", str(root)).replace("NAME", root.name)
    result = fastindex("prune", "--undo", word, root)
    assert (result.returncode, result.stdout) == (0, f"published images/{PRODUCT}/{DAYS[0]}\n")
    assert in_catalogue(root) == [DAYS[0], *DAYS[2:]]


@pytest.mark.parametrize("word", [PRODUCT, f"images/{PRODUCT}/", "debian:12:amd64:default"])
def test_a_product_can_be_published_again(fastindex: Run, root: Path, word: str) -> None:
    assert fastindex("remove", PRODUCT, "alpine/3", root).returncode == 0
    for number in range(3):
        shutil.rmtree(root / "images" / PRODUCT / DAYS[number])
    for option, verb in (("-n", "publish"), ("-v", "published")):
        result = fastindex("prune", "--undo", word, option, root)
        paths = [f"{verb} images/{PRODUCT}/{day}" for day in DAYS[3:]]
        assert (result.returncode, result.stdout.splitlines()) == (0, paths), result.stderr
    assert in_catalogue(root) == DAYS[3:]
    result = fastindex("prune", "--undo", word, root)
    assert (result.returncode, in_catalogue(root)) == (1, DAYS[3:])
    assert "are gone; import it again" in result.stderr


def test_what_fits_several_withdrawn_versions_is_not_published(fastindex: Run, root: Path) -> None:
    write_tree(root, version(f"zeta/1/amd64/default/{DAYS[0]}"))
    assert fastindex("-q", root).returncode == 0
    assert fastindex("remove", PRODUCT, "zeta/1", root).returncode == 0
    result = fastindex("prune", "--undo", DAYS[0], root)
    assert result.returncode == 2
    assert f"{DAYS[0]!r} fits several withdrawn versions" in result.stderr
    assert f"images/zeta/1/amd64/default/{DAYS[0]}" in result.stderr
    for word in ("debian", "", "."):
        result = fastindex("prune", "--undo", word, root)
        assert result.returncode == 2
        assert "is not a withdrawn version" in result.stderr


def test_a_dry_run_of_undo_neither_waits_for_the_lock_nor_writes(
    fastindex: Run, root: Path
) -> None:
    assert fastindex("prune", "--keep", "5", root).returncode == 0
    before = stamps(root)
    holder = (
        "import fcntl, sys; lock = open(sys.argv[1], 'r+'); fcntl.flock(lock, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, root / "streams/.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=UNMEASURED,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        version = f"{PRODUCT}/{DAYS[0]}"
        assert fastindex("prune", "--undo", version, root).returncode == 75
        result = fastindex("prune", "--undo", version, "--dry-run", root)
        process.communicate()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"publish images/{version}\n"
    assert stamps(root) == before
    assert DAYS[0] not in in_catalogue(root)


def test_a_version_of_a_stream_on_another_disk_is_deleted_without_naming_the_stream(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    """The stream is the operator's own symlink: there is none to remove."""
    other_disk, other = tmp_path / "disk", "ubuntu/24.04/amd64/default"
    for day in DAYS[:2]:
        tree = in_stream("daily", version(f"{other}/{day}"))
        write_tree(tmp_path / "disk", {path.removeprefix("daily/"): tree[path] for path in tree})
    (root / "daily").symlink_to(other_disk)
    assert fastindex("--stream", "daily", root).returncode == 0
    assert fastindex("prune", "--stream", "daily", "--keep", "1", root).returncode == 0
    assert (other_disk / other / DAYS[0]).exists()
    result = fastindex("prune", "--keep", "9", "--grace", "0", root)
    assert (result.returncode, result.stdout) == (0, f"deleted daily/{other}/{DAYS[0]}\n")
    assert "warning: " not in result.stderr
    assert sorted(os.listdir(other_disk / other)) == [DAYS[1]]


def test_a_version_that_is_named_again_meanwhile_stays(fastindex: Run, root: Path) -> None:
    """As by another tool, or a catalogue that was put back."""
    old = (root / "streams/v1/images.json").read_bytes()
    assert fastindex("prune", "--keep", "5", root).returncode == 0
    note = root / "streams/.withdrawn.json"
    noted = json.loads(note.read_bytes())
    noted[f"images/{PRODUCT}/{DAYS[0]}"]["unpublished_at"] -= 7200
    note.write_text(json.dumps(noted))
    (root / "streams/v1/images.json").write_bytes(old)
    # The build within the run takes it out again, and its grace starts anew.
    result = fastindex("prune", "--keep", "5", "--grace", "1h", root)
    assert on_disk(root) == DAYS
    assert result.returncode == 0


def test_what_is_being_uploaded_is_not_published(fastindex: Run, root: Path) -> None:
    new = f"{PRODUCT}/20240601"
    write_tree(root, version(new), mtime_ns=time.time_ns())
    assert fastindex("--settle", "1h", root).returncode == 0
    assert fastindex("prune", "--settle", "1h", root).returncode == 0
    assert "20240601" not in in_catalogue(root)
    assert fastindex("remove", "--settle", "1h", "alpine/3", root).returncode == 0
    assert in_catalogue(root) == DAYS[3:]
    assert fastindex("prune", root).returncode == 0
    assert "20240601" in in_catalogue(root)


def test_as_many_versions_are_published_as_are_to_be_kept(fastindex: Run, root: Path) -> None:
    """One that came since the last build, as by an import, counts as well."""
    write_tree(root, version(f"{PRODUCT}/20240601"))
    assert fastindex("prune", "--keep", "3", root).returncode == 0
    assert in_catalogue(root) == [*DAYS[4:], "20240601"]
    broken = {f"images/{PRODUCT}/20240602/incus.tar.xz": b"i"}
    for days in ("20240603", "20240604"):
        write_tree(root, version(f"{PRODUCT}/{days}"), mtime_ns=time.time_ns())
    write_tree(root, broken)
    os.utime(root / "images" / PRODUCT / "20240602", ns=(OLD_NS, OLD_NS))
    assert fastindex("prune", "--keep", "3", "--settle", "1h", root).returncode == 3
    assert in_catalogue(root) == [*DAYS[4:], "20240601"]


@pytest.mark.parametrize("torn_away", ["index.json", "images.json"])
def test_the_last_published_version_stays_after_a_crash_between_two_files(
    fastindex: Run, root: Path, torn_away: str
) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    path = root / "streams/v1" / torn_away
    before = path.read_bytes()
    write_tree(root, version("new/1/amd64/default/20240501"))
    assert fastindex(root).returncode == 0
    path.write_bytes(before)  # as if the run had been killed before it wrote this file
    write_tree(root, version(f"{PRODUCT}/20240601"), mtime_ns=time.time_ns())  # being uploaded
    assert fastindex("prune", "--keep", "1", "--settle", "1h", root).returncode == 0
    assert in_catalogue(root) == DAYS[5:]
    assert "new:1:amd64:default 20240501" in published(root)


def test_what_cannot_be_read_does_not_push_out_what_is_published(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, version(f"{PRODUCT}/20240601"))
    path = root / f"images/{PRODUCT}/20240601/rootfs.squashfs"
    path.unlink()
    path.symlink_to("rootfs.squashfs")
    assert fastindex("prune", "--keep", "1", "--grace", "0", root).returncode == 3
    assert in_catalogue(root) == DAYS[5:]


def test_findings_are_told_once(fastindex: Run, root: Path) -> None:
    """Although a prune that withdraws builds twice."""
    write_tree(root, {f"images/{PRODUCT}/20240601/incus.tar.xz": b"alone"})
    result = fastindex("prune", "--keep", "1", root)
    assert result.stderr.count("20240601: has no usable root file") == 1
    (root / "images").rename(root / "elsewhere")
    (root / "images/a/b/c").mkdir(parents=True)
    (root / "images/a/b/c/d").write_bytes(b"")
    write_tree(root, version("debian/12/vax/default/20240501"))
    result = fastindex("prune", root)
    assert result.returncode == 1
    assert result.stderr.count("unknown architecture 'vax'") == 1


def test_unknown_files_stay_and_are_told(fastindex: Run, root: Path) -> None:
    (root / "images" / PRODUCT / DAYS[0] / "notes.txt").write_text("mine")
    result = fastindex("prune", "--keep", "5", "--grace", "0", root)
    assert result.returncode == 0
    left = f"images/{PRODUCT}/.{DAYS[0]}.pruned/notes.txt"
    assert f"do not belong to an image: {left}" in result.stderr
    hidden = root / "images" / PRODUCT / f".{DAYS[0]}.pruned"
    assert [path.name for path in hidden.iterdir()] == ["notes.txt"]
    assert on_disk(root) == [f".{DAYS[0]}.pruned", *DAYS[1:]]


def test_the_last_readable_version_is_not_deleted(fastindex: Run, root: Path) -> None:
    """Those that were to stay in its place may break during the grace."""
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    path = root / "images" / PRODUCT / DAYS[5] / "rootfs.squashfs"
    write_file(path, make_squashfs(b"?" * (path.stat().st_size - 96)))
    assert fastindex("--recheck", "1/1", root).returncode == 3
    assert in_catalogue(root) == []
    result = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert result.returncode == 3
    assert "nothing else of its product is published any more" in result.stderr
    assert on_disk(root) == DAYS
    assert fastindex("prune", "--undo", f"{PRODUCT}/{DAYS[4]}", root).returncode == 3
    assert in_catalogue(root) == [DAYS[4]]
    assert fastindex("prune", "--keep", "1", "--grace", "0", root).returncode == 3
    assert on_disk(root) == DAYS[4:]


def test_an_upload_that_goes_on_during_the_build_stays(root: Path) -> None:
    half, new = f"{PRODUCT}/20240404", f"{PRODUCT}/20240601"
    write_tree(root, {f"images/{half}/incus.tar.xz": b"half of it"})

    class Uploader(Observer):
        def hashing_finished(self) -> None:
            write_tree(root, {f"images/{half}/rootfs.squashfs": b"the rest"})

    write_tree(root, version(new))  # something to hash
    report = Mirror(root).prune(keep=9, observer=Uploader())
    assert (report.deleted, report.withdrawn) == ((), ())
    assert on_disk(root) == ["20240404", *DAYS, "20240601"]


@pytest.mark.parametrize("content", [b"{", b'{"index": {"images": {}}}'])
def test_what_an_illegible_catalogue_names_is_not_clear(root: Path, content: bytes) -> None:
    everything = read_published_paths(str(root))
    assert everything is not None
    assert f"images/{PRODUCT}/{DAYS[0]}/incus.tar.xz" in everything
    assert f"images/{PRODUCT}/{DAYS[0]}" in everything
    (root / "streams/v1/index.json").write_bytes(content)
    assert read_published_paths(str(root)) is None
    (root / "streams/v1/index.json").unlink()
    assert read_published_paths(str(root)) == set()
    (root / "streams/v1/index.json").mkdir()
    assert read_published_paths(str(root)) is None


def test_nothing_is_deleted_through_a_link(fastindex: Run, root: Path, tmp_path: Path) -> None:
    assert fastindex("prune", "--keep", "5", root).returncode == 0
    outside = (root / "images" / PRODUCT).rename(tmp_path / "outside")
    (root / "images" / PRODUCT).symlink_to(outside)
    result = fastindex("prune", "--grace", "0", root)
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in outside.iterdir()) == DAYS


@pytest.mark.parametrize("link", ["file", "version"])
def test_what_a_published_version_links_to_stays(fastindex: Run, root: Path, link: str) -> None:
    base, new = (root / "images" / PRODUCT / day for day in (DAYS[0], "20240601"))
    if link == "file":
        write_tree(root, {f"images/{PRODUCT}/20240601/incus.tar.xz": b"another"})
        (new / "rootfs.squashfs").symlink_to(f"../{DAYS[0]}/rootfs.squashfs")
    else:
        new.symlink_to(DAYS[0])
    result = fastindex("prune", "--keep", "1", "--grace", "0", root)
    told = f"{PRODUCT}/{DAYS[0]}: not deleted: images/{PRODUCT}/20240601"
    assert told in result.stderr
    assert "leads to its files" in result.stderr
    assert result.returncode == 3
    assert (base / "rootfs.squashfs").exists()
    assert on_disk(root) == [DAYS[0], "20240601"]
    assert fastindex("verify", root).returncode == 0


def test_a_disk_that_is_not_mounted_brings_nothing_back(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    for release in range(13, 20):
        write_tree(root, version(f"debian/{release}/amd64/default/20240505_05:24"))
    assert fastindex("remove", "debian/12", root).returncode == 0
    product = (root / "images" / PRODUCT).rename(tmp_path / "unmounted")
    result = fastindex("prune", "--grace", "0", root)
    assert result.returncode == 0
    assert "deleted" not in result.stdout
    product.rename(root / "images" / PRODUCT)
    assert fastindex(root).returncode == 0
    kept = {name for name in published(root) if name.startswith("debian:12:")}
    assert kept == {f"debian:12:amd64:default {day}" for day in DAYS[:-1]}
    assert fastindex("prune", "--keep", "9", "--grace", "0", root).returncode == 0
    assert on_disk(root) == DAYS[:-1]


@pytest.mark.parametrize("content", [b"", b"{", b'{"images/x": 1}', b"\0"])
def test_a_note_that_cannot_be_read_stops_all(fastindex: Run, root: Path, content: bytes) -> None:
    (root / "streams/.withdrawn.json").write_bytes(content)
    for command in ((), ("prune",)):
        result = fastindex(*command, root)
        assert result.returncode == 1
        assert ".withdrawn.json: cannot be read" in result.stderr
    assert in_catalogue(root) == DAYS


def test_the_lock_is_respected(fastindex: Run, root: Path) -> None:
    with (root / "streams/.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert fastindex("prune", root).returncode == 75
    assert in_catalogue(root) == DAYS


@pytest.fixture
def mixed(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror with a container and a virtual machine in each of two versions."""
    tree = {
        path: content
        for day in DAYS[:2]
        for path, content in version(
            f"{PRODUCT}/{day}",
            incus_tar_xz=f"i{day}".encode(),
            rootfs_squashfs=f"s{day}".encode(),
            disk_qcow2=f"d{day}".encode(),
        ).items()
    }
    made = write_tree(tmp_path / "mixed", tree)
    assert fastindex("-q", made).returncode == 0
    return made


def fingerprint(root: Path, day: str, field: str = "combined_squashfs_sha256") -> str:
    product = catalogue(root)["products"]["debian:12:amd64:default"]
    told: str = product["versions"][day]["items"]["incus.tar.xz"][field]
    return told


def test_an_image_is_removed_by_a_prefix_of_its_fingerprint(fastindex: Run, mixed: Path) -> None:
    prefix = fingerprint(mixed, DAYS[1])[:10]
    result = fastindex("remove", prefix, mixed)
    assert (result.returncode, result.stdout) == (0, f"withdrawn images/{PRODUCT}/{DAYS[1]}\n")
    items = catalogue(mixed)["products"]["debian:12:amd64:default"]["versions"][DAYS[1]]["items"]
    assert set(items) == {"incus.tar.xz", "lxd.tar.xz", "disk.qcow2"}
    assert fastindex("remove", "--grace", "0", prefix, mixed).returncode == 2  # gone already
    assert fastindex("prune", "--grace", "0", mixed).returncode == 0
    left = sorted(path.name for path in (mixed / "images" / PRODUCT / DAYS[1]).iterdir())
    assert left == [".items.json", "disk.qcow2", "incus.tar.xz"]
    assert fastindex("verify", mixed).returncode == 0


def test_an_alias_names_the_newest_images(fastindex: Run, mixed: Path) -> None:
    result = fastindex("remove", "--grace", "0", "debian/12", mixed)
    assert result.returncode == 0
    assert on_disk(mixed) == in_catalogue(mixed) == DAYS[:1]


def test_the_last_image_can_be_removed_one_by_one(fastindex: Run, mixed: Path) -> None:
    for field in ("combined_squashfs_sha256", "combined_disk-kvm-img_sha256"):
        result = fastindex("remove", fingerprint(mixed, DAYS[0], field), mixed)
        assert result.returncode == 0, result.stderr
    assert in_catalogue(mixed) == DAYS[1:2]
    assert fastindex("prune", "--grace", "0", mixed).returncode == 0
    assert on_disk(mixed) == DAYS[1:2]


def test_all_of_a_stream_can_be_removed(fastindex: Run, mixed: Path) -> None:
    """Else the mirror's one image could not be, and its note would stop every later build."""
    for left in (DAYS[:1], []):
        result = fastindex("remove", "--grace", "0", "debian/12", mixed)
        assert result.returncode == 0, result.stderr
        assert on_disk(mixed) == in_catalogue(mixed) == left
    assert fastindex("diff", mixed).returncode == 0
    assert fastindex(mixed).returncode == 0
    assert fastindex("verify", mixed).returncode == 0


def test_a_version_withdrawn_in_part_is_not_to_vanish(fastindex: Run, mixed: Path) -> None:
    """As when a disk is not mounted."""
    assert fastindex("remove", "debian/12", mixed).returncode == 0
    assert fastindex("remove", fingerprint(mixed, DAYS[0]), mixed).returncode == 0
    shutil.move(mixed / "images", mixed / "elsewhere")
    (mixed / "images").mkdir()
    result = fastindex(mixed)
    assert result.returncode == 1
    assert "no versions to publish" in result.stderr
    assert in_catalogue(mixed) == DAYS[:1]


def test_an_ambiguous_prefix_lists_the_candidates(fastindex: Run, tmp_path: Path) -> None:
    tree: Files = {}
    for number in range(600):
        tree |= version(
            f"debian/{number}/amd64/default/20240501",
            incus_tar_xz=b"i",
            rootfs_squashfs=b"%d" % number,
        )
    root = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", root).returncode == 0
    told = [row["fingerprint"] for row in json.loads(fastindex("list", "--json", root).stdout)]
    shared = next(one[:4] for one in told if sum(other.startswith(one[:4]) for other in told) > 1)
    result = fastindex("remove", shared, root)
    assert result.returncode == 2
    assert "fits several images" in result.stderr
    assert sum(line.strip().startswith(shared) for line in result.stderr.splitlines()) > 1
    assert len(published(root)) == 600


def test_what_names_nothing_is_told(fastindex: Run, mixed: Path) -> None:
    for word in ("debian/13", "0000", "abc", ""):
        result = fastindex("remove", word, mixed)
        assert result.returncode == 2
        assert "no published image" in result.stderr
        assert "4 digits or more" in result.stderr
        assert "no version or product" in result.stderr


def test_options_may_stand_between_the_names_and_root(fastindex: Run, mixed: Path) -> None:
    result = fastindex("remove", "debian/12", "--dry-run", mixed)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"withdraw images/{PRODUCT}/{DAYS[1]}\n")


def test_what_cannot_be_deleted_is_no_success(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, version: str) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), version)

    monkeypatch.setattr("fastindex.mirror.removal.remove_version", refuse)
    report = Mirror(root).prune(keep=5, grace_seconds=0)
    (finding,) = report.findings
    assert finding.problem == "cannot be deleted (Permission denied)"
    assert (report.deleted, report.waiting) == ((), (f"images/{PRODUCT}/{DAYS[0]}",))
    assert report.exit_code == 3


def test_nothing_is_deleted_while_a_stream_cannot_be_read(fastindex: Run, root: Path) -> None:
    write_tree(root, {f"other/{PRODUCT}/{DAYS[0]}/incus.tar.xz": b"i"})
    write_tree(root, {f"other/{PRODUCT}/{DAYS[0]}/rootfs.squashfs": b"s"})
    assert fastindex("--stream", "other", root).returncode == 0
    (root / "streams/v1/other.json").write_bytes(b"{")
    result = fastindex("prune", "--keep", "5", "--grace", "0", root)
    assert result.returncode == 3
    told = "cannot be read completely, so no old version was withdrawn or deleted; run fastindex"
    assert told in result.stderr
    assert on_disk(root) == in_catalogue(root) == DAYS


moment_count = sized("--moments", short=20, full=100)


@pytest.mark.parametrize("command", ["prune", "remove"])
def test_a_run_that_is_killed_is_gone_on_with(
    fastindex: Run, tmp_path: Path, command: str, moment_count: int
) -> None:
    original = tmp_path / "original"
    tree: Files = {}
    for day in DAYS:
        tree |= version(f"{PRODUCT}/{day}")
    write_tree(original, tree)
    assert fastindex("-q", original).returncode == 0
    words = ["--keep", "2"] if command == "prune" else ["debian/12"]
    kept = DAYS[4:] if command == "prune" else DAYS[:5]
    root = tmp_path / "root"
    arguments = [str(COMMAND), command, "--grace", "0", *words, str(root)]
    randomness = random.Random(command)
    shutil.copytree(original, root, symlinks=True)
    began = time.monotonic()
    subprocess.run(arguments, env=UNMEASURED, check=True, capture_output=True)
    usual_seconds = time.monotonic() - began
    for share in spread(moment_count, randomness):
        shutil.rmtree(root)
        shutil.copytree(original, root, symlinks=True)
        with subprocess.Popen(
            arguments, env=UNMEASURED, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            time.sleep((0.3 + 0.8 * share) * usual_seconds)
            os.kill(process.pid, signal.SIGKILL)
        for product in catalogue(root)["products"].values():
            for entry in product["versions"].values():
                for item in entry["items"].values():
                    assert (root / item["path"]).stat().st_size == item["size"]
        is_withdrawn = (root / "streams/.withdrawn.json").exists()
        if command == "prune" or not is_withdrawn:
            again = fastindex(*arguments[1:])
        else:  # the alias may name an older version by now: prune ends what was begun
            again = fastindex("prune", "--keep", "9", "--grace", "0", root)
        assert again.returncode == 0, again.stderr
        assert on_disk(root) == in_catalogue(root) == kept


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"keep_days": -1}, {"grace_seconds": -1}, {"grace_seconds": math.nan}]
)
def test_options_that_make_no_sense_are_refused_from_python_too(
    root: Path, wrong: dict[str, Any]
) -> None:
    before = on_disk(root)
    with pytest.raises(UsageError, match="must be"):
        Mirror(root).prune(**wrong)
    assert on_disk(root) == before


def test_a_withdrawal_that_the_build_could_not_publish_waits(root: Path) -> None:
    """The catalogue still names it, so its time has not begun."""
    path = f"images/{PRODUCT}/{DAYS[0]}"
    (root / "streams/.withdrawn.json").write_text(json.dumps({path: {"unpublished_at": 1}}))
    assert DAYS[0] in in_catalogue(root)
    deleted, waiting = Deletion(places.Mirror.at(root), 0, time.time()).delete_withdrawn()
    assert (deleted, waiting) == ([], [path])
    assert json.loads((root / "streams/.withdrawn.json").read_bytes()) == {path: {}}
    assert DAYS[0] in on_disk(root)


@pytest.mark.root
def test_a_version_in_a_read_only_tree_is_withdrawn_and_published_again(
    fastindex: Run, tmp_path: Path
) -> None:
    output = tmp_path / "www"
    with file_system_of("8m", tmp_path / "root") as root:
        write_tree(root, {**version(f"{PRODUCT}/{DAYS[0]}"), **version(f"{PRODUCT}/{DAYS[1]}")})
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        told = ("--output", output, "--cache-dir", tmp_path / "caches")
        assert fastindex(*told, root).returncode == 0
        assert fastindex("prune", "--keep", "1", *told, root).returncode == 0
        assert in_catalogue(output) == [DAYS[1]]
        result = fastindex("prune", "--undo", DAYS[0], *told, root)
        assert (result.returncode, in_catalogue(output)) == (0, DAYS[:2]), result.stderr


def test_the_report_has_what_the_build_left_out(root: Path) -> None:
    write_tree(root, {f"images/{PRODUCT}/20240601/incus.tar.xz": b"alone"})
    for report in (Mirror(root).prune(keep=9), Mirror(root).remove(["debian/12"])):
        assert report.exit_code == 3
        assert [finding.path for finding in report.findings] == [f"images/{PRODUCT}/20240601"]


def test_the_summary_says_what_was_published_too(fastindex: Run, tmp_path: Path) -> None:
    tree = {**version(f"{PRODUCT}/20240505"), **version(f"{PRODUCT}/20240506")}
    root = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", root).returncode == 0
    write_tree(root, version(f"{PRODUCT}/20240507"))
    result = fastindex("prune", "--keep", "2", root)
    built, pruned = result.stderr.splitlines()[-2:]
    assert built.startswith(
        "fastindex: 2 versions of 1 product published; 2 files hashed, 4 reused;"
    )
    assert pruned == "fastindex: 1 withdrawn, 0 deleted, 1 to be deleted by a later run"
    assert fastindex("-q", "prune", root).stderr == ""
