"""Catalogues that other tools wrote, and that clients accept."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import METADATA, Workshop
from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.tools import needs
from tests.support.trees import Files, sha256, stamps, write_tree

INDEX, IMAGES = "streams/v1/index.json", "streams/v1/images.json"


def fingerprints(fastindex: Run, root: Path) -> list[str]:
    listed = fastindex("list", "--all", "--json", root)
    assert listed.returncode == 0, listed.stderr
    return [image["fingerprint"] for image in json.loads(listed.stdout)]


def check(fastindex: Run, root: Path) -> None:
    """See that nothing is wrong with a catalogue, by every method."""
    for method in ("--quick", "--sha256", "-q"):
        told = fastindex("verify", method, root)
        assert (told.returncode, told.stdout) == (0, ""), told.stdout


def publish(root: Path, products: dict[str, Any], **frame: str) -> None:
    entry = {
        "datatype": "image-downloads",
        "format": "products:1.0",
        "path": IMAGES,
        "products": list(products),
    }
    index = {"index": {"images": entry}, "format": "index:1.0"}
    document = {"products": products, **frame}
    write_tree(
        root, {INDEX: json.dumps(index).encode(), IMAGES: json.dumps(document, indent=1).encode()}
    )


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a mirror that ``incus-simplestreams`` made, with a container and a machine."""
    tool = needs("incus-simplestreams", "apt-get install incus-extra")
    (tmp_path / "work").mkdir()
    workshop, root = Workshop(tmp_path / "work"), tmp_path / "root"
    root.mkdir()
    for name, made in (("rootfs.squashfs", workshop.squashfs), ("disk.qcow2", workshop.disk)):
        source = tmp_path / name.partition(".")[0]
        text = METADATA.replace("variant: default", f"variant: {source.name}")
        metadata = workshop.metadata(source / "incus.tar.xz", text)
        root_file = workshop.put(made, source / name)
        subprocess.run([tool, "add", metadata, root_file], cwd=root, check=True, timeout=60)
    return root


def test_what_incus_simplestreams_wrote_is_no_damage(fastindex: Run, flat: Path) -> None:
    """Its products lack requirements, its keys end in the architecture, its files lie flat."""
    check(fastindex, flat)
    listed = json.loads(fastindex("list", "--all", "--json", flat).stdout)
    shown = {(image["arch"], image["variant"], image["type"]) for image in listed}
    assert shown == {("amd64", "rootfs", "container"), ("amd64", "disk", "virtual-machine")}
    assert all(image["os"] == "debian" for image in listed)
    assert "clients reject" not in fastindex("list", flat).stderr


def test_damage_in_it_is_found(fastindex: Run, flat: Path) -> None:
    (image,) = (flat / "images").glob("*.squashfs")
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    told = fastindex("verify", "--json", flat)
    assert told.returncode == 4
    (mismatch,) = json.loads(told.stdout)["verify"]["mismatches"]
    assert (mismatch["code"], mismatch["file"]) == ("checksum-mismatch", image.name)
    assert mismatch["version"].startswith("images/debian:12:rootfs:amd64/2024")


def test_a_build_and_a_diff_over_it_change_nothing(fastindex: Run, flat: Path) -> None:
    before = (flat / IMAGES).read_bytes(), (flat / INDEX).read_bytes()
    for command in ((), ("diff",)):
        told = fastindex(*command, flat)
        assert told.returncode == 1
        assert "images: the flat tree of incus-simplestreams" in told.stderr
        assert f"fastindex import --copy {flat}/images NEW_ROOT" in told.stderr
        assert "--force" not in told.stderr
        assert ((flat / IMAGES).read_bytes(), (flat / INDEX).read_bytes()) == before


@pytest.mark.parametrize("option", ["--copy", "--move", "--dry-run"])
def test_nothing_is_imported_into_it(
    fastindex: Run, flat: Path, workshop: Workshop, tmp_path: Path, option: str
) -> None:
    source = workshop.split(tmp_path / "source")
    before = stamps(tmp_path)
    told = fastindex("import", option, source, flat)
    assert (told.returncode, told.stdout) == (1, "")
    assert f"{flat}/images: the flat tree of incus-simplestreams" in told.stderr
    assert f"fastindex import --copy {flat}/images NEW_ROOT" in told.stderr
    assert stamps(tmp_path) == before
    # A stream beside it is another tree.
    assert fastindex("import", "--stream", "daily", "--copy", source, flat).returncode == 0


