"""Who keeps what two products claim: never for an uploader to choose."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.command import Run
from tests.support.contents import make_content
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


EVIL, EVIL_KEY = "images/evil/1/amd64/default", "evil:1:amd64:default"


@pytest.fixture
def claimed(tmp_path: Path) -> Path:
    """Return a tree in which evil claims the aliases of debian 12."""
    tree = version(DEBIAN) | version(f"evil/1/amd64/default/{NAME}")
    tree |= version(f"fedora/40/amd64/default/{NAME}")
    said = b'aliases = ["debian/12", "debian/12/amd64", "debian/12/default"]\n'
    return write_tree(tmp_path / "root", {**tree, "images/evil/.product.toml": said})


@pytest.mark.parametrize(
    "state", ["settling", "damaged", "incomplete", "empty", "no version", "withdrawn", "unreadable"]
)
def test_a_product_of_which_nothing_is_published_keeps_its_aliases(
    claimed: Path, fastindex: Run, state: str
) -> None:
    product = claimed / "images/debian/12/amd64/default"
    files = list((product / NAME).iterdir())
    options = ("--settle", "1h") if state == "settling" else ()
    match state:
        case "settling":
            for path in files:
                os.utime(path)
        case "damaged":
            (product / NAME / "rootfs.squashfs").unlink()
            (product / NAME / "rootfs.squashfs").symlink_to("nowhere")
        case "incomplete":
            files[0].unlink()
        case "empty":
            for path in files:
                path.unlink()
        case "no version":
            shutil.rmtree(product / NAME)
        case "withdrawn":
            assert fastindex("-q", claimed).returncode == 0
            assert fastindex("remove", "debian/12", claimed).returncode == 0
        case "unreadable":
            (product / NAME).rename(product / "latest")
    for _ in range(2):
        fastindex("--force", *options, claimed)
        assert aliases(claimed, EVIL_KEY) == ["evil/1/default", "evil/1"]
        assert "debian:12:amd64:default" not in catalogue(claimed)["products"]


def test_an_alias_of_directories_that_are_gone_is_free(claimed: Path, fastindex: Run) -> None:
    shutil.rmtree(claimed / "images/debian")
    assert fastindex(claimed).returncode == 0
    assert "debian/12" in aliases(claimed, EVIL_KEY)


def test_a_micro_architecture_does_not_get_the_images_of_others(
    tmp_path: Path, fastindex: Run
) -> None:
    """Clients would give its newer image to any x86_64."""
    for arch, day in (("amd64", "20240505"), ("x86_64_v3", "20240506"), ("amd64v3", "20240507")):
        write_tree(tmp_path, version(f"debian/12/{arch}/default/{day}"))
        write_tree(tmp_path, version(f"void/current/{arch}/default/{day}"))
    write_tree(tmp_path, {"images/debian/.product.toml": b'aliases = ["stable", "s/{arch}"]\n'})
    told = fastindex(tmp_path)
    assert told.returncode == 0
    plain, v3 = "debian:12:amd64:default", "debian:12:x86_64_v3:default"
    assert aliases(tmp_path, plain) == ["debian/12/default", "debian/12", "stable", "s/amd64"]
    own = ["debian/12/default/x86_64_v3", "debian/12/x86_64_v3"]
    assert aliases(tmp_path, v3) == [*own, "s/x86_64_v3"]
    assert "the alias 'stable' belongs to images/debian/12/amd64/default" in told.stderr
    assert aliases(tmp_path, "void:current:amd64v3:default") == [
        f"{alias}/amd64v3"
        for alias in ("void/current/default", "void/current", "void/default", "void")
    ]
    assert fastindex("verify", tmp_path).returncode == 0


def test_aliases_and_requirements_are_bounded_after_they_are_filled_in(
    tmp_path: Path, fastindex: Run
) -> None:
    long, count = "r" * 200, 20
    for number in range(count):
        write_tree(tmp_path, version(f"o/{long}{number}/amd64/default/{NAME}"))
    said = [f"{number}{{release}}{{release}}" for number in range(50)]  # 400 characters each
    said += [f"{number:03}-{{release}}" for number in range(50)]  # 206 characters each
    required = {f"key{number:02}": "v" * 250 for number in range(40)} | {"secureboot": "false"}
    toml = f"aliases = {json.dumps(said)}\n"
    write_tree(tmp_path, {"images/o/.product.toml": toml.encode()})
    write_tree(tmp_path, {"images/.requirements": json.dumps(required).encode()})
    told = fastindex(tmp_path)
    assert told.returncode == 0
    assert (tmp_path / "streams/v1/images.json").stat().st_size < count * 9000
    for product in catalogue(tmp_path)["products"].values():
        names = product["aliases"].split(",")
        assert names[1] == f"o/{product['release']}"
        assert 15 < len(names) <= 100
        assert max(map(len, names)) <= 255
        assert len(product["aliases"]) <= 4096
        assert product["requirements"]["secureboot"] == "false"
        assert sum(map(len, product["requirements"].items())) <= 32
        assert sum(len(k) + len(v) for k, v in product["requirements"].items()) <= 2048
    assert told.stderr.count("of its aliases left out") == count
    assert told.stderr.count("of its requirements left out") == count


def test_one_unified_image_of_two_products_is_one_conflict(tmp_path: Path, fastindex: Run) -> None:
    unified = {"incus_combined.tar.gz": make_content("incus_combined.tar.gz", "same")}
    for product in ("a/1/amd64/x", "b/1/amd64/x"):
        write_tree(
            tmp_path,
            {f"images/{product}/{NAME}/{name}": content for name, content in unified.items()},
        )
    told = fastindex(tmp_path)
    assert told.returncode == 3
    assert told.stderr.count("the same image (fingerprint)") == 1
    assert published(tmp_path) == {f"a:1:amd64:x {NAME}"}
    assert fastindex("verify", tmp_path).returncode == 0
