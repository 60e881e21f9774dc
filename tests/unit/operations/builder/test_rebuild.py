"""A run that keeps products as they are publishes and tells what one that looks at all does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fastindex
from fastindex.errors import Code
from fastindex.operations.builder.options import BuildReport
from tests.support.contents import make_content
from tests.support.trees import (
    Files,
    catalogue,
    forget_state,
    in_stream,
    published,
    version,
    write_tree,
)

CATALOGUE = ("streams/v1/images.json", "streams/v1/daily.json", "streams/v1/index.json")


def image(path: str, salt: str) -> Files:
    """Return a version whose image has the fingerprint of all with that salt."""
    names = ("incus.tar.xz", "rootfs.squashfs")
    return version(path, **{name.replace(".", "_"): make_content(name, salt) for name in names})


def tree() -> Files:
    """Return two streams of which there is much to tell."""
    return {
        **version(),
        **version("debian/13/amd64/default/20240505"),
        **version("debian/13/amd64/default/20240506_05:24"),
        **version("fedora/42/amd64/default/20240505"),
        **version("fedora/42/amd64/default/99991231"),
        **image("same/1/amd64/default/20240505", "same"),
        **image("same/2/amd64/default/20240505", "same"),
        **in_stream("daily", image("same/3/amd64/default/20240505", "same")),
        **in_stream("daily", version("debian/12/amd64/default/20240505")),
        "images/.requirements": b'{"unknown": "x"}',
        "images/debian/13/.product.toml": b'os = 5\naliases = ["debian/12"]',
        "images/debian/12/amd64/default/20240505_05:24/image.yaml": b"a: [",
        "images/debian/12/amd64/cloud/no date/incus.tar.xz": b"x",
        "images/debian/12/amd64/cloud/20240505/rootfs.squashfs": b"x",
        "images/debian/12/x99/cloud/20240505/rootfs.squashfs": b"x",
        "images/debian/incus.tar.xz": b"x",
    }


def build(root: Path) -> BuildReport:
    return fastindex.Mirror(root, streams=("images", "daily")).build()


def told(report: BuildReport) -> tuple[object, ...]:
    return report.findings, report.products, report.versions


def content(root: Path) -> list[bytes]:
    return [(root / path).read_bytes() for path in CATALOGUE]


def forget_snapshot(root: Path) -> None:
    (root / "streams/.snapshot.json").unlink(missing_ok=True)


def forget_one(root: Path) -> None:
    (root / "streams/.products-daily.state").unlink()


def forget_first(root: Path) -> None:
    (root / "streams/.products-images.state").unlink()


def add_elsewhere(root: Path) -> None:
    """Add and remove a product, so that the others are kept by a run that publishes."""
    shutil.rmtree(root / "images/other", ignore_errors=True)
    write_tree(root, version("other/1/amd64/default/20240505"))
    build(root)
    shutil.rmtree(root / "images/other")


@pytest.mark.parametrize(
    "change",
    [str, forget_snapshot, forget_one, forget_first, forget_state, add_elsewhere],
)
def test_what_is_kept_is_told_and_published_as_before(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    write_tree(tmp_path, tree())
    first = build(tmp_path)
    codes = {finding.code for finding in first.findings}
    assert codes >= {
        Code.ALIAS_SHARED,
        Code.BAD_NAME,
        Code.BAD_SETTINGS,
        Code.DATE_IN_FUTURE,
        Code.MIXED_VERSION_NAMES,
        Code.MISPLACED_FILE,
        Code.UNKNOWN_ARCHITECTURE,
    }
    before = content(tmp_path)
    for _ in range(2):
        change(tmp_path)
        again = build(tmp_path)
        ordinary = [one for one in again.findings if one.code is not Code.DIRECTORY_VANISHED]
        assert (tuple(ordinary), again.products, again.versions) == told(first)
        assert again.files_hashed == 0
        assert content(tmp_path) == before


@pytest.mark.parametrize("has_state", [True, False])
def test_a_directory_has_not_vanished_while_something_is_in_it(
    tmp_path: Path, has_state: bool
) -> None:
    """Even if nothing of that is published, and nobody has looked at it again."""
    write_tree(tmp_path, {**version("a/1/amd64/default/20240505"), **version()})
    write_tree(
        tmp_path,
        {"images/a/1/amd64/cloud/20240505/incus.tar.xz": make_content("incus.tar.xz", "x")},
    )
    fastindex.Mirror(tmp_path).build()
    shutil.rmtree(tmp_path / "images/a/1/amd64/default")
    if not has_state:
        forget_state(tmp_path)
    report = fastindex.Mirror(tmp_path).build()
    vanished = [f.path for f in report.findings if f.code is Code.DIRECTORY_VANISHED]
    assert vanished == ["images/a/1/amd64/default"]


@pytest.mark.parametrize("has_state", [True, False])
def test_what_lacked_a_part_may_be_an_upload_that_has_just_begun(
    tmp_path: Path, has_state: bool
) -> None:
    write_tree(tmp_path, version())
    write_tree(
        tmp_path,
        {"images/a/1/amd64/cloud/20240505/incus.tar.xz": make_content("incus.tar.xz", "x")},
    )
    mirror = fastindex.Mirror(tmp_path)
    assert [f.code for f in mirror.build().findings] == [Code.INCOMPLETE_VERSION]
    if not has_state:
        forget_state(tmp_path)
    report = mirror.build(settle_seconds=3600)
    assert (report.findings, report.versions_settling) == ((), 1)


def test_what_an_upload_says_may_be_written_again_within_a_tick(tmp_path: Path) -> None:
    path = "debian/12/amd64/default/20240505"
    write_tree(tmp_path, version(path))
    said = tmp_path / f"images/{path}/image.yaml"
    said.write_text("simplestream: {distro_name: aaa}")
    status = said.stat()
    mirror = fastindex.Mirror(tmp_path)
    mirror.build()
    said.write_text("simplestream: {distro_name: bbb}")
    os.utime(said, ns=(status.st_mtime_ns, status.st_mtime_ns))
    mirror.build()
    (entry,) = catalogue(tmp_path)["products"].values()
    assert entry["os"] == "bbb"


def test_an_image_stays_with_the_product_that_is_published_with_it(tmp_path: Path) -> None:
    """Also if another one comes first by name, in this stream or in another."""
    other = {"z:1:amd64:default 20240505"}
    write_tree(tmp_path, version("z/1/amd64/default/20240505"))
    write_tree(tmp_path, image("m/1/amd64/default/20240505", "same"))
    write_tree(tmp_path, in_stream("daily", version("m/1/amd64/default/20240505")))
    build(tmp_path)
    write_tree(tmp_path, image("a/1/amd64/default/20240505", "same"))
    write_tree(tmp_path, in_stream("daily", image("a/2/amd64/default/20240505", "same")))
    for _ in range(2):
        report = build(tmp_path)
        assert published(tmp_path) == {"m:1:amd64:default 20240505", *other}
        assert published(tmp_path, "daily") == {"m:1:amd64:default 20240505"}
        assert sum(finding.versions_left_out for finding in report.findings) == 2
    shutil.rmtree(tmp_path / "images/m")
    build(tmp_path)
    assert published(tmp_path) == {"a:1:amd64:default 20240505", *other}
    assert published(tmp_path, "daily") == {"m:1:amd64:default 20240505"}


def test_an_image_that_a_kept_product_loses_is_found(tmp_path: Path) -> None:
    """Its state says that nothing about it has changed, but another run published it, too."""
    write_tree(tmp_path, image("m/1/amd64/default/20240505", "same"))
    fastindex.Mirror(tmp_path).build()
    write_tree(tmp_path, in_stream("daily", image("a/1/amd64/default/20240505", "same")))
    write_tree(tmp_path, in_stream("daily", version("b/1/amd64/default/20240505")))
    alone = fastindex.Mirror(tmp_path, streams=("daily",)).build()
    assert sum(finding.versions_left_out for finding in alone.findings) == 1
    report = build(tmp_path)
    assert sum(finding.versions_left_out for finding in report.findings) == 1
    assert published(tmp_path) == {"m:1:amd64:default 20240505"}
    assert published(tmp_path, "daily") == {"b:1:amd64:default 20240505"}


def test_what_is_no_longer_withdrawn_is_published_again(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/20240506")})
    mirror = fastindex.Mirror(tmp_path)
    mirror.build()
    withdrawn = "images/debian/12/amd64/default/20240506"
    mirror.remove([withdrawn])
    for _ in range(2):
        mirror.build()
        assert len(published(tmp_path)) == 1
    (tmp_path / "streams/.withdrawn.json").unlink()
    mirror.build()
    assert len(published(tmp_path)) == 2