def test_its_images_and_aliases_are_not_taken_by_a_stream_beside_it(
    fastindex: Run, flat: Path
) -> None:
    products = json.loads((flat / IMAGES).read_bytes())["products"]
    items = {
        item["ftype"]: item["path"]
        for product in products.values()
        for version in product["versions"].values()
        for item in version["items"].values()
        if product["variant"] == "rootfs"
    }
    made = flat / "daily/evil/1/amd64/default/20240505"
    made.mkdir(parents=True)
    shutil.copy(flat / items["incus.tar.xz"], made / "incus.tar.xz")
    shutil.copy(flat / items["squashfs"], made / "rootfs.squashfs")
    other = "daily/evil/2/amd64/default"
    tree: Files = {
        f"{other}/20240505/{name}": make_content(name, "evil")
        for name in ("incus.tar.xz", "rootfs.squashfs")
    }
    write_tree(flat, {**tree, "daily/evil/.product.toml": b'aliases = ["debian/12/rootfs"]\n'})
    before = (flat / IMAGES).read_bytes()
    told = fastindex("--stream", "daily", flat)
    assert told.returncode == 3
    assert "evil/1/amd64/default/20240505/rootfs.squashfs: the same image" in told.stderr
    assert "the alias 'debian/12/rootfs' belongs to images/debian:12:rootfs:amd64" in told.stderr
    assert (flat / IMAGES).read_bytes() == before
    check(fastindex, flat)


Change = Callable[[dict[str, Any]], object]


def make_maintained(root: Path, root_name: str = "rootfs.squashfs") -> dict[str, Any]:
    """Write what simplestream-maintainer keeps: LXD's metadata only, with a delta."""
    versions: dict[str, Any] = {}
    for day in ("20240505_0524", "20240506_0524"):
        where = f"images/ubuntu/noble/amd64/default/{day}"
        metadata = make_content("lxd.tar.xz", day)
        content = make_content(root_name, day)
        write_tree(root, {f"{where}/lxd.tar.xz": metadata, f"{where}/{root_name}": content})
        is_tarball = root_name != "rootfs.squashfs"
        combined = "combined_rootxz_sha256" if is_tarball else "combined_squashfs_sha256"
        versions[day] = {
            "checksums": {},
            "items": {
                "lxd.tar.xz": {
                    "ftype": "lxd.tar.xz",
                    "path": f"{where}/lxd.tar.xz",
                    "sha256": sha256(metadata),
                    "size": len(metadata),
                    combined: sha256(metadata, content),
                },
                root_name: {
                    "ftype": "root.tar.xz" if is_tarball else "squashfs",
                    "path": f"{where}/{root_name}",
                    "sha256": sha256(content),
                    "size": len(content),
                },
            },
        }
    if root_name == "rootfs.squashfs":
        delta = make_content("delta.vcdiff", "delta")
        where = "images/ubuntu/noble/amd64/default/20240506_0524/delta-20240505_0524.vcdiff"
        write_tree(root, {where: delta})
        versions["20240506_0524"]["items"]["delta-20240505_0524.vcdiff"] = {
            "ftype": "squashfs.vcdiff",
            "path": where,
            "sha256": sha256(delta),
            "size": len(delta),
            "delta_base": "20240505_0524",
        }
    return {
        "ubuntu:noble:amd64:default": {
            "aliases": "ubuntu/noble/default,ubuntu/noble",
            "os": "Ubuntu",
            "release": "noble",
            "release_title": "noble",
            "arch": "amd64",
            "variant": "default",
            "lxd_requirements": {"secureboot": "false"},
            "requirements": None,
            "versions": versions,
        }
    }


def test_what_simplestream_maintainer_wrote_is_no_damage(fastindex: Run, tmp_path: Path) -> None:
    publish(tmp_path, make_maintained(tmp_path), content_id="images", format="products:1.0")
    check(fastindex, tmp_path)
    assert len(fingerprints(fastindex, tmp_path)) == 2
    # A build serves Incus, too, and else publishes the same.
    before = fingerprints(fastindex, tmp_path)
    told = fastindex("diff", tmp_path)
    assert told.returncode == 3
    lines = [line.split()[0] for line in told.stdout.splitlines()]
    assert lines == ["~"] * 3
    assert fastindex(tmp_path).returncode == 0
    assert fingerprints(fastindex, tmp_path) == before
    check(fastindex, tmp_path)


