"""``fastindex serve`` on 127.0.0.1, and requests that are sent to a server as they are written."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.command import COMMAND

_PATIENCE_SECONDS = 30


def require_libraries() -> None:
    """Skip the test where the extra ``serve`` is not installed."""
    pytest.importorskip("tornado")
    pytest.importorskip("cryptography")


@dataclass(slots=True)
class Served:
    """A server that answers."""

    process: subprocess.Popen[str]
    url: str
    """Where, as it printed."""
    authority: Path
    """What to trust."""
    told: Path
    """What it says on stderr."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def connect(self, timeout: float = _PATIENCE_SECONDS) -> socket.socket:
        """Return a connection, encrypted if the server is."""
        return connect(self.url, self.authority, timeout)

    def ask(self, target: str, method: str = "GET", **headers: str) -> Reply:
        """Return the answer to a request whose target is sent as it is."""
        with self.connect() as connection:
            return ask(connection, target, method, **headers)

    def stop(self, number: int = 15) -> int:
        """Send a signal, and return how the process ended."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_SECONDS)


def connect(url: str, authority: Path, timeout: float = _PATIENCE_SECONDS) -> socket.socket:
    """Return a connection to a server on 127.0.0.1, encrypted if the server is."""
    plain = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout)
    if url.startswith("http:"):
        return plain
    context = ssl.create_default_context(cafile=str(authority))
    return context.wrap_socket(plain, server_hostname="localhost")


@dataclass(slots=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """The names in lower case."""
    body: bytes = b""


def ask(connection: socket.socket, target: str, method: str = "GET", **headers: str) -> Reply:
    """Send a request and read the whole answer; the server closes the connection after it.

    Args:
        connection: it is used for this alone.
        target: sent as it is.
        method: the same.
        headers: ``_`` in a name stands for ``-``.
    """
    fields = {"Host": "localhost", "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    return read_reply(connection)


def read_reply(connection: socket.socket) -> Reply:
    """Read until the server closes the connection."""
    data = b""
    while piece := connection.recv(1 << 20):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Reply(int(first.split()[1]), headers, body)


@contextmanager
def run_serve(
    root: Path, work: Path, *arguments: object, listen: str = "127.0.0.1:0"
) -> Iterator[Served]:
    """Run ``fastindex serve`` while the context lasts.

    Args:
        root: the tree.
        work: a directory for its state and what it says.
        arguments: more options.
        listen: where.
    """
    require_libraries()
    told = work / "serve.log"
    state = work / "state"
    words = [str(COMMAND), "serve", "-v", "--listen", listen, *map(str, arguments), str(root)]
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    with (
        told.open("w") as log,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, told.read_text()
            yield Served(process, url, state / "fastindex/serve/ca.crt", told)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(_PATIENCE_SECONDS)
