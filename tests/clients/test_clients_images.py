"""What the real clients see of each kind of image, and what they download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients.image_maker import (
    DISK,
    INCUS_COMBINED,
    INCUS_METADATA,
    LXD_COMBINED,
    LXD_METADATA,
    OLDER,
    SQUASHFS,
    TARBALL,
    Publish,
    fingerprint,
)
from tests.support.clients.real_clients import Client, ClientError, Flavour, contents

BOTH_METADATA = (INCUS_METADATA, LXD_METADATA)


@pytest.fixture
def version(publish: Publish) -> Path:
    """Publish a product with a container and a virtual machine; return its version."""
    return publish([*BOTH_METADATA, SQUASHFS, DISK])


def test_each_client_lists_the_container_and_the_vm_by_its_own_metadata(
    version: Path, flavour: Flavour, connect: Callable[[], Client]
) -> None:
    metadata = version / flavour.metadata

    listed = {image.fingerprint: image.type for image in connect().list_images()}

    assert listed == {
        fingerprint(metadata, version / SQUASHFS): "container",
        fingerprint(metadata, version / DISK): "virtual-machine",
    }


@pytest.mark.usefixtures("version")
def test_listed_images_tell_their_product(connect: Callable[[], Client]) -> None:
    images = connect().list_images()

    assert len(images) == 2
    for image in images:
        assert image.architecture == "x86_64"
        assert {"busybox/1.36", "busybox/1.36/default"} <= set(image.aliases)
        told = {"os", "release", "variant", "architecture", "serial"}
        assert {name: image.properties[name] for name in told} == {
            "os": "busybox",
            "release": "1.36",
            "variant": "default",
            "architecture": "amd64",
            "serial": OLDER,
        }


@pytest.mark.parametrize("alias", ["busybox/1.36", "busybox/1.36/default"])
@pytest.mark.parametrize(("vm", "root"), [(False, SQUASHFS), (True, DISK)])
def test_info_on_an_alias_finds_the_image(
    version: Path,
    flavour: Flavour,
    connect: Callable[[], Client],
    alias: str,
    vm: bool,
    root: str,
) -> None:
    info = connect().info(alias, vm=vm)

    assert f"Fingerprint: {fingerprint(version / flavour.metadata, version / root)}\n" in info


@pytest.mark.parametrize(("vm", "root"), [(False, SQUASHFS), (True, DISK)])
def test_an_export_is_the_files_on_the_mirror(
    version: Path,
    flavour: Flavour,
    connect: Callable[[], Client],
    vm: bool,
    root: str,
) -> None:
    exported = connect().export("busybox/1.36", vm=vm)

    assert exported == contents(version, flavour.metadata, root)


@pytest.mark.parametrize("metadata", BOTH_METADATA)
def test_one_metadata_file_serves_both_clients(
    publish: Publish,
    connect: Callable[[], Client],
    metadata: str,
) -> None:
    version = publish([metadata, SQUASHFS])

    client = connect()
    (image,) = client.list_images()
    exported = client.export("busybox/1.36")

    assert image.fingerprint == fingerprint(version / metadata, version / SQUASHFS)
    assert exported == contents(version, metadata, SQUASHFS)


def test_all_roots_of_a_version_are_listed_and_exported(
    publish: Publish,
    flavour: Flavour,
    connect: Callable[[], Client],
) -> None:
    roots = [SQUASHFS, TARBALL, DISK]
    version = publish([*BOTH_METADATA, *roots])
    fingerprints = {root: fingerprint(version / flavour.metadata, version / root) for root in roots}

    client = connect()

    assert {image.fingerprint: image.properties["type"] for image in client.list_images()} == {
        fingerprints[SQUASHFS]: "squashfs",
        fingerprints[TARBALL]: "root.tar.xz",
        fingerprints[DISK]: "disk-kvm.img",
    }
    for root in roots:
        exported = client.export(fingerprints[root])
        assert exported == contents(version, flavour.metadata, root)


def test_a_unified_image_reaches_the_client_that_it_is_for(
    publish: Publish,
    flavour: Flavour,
    connect: Callable[[], Client],
) -> None:
    version = publish([INCUS_COMBINED, LXD_COMBINED])

    client = connect()
    (image,) = client.list_images()
    exported = client.export("busybox/1.36")

    assert image.type == "container"
    assert image.fingerprint == fingerprint(version / flavour.combined)
    assert exported == contents(version, flavour.combined)


def test_a_corrupted_root_is_refused(version: Path, connect: Callable[[], Client]) -> None:
    corrupted = bytearray((version / SQUASHFS).read_bytes())
    corrupted[len(corrupted) // 2] ^= 1
    (version / SQUASHFS).write_bytes(corrupted)

    with pytest.raises(ClientError, match="Hash mismatch"):
        connect().export("busybox/1.36")