def test_an_image_of_its_mirror_can_be_removed(fastindex: Run, tmp_path: Path) -> None:
    publish(tmp_path, make_maintained(tmp_path))
    newest, older = fingerprints(fastindex, tmp_path)
    assert fastindex("remove", older[:12], tmp_path).returncode == 0
    assert fingerprints(fastindex, tmp_path) == [newest]
    check(fastindex, tmp_path)


def without(*fields: str) -> Change:
    def change(product: dict[str, Any]) -> None:
        for field in fields:
            product.pop(field, None)

    return change


def rename_fingerprint(product: dict[str, Any]) -> None:
    """Give the only fingerprint as old servers did."""
    for version in product["versions"].values():
        for item in version["items"].values():
            if "combined_rootxz_sha256" in item:
                item["combined_sha256"] = item.pop("combined_rootxz_sha256")


@pytest.mark.parametrize(
    ("change", "images"),
    [
        (without("aliases"), 2),
        (without("os", "release", "release_title", "variant"), 2),
        (without("requirements", "lxd_requirements"), 2),
        (without("versions"), 0),
        (lambda product: product["versions"].update({"20240507_0524": {}}), 2),
        (lambda product: product["versions"].update({"20240507_0524": {"items": None}}), 2),
        (lambda product: product.update(dict.fromkeys(("aliases", "os", "label", "new"))), 2),
        (rename_fingerprint, 2),
    ],
)
def test_a_field_that_is_missing_is_an_empty_one(
    fastindex: Run, tmp_path: Path, change: Change, images: int
) -> None:
    products = make_maintained(tmp_path, "rootfs.tar.xz")
    for product in products.values():
        change(product)
    publish(tmp_path, products)
    check(fastindex, tmp_path)
    assert len(fingerprints(fastindex, tmp_path)) == images
    assert fastindex("diff", tmp_path).returncode == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda product: product.update(aliases=["a"]), "bad-catalogue"),
        (lambda product: product.update(requirements={"secureboot": False}), "bad-catalogue"),
        (without("arch"), "unknown-architecture"),
        (lambda product: product["versions"]["20240505_0524"]["items"].pop("lxd.tar.xz"), ""),
    ],
)
def test_what_clients_reject_or_do_not_show_is_still_damage(
    fastindex: Run, tmp_path: Path, change: Change, code: str
) -> None:
    products = make_maintained(tmp_path)
    for product in products.values():
        change(product)
    publish(tmp_path, products)
    told = fastindex("verify", "--json", tmp_path)
    assert told.returncode == 4
    codes = {mismatch["code"] for mismatch in json.loads(told.stdout)["verify"]["mismatches"]}
    assert codes == {code or "incomplete-version"}


def test_an_old_fingerprint_that_is_wrong_is_found(fastindex: Run, tmp_path: Path) -> None:
    products = make_maintained(tmp_path, "rootfs.tar.xz")
    for product in products.values():
        rename_fingerprint(product)
        items = product["versions"]["20240505_0524"]["items"]
        items["lxd.tar.xz"]["combined_sha256"] = "0" * 64
    publish(tmp_path, products)
    told = fastindex("verify", "--sha256", tmp_path)
    assert told.returncode == 4
    assert "lxd.tar.xz: its fingerprint with rootfs.tar.xz is" in told.stdout


def test_an_index_entry_that_clients_skip_is_named(fastindex: Run, tmp_path: Path) -> None:
    publish(tmp_path, make_maintained(tmp_path))
    index = json.loads((tmp_path / INDEX).read_bytes())
    entry = index["index"]["images"]
    changes: list[dict[str, Any]] = [{"datatype": None}, {"datatype": "x"}]
    changes += [{"products": []}, {"products": None}]
    for change in changes:
        changed = {key: value for key, value in (entry | change).items() if value is not None}
        (tmp_path / INDEX).write_text(json.dumps(index | {"index": {"images": changed}}))
        told = fastindex("verify", tmp_path)
        assert told.returncode == 4
        assert "streams/v1/index.json\n  clients skip the stream 'images'" in told.stdout
        assert fastindex("list", tmp_path).returncode == 4
