"""Documents, from servers that are well and from others."""

from __future__ import annotations

import gzip
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fastindex.errors import UsageError
from fastindex.remote.client import Client
from fastindex.remote.credentials import encode_basic
from fastindex.remote.errors import FetchError
from fastindex.remote.options import RemoteOptions
from tests.support.faulty_server import FaultyServer, Handler
from tests.unit.remote.conftest import MakeClient

PATH = "/streams/v1/index.json"
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def content(server: FaultyServer) -> bytes:
    server.files[PATH] = b'{"index": {}}'
    return server.files[PATH]


def fetched(client: Client, url: str) -> bytes:
    document = client.fetch(url, LIMIT)
    assert document is not None
    return document.content


def failure(client: Client, url: str, max_bytes: int = LIMIT) -> FetchError:
    with pytest.raises(FetchError) as caught:
        client.fetch(url, max_bytes)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_document_comes_with_its_tag(
    client: Client, server: FaultyServer, content: bytes
) -> None:
    document = client.fetch(server.url + PATH, LIMIT)
    assert document is not None
    assert document.content == content
    assert document.etag == server.etag(PATH)
    assert document.url == server.url + PATH
    (asked,) = server.requests
    assert asked.headers["user-agent"] == "fastindex-tests"
    assert asked.headers["accept-encoding"] == "identity"


def test_a_known_document_is_not_sent_again(client: Client, server: FaultyServer) -> None:
    document = client.fetch(server.url + PATH, LIMIT)
    assert document is not None
    assert client.fetch(server.url + PATH, LIMIT, document.etag) is None
    assert "if-modified-since" not in server.requests[1].headers
    server.files[PATH] = b"another"
    changed = client.fetch(server.url + PATH, LIMIT, document.etag)
    assert changed is not None
    assert changed.content == b"another"


def test_one_connection_serves_all_documents(client: Client, server: FaultyServer) -> None:
    for _ in range(3):
        fetched(client, server.url + PATH)
    failure(client, server.url + "/missing")
    fetched(client, server.url + PATH)
    assert len({asked.client_port for asked in server.requests}) == 1


def test_a_connection_that_was_closed_while_idle_is_made_again(
    make_client: MakeClient, server: FaultyServer, content: bytes
) -> None:
    client = make_client(retries=0)

    def serve_and_close(handler: Handler) -> None:
        handler.serve()
        handler.hang_up()

    server.faults[PATH] = [serve_and_close]
    assert [fetched(client, server.url + PATH) for _ in range(2)] == [content] * 2
    assert len({asked.client_port for asked in server.requests}) == 2


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_missing_is_told_and_not_retried(
    client: Client, server: FaultyServer, status: int
) -> None:
    server.always[PATH] = lambda handler: handler.answer(status, b"")
    error = failure(client, server.url + PATH)
    assert error.is_missing
    assert error.problem.startswith(f"{server.url}{PATH}: the server answers {status} ")
    assert len(server.requests) == 1


def answer_503(handler: Handler) -> None:
    handler.answer(503, b"busy")


def answer_429(handler: Handler) -> None:
    handler.answer(429, b"", ("Retry-After", "0"))


def cut(handler: Handler) -> None:
    handler.answer(200, b"{", length=10)
    handler.hang_up()


def cut_chunks(handler: Handler) -> None:
    handler.answer(200, b"1\r\n{\r\n", ("Transfer-Encoding", "chunked"), length=None)
    handler.hang_up()


def hang_up(handler: Handler) -> None:
    handler.hang_up()


def babble(handler: Handler) -> None:
    handler.wfile.write(b"\x1b[2J hello\r\n\r\n")
    handler.hang_up()


PASSING = [answer_503, answer_429, cut, cut_chunks, hang_up, babble]


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(
    client: Client, server: FaultyServer, content: bytes, fault: object
) -> None:
    server.faults[PATH] = [fault] * 3  # type: ignore[list-item]
    assert fetched(client, server.url + PATH) == content
    assert len(server.requests) >= 4


@pytest.mark.parametrize("fault", PASSING)
def test_retries_come_to_an_end(
    make_client: MakeClient, server: FaultyServer, fault: object
) -> None:
    server.always[PATH] = fault  # type: ignore[assignment]
    error = failure(make_client(retries=2), server.url + PATH)
    assert not error.is_missing
    assert len(server.requests) == 3


def test_a_silent_server_is_given_up(make_client: MakeClient, server: FaultyServer) -> None:
    server.always[PATH] = lambda _: _wait(server)
    error = failure(make_client(retries=1, timeout_seconds=0.2), server.url + PATH)
    assert "silent" in error.problem
    assert len(server.requests) == 2


def _wait(server: FaultyServer) -> None:
    server.release.wait(60)


@pytest.mark.parametrize("where", ["headers", "body", "chunks"])
def test_a_server_that_yields_next_to_nothing_is_given_up(
    make_client: MakeClient, server: FaultyServer, where: str
) -> None:
    def trickle(handler: Handler) -> None:
        if where == "body":
            handler.answer(200, b"", length=1000)
        elif where == "chunks":
            handler.answer(200, b"", ("Transfer-Encoding", "chunked"), length=None)
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.release.wait(0.02):
            handler.wfile.write(b"0")

    server.always[PATH] = trickle
    error = failure(make_client(retries=0, timeout_seconds=0.3), server.url + PATH)
    assert "too slow" in error.problem


