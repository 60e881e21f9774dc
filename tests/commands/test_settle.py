"""``--settle`` concerns what is not published yet, and takes nothing away."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import fastindex as package
from fastindex.errors import Code
from tests.support.command import Run
from tests.support.contents import make_content, make_tarball
from tests.support.trees import (
    OLD_NS,
    Files,
    catalogue,
    forget_state,
    in_stream,
    published,
    version,
    write_tree,
)

PRODUCT = "debian/12/amd64/default"
PATH = f"{PRODUCT}/20240505_05:24"
VERSION = f"images/{PATH}"
LABEL = "debian:12:amd64:default 20240505_05:24"
OTHER = "alpine:3:amd64:default 20240505"
NAMES = ("incus.tar.xz", "rootfs.squashfs")


def young_ns() -> int:
    """Return the time of a file that is trusted, and younger than an hour."""
    return time.time_ns() - 60 * 10**9


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror with one old version, which is published."""
    made = write_tree(tmp_path / "root", version("alpine/3/amd64/default/20240505"))
    assert fastindex(made).returncode == 0
    return made


def upload(root: Path, path: str = PATH) -> None:
    write_tree(root, version(path), young_ns())


def settle(fastindex: Run, root: Path, *options: object) -> str:
    result = fastindex("--settle", "1h", *options, root)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_an_upload_is_left_for_a_later_run(fastindex: Run, root: Path) -> None:
    upload(root)
    for _ in range(2):
        assert settle(fastindex, root).endswith("; 1 version too young\n")
        assert published(root) == {OTHER}


@pytest.mark.parametrize("age", ["now", "a minute"])
def test_what_was_published_stays_published(fastindex: Run, root: Path, age: str) -> None:
    """As an import publishes it; the next timer must not take it away again."""
    write_tree(root, version(PATH), time.time_ns() if age == "now" else young_ns())
    if age == "now":
        time.sleep(2.1)  # else its stamp is too young to trust
    assert fastindex(root).returncode == 0
    for options in ((), ("--rehash",), ("--recheck", "1/1"), ("--no-blake3",)):
        assert "too young" not in settle(fastindex, root, *options)
        assert published(root) == {LABEL, OTHER}
    forget_state(root)
    assert "too young" not in settle(fastindex, root)
    assert published(root) == {LABEL, OTHER}


METADATA = b"""
architecture: x86_64
creation_date: 1714886640
properties: {os: debian, release: "12", architecture: amd64, variant: default}
"""


@pytest.mark.parametrize("how", ["--copy", "--link", ""])
@pytest.mark.parametrize("indexes", [False, True])
def test_what_was_imported_is_published_and_stays_so(
    fastindex: Run, root: Path, tmp_path: Path, how: str, indexes: bool
) -> None:
    """An import makes a whole version at once: nobody is still uploading it."""
    source = tmp_path / "source"
    made = {
        "incus.tar.xz": make_tarball({"metadata.yaml": METADATA}),
        "rootfs.squashfs": make_content("rootfs.squashfs", "x"),
    }
    write_tree(source, made, young_ns())
    options = [how] * bool(how) + ["--index"] * indexes
    result = fastindex("import", *options, source, root)
    assert result.returncode == 0, result.stderr
    assert "too young" not in settle(fastindex, root)
    assert published(root) == {LABEL, OTHER}


def test_an_imported_version_counts_as_settled(fastindex: Run, root: Path) -> None:
    """It was not published yet, but its cache vouches for all of it: it is complete."""
    upload(root)
    assert fastindex(root).returncode == 0
    shutil.rmtree(root / "streams")
    settle(fastindex, root)
    assert published(root) == {LABEL, OTHER}


@pytest.mark.parametrize("name", NAMES)
def test_a_cache_that_does_not_vouch_for_all_of_it_settles_nothing(
    fastindex: Run, root: Path, name: str
) -> None:
    upload(root)
    assert fastindex(root).returncode == 0
    shutil.rmtree(root / "streams")
    cache = root / VERSION / ".items.json"
    items = json.loads(cache.read_bytes())
    del items[name]
    cache.write_text(json.dumps(items))
    assert settle(fastindex, root).endswith("; 1 version too young\n")
    assert published(root) == {OTHER}


def replace_root(root: Path, name: str = "rootfs.squashfs") -> None:
    """Begin to put another root into a published version."""
    write_tree(root, {f"{VERSION}/{name}": make_content(name, "being replaced")}, young_ns())


def publish_old(fastindex: Run, root: Path, *names: str) -> dict[str, object]:
    made: Files = {f"{VERSION}/{name}": make_content(name, name) for name in (*NAMES, *names)}
    write_tree(root, made)
    assert fastindex(root).returncode == 0
    products: dict[str, object] = catalogue(root)["products"]
    return products


@pytest.mark.parametrize("added", ["disk.qcow2", "rootfs.tar.xz", "lxd.tar.xz", "root.squashfs"])
def test_while_a_file_is_added_what_is_published_stays_as_it_is(
    fastindex: Run, root: Path, added: str
) -> None:
    before = publish_old(fastindex, root)
    write_tree(root, {f"{VERSION}/{added}": b"growing"}, young_ns())
    told = settle(fastindex, root, "--verbose")
    if added == "lxd.tar.xz":  # until now, the other's metadata stood for it
        return
    assert catalogue(root)["products"] == before
    assert f"{VERSION}: has young files; published as it was" in told
    assert "0 versions left out" in told
    assert fastindex(root).returncode == (3 if added == "root.squashfs" else 0)
    assert (catalogue(root)["products"] == before) is (added == "root.squashfs")


