"""HEAD, from servers that are well and from others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fastindex.errors import UsageError
from fastindex.remote.addresses import parse_url
from fastindex.remote.answers import Answered, find_total
from fastindex.remote.client import Client
from fastindex.remote.errors import FetchError
from fastindex.remote.inspection import Inspected, Inspection, Uninspected, inspect
from fastindex.remote.options import RemoteOptions
from fastindex.remote.sessions import Request
from tests.support.faulty_server import MODIFIED, FaultyServer, Handler
from tests.unit.remote.conftest import MakeClient

PATH = "/images/rootfs.squashfs"
CONTENT = bytes(1000)


@pytest.fixture(autouse=True)
def content(server: FaultyServer) -> None:
    server.files[PATH] = CONTENT


def look(client: Client, *urls: str) -> list[Inspection]:
    with closing(inspect(client, enumerate(urls))) as answers:
        return [inspection for _, inspection in sorted(answers, key=lambda answer: answer[0])]


def look_at(client: Client, url: str) -> Inspected:
    (found,) = look(client, url)
    assert isinstance(found, Inspected), found
    return found


def failure(client: Client, url: str) -> Uninspected:
    (found,) = look(client, url)
    assert isinstance(found, Uninspected), found
    assert found.problem.isprintable()
    return found


def test_many_files_come_over_few_connections(client: Client, server: FaultyServer) -> None:
    paths = [f"/{number}" for number in range(300)]
    server.files |= {path: bytes(number) for number, path in enumerate(paths)}
    found = look(client, *(server.url + path for path in paths))
    assert [one.size_bytes for one in found if isinstance(one, Inspected)] == [*range(300)]
    assert len({asked.client_port for asked in server.requests}) <= client.options.connections
    assert {asked.method for asked in server.requests} == {"HEAD"}
    assert len(server.requests) == 300


def test_the_headers_are_told(client: Client, server: FaultyServer) -> None:
    server.always[PATH] = lambda handler: handler.answer(
        200,
        CONTENT,
        ("ETag", '"1"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "no-cache"),
        ("Expires", "0"),
    )
    answered = look_at(client, server.url + PATH).answered
    assert (answered.etag, answered.last_modified) == ('"1"', MODIFIED)
    assert (answered.accept_ranges, answered.cache_control) == ("bytes", "no-cache")
    assert answered.expires == "0"
    assert answered.date


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_without_head_is_asked_for_a_byte(
    make_client: MakeClient, server: FaultyServer, status: int
) -> None:
    def refuse(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(status, b"")
        else:
            handler.serve()

    server.always[PATH] = refuse
    found = look(make_client(connections=1), *[server.url + PATH] * 3)
    assert {(one.size_bytes, one.is_head_answered) for one in found if isinstance(one, Inspected)}
    assert all(isinstance(one, Inspected) and one.size_bytes == len(CONTENT) for one in found)
    assert [asked.method for asked in server.requests] == ["HEAD", "GET", "GET", "GET"]
    assert {asked.headers.get("range") for asked in server.requests[1:]} == {"bytes=0-0"}


@pytest.mark.parametrize("length", ["", "abc", "-1", "9" * 30])
def test_a_size_that_head_does_not_tell_is_asked_for(
    client: Client, server: FaultyServer, length: str
) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(200, b"", ("Content-Length", length), length=None)
        else:
            handler.serve()

    server.always[PATH] = answer
    found = look_at(client, server.url + PATH)
    assert (found.size_bytes, found.is_head_answered) == (len(CONTENT), False)


def test_an_empty_file_without_head(client: Client, server: FaultyServer) -> None:
    server.files[PATH] = b""
    server.faults[PATH] = [lambda handler: handler.answer(405, b"")]
    assert look_at(client, server.url + PATH).size_bytes == 0


@pytest.mark.parametrize("length", [None, 77])
def test_what_is_compressed_on_the_way_is_told_with_its_own_size(
    client: Client, server: FaultyServer, length: int | None
) -> None:
    def compress(handler: Handler) -> None:
        if "gzip" in handler.headers["Accept-Encoding"]:
            handler.answer(200, b"", ("Content-Encoding", "gzip"), length=length)
        else:
            handler.serve()

    server.always[PATH] = compress
    found = look_at(client, server.url + PATH)
    assert found.is_compressible
    assert found.size_bytes == len(CONTENT)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_missing_is_told_and_not_retried(
    client: Client, server: FaultyServer, status: int
) -> None:
    server.always[PATH] = lambda handler: handler.answer(status, b"body")
    found = failure(client, server.url + PATH)
    assert found.is_missing
    assert found.problem.startswith(f"the server answers {status} ")
    assert len(server.requests) == 1


def test_what_may_go_better_is_tried_again(client: Client, server: FaultyServer) -> None:
    server.faults[PATH] = [lambda handler: handler.answer(503, b""), Handler.hang_up]
    assert look_at(client, server.url + PATH).size_bytes == len(CONTENT)
    assert len(server.requests) >= 3


def test_a_server_that_fails_for_good_ends_it(
    make_client: MakeClient, server: FaultyServer
) -> None:
    paths = [f"/{number}" for number in range(100)]
    for path in paths:
        server.always[path] = lambda handler: handler.answer(503, b"")
    client = make_client(connections=2, retries=1)
    with pytest.raises(FetchError, match="its server has failed too often"):
        look(client, *(server.url + path for path in paths))
    assert len(server.requests) < 20


def test_one_file_that_fails_for_good_does_not(
    make_client: MakeClient, server: FaultyServer
) -> None:
    paths = [f"/{number}" for number in range(100)]
    server.files |= dict.fromkeys(paths, b"1")
    server.always[paths[50]] = lambda handler: handler.answer(500, b"")
    found = look(make_client(retries=1), *(server.url + path for path in paths))
    assert [number for number, one in enumerate(found) if isinstance(one, Uninspected)] == [50]


# Redirects


def test_a_redirect_within_the_server_is_followed(client: Client, server: FaultyServer) -> None:
    server.always["/old"] = lambda handler: handler.answer(301, b"", ("Location", PATH))
    assert look_at(client, server.url + "/old").size_bytes == len(CONTENT)
    assert [asked.method for asked in server.requests] == ["HEAD", "HEAD"]


def test_a_redirect_to_http_is_insecure(
    client: Client, server: FaultyServer, plain: FaultyServer
) -> None:
    plain.files[PATH] = CONTENT
    server.always[PATH] = lambda handler: handler.answer(302, b"", ("Location", plain.url + PATH))
    assert failure(client, server.url + PATH).is_insecure
    assert plain.requests == []


def test_a_redirect_to_a_private_address_is_refused(
    client: Client, server: FaultyServer, other: FaultyServer
) -> None:
    target = other.url.replace("localhost", "127.0.0.1") + PATH
    server.always[PATH] = lambda handler: handler.answer(302, b"", ("Location", target))
    found = failure(client, server.url + PATH)
    assert "a redirect leads to the private address 127.0.0.1" in found.problem
    assert not found.is_insecure
    assert other.requests == []


def test_a_certificate_that_is_not_valid_is_insecure(
    make_client: MakeClient, server: FaultyServer
) -> None:
    assert failure(make_client(ca_file=""), server.url + PATH).is_insecure


# Hostile answers


def test_an_endless_header_is_given_up(make_client: MakeClient, server: FaultyServer) -> None:
    def answer(handler: Handler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                handler.wfile.write(bytes(64 << 10))

    server.always[PATH] = answer
    found = failure(make_client(retries=0), server.url + PATH)
    assert "cannot be understood" in found.problem


def test_headers_without_end_are_given_up(make_client: MakeClient, server: FaultyServer) -> None:
    def answer(handler: Handler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                handler.wfile.write(b"X: y\r\n" * 1000)

    server.always[PATH] = answer
    found = failure(make_client(retries=0), server.url + PATH)
    assert "cannot be understood" in found.problem


def test_headers_that_trickle_are_given_up(make_client: MakeClient, server: FaultyServer) -> None:
    def answer(handler: Handler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not server.release.wait(0.05):
                handler.wfile.write(b"y")
                handler.wfile.flush()

    server.always[PATH] = answer
    found = failure(make_client(retries=0, timeout_seconds=0.3), server.url + PATH)
    assert "too slow" in found.problem


def test_a_body_after_head_does_not_become_the_next_answer(
    client: Client, server: FaultyServer
) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    sent = threading.Event()

    def answer(handler: Handler) -> None:
        handler.answer(200, b"", length=len(forged))
        handler.wfile.write(forged)
        handler.wfile.flush()
        sent.set()

    server.always["/first"] = answer
    session = client.open_session()
    sizes = []
    for path in ("/first", PATH):
        reply = session.open(Request(parse_url(server.url + path), method="HEAD"))
        reply.close()
        sizes.append(reply.answered.length_bytes)
        assert sent.wait(10)
    session.close()
    assert sizes == [len(forged), len(CONTENT)]


def test_control_characters_do_not_reach_messages(client: Client, server: FaultyServer) -> None:
    server.always[PATH] = lambda handler: handler.answer(
        302, b"", ("Location", "https://a\x1b[31m/")
    )
    failure(client, server.url + PATH)


def test_a_malformed_url_is_told(client: Client) -> None:
    assert failure(client, "https://a:99999/").problem == "the URL is malformed"


# The end


def test_no_thread_is_left(client: Client, server: FaultyServer) -> None:
    def hang(handler: Handler) -> None:
        server.release.wait()

    server.always[PATH] = hang
    server.files["/good"] = b""
    urls = [server.url + "/good", *[server.url + PATH] * 20]
    with closing(inspect(client, enumerate(urls))) as answers:
        next(answers)
    for thread in threading.enumerate():
        if thread.name == "fastindex-inspection":
            thread.join(10)
            assert not thread.is_alive()


def test_files_are_taken_when_it_is_their_turn(client: Client, server: FaultyServer) -> None:
    server.files["/good"] = b""
    taken = 0

    def urls() -> Iterator[tuple[int, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield taken, server.url + "/good"

    with closing(inspect(client, urls())) as answers:
        for _ in range(10):
            next(answers)
    assert taken < 200


# Local files


def test_a_local_file(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "empty").touch()
    assert look_at(client, f"file://{tmp_path}/a").size_bytes == 2
    assert look_at(client, f"file://{tmp_path}/empty").size_bytes == 0
    assert failure(client, f"file://{tmp_path}/b").is_missing
    assert not failure(client, f"file://{tmp_path}").is_missing


# Passwords, plain HTTP and certificates


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("password")
def test_the_password_goes_with_head(client: Client, server: FaultyServer) -> None:
    look_at(client, server.url + PATH)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert client.has_credentials(server.url)
    assert not client.has_credentials("https://example.org")


@pytest.mark.usefixtures("password")
def test_a_password_is_not_sent_to_http(client: Client, plain: FaultyServer) -> None:
    with pytest.raises(UsageError, match="which http would send in clear"):
        look(client, plain.url + PATH)
    assert plain.requests == []


@pytest.mark.usefixtures("password")
def test_what_is_asked_in_clear_carries_no_password(client: Client, plain: FaultyServer) -> None:
    plain.files[PATH] = CONTENT
    url = plain.url.replace("http:", "https:") + PATH
    assert client.ask_in_clear(url) == (200, "")
    plain.always[PATH] = lambda handler: handler.answer(301, b"", ("Location", "https://a/"))
    assert client.ask_in_clear(url) == (301, "https://a/")
    assert len(plain.requests) == 2
    assert not any("authorization" in asked.headers for asked in plain.requests)


def test_a_server_that_speaks_tls_only_does_not_answer_in_clear(
    client: Client, server: FaultyServer
) -> None:
    assert client.ask_in_clear(server.url + PATH) is None
    assert client.ask_in_clear("https://localhost:1/") is None


def test_a_proxy_does_not_answer_in_clear_for_others(
    client: Client, plain: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", plain.url)
    assert client.ask_in_clear("https://images.example.org/") is None
    assert plain.requests == []


def test_when_the_certificate_expires(client: Client, server: FaultyServer) -> None:
    expiry = client.find_expiry(server.url)
    assert expiry is not None
    assert 86400 < expiry - time.time() <= 2 * 86400
    assert client.find_expiry("http://localhost:1") is None
    with pytest.raises(FetchError, match="certificate is not valid"):
        Client(RemoteOptions(user_agent="a")).find_expiry(server.url)


# The size of what the first byte was asked of


@pytest.mark.parametrize(
    ("answered", "size_bytes"),
    [
        (Answered(206, 1, "bytes 0-0/1000"), 1000),
        (Answered(206, 1, "bytes 0-0/*"), None),
        (Answered(206, 1, "bytes 0-0/" + "9" * 30), None),
        (Answered(206, 1, "lines 0-0/7"), None),
        (Answered(200, 1000), 1000),
        (Answered(200, None), None),
        (Answered(200, 10, encoding="gzip"), None),
        (Answered(416, 0, "bytes */0"), 0),
        (Answered(416, 0), None),
    ],
)
def test_the_size_by_the_first_byte(answered: Answered, size_bytes: int | None) -> None:
    assert find_total(answered) == size_bytes