@pytest.mark.parametrize("length", [-1, None])
def test_a_document_has_a_largest_size(
    client: Client, server: FaultyServer, length: int | None
) -> None:
    def serve_large(handler: Handler) -> None:
        handler.answer(200, b"x" * 1001, ("Connection", "close"), length=length)
        handler.hang_up()

    server.always[PATH] = serve_large
    assert "larger than 1000 bytes" in failure(client, server.url + PATH, 1000).problem


def test_an_endless_document_is_cut_off(client: Client, server: FaultyServer) -> None:
    def serve_for_ever(handler: Handler) -> None:
        handler.answer(200, b"", length=None)
        with suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 16))
        handler.close_connection = True

    server.always[PATH] = serve_for_ever
    assert "larger than" in failure(client, server.url + PATH).problem


def test_chunks_are_joined(client: Client, server: FaultyServer) -> None:
    server.always[PATH] = lambda handler: handler.answer(
        200, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", ("Transfer-Encoding", "chunked"), length=None
    )
    assert fetched(client, server.url + PATH) == b"abcde"
    assert fetched(client, server.url + PATH) == b"abcde"
    assert len({asked.client_port for asked in server.requests}) == 1


def test_a_compressed_document_is_refused(client: Client, server: FaultyServer) -> None:
    packed = gzip.compress(b"{}")
    server.always[PATH] = lambda handler: handler.answer(200, packed, ("Content-Encoding", "gzip"))
    assert "compressed" in failure(client, server.url + PATH).problem


def test_endless_headers_are_refused(make_client: MakeClient, server: FaultyServer) -> None:
    server.always[PATH] = lambda handler: handler.answer(
        200, b"", *((f"X-{number}", "y") for number in range(200))
    )
    assert "understood" in failure(make_client(retries=0), server.url + PATH).problem


# Redirects


def redirect(location: str, status: int = 302) -> object:
    return lambda handler: handler.answer(status, b"moved", ("Location", location))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(
    client: Client, server: FaultyServer, content: bytes, status: int
) -> None:
    server.always["/a"] = redirect("/b", status)  # type: ignore[assignment]
    server.always["/b"] = redirect(server.url + PATH, status)  # type: ignore[assignment]
    document = client.fetch(server.url + "/a", LIMIT)
    assert document is not None
    assert (document.content, document.url) == (content, server.url + PATH)
    assert len({asked.client_port for asked in server.requests}) == 1


def test_a_circle_of_redirects_is_left(client: Client, server: FaultyServer) -> None:
    server.always["/a"] = redirect("/a")  # type: ignore[assignment]
    assert "more than 5 times" in failure(client, server.url + "/a").problem
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://example.org/",
        "file:///etc/passwd",
        "ftp://example.org/",
        "https://me:secret@example.org/",
        "https://127.0.0.2/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://intern.localhost/",
    ],
)
def test_a_redirect_to_where_none_may_lead_is_refused(
    client: Client, server: FaultyServer, location: str
) -> None:
    server.always["/a"] = redirect(location)  # type: ignore[assignment]
    error = failure(client, server.url + "/a")
    assert "redirect" in error.problem
    assert "secret" not in str(error)
    assert len(server.requests) == 1


@pytest.fixture
def rebound(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a name that leads to this host."""
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> object:
        host = "127.0.0.1" if host == "rebound.example" else host
        return real(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return "rebound.example"


def test_a_redirect_to_a_name_with_a_private_address_is_refused(
    client: Client, server: FaultyServer, plain: FaultyServer, rebound: str
) -> None:
    plain.files[PATH] = b"inner"
    server.url = server.url.replace("localhost", "127.0.0.1")
    port = plain.url.rpartition(":")[2]
    plain.always["/a"] = redirect(f"http://{rebound}:{port}{PATH}")  # type: ignore[assignment]
    error = failure(client, plain.url + "/a")
    assert "private address 127.0.0.1" in error.problem
    assert "--allow-private" in error.remedy
    assert plain.asked(PATH) == []


def test_private_addresses_can_be_allowed(
    make_client: MakeClient, plain: FaultyServer, rebound: str
) -> None:
    plain.files[PATH] = b"inner"
    port = plain.url.rpartition(":")[2]
    plain.always["/a"] = redirect(f"http://{rebound}:{port}{PATH}")  # type: ignore[assignment]
    assert fetched(make_client(allow_private=True), plain.url + "/a") == b"inner"


def test_another_port_of_a_private_host_is_another_server(
    client: Client, server: FaultyServer, other: FaultyServer
) -> None:
    other.files[PATH] = b"inner"
    server.always["/a"] = redirect(other.url + PATH)  # type: ignore[assignment]
    assert "private address" in failure(client, server.url + "/a").problem
    assert other.requests == []


# Credentials


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return the value of Authorization that netrc has for localhost."""
    path = tmp_path / "netrc"
    path.write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(path))
    return encode_basic("me", "secret")


