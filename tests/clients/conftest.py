"""A served mirror, and each of the real clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.clients.debian_maker import DebianMaker
from tests.support.clients.image_maker import ImageMaker, Publish
from tests.support.clients.mirror_server import Certificate, Mirror, serve
from tests.support.clients.real_clients import FLAVOURS, Client, Flavour
from tests.support.tools import needs


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> ImageMaker:
    """Return what makes the images; the roots are built once."""
    return ImageMaker(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> DebianMaker:
    """Return what packs a Debian as builders do; each root is packed once."""
    return DebianMaker(tmp_path_factory.mktemp("debian"))


@pytest.fixture
def mirror(tmp_path: Path, certificate: Certificate) -> Iterator[Mirror]:
    """Serve an empty tree over TLS."""
    root, work = tmp_path / "mirror", tmp_path / "nginx"
    root.mkdir()
    work.mkdir()
    with serve(root, work, certificate) as mirror:
        yield mirror


@pytest.fixture
def publish(maker: ImageMaker, mirror: Mirror) -> Publish:
    """Return what adds a version to the served tree and publishes it."""

    def publish_version(names: Sequence[str], **place: str) -> Path:
        directory = maker.add_version(mirror.root, names, **place)
        mirror.index()
        return directory

    return publish_version


@pytest.fixture(params=FLAVOURS.values(), ids=lambda flavour: flavour.tool)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Return each client in turn that is installed."""
    flavour: Flavour = request.param
    needs(flavour.tool, flavour.install_line)
    return flavour


@pytest.fixture
def connect(
    flavour: Flavour,
    mirror: Mirror,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Client]:
    """Return what makes a client that has never seen the mirror before."""

    def connect_anew() -> Client:
        client = Client(flavour, tmp_path_factory.mktemp("home"), certificate.path)
        client.add_remote(mirror.url)
        return client

    return connect_anew
