"""Who keeps what two products claim: never for an uploader to choose."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.command import Run
from tests.support.trees import catalogue, published, version, write_tree

NAME = "20240505_05:24"
DEBIAN = f"debian/12/amd64/default/{NAME}"


def aliases(root: Path, key: str) -> list[str]:
    names: str = catalogue(root)["products"][key]["aliases"]
    return names.split(",")


def test_a_copy_does_not_take_a_published_image_down(tmp_path: Path, fastindex: Run) -> None:
    write_tree(tmp_path, version(DEBIAN))
    fastindex(tmp_path)
    copy = tmp_path / f"images/aaa/12/amd64/default/{NAME}"
    shutil.copytree(tmp_path / "images" / DEBIAN, copy)
    for _ in range(2):  # and it stays so
        done = fastindex(tmp_path)
        assert "images/aaa/12/amd64/default/20240505_05:24/rootfs.squashfs" in done.stderr
        assert done.returncode == 3
        assert published(tmp_path) == {f"debian:12:amd64:default {NAME}"}


def test_a_symlink_does_not_take_a_whole_distribution_down(tmp_path: Path, fastindex: Run) -> None:
    write_tree(tmp_path, version(DEBIAN))
    fastindex(tmp_path)
    (tmp_path / "images/aaa").symlink_to("debian")
    assert fastindex(tmp_path).returncode == 3
    assert published(tmp_path) == {f"debian:12:amd64:default {NAME}"}


def test_the_newest_version_of_a_product_keeps_an_image(tmp_path: Path, fastindex: Run) -> None:
    write_tree(tmp_path, version(DEBIAN))
    fastindex(tmp_path)
    newer = tmp_path / "images/debian/12/amd64/default/20240506_05:24"
    shutil.copytree(tmp_path / "images" / DEBIAN, newer)
    fastindex(tmp_path, "--force")
    assert published(tmp_path) == {"debian:12:amd64:default 20240506_05:24"}


def test_an_alias_of_other_directories_cannot_be_taken(tmp_path: Path, fastindex: Run) -> None:
    said = b'aliases = ["debian/12", "debian/12/amd64", "debian/12/default", "mine"]\n'
    evil = "images/aaa/1/amd64/default"
    write_tree(tmp_path, {**version(DEBIAN), **version(f"aaa/1/amd64/default/{NAME}")})
    write_tree(tmp_path, {f"{evil}/.product.toml": said})
    done = fastindex(tmp_path)
    assert f"{evil}: the alias 'debian/12' belongs to images/debian/12/amd64/default" in done.stderr
    assert aliases(tmp_path, "aaa:1:amd64:default") == ["aaa/1/default", "aaa/1", "mine"]
    assert aliases(tmp_path, "debian:12:amd64:default") == ["debian/12/default", "debian/12"]


def test_it_cannot_be_taken_on_an_architecture_that_its_owner_lacks(
    tmp_path: Path, fastindex: Run
) -> None:
    evil = "images/aaa/1/arm64/default"
    write_tree(tmp_path, {**version(DEBIAN), **version(f"aaa/1/arm64/default/{NAME}")})
    write_tree(tmp_path, {f"{evil}/.product.toml": b'aliases = ["debian/12"]\n'})
    fastindex(tmp_path)
    assert aliases(tmp_path, "aaa:1:arm64:default") == ["aaa/1/default", "aaa/1"]


def test_an_alias_that_its_owner_gave_up_is_free(tmp_path: Path, fastindex: Run) -> None:
    cloud = f"debian/12/amd64/cloud/{NAME}"
    write_tree(tmp_path, {**version(DEBIAN), **version(cloud)})
    given = b'aliases = ["old"]\nreplace_aliases = true\n'
    write_tree(tmp_path, {"images/debian/12/amd64/default/.product.toml": given})
    taken = b'aliases = ["debian/12"]\n'
    write_tree(tmp_path, {"images/debian/12/amd64/cloud/.product.toml": taken})
    fastindex(tmp_path)
    assert aliases(tmp_path, "debian:12:amd64:cloud") == ["debian/12/cloud", "debian/12"]
    assert aliases(tmp_path, "debian:12:amd64:default") == ["old"]
