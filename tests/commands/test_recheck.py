"""``--recheck 1/30``: a rotating share of the mirror, read again and held against the caches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastindex as package
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.pipeline import build
from fastindex.operations.builder.recheck import RecheckShare, parse_share
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.tools import needs
from tests.support.trees import (
    OLD_NS,
    Files,
    forget_state,
    published,
    version,
    write_tree,
)

PATH = "debian/12/amd64/default/20240505_05:24"
ROOT_FILE = f"images/{PATH}/rootfs.squashfs"


@given(st.text(min_size=1), st.integers(1, 60), st.integers(0, 40_000))
def test_each_version_is_due_once_in_a_period(path: str, period: int, start: int) -> None:
    days = range(start, start + period)
    assert sum(RecheckShare(1, period, day).is_due(path) for day in days) == 1


@given(st.text(min_size=1), st.integers(1, 20), st.integers(1, 20), st.integers(0, 40_000))
def test_a_bigger_share_is_through_sooner(path: str, part: int, times: int, start: int) -> None:
    days = range(start, start + times)
    assert sum(RecheckShare(part, part * times, day).is_due(path) for day in days) == 1


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    other = "debian/13/amd64/default/20240505_05:24"
    made = write_tree(tmp_path / "root", {**version(PATH), **version(other)})
    assert fastindex("-q", made).returncode == 0
    return made


def digests_in(version: Path) -> dict[str, str]:
    """Return what the cache of a version says about its files: name → SHA-256."""
    cached = json.loads((version / ".items.json").read_bytes())
    return {
        name: item["sha256"] for name, item in cached.items() if item["path"].endswith(f"/{name}")
    }


def damage(path: Path, place: int = -1) -> bytes:
    """Flip a bit under an unchanged stamp; return what was there."""
    before = path.read_bytes()
    after = bytearray(before)
    after[place] ^= 1
    path.write_bytes(after)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return before


@pytest.mark.parametrize("place", [-1, 0], ids=["the last byte", "the first byte"])
@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz"])
def test_damage_is_named_left_out_and_remembered(
    fastindex: Run, root: Path, name: str, place: int
) -> None:
    digests = digests_in(root / f"images/{PATH}")
    path = root / f"images/{PATH}/{name}"
    right = damage(path, place)
    assert fastindex(root).returncode == 0  # not noticed without
    result = fastindex("--recheck", "1/1", root)
    assert result.returncode == 3
    assert f"images/{PATH}/{name}: damaged" in result.stderr
    assert published(root) == {"debian:13:amd64:default 20240505_05:24"}
    for options in ((), (), ("--recheck", "1/1")):  # remembered, and told again
        result = fastindex(*options, root)
        assert result.returncode == 3
        assert f"images/{PATH}/{name}: damaged" in result.stderr
    assert digests_in(root / f"images/{PATH}") == digests
    path.write_bytes(right)  # the right file is put back: another stamp
    os.utime(path, ns=(OLD_NS + 1, OLD_NS + 1))
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 2
    assert fastindex("verify", root).returncode == 0
    assert (root / "streams/.damaged.json").read_bytes() == b"{}\n"  # whatever comes later


def test_two_damaged_files_cost_one_version(fastindex: Run, root: Path) -> None:
    for name in ("incus.tar.xz", "rootfs.squashfs"):
        damage(root / f"images/{PATH}/{name}")
    for options in (("--recheck", "1/1"), ()):  # found, and remembered
        result = fastindex(*options, root)
        assert result.returncode == 3
        for name in ("incus.tar.xz", "rootfs.squashfs"):
            assert f"images/{PATH}/{name}: damaged" in result.stderr
        assert result.stderr.endswith("; 2 warnings, 1 version left out\n")
    report = package.Mirror(root).build(recheck="1/1")
    assert (report.versions_left_out, len(report.findings)) == (1, 2)


def test_rehash_accepts_what_is_there(fastindex: Run, root: Path) -> None:
    damage(root / ROOT_FILE)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    assert fastindex("--rehash", root).returncode == 0
    assert len(published(root)) == 2
    assert fastindex("--recheck", "1/1", root).returncode == 0
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize("names", [["rootfs.squashfs"], ["incus.tar.xz", "rootfs.squashfs"]])
@pytest.mark.parametrize("options", [(), ("--cache-dir", "caches", "--adopt")])
def test_what_rehash_cannot_use_the_next_run_does_not_believe(
    fastindex: Run, root: Path, names: list[str], options: tuple[str, ...]
) -> None:
    """Its first bytes have gone, under the same stamp: the cache still says that all is well."""
    for name in names:
        path = root / "images" / PATH / name
        stamp = path.stat()
        path.write_bytes(bytes(stamp.st_size))
        os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    for number, more in enumerate((("--rehash",), (), ()), 1):
        result = fastindex(*options, *more, root)
        assert result.returncode == 3
        assert f"images/{PATH}/{names[0]}: is not a " in result.stderr
        assert len(published(root)) == number
        # Its product has changed, so the next run looks at all of it.
        write_tree(root, version(f"{os.path.dirname(PATH)}/2024060{number}"))


def test_what_a_rehash_found_is_found_again_if_it_published_nothing(
    fastindex: Run, root: Path
) -> None:
    for path in (root / "images").rglob("[!.]*.*"):
        if path.is_file():
            stamp = path.stat()
            path.write_bytes(bytes(stamp.st_size))
            os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    before = published(root)
    for options in (("--rehash",), (), ()):
        result = fastindex(*options, root)
        assert result.returncode == 1
        assert "incus.tar.xz: is not a tarball" in result.stderr
    assert published(root) == before


def test_damage_to_a_file_that_takes_part_no_more_leaves_nothing_out(
    fastindex: Run, root: Path
) -> None:
    path = (root / ROOT_FILE).rename((root / ROOT_FILE).with_name("root.squashfs"))
    assert fastindex("-q", root).returncode == 0
    damage(path)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    write_tree(root, {ROOT_FILE: b"another one"})
    fastindex(root)
    assert len(published(root)) == 2


def test_a_day_is_one_of_the_calendar_in_utc() -> None:
    def of_the_calendar() -> int:
        return (datetime.now(UTC).date() - date(1970, 1, 1)).days

    assert of_the_calendar() <= parse_share("1/30").day <= of_the_calendar()


def test_a_dry_run_tells_and_records_nothing(fastindex: Run, root: Path) -> None:
    damage(root / ROOT_FILE)
    result = fastindex("--dry-run", "--recheck", "1/1", root)
    assert result.returncode == 3
    assert "damaged" in result.stderr
    assert not (root / "streams/.damaged.json").exists()


def test_a_record_that_cannot_be_read_stops_the_run(fastindex: Run, root: Path) -> None:
    (root / "streams/.damaged.json").write_bytes(b"torn")
    result = fastindex(root)
    assert result.returncode == 1
    assert ".damaged.json: cannot be read" in result.stderr


@pytest.mark.parametrize("share", ["", "0/30", "31/30", "1", "1/0", "x/y", "-1/30"])
def test_wrong_shares(fastindex: Run, root: Path, share: str) -> None:
    result = fastindex(f"--recheck={share}", root)
    assert result.returncode == (0 if share == "" else 2)


def test_over_a_period_each_version_is_read_exactly_once(tmp_path: Path) -> None:
    tree: Files = {}
    for number in range(420):
        tree |= version(f"debian/{number}/amd64/default/20240505_05:24")
    root = str(write_tree(tmp_path / "root", tree))
    package.Mirror(root).build(jobs=1)
    read: list[str] = []

    class Listener(package.Observer):
        """Hears which versions are read."""

        def log(self, message: str) -> None:
            if message.endswith(": hashed"):
                read.append(message)

    for day in range(20_000, 20_007):
        before = len(read)
        options = BuildOptions(recheck="1/7", recheck_day=day)
        report = build(Mirror.at(root), options, observer=Listener())
        assert report.files_hashed == 2 * (len(read) - before)
        assert 35 < len(read) - before < 90  # evenly, more or less
    assert len(read) == len(set(read)) == 420


@pytest.mark.parametrize("reason", ["new metadata", "new root", "touched metadata", "lost key"])
def test_a_file_that_is_read_again_for_another_reason_is_compared_too(
    fastindex: Run, root: Path, reason: str
) -> None:
    """Else its damage would be published, with digests of its own."""
    directory = root / f"images/{PATH}"
    damage(root / ROOT_FILE)
    match reason:
        case "new metadata":
            write_tree(root, {f"images/{PATH}/lxd.tar.xz": b"lxd"})
        case "new root":
            write_tree(root, {f"images/{PATH}/root.tar.xz": b"a tarball beside it"})
            damage(directory / "incus.tar.xz")
        case "touched metadata":
            os.utime(directory / "incus.tar.xz", ns=(OLD_NS + 1, OLD_NS + 1))
        case "lost key":
            cache = json.loads((directory / ".items.json").read_bytes())
            del cache["incus.tar.xz"]["combined_squashfs_sha256"]
            (directory / ".items.json").write_text(json.dumps(cache))
            forget_state(root)
    before = digests_in(directory)
    for options in ((), ("--recheck", "1/1"), ()):
        result = fastindex(*options, root)
        assert result.returncode == 3
        assert ": damaged: its bytes changed since it was hashed" in result.stderr
        assert published(root) == {"debian:13:amd64:default 20240505_05:24"}
    assert digests_in(directory).items() <= before.items()


@pytest.mark.parametrize("finds", ["recheck", "new metadata"])
@pytest.mark.parametrize("how", ["cp -p", "rename", "in place", "rsync"])
def test_putting_the_right_file_back_heals(
    fastindex: Run, root: Path, tmp_path: Path, how: str, finds: str
) -> None:
    """Though its size and time are those of the damaged one."""
    path = root / ROOT_FILE
    backup = tmp_path / "backup"
    shutil.copy2(path, backup)
    right = damage(path)
    if finds == "recheck":
        assert fastindex("--recheck", "1/1", root).returncode == 3
    else:
        write_tree(root, {f"images/{PATH}/lxd.tar.xz": b"lxd"})
        assert fastindex(root).returncode == 3
    assert fastindex(root).returncode == 3
    time.sleep(0.02)  # for the clock of inodes
    match how:
        case "cp -p":
            subprocess.run(["cp", "-p", backup, path], check=True)
        case "rename":
            backup.rename(path)
        case "in place":
            path.write_bytes(right)
            os.utime(path, ns=(OLD_NS, OLD_NS))
        case "rsync":
            rsync = needs("rsync", "apt-get install rsync")
            subprocess.run([rsync, "-a", "--checksum", backup, path], check=True)
    result = fastindex(root)
    assert result.returncode == 0, result.stderr
    assert len(published(root)) == 2
    assert fastindex("verify", "--sha256", root).returncode == 0
    assert fastindex("--recheck", "1/1", root).returncode == 0


@pytest.mark.parametrize("change", ["chmod", "touch", "another copy"])
def test_wrong_bytes_stay_damaged_whatever_is_done_to_them(
    fastindex: Run, root: Path, tmp_path: Path, change: str
) -> None:
    path = root / ROOT_FILE
    damage(path)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    time.sleep(0.02)
    match change:
        case "chmod":
            path.chmod(0o600)
            path.chmod(0o644)
        case "touch":
            os.utime(path, ns=(OLD_NS, OLD_NS))
        case "another copy":
            shutil.copy2(path, tmp_path / "copy")
            (tmp_path / "copy").rename(path)
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert f"{ROOT_FILE}: damaged: its bytes changed" in result.stderr
        assert published(root) == {"debian:13:amd64:default 20240505_05:24"}


@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz"])
def test_a_read_error_is_remembered(fastindex: Run, root: Path, name: str) -> None:
    """A disk that could not read a file once will fail clients, too."""
    path = root / f"images/{PATH}/{name}"
    result = with_read_error(path, "--recheck", "1/1", root)
    assert result.returncode == 3
    assert f"images/{PATH}/{name}: cannot be read (Input/output error)" in result.stderr
    assert published(root) == {"debian:13:amd64:default 20240505_05:24"}
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert f"images/{PATH}/{name}: damaged: cannot be read (Input" in result.stderr
        assert "put the right file back" in result.stderr
        assert published(root) == {"debian:13:amd64:default 20240505_05:24"}
    time.sleep(0.02)
    subprocess.run(["cp", "-p", path, path.with_name("copy")], check=True)
    path.with_name("copy").rename(path)
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 2


@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz"])
def test_a_recheck_forgets_a_read_error_that_is_gone(fastindex: Run, root: Path, name: str) -> None:
    """A cable was loose, or a server away: nobody has touched the file since."""
    path = root / f"images/{PATH}/{name}"
    for _ in range(2):
        result = with_read_error(path, "-v", "--recheck", "1/1", root)
        assert result.returncode == 3
        assert f"images/{PATH}/{name}: cannot be read (Input/output error)" in result.stderr
    assert fastindex(root).returncode == 3
    assert fastindex("--recheck", "1/1", root).returncode == 0
    for _ in range(2):
        assert fastindex(root).returncode == 0
        assert len(published(root)) == 2
    assert (root / "streams/.damaged.json").read_bytes() == b"{}\n"
    assert b"damaged" not in (root / f"images/{PATH}/.items.json").read_bytes()


def test_a_recheck_after_a_read_error_compares(fastindex: Run, root: Path) -> None:
    path = root / ROOT_FILE
    assert with_read_error(path, "--recheck", "1/1", root).returncode == 3
    damage(path)
    result = fastindex("--recheck", "1/1", root)
    assert result.returncode == 3
    assert f"{ROOT_FILE}: damaged: its bytes changed" in result.stderr


@pytest.mark.parametrize(
    ("problem", "exit_code"), [("cannot be read (Input/output error)", 0), ("other bytes", 3)]
)
def test_a_recheck_without_the_right_digest_takes_what_could_not_be_read(
    fastindex: Run, root: Path, problem: str, exit_code: int
) -> None:
    cache = root / f"images/{PATH}/.items.json"
    key = json.loads(cache.read_bytes())["rootfs.squashfs"]["key"]
    cache.unlink()
    known = {"key": key, "changed_ns": (root / ROOT_FILE).stat().st_ctime_ns}
    known |= {"problem": problem} if exit_code == 0 else {}
    record = json.dumps({ROOT_FILE: known}).encode()
    write_tree(root, {"streams/.damaged.json": record})
    assert fastindex(root).returncode == 3
    assert fastindex("--recheck", "1/1", root).returncode == exit_code
    assert fastindex(root).returncode == exit_code


def move(old: Path, new: Path, how: str) -> None:
    if how == "mv":
        old.rename(new)
    else:
        subprocess.run(["cp", "-a", old, new], check=True)
        shutil.rmtree(old)


@pytest.mark.parametrize("how", ["mv", "cp -a"])
@pytest.mark.parametrize("what", ["version", "release"])
def test_damage_is_known_under_another_name(
    fastindex: Run, root: Path, tmp_path: Path, what: str, how: str
) -> None:
    backup = tmp_path / "backup"
    shutil.copy2(root / ROOT_FILE, backup)
    damage(root / ROOT_FILE)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    if what == "version":
        new = f"images/{PATH}".replace("0505", "0506")
        move(root / f"images/{PATH}", root / new, how)
    else:
        new = f"images/{PATH}".replace("debian/12", "debian/14")
        move(root / "images/debian/12", root / "images/debian/14", how)
    for options in ((), (), ("--recheck", "1/1")):
        result = fastindex(*options, root)
        assert result.returncode == 3
        assert f"{new}/rootfs.squashfs: damaged: its bytes changed" in result.stderr
        assert published(root) == {"debian:13:amd64:default 20240505_05:24"}
    time.sleep(0.02)
    subprocess.run(["cp", "-p", backup, root / new / "rootfs.squashfs"], check=True)
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 2
    assert fastindex("verify", "--sha256", root).returncode == 0


@pytest.mark.parametrize("cache_dir", [False, True], ids=["", "--cache-dir"])
@pytest.mark.parametrize("first", ["root", "other"])
def test_damage_is_known_in_every_output(
    fastindex: Run, root: Path, tmp_path: Path, first: str, cache_dir: bool
) -> None:
    caches = ("--cache-dir", tmp_path / "caches") if cache_dir else ()
    outputs = [(*caches,), (*caches, "--output", tmp_path / "other")]
    finder, other = outputs if first == "root" else reversed(outputs)
    backup = tmp_path / "backup"
    shutil.copy2(root / ROOT_FILE, backup)
    for _ in range(2):
        for output in (finder, other):
            assert fastindex(*output, root).returncode == 0
    damage(root / ROOT_FILE)
    assert fastindex("--recheck", "1/1", *finder, root).returncode == 3
    for options in ((), (), ("--recheck", "1/1")):
        result = fastindex(*options, *other, root)
        assert result.returncode == 3
        assert f"{ROOT_FILE}: damaged: its bytes changed" in result.stderr
    time.sleep(0.02)
    subprocess.run(["cp", "-p", backup, root / ROOT_FILE], check=True)
    for output in (other, finder):
        assert fastindex(*output, root).returncode == 0
        assert fastindex("verify", "--sha256", *output, root).returncode == 0


def test_damage_is_known_without_streams(fastindex: Run, root: Path) -> None:
    damage(root / ROOT_FILE)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    shutil.rmtree(root / "streams")
    result = fastindex(root)
    assert result.returncode == 3
    assert f"{ROOT_FILE}: damaged: its bytes changed" in result.stderr
    assert fastindex("--rehash", root).returncode == 0
    shutil.rmtree(root / "streams")
    assert fastindex(root).returncode == 0
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_what_one_output_accepts_another_does_not_take_from_it(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    other = ("--output", tmp_path / "other")
    assert fastindex(*other, root).returncode == 0
    damage(root / ROOT_FILE)
    for output in ((), other):
        assert fastindex("--recheck", "1/1", *output, root).returncode == 3
    assert fastindex("--rehash", root).returncode == 0
    assert fastindex("--recheck", "1/1", *other, root).returncode == 3
    assert fastindex("--recheck", "1/1", root).returncode == 0
    assert len(published(root)) == 2
    assert fastindex("--rehash", *other, root).returncode == 0


def test_both_files_of_a_version_heal_one_after_the_other(fastindex: Run, root: Path) -> None:
    names = ("incus.tar.xz", "rootfs.squashfs")
    directory = root / f"images/{PATH}"
    right = [damage(directory / name) for name in names]
    assert fastindex("--recheck", "1/1", root).returncode == 3
    for name, content, exit_code in zip(names, right, (3, 0), strict=True):
        time.sleep(0.02)
        (directory / name).write_bytes(content)
        os.utime(directory / name, ns=(OLD_NS, OLD_NS))
        result = fastindex(root)
        assert result.returncode == exit_code
        assert f"{name}: damaged" not in result.stderr
    shutil.rmtree(root / "streams")
    assert fastindex(root).returncode == 0
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_a_forged_cache_does_not_publish_what_is_recorded_as_damaged(
    fastindex: Run, root: Path
) -> None:
    cache = root / f"images/{PATH}/.items.json"
    content = cache.read_bytes()
    damage(root / ROOT_FILE)
    assert fastindex("--recheck", "1/1", root).returncode == 3
    cache.write_bytes(content)
    forget_state(root)
    for options in ((), ("--recheck", "1/1"), ()):
        assert fastindex(*options, root).returncode == 3
        assert published(root) == {"debian:13:amd64:default 20240505_05:24"}


@pytest.mark.parametrize("says", ["damaged", "x" * 201], ids=["short", "too long"])
def test_a_forged_cache_leaves_out_its_own_version_at_most(
    fastindex: Run, root: Path, says: str
) -> None:
    cache = root / f"images/{PATH}/.items.json"
    forged = json.loads(cache.read_bytes())
    changed_ns = (root / ROOT_FILE).stat().st_ctime_ns
    forged["rootfs.squashfs"] |= {"damaged": says, "changed_ns": changed_ns}
    cache.write_text(json.dumps(forged))
    forget_state(root)
    is_believed = len(says) <= 200
    assert fastindex(root).returncode == (3 if is_believed else 0)
    assert len(published(root)) == 2 - is_believed
    assert fastindex("--recheck", "1/1", root).returncode == 0
    assert len(published(root)) == 2


def with_read_error(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command on a disk that cannot read ``path``."""
    strace = needs("strace", "apt-get install strace")
    reads = "read,pread64,preadv,preadv2"
    return subprocess.run(
        [
            *(strace, "-f", "-qq", "-o", "/dev/null", "-P", str(path)),
            *("-e", f"trace={reads}", "-e", f"inject={reads}:error=EIO"),
            *(str(COMMAND), "-j1"),
            *map(str, arguments),
        ],
        env=UNMEASURED,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_read_error_of_a_new_file_is_tried_again(fastindex: Run, root: Path) -> None:
    new = "debian/14/amd64/default/20240505"
    path = write_tree(root, version(new)) / f"images/{new}/rootfs.squashfs"
    assert with_read_error(path, root).returncode == 3
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 3


@pytest.mark.parametrize("count", [2, 3])
def test_a_disk_that_returns_garbage_does_not_empty_the_mirror(
    fastindex: Run, tmp_path: Path, count: int
) -> None:
    root = tmp_path / "root"
    for number in range(count):
        write_tree(root, version(f"debian/{number}/amd64/default/20240505"))
    assert fastindex("-q", root).returncode == 0
    before = (root / "streams/v1/images.json").read_bytes()
    for path in root.rglob("rootfs.squashfs"):
        damage(path)
    result = fastindex("--recheck", "1/1", root)
    assert result.stderr.count("damaged: ") == count
    is_published = (root / "streams/v1/images.json").read_bytes() == before
    assert is_published == (count > 2)
    assert result.returncode == (1 if is_published else 3), result.stderr
    assert fastindex(root).returncode == result.returncode
    assert ((root / "streams/v1/images.json").read_bytes() == before) == is_published
