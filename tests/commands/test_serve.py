"""``fastindex serve``: what it serves, to whom, and what it survives."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.command import Run
from tests.support.serving import Served, ask, require_libraries, run_serve
from tests.support.trees import version, write_tree

NEWEST = "images/debian/12/amd64/default/20240505_05:24"
OLDER = "images/debian/12/amd64/default/20240404_05:24"
ROOTFS = f"/{NEWEST}/rootfs.squashfs"
CATALOGUE = "/streams/v1/images.json"
MANY = 1000
SLOW = 200
LARGE_BYTES = 8 << 20
"""More than a socket buffers."""
MAX_MEMORY_BYTES = 250 << 20


@pytest.fixture
def root(tmp_path: Path, fastindex: Run) -> Path:
    """Return a published tree."""
    root = tmp_path / "root"
    write_tree(root, {**version(), **version("debian/12/amd64/default/20240404_05:24")})
    (root / f"{NEWEST}/notes.squashfs").write_bytes(b"not published")
    (root / "secret.txt").write_text("not published")
    build(fastindex, root)
    return root


@pytest.fixture
def served(root: Path, tmp_path: Path) -> Iterator[Served]:
    """Serve the tree by HTTPS."""
    with run_serve(root, tmp_path) as served:
        yield served


def build(fastindex: Run, root: Path, *words: object) -> None:
    done = fastindex(*words, root)
    assert done.returncode in (0, 3), done.stderr


def content(root: Path, target: str) -> bytes:
    return (root / target[1:]).read_bytes()


# What is served


def test_it_serves_what_is_published(served: Served, root: Path) -> None:
    for target in ("/streams/v1/index.json", CATALOGUE, ROOTFS, f"/{NEWEST}/incus.tar.xz"):
        told = served.ask(target)
        assert (told.status, told.body) == (200, content(root, target))
    assert served.ask(ROOTFS).headers["cache-control"].endswith("immutable")
    assert served.ask(CATALOGUE).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/secret.txt",
        "/images/",
        f"/{NEWEST}",
        f"/{NEWEST}/",
        f"/{NEWEST}/notes.squashfs",
        f"/{NEWEST}/.items.json",
        "/streams/",
        "/streams/.lock",
        "/streams/v1/",
        "/streams/v1/other.json",
        "/streams/v1/../.lock",
        "/streams/v1/%2e%2e/.lock",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
    ],
)
def test_it_serves_nothing_else(served: Served, target: str) -> None:
    assert served.ask(target).status == 404


@pytest.mark.parametrize(
    ("target", "status"),
    [("/a%00", 400), ("/a%ff", 400), ("/" + "a" * 20_000, 414), ("/" + "a" * 60_000, 414)],
)
def test_it_refuses_what_no_file_is_called(served: Served, target: str, status: int) -> None:
    assert served.ask(target).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_it_takes_no_other_method(served: Served, method: str) -> None:
    told = served.ask(CATALOGUE, method, Content_Length="0")
    assert (told.status, told.headers["allow"]) == (405, "GET, HEAD")


def test_head_and_ranges_and_what_has_not_changed(served: Served, root: Path) -> None:
    whole = content(root, ROOTFS)
    head = served.ask(ROOTFS, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole)))
    part = served.ask(ROOTFS, Range="bytes=5-14", If_Range=head.headers["etag"])
    assert (part.status, part.body) == (206, whole[5:15])
    several = served.ask(ROOTFS, Range="bytes=0-0,5-9")
    assert (several.status, several.body) == (200, whole)
    known = served.ask(ROOTFS, If_None_Match=head.headers["etag"])
    assert (known.status, known.body) == (304, b"")


def test_several_requests_share_a_connection(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        told = ask(connection, CATALOGUE)
    assert told.status == 404
    assert told.body.count(b"HTTP/1.1 404") == 1
    assert b"HTTP/1.1 200" in told.body


def test_who_takes_gzip_gets_the_file_that_lies_beside(served: Served, root: Path) -> None:
    subprocess.run(["gzip", "-kn", str(root / CATALOGUE[1:])], check=True)
    packed = served.ask(CATALOGUE, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.body == content(root, f"{CATALOGUE}.gz")
    plain = served.ask(CATALOGUE)
    assert plain.body == gzip.decompress(packed.body)
    assert plain.headers["etag"] != packed.headers["etag"]
    assert served.ask(f"{CATALOGUE}.gz").headers["content-type"] == "application/gzip"


def test_a_compressed_file_of_another_catalogue_is_not_used(served: Served, root: Path) -> None:
    packed = root / f"{CATALOGUE[1:]}.gz"
    packed.write_bytes(gzip.compress(b"old"))
    os.utime(packed, (1, 1))
    told = served.ask(CATALOGUE, Accept_Encoding="gzip")
    assert told.body == content(root, CATALOGUE)


def test_what_a_build_makes_beside_the_catalogue_is_served(
    served: Served, root: Path, fastindex: Run
) -> None:
    pytest.importorskip("isal")
    assert served.ask("/streams/files.txt").status == 404
    build(fastindex, root, "--gzip", "--lists")
    packed = root / f"{CATALOGUE[1:]}.gz"
    assert served.ask("/streams/files.txt").headers["content-type"].startswith("text/plain")
    assert served.ask("/streams/.companions.json").status == 404
    # Of the same generation, whatever the clock said when each was written.
    plain = root / CATALOGUE[1:]
    os.utime(plain, (plain.stat().st_mtime + 5, plain.stat().st_mtime + 5))
    assert served.ask(CATALOGUE, Accept_Encoding="gzip").body == packed.read_bytes()
    build(fastindex, root)
    assert not packed.exists()
    assert served.ask(CATALOGUE, Accept_Encoding="gzip").body == content(root, CATALOGUE)


def test_the_page_is_at_the_top(root: Path, tmp_path: Path) -> None:
    (root / "index.html").write_text("<!doctype html>")
    record = {"files": {"index.html": ["", "", "page", None]}}
    (root / "streams/.companions.json").write_text(json.dumps(record))
    with run_serve(root, tmp_path) as served:
        told = served.ask("/")
    assert (told.status, told.body) == (200, b"<!doctype html>")
    assert told.headers["content-type"] == "text/html; charset=utf-8"


def test_what_is_published_meanwhile_is_served_at_once(
    served: Served, root: Path, fastindex: Run
) -> None:
    new = version("alpine/3.19/amd64/default/20240101_00:00")
    write_tree(root, new)
    (target,) = [f"/{name}" for name in new if name.endswith("squashfs")]
    assert served.ask(target).status == 404
    build(fastindex, root)
    assert served.ask(target).body == content(root, target)


def test_what_was_withdrawn_is_served_within_the_grace(
    served: Served, root: Path, tmp_path: Path, fastindex: Run
) -> None:
    build(fastindex, root, "prune", "--keep", "1")
    target = f"/{OLDER}/rootfs.squashfs"
    (root / OLDER / "notes.txt").write_text("never published")
    assert OLDER not in content(root, CATALOGUE).decode()
    assert served.ask("/unknown").status == 404  # it has looked at the new catalogue
    assert served.ask(target).status == 200
    (tmp_path / "again").mkdir()
    with run_serve(root, tmp_path / "again") as again:
        assert again.ask(target).status == 200
        assert again.ask(f"/{OLDER}/.items.json").status == 404
        assert again.ask(f"/{OLDER}/notes.txt").status == 404


def test_a_catalogue_that_is_torn_does_not_stop_it(served: Served, root: Path) -> None:
    (root / CATALOGUE[1:]).write_text("{")
    assert served.ask("/unknown").status == 404
    assert served.ask(ROOTFS).status == 200
    assert "the last one is served on" in served.told.read_text()


def test_a_symlink_leads_where_the_mirror_allows(
    root: Path, tmp_path: Path, served: Served
) -> None:
    file = root / ROOTFS[1:]
    elsewhere = tmp_path / "elsewhere"
    shutil.move(file, elsewhere)
    file.symlink_to(elsewhere)
    assert served.ask(ROOTFS).status == 404
    file.unlink()
    shutil.move(elsewhere, file.parent.parent / "kept")
    file.symlink_to("../kept")
    assert served.ask(ROOTFS).status == 200
    assert f"{ROOTFS[1:]}: is published, but" not in served.told.read_text()
    assert "cannot be served" in served.told.read_text()


def test_a_symlink_in_streams_is_not_followed(root: Path, tmp_path: Path, served: Served) -> None:
    (root / f"{CATALOGUE[1:]}.gpg").symlink_to("/etc/hostname")
    assert served.ask(f"{CATALOGUE}.gpg").status == 404


def test_a_published_file_that_is_gone_is_told_once(served: Served, root: Path) -> None:
    (root / ROOTFS[1:]).unlink()
    for _ in range(3):
        assert served.ask(ROOTFS).status == 404
    told = [line for line in served.told.read_text().splitlines() if "warning" in line]
    assert len(told) == 1
    assert "is published, but not there" in told[0]


def test_a_device_is_not_served(served: Served, root: Path) -> None:
    file = root / ROOTFS[1:]
    file.unlink()
    os.mkfifo(file)
    assert served.ask(ROOTFS).status == 404


# What it survives


def test_plain_http_at_its_port_does_not_bother_it(served: Served) -> None:
    """What Incus and LXD try first for each image."""
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
    assert served.ask(CATALOGUE).status == 200
    assert "Traceback" not in served.told.read_text()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_request_does_not_bother_it(served: Served, sent: bytes) -> None:
    with served.connect() as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    assert served.ask(CATALOGUE).status == 200
    assert "Traceback" not in served.told.read_text()


def grow(root: Path, size: int, fastindex: Run) -> None:
    """Publish a root of another size."""
    with (root / ROOTFS[1:]).open("r+b") as file:
        file.truncate(size)
    write_file_again(root / ROOTFS[1:])
    build(fastindex, root, "--rehash")


def write_file_again(path: Path) -> None:
    os.utime(path, (1_700_000_100, 1_700_000_100))


def begin(served: Served, target: str) -> ssl.SSLSocket | socket.socket:
    """Ask for a file and read its beginning, through small buffers."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", served.port))
    context = ssl.create_default_context(cafile=str(served.authority))
    connection = context.wrap_socket(plain, server_hostname="localhost")
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(10) == b"HTTP/1.1 2"
    return connection


