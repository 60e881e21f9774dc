"""Servers, clients and sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fastindex.remote.client import Client
from fastindex.remote.options import RemoteOptions
from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.faulty_server import FaultyServer, serve_faulty


@pytest.fixture(autouse=True)
def no_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Hide the proxies and the netrc of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.touch()
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate: Certificate) -> Iterator[FaultyServer]:
    with serve_faulty(certificate) as served:
        yield served


@pytest.fixture
def other(certificate: Certificate) -> Iterator[FaultyServer]:
    """Another server, on another port."""
    with serve_faulty(certificate) as served:
        yield served


@pytest.fixture
def plain() -> Iterator[FaultyServer]:
    """A server without TLS."""
    with serve_faulty(None) as served:
        yield served


MakeClient = Callable[..., Client]


@pytest.fixture
def make_client(certificate: Certificate) -> Iterator[MakeClient]:
    """Return what makes clients that trust the servers and are in a hurry."""
    with ExitStack() as clients:

        def make(**changes: object) -> Client:
            settings: dict[str, object] = {
                "user_agent": "fastindex-tests",
                "ca_file": str(certificate.path),
                "first_delay_seconds": 0.001,
                "min_piece_bytes": 64 << 10,
                "max_piece_bytes": 64 << 10,
                **changes,
            }
            return clients.enter_context(Client(RemoteOptions(**settings)))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client()
