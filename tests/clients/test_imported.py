"""A real Debian from each builder's output, imported, indexed, listed and exported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients.debian_maker import DebianMaker, sha256
from tests.support.clients.mirror_server import Mirror
from tests.support.clients.real_clients import Client, Flavour
from tests.support.command import Run

VERSION = "20240505_05:24"
FORMS = (
    "distrobuilder",
    "distrobuilder_lxc",
    "lxd_imagebuilder",
    "split_export",
    "unified_export",
    "unified_vm_export",
)


@pytest.fixture(scope="session")
def outputs(debian: DebianMaker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a directory of each builder's output; the release is called like the builder."""
    directory = tmp_path_factory.mktemp("outputs")
    return {form: getattr(debian, form)(directory / form, form) for form in FORMS}


@pytest.fixture
def versions(outputs: dict[str, Path], mirror: Mirror, fastindex: Run) -> dict[str, Path]:
    """Import all; return the version that came of each builder's output."""
    result = fastindex("import", "--link", "--index", *outputs.values(), mirror.root)
    assert result.returncode == 0, result.stderr
    assert "0 files hashed" in result.stderr
    return {form: mirror.root / f"images/debian/{form}/amd64/default/{VERSION}" for form in FORMS}


def images(version: Path, flavour: Flavour) -> dict[str, list[Path]]:
    """Return the fingerprint and the files of each image that a client is to see."""
    names = {path.name for path in version.iterdir()}
    unified = "incus_combined.tar.gz"  # which serves both clients
    if unified in names:
        return {sha256(version / unified): [version / unified]}
    metadata = flavour.metadata
    if metadata not in names:
        (metadata,) = names & {"incus.tar.xz", "lxd.tar.xz"} or {""}
    roots = sorted(names & {"rootfs.squashfs", "rootfs.tar.xz", "disk.qcow2"})
    return {
        sha256(version / metadata, version / root): [version / metadata, version / root]
        for root in roots
    }


def test_each_client_lists_and_exports_what_each_builder_made(
    versions: dict[str, Path],
    flavour: Flavour,
    connect: Callable[[], Client],
) -> None:
    expected: dict[str, list[Path]] = {}
    for version in versions.values():
        expected |= images(version, flavour)
    client = connect()
    listed = {image.fingerprint: image for image in client.list_images()}
    assert listed.keys() == expected.keys()
    # distrobuilder 2, with lxc 1, lxd-imagebuilder 1, split 1, unified 2
    assert len(expected) == 7
    for fingerprint, files in expected.items():
        is_vm = listed[fingerprint].type == "virtual-machine"
        exported = client.export(fingerprint, vm=is_vm)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in exported.items()}
        assert digests == {path.name: sha256(path) for path in files}


def test_the_builders_definition_reaches_the_clients(
    versions: dict[str, Path], flavour: Flavour, connect: Callable[[], Client]
) -> None:
    (expected,) = images(versions["lxd_imagebuilder"], flavour)
    found = {image.fingerprint: image for image in connect().list_images()}[expected]
    assert "debian/lxd-built" in found.aliases
    if flavour.tool == "incus":
        assert found.properties["requirements.secureboot"] == "false"
