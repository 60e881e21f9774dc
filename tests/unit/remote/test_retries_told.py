"""What is asked for again is told: once for each problem of a server, then to the curious."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress

import pytest

from fastindex.events import Observer
from fastindex.remote.board import Source
from fastindex.remote.client import Client
from fastindex.remote.download import download
from fastindex.remote.errors import FetchError
from fastindex.remote.inspection import inspect
from fastindex.remote.options import RemoteOptions
from tests.support.clients.mirror_server import Certificate
from tests.support.faulty_server import FaultyServer, Handler
from tests.unit.remote.test_download import Sink

PATH = "/file"


class Listener(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.details: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def log(self, message: str) -> None:
        self.details.append(message)


def fetch(client: Client, url: str) -> None:
    with suppress(FetchError):
        client.fetch(url, 1000)


def look(client: Client, url: str) -> None:
    with closing(inspect(client, [(0, url)])) as answers:
        assert len([*answers]) == 1


def load(client: Client, url: str) -> None:
    assert len([*download(client, [(Source((url,), 100), Sink())])]) == 1


def answer(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, b"")


@pytest.mark.parametrize("ask", [fetch, look, load])
def test_each_problem_is_told_once_and_its_retries_to_the_curious(
    server: FaultyServer, certificate: Certificate, ask: Callable[[Client, str], None]
) -> None:
    server.files[PATH] = bytes(100)
    server.faults[PATH] = [answer(503), answer(503), answer(429), answer(503)]
    listener = Listener()
    options = RemoteOptions(
        user_agent="test", ca_file=str(certificate.path), first_delay_seconds=0.001
    )
    with Client(options, listener) as client:
        ask(client, server.url + PATH)
    told = server.url + PATH + ": the server answers "
    assert [one.partition(" in ")[0] for one in listener.notes] == [
        f"{told}503 Service Unavailable; asking again",
        f"{told}429 Too Many Requests; asking again",
    ]
    assert all(one.endswith(", at most 5 times") for one in listener.notes)
    assert [one.partition(" in ")[0] for one in listener.details] == [
        f"{told}503 Service Unavailable; asking again"
    ] * 2
