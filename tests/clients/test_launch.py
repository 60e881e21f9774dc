"""A real daemon launches a container from the mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients.debian_maker import DebianMaker
from tests.support.clients.image_maker import (
    INCUS_COMBINED,
    INCUS_METADATA,
    SQUASHFS,
    ImageMaker,
    fingerprint,
)
from tests.support.clients.incus_daemon import (
    IncusDaemon,
    IncusError,
    network_of_its_own,
    run_daemon,
)
from tests.support.clients.mirror_server import Certificate, Mirror
from tests.support.command import Run


@pytest.fixture
def daemon(maker: ImageMaker, certificate: Certificate, tmp_path: Path) -> Iterator[IncusDaemon]:
    """Run a daemon that has launched a container from a file; skip where that is impossible.

    What fails after that is the mirror's fault.
    """
    image = maker.add_version(tmp_path / "files", [INCUS_COMBINED]) / INCUS_COMBINED
    with ExitStack() as stack:
        try:
            stack.enter_context(network_of_its_own())
            daemon = stack.enter_context(run_daemon(certificate.path))
            daemon.import_image(image, "trial")
            daemon.launch("trial", "trial")
            daemon.exec("trial", "cat", "/etc/hostname")
            daemon.delete("trial")
        except IncusError as error:
            pytest.skip(f"incusd cannot run a container here: {error}")
        yield daemon


@pytest.fixture
def mirror(daemon: IncusDaemon, mirror: Mirror) -> Mirror:
    """Serve the mirror in the daemon's network, which must be there before."""
    daemon.add_remote(mirror.url)
    return mirror


def test_the_daemon_launches_a_container_from_the_mirror(
    daemon: IncusDaemon, mirror: Mirror, maker: ImageMaker
) -> None:
    version = maker.add_version(mirror.root, [INCUS_METADATA, SQUASHFS])
    mirror.index()

    daemon.launch("mirror:busybox/1.36", "launched")

    assert daemon.exec("launched", "cat", "/etc/hostname") == "busybox\n"
    assert daemon.fingerprint("launched") == _fingerprint_in_catalogue(mirror)
    assert daemon.fingerprint("launched") == fingerprint(
        version / INCUS_METADATA, version / SQUASHFS
    )
    daemon.delete("launched")


def test_the_daemon_launches_an_imported_debian(
    daemon: IncusDaemon, mirror: Mirror, debian: DebianMaker, tmp_path: Path, fastindex: Run
) -> None:
    source = debian.split_export(tmp_path / "source", "12")
    result = fastindex("import", "--index", source, mirror.root)
    assert result.returncode == 0, result.stderr

    daemon.launch("mirror:debian/12", "launched")

    told = (debian.rootfs / "etc/debian_version").read_text()
    assert daemon.exec("launched", "cat", "/etc/debian_version") == told
    assert daemon.exec("launched", "dpkg-query", "-W", "-f", "${Status}", "dpkg").endswith(
        "installed"
    )
    assert daemon.fingerprint("launched") == _fingerprint_in_catalogue(mirror)
    daemon.delete("launched")


def _fingerprint_in_catalogue(mirror: Mirror) -> str:
    """Return the fingerprint of the only image."""
    catalogue = json.loads((mirror.root / "streams/v1/images.json").read_bytes())
    (product,) = catalogue["products"].values()
    (version,) = product["versions"].values()
    told: str = version["items"][INCUS_METADATA]["combined_squashfs_sha256"]
    return told