def rest(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(OSError):  # ssl.SSLEOFError is one
        while piece := connection.recv(1 << 20):
            data += piece
    return data.partition(b"\r\n\r\n")[2]


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was(
    served: Served, root: Path, fastindex: Run
) -> None:
    grow(root, LARGE_BYTES, fastindex)
    before = content(root, ROOTFS)
    with begin(served, ROOTFS) as connection:
        new = root / "new"
        new.write_bytes(b"new")
        new.rename(root / ROOTFS[1:])
        assert rest(connection) == before


@pytest.mark.parametrize("size", [1 << 20, LARGE_BYTES + 1])
def test_a_file_that_changes_while_it_is_sent_is_broken_off(
    served: Served, root: Path, fastindex: Run, size: int
) -> None:
    grow(root, LARGE_BYTES, fastindex)
    with begin(served, ROOTFS) as connection:
        os.truncate(root / ROOTFS[1:], size)
        assert len(rest(connection)) < LARGE_BYTES
    assert served.ask(CATALOGUE).status == 200
    assert "changed while it was sent" in served.told.read_text()


def test_a_file_of_more_than_4_gib(served: Served, root: Path, fastindex: Run) -> None:
    size = (4 << 30) + 12345
    done = fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert done.returncode == 0, done.stderr
    os.truncate(root / ROOTFS[1:], size)  # published as smaller: that is verify's matter
    head = served.ask(ROOTFS, "HEAD")
    assert head.headers["content-length"] == str(size)
    part = served.ask(ROOTFS, Range=f"bytes={size - 5}-")
    assert (part.status, part.body) == (206, bytes(5))
    assert part.headers["content-range"] == f"bytes {size - 5}-{size - 1}/{size}"


@pytest.mark.slow
def test_a_thousand_at_once_and_slow_readers(root: Path, tmp_path: Path, fastindex: Run) -> None:
    """Two hundred who do not read, and a thousand who ask at the same time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * MANY:
        pytest.skip(f"only {hard} descriptors")
    grow(root, LARGE_BYTES, fastindex)
    wanted = f"/{OLDER}/rootfs.squashfs"
    whole = content(root, wanted)
    with run_serve(root, tmp_path) as served:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            slow = [begin(served, ROOTFS) for _ in range(SLOW)]
            results: list[bool] = []
            gate = threading.Barrier(MANY)

            def be_a_client() -> None:
                with served.connect(120) as connection:
                    gate.wait()
                    told = ask(connection, wanted)
                results.append(told.status == 200 and told.body == whole)

            clients = [threading.Thread(target=be_a_client) for _ in range(MANY)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert results == [True] * MANY
            for connection in slow:
                connection.close()
            assert served.ask(CATALOGUE).status == 200
            status = Path(f"/proc/{served.process.pid}/status").read_text()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(f"{MANY} at once, {SLOW} who do not read: peak memory {peak / 1e6:.0f} MB")
    assert peak < MAX_MEMORY_BYTES


HURRIED = """\
import sys
from fastindex.events import Observer
from fastindex.mirror.mirror import Mirror
from fastindex.operations.serve.options import ServeOptions
from fastindex.operations.serve.run import serve
from fastindex.system import signals
options = ServeOptions(port=0, is_plain=True, stall_seconds=0.5, max_connections=3)
with signals.handled():
    serve(Mirror.at(sys.argv[1]), options, Observer(), lambda told: print(told.urls[0], flush=True))
"""


@pytest.fixture
def hurried(root: Path, tmp_path: Path, fastindex: Run) -> Iterator[Served]:
    """Serve a large file with little patience, to three at once, without TLS."""
    require_libraries()
    grow(root, 32 << 20, fastindex)
    words = [sys.executable, "-c", HURRIED, str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Served(process, process.stdout.readline().strip(), tmp_path, tmp_path)
        process.terminate()
        assert process.wait(30) == 0


def test_who_sends_nothing_or_slowly_is_hung_up_on(hurried: Served) -> None:
    with hurried.connect() as nothing, hurried.connect() as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert nothing.recv(100) == b""
        assert half.recv(100) == b""


def test_who_does_not_read_is_hung_up_on(hurried: Served) -> None:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    plain.connect(("127.0.0.1", hurried.port))
    with plain:
        plain.sendall(f"GET {ROOTFS} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        while is_established(plain):
            pass
        assert len(rest(plain)) < 32 << 20


def is_established(ours: socket.socket) -> bool:
    """Return whether the server's side of a connection is still open."""
    port = f":{ours.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(line[2].endswith(port) and line[3] == "01" for line in lines)


def test_more_connections_than_there_may_be_are_closed(hurried: Served) -> None:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(hurried.connect()) for _ in range(3)]
        for one in taken:
            one.sendall(b"GET /streams/v1/index.json HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one.recv(9) == b"HTTP/1.1 "
        fourth = stack.enter_context(hurried.connect())
        with contextlib.suppress(ConnectionError):
            fourth.sendall(b"GET /streams/v1/index.json HTTP/1.1\r\nHost: a\r\n\r\n")
            assert fourth.recv(100) == b""


# How it ends


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_ends_it_in_order(served: Served, number: int) -> None:
    assert served.stop(number) == 0
    assert served.told.read_text().endswith("fastindex: ended\n")


def test_downloads_that_run_are_finished(served: Served, root: Path, fastindex: Run) -> None:
    grow(root, LARGE_BYTES, fastindex)
    with begin(served, ROOTFS) as connection:
        served.process.terminate()
        while is_listening(served.port):
            pass
        assert rest(connection) == content(root, ROOTFS)
    assert served.process.wait(30) == 0


def is_listening(port: int) -> bool:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def test_a_download_that_takes_too_long_is_cut_off(
    root: Path, tmp_path: Path, fastindex: Run
) -> None:
    grow(root, LARGE_BYTES, fastindex)
    with run_serve(root, tmp_path, "--patience", "0") as served, begin(served, ROOTFS):
        assert served.stop() == 3
        assert "1 download cut off" in served.told.read_text()


def test_a_second_signal_cuts_it_short(root: Path, tmp_path: Path, fastindex: Run) -> None:
    grow(root, LARGE_BYTES, fastindex)
    with run_serve(root, tmp_path, "--patience", "1h") as served, begin(served, ROOTFS):
        served.process.terminate()
        while is_listening(served.port):
            pass
        assert served.stop(2) == 3


# What it says and refuses


def test_it_says_what_clients_must_do(served: Served) -> None:
    told = served.told.read_text()
    assert f"incus remote add mirror {served.url} --protocol simplestreams" in told
    assert f"install -D -m 644 {served.authority} ~/.config/incus/servercerts/mirror.crt" in told
    assert "other machines do not reach it" in told


def test_other_machines_are_told_other_things(root: Path, tmp_path: Path) -> None:
    with run_serve(root, tmp_path, "--name", "images.lan", listen=":0") as served:
        assert served.url == f"https://images.lan:{served.port}"
        told = served.told.read_text()
        assert f"scp images.lan:{served.authority} ~/.config/incus/servercerts/mirror.crt" in told
        assert "other machines do not reach it" not in told
        assert served.ask(CATALOGUE).status == 200


def test_a_certificate_stays_from_run_to_run(root: Path, tmp_path: Path) -> None:
    with run_serve(root, tmp_path) as first:
        trusted = first.authority.read_bytes()
    with run_serve(root, tmp_path) as second:
        assert second.authority.read_bytes() == trusted
    with run_serve(root, tmp_path, "--name", "new.name") as third:
        assert third.authority.read_bytes() != trusted
        assert "clients must trust that anew" in third.told.read_text()


def test_a_certificate_of_the_operators(
    root: Path, tmp_path: Path, certificate: Certificate
) -> None:
    options = ("--cert", certificate.path, "--key", certificate.key)
    with run_serve(root, tmp_path, *options) as served:
        own = Served(served.process, served.url, certificate.path, served.told)
        assert own.ask(CATALOGUE).status == 200
        assert "servercerts" not in served.told.read_text()
    assert not (tmp_path / "state").exists()


def test_a_certificate_that_is_renewed_is_shown(tmp_path: Path) -> None:
    require_libraries()
    from fastindex.operations.serve.certificate import Certificate as Shown
    from fastindex.operations.serve.options import ServeOptions
    from fastindex.operations.serve.run import _make_context

    made = make_certificate(tmp_path)
    shown = Shown(str(made.path), str(made.key))
    options = ServeOptions(certificate=shown.path, key=shown.key)
    context, renew = _make_context(shown, options, ())
    assert context is not None
    assert shown_by(context, made) == ssl.PEM_cert_to_DER_cert(made.path.read_text())
    before = made.path.read_text()
    make_certificate(tmp_path)
    renew()
    assert before != made.path.read_text()
    assert shown_by(context, made) == ssl.PEM_cert_to_DER_cert(made.path.read_text())


def shown_by(context: ssl.SSLContext, trusted: Certificate) -> bytes | None:
    """Return the certificate that a server with ``context`` shows."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with context.wrap_socket(theirs, server_side=True):
            pass

    server = threading.Thread(target=answer)
    server.start()
    client = ssl.create_default_context(cafile=str(trusted.path))
    with client.wrap_socket(ours, server_hostname="localhost") as connection:
        found = connection.getpeercert(binary_form=True)
    server.join()
    return found


def test_plain_http_is_for_this_machine_only(root: Path, tmp_path: Path, fastindex: Run) -> None:
    with run_serve(root, tmp_path, "--http") as served:
        assert served.url.startswith("http://localhost:")
        assert served.ask(CATALOGUE).body == content(root, CATALOGUE)
        assert "Incus and LXD want https" in served.told.read_text()
    require_libraries()
    done = fastindex("serve", "--http", "--listen", "0.0.0.0:0", root)
    assert done.returncode == 2
    assert "clients take https only" in done.stderr


def test_who_has_no_library_is_told_which(root: Path) -> None:
    words = "import sys; sys.modules['tornado'] = None; from fastindex.cli import run; run()"
    command = [sys.executable, "-c", words, "serve", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install tornado cryptography" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--listen", "somewhere"], 2, "not an IP address"),
        (["--listen", "127.0.0.1:99999"], 2, "a port from 1 to 65535"),
        (["--listen", "192.0.2.1:0"], 1, "cannot listen at 192.0.2.1"),
        (["--cert", "a"], 2, "--cert and --key go together"),
        (["--key", "a"], 2, "--cert and --key go together"),
        (["--cert", "a", "--key", "a", "--name", "b"], 2, "--name does nothing with --cert"),
        (["--http", "--key", "a"], 2, "--key does nothing with --http"),
        (["--cert", "none", "--key", "none"], 1, "cannot be used as a certificate"),
    ],
)
def test_what_cannot_be_is_refused(
    root: Path, fastindex: Run, words: list[str], code: int, said: str
) -> None:
    require_libraries()
    done = fastindex("serve", *words, root)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(root: Path, fastindex: Run) -> None:
    require_libraries()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fastindex("serve", "--http", "--listen", f"127.0.0.1:{port}", root)
    assert done.returncode == 1
    assert "choose another address or port" in done.stderr


def test_nothing_is_published_yet(tmp_path: Path, fastindex: Run) -> None:
    require_libraries()
    write_tree(tmp_path / "empty", version())
    done = fastindex("serve", tmp_path / "empty")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_what_clients_reject_is_not_served(root: Path, fastindex: Run) -> None:
    require_libraries()
    (root / CATALOGUE[1:]).write_text("{")
    done = fastindex("serve", "--http", root)
    assert done.returncode == 1
    assert "run fastindex verify" in done.stderr