def test_credentials_come_from_netrc(client: Client, server: FaultyServer, password: str) -> None:
    fetched(client, server.url + PATH)
    assert server.requests[0].headers["authorization"] == password


def test_credentials_are_dropped_on_redirects_to_other_servers(
    make_client: MakeClient, server: FaultyServer, other: FaultyServer, password: str
) -> None:
    other.files[PATH] = b"{}"
    other.always["/b"] = redirect(server.url + PATH)  # type: ignore[assignment]
    server.always["/a"] = redirect(other.url + "/b")  # type: ignore[assignment]
    fetched(make_client(allow_private=True), server.url + "/a")
    assert server.requests[0].headers["authorization"] == password
    assert "authorization" not in other.requests[0].headers
    assert "authorization" not in server.requests[1].headers


def test_credentials_are_refused_over_plain_http(
    client: Client, plain: FaultyServer, password: str
) -> None:
    with pytest.raises(UsageError, match="in clear"):
        client.fetch(plain.url + PATH, LIMIT)
    assert plain.requests == []


def test_credentials_in_a_url_are_refused(client: Client) -> None:
    with pytest.raises(UsageError) as caught:
        client.fetch("https://me:secret@localhost/", LIMIT)
    assert "secret" not in str(caught.value)


# TLS


def test_a_certificate_that_is_not_trusted_is_refused(server: FaultyServer) -> None:
    with Client(RemoteOptions(user_agent="fastindex")) as client:
        error = failure(client, server.url + PATH)
    assert "certificate is not valid" in error.problem
    assert "--ca" in error.remedy
    assert server.requests == []


def test_a_certificate_of_another_host_is_refused(
    client: Client, server: FaultyServer, rebound: str
) -> None:
    error = failure(client, server.url.replace("localhost", rebound) + PATH)
    assert "certificate is not valid" in error.problem


def test_a_file_without_certificates_is_refused(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    client = make_client(ca_file=str(tmp_path / "empty.pem"))
    with pytest.raises(UsageError, match=r"empty\.pem: not a PEM file"):
        client.fetch("https://localhost/", LIMIT)


# Other places


def test_nobody_listens(make_client: MakeClient, server: FaultyServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but it does not listen
        error = failure(make_client(retries=1), f"https://localhost:{taken.getsockname()[1]}/")
    assert "refused" in error.problem


def test_a_local_file_is_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a b.json").write_bytes(b"{}")
    url = (tmp_path / "a b.json").as_uri()
    document = client.fetch(url, LIMIT)
    assert document is not None
    assert (document.content, document.url) == (b"{}", url)
    assert client.fetch(url, LIMIT, document.etag) is None
    assert "larger than 1 bytes" in failure(client, url, 1).problem


def test_a_local_file_that_is_missing_is_told(client: Client, tmp_path: Path) -> None:
    assert failure(client, (tmp_path / "missing").as_uri()).is_missing
    assert not failure(client, tmp_path.as_uri()).is_missing


# Proxies


class ProxyHandler(BaseHTTPRequestHandler):
    """Forwards, and notes what it was asked."""

    asked: list[tuple[str, str, str]]

    def do_CONNECT(self) -> None:
        self.note()
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            self.send_response(200)
            self.end_headers()
            pair = [self.connection, upstream]
            while True:
                for source in select.select(pair, [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    pair[source is self.connection].sendall(data)

    def do_GET(self) -> None:
        self.note()
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"proxy")

    def note(self) -> None:
        authorization = self.headers.get("Proxy-Authorization", "")
        self.asked.append((self.command, self.path, authorization))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, str]]]:
    """Return what a proxy that the environment names is asked."""
    asked: list[tuple[str, str, str]] = []
    handler = type("Noting", (ProxyHandler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://me:secret@127.0.0.1:{proxy.server_address[1]}"
        monkeypatch.setenv("https_proxy", url)
        monkeypatch.setenv("http_proxy", url)
        yield asked
        proxy.shutdown()
        thread.join()


def test_https_goes_through_a_tunnel(
    client: Client, server: FaultyServer, content: bytes, proxied: list[tuple[str, str, str]]
) -> None:
    assert [fetched(client, server.url + PATH) for _ in range(2)] == [content] * 2
    host = server.url.removeprefix("https://")
    assert proxied == [("CONNECT", host, encode_basic("me", "secret"))]
    assert "proxy-authorization" not in server.requests[0].headers
    assert server.requests[0].headers["host"] == host


def test_http_is_asked_from_the_proxy(
    client: Client, plain: FaultyServer, proxied: list[tuple[str, str, str]]
) -> None:
    assert fetched(client, plain.url + PATH) == b"proxy"
    assert proxied == [("GET", plain.url + PATH, encode_basic("me", "secret"))]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_named(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", "http://me:secret@127.0.0.1:1")
    error = failure(make_client(retries=0), f"{scheme}://example.invalid/{PATH}")
    assert "the connection is refused, through the proxy 127.0.0.1:1" in error.problem
    assert f"{scheme}_proxy" in error.remedy
    assert "secret" not in f"{error.problem} {error.remedy}"
