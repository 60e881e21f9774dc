"""A real daemon refreshes an image that it has, by a delta."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients.image_maker import (
    INCUS_METADATA,
    NEWER,
    OLDER,
    PRODUCT,
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
from tests.support.deltas import find_xdelta3, make_random_squashfs

OTHER = "other/1/amd64/default"


@pytest.fixture
def daemon(certificate: Certificate) -> Iterator[IncusDaemon]:
    """Run a daemon; skip where that is impossible."""
    find_xdelta3()
    with ExitStack() as stack:
        try:
            stack.enter_context(network_of_its_own())
            daemon = stack.enter_context(run_daemon(certificate.path))
        except IncusError as error:
            pytest.skip(f"incusd cannot run here: {error}")
        yield daemon


@pytest.fixture
def mirror(daemon: IncusDaemon, mirror: Mirror) -> Mirror:
    """Serve the mirror in the daemon's network, which must be there before."""
    daemon.add_remote(mirror.url)
    return mirror


def test_the_daemon_refreshes_an_image_by_a_delta(
    daemon: IncusDaemon, mirror: Mirror, maker: ImageMaker, fastindex: Run, tmp_path: Path
) -> None:
    older, newer = (mirror.root / "images" / PRODUCT / day for day in (OLDER, NEWER))
    later = tmp_path / "later"
    maker.add_version(mirror.root, [INCUS_METADATA])
    maker.add_version(later, [INCUS_METADATA], version=NEWER)
    other = maker.add_version(mirror.root, [INCUS_METADATA, SQUASHFS], product=OTHER)
    roots = [older / SQUASHFS, later / "images" / PRODUCT / NEWER / SQUASHFS]
    make_random_squashfs(tmp_path / "work", random.Random(7), roots)
    assert roots[0].read_bytes() != roots[1].read_bytes()
    mirror.index()
    daemon.copy_image("busybox/1.36")
    before = fingerprint(older / INCUS_METADATA, older / SQUASHFS)
    assert daemon.list_images() == [before]

    (later / "images" / PRODUCT / NEWER).rename(newer)
    mirror.index()
    assert fastindex("deltas", "--max-ratio", "100", mirror.root).returncode == 0
    assert (newer / f"delta-{OLDER}.vcdiff").exists()
    (other / SQUASHFS).unlink()
    daemon.forget_catalogue("other/1")
    daemon.refresh_image(before)

    after = fingerprint(newer / INCUS_METADATA, newer / SQUASHFS)
    assert daemon.list_images() == [after]
    (log,) = tmp_path.rglob("access.log")
    asked = [line.split('"')[1] for line in log.read_text().splitlines() if f"/{NEWER}/" in line]
    names = {line.split()[1].rpartition("/")[2].replace("%3A", ":") for line in asked}
    assert names == {INCUS_METADATA, f"delta-{OLDER}.vcdiff"}