@pytest.mark.parametrize("replaced", ["rootfs.squashfs", "incus.tar.xz"])
def test_a_published_version_whose_file_is_being_replaced_is_left_out_by_name(
    fastindex: Run, root: Path, replaced: str
) -> None:
    """Its published digest is of bytes that are gone: clients could not download it."""
    publish_old(fastindex, root)
    replace_root(root, replaced)
    result = fastindex("--settle", "1h", root)
    assert result.returncode == 3
    assert f"warning: {VERSION}: is published and being changed" in result.stderr
    assert "1 version left out" in result.stderr
    assert published(root) == {OTHER}
    assert fastindex("--settle", "5s", root).returncode == 0
    assert published(root) == {LABEL, OTHER}


def test_a_version_that_is_changed_for_long_is_named_on_the_run_that_takes_it_out(
    fastindex: Run, root: Path
) -> None:
    publish_old(fastindex, root, "disk.qcow2")
    replace_root(root, "disk.qcow2")
    report = package.Mirror(root).build(settle_seconds=3600)
    assert [finding.code for finding in report.findings] == [Code.STILL_CHANGING]
    assert report.exit_code == 3
    assert published(root) == {OTHER}
    # From then on, it is one that is not published yet.
    assert settle(fastindex, root).endswith("; 1 version too young\n")


def test_a_version_that_loses_a_part_is_named_on_the_run_that_takes_it_out(
    fastindex: Run, root: Path
) -> None:
    """Later runs take it for an upload that has just begun, whatever the first one recorded."""
    write_tree(root, version(PATH))
    assert fastindex(root).returncode == 0
    (root / VERSION / "incus.tar.xz").unlink()
    result = fastindex("--settle", "1h", root)
    assert (result.returncode, published(root)) == (3, {OTHER})
    assert VERSION in result.stderr
    for _ in range(2):
        assert settle(fastindex, root).endswith("; 1 version too young\n")


def test_a_published_version_that_is_removed_while_young_is_gone(
    fastindex: Run, root: Path
) -> None:
    publish_old(fastindex, root)
    (root / VERSION / "rootfs.squashfs").unlink()
    os.utime(root / VERSION / "incus.tar.xz")
    assert fastindex("--settle", "1h", root).returncode == 3
    assert published(root) == {OTHER}


def test_nothing_but_young_versions_is_said_so(fastindex: Run, tmp_path: Path) -> None:
    for number in range(3):
        upload(tmp_path, f"debian/{number}/amd64/default/20240505")
    result = fastindex("--settle", "1h", tmp_path)
    assert result.returncode == 1
    assert "images: all 3 versions are younger than 1h, so nothing was publ" in result.stderr
    assert "run again later, or with a shorter --settle" in result.stderr
    assert "--force" not in result.stderr
    assert not list(tmp_path.glob("streams/v1/*"))
    assert fastindex("--settle", "5s", tmp_path).returncode == 0
    assert len(published(tmp_path)) == 3


def test_a_stream_of_young_versions_does_not_hold_up_another(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, in_stream("daily", version("debian/12/amd64/default/20240505")))
    upload(tmp_path)
    fastindex("--settle", "1h", "--stream", "daily", "--stream", "images", tmp_path)
    assert published(tmp_path, "daily") == {"debian:12:amd64:default 20240505"}


@pytest.mark.parametrize("replaced", ["rootfs.squashfs", "incus.tar.xz"])
def test_an_alias_of_a_product_that_settles_goes_to_nobody_else(
    fastindex: Run, root: Path, replaced: str
) -> None:
    """Its only version is rebuilt in place: for a while, nothing of it is published."""
    publish_old(fastindex, root)
    write_tree(root, version("evil/1/amd64/default/20240505"))
    write_tree(root, {"images/evil/.product.toml": b'aliases = ["debian/12"]'})
    replace_root(root, replaced)
    fastindex("--settle", "1h", root)
    assert published(root) == {OTHER, "evil:1:amd64:default 20240505"}
    evil = catalogue(root)["products"]["evil:1:amd64:default"]
    assert "debian/12" not in evil["aliases"].split(",")


def test_an_alias_of_a_product_that_is_being_changed_goes_to_nobody_else(
    fastindex: Run, root: Path
) -> None:
    """What is published of it stays, so another product does not get ``debian/12``."""
    publish_old(fastindex, root)
    write_tree(root, version("evil/1/amd64/default/20240505"))
    write_tree(root, {"images/evil/.product.toml": b'aliases = ["debian/12"]'})
    assert fastindex(root).returncode == 0
    write_tree(root, {f"{VERSION}/disk.qcow2": b"growing"}, young_ns())
    fastindex("--settle", "1h", root)
    products = catalogue(root)["products"]
    assert "debian/12" in products["debian:12:amd64:default"]["aliases"].split(",")
    assert "debian/12" not in products["evil:1:amd64:default"]["aliases"].split(",")


def test_old_times_settle_as_before(fastindex: Run, root: Path) -> None:
    write_tree(root, version(PATH), OLD_NS)
    settle(fastindex, root)
    assert published(root) == {LABEL, OTHER}


def test_a_published_file_that_is_renamed_is_a_change_and_not_a_lack(
    fastindex: Run, tmp_path: Path
) -> None:
    tree = version("debian/12/amd64/default/20240505") | version("debian/13/amd64/default/20240505")
    root = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", root).returncode == 0
    metadata = root / "images/debian/12/amd64/default/20240505/incus.tar.xz"
    metadata.rename(metadata.with_name("lxd.tar.xz")).touch()
    result = fastindex("--settle", "1h", root)
    assert result.returncode == 3
    assert "is published and being changed" in result.stderr
    assert "remove the directory" not in result.stderr
