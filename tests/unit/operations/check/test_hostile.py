"""A check of servers that are broken or hostile."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastindex
from fastindex.errors import Code
from fastindex.formats.errors import FormatError
from fastindex.operations.check.options import CheckOptions, CheckReport
from fastindex.operations.check.run import check
from fastindex.remote.errors import FetchError
from fastindex.remote.options import RemoteOptions
from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.faulty_server import FaultyServer, Handler, serve_faulty
from tests.support.trees import version, write_tree

INDEX, IMAGES = "/streams/v1/index.json", "/streams/v1/images.json"
VERSION = "images/debian/12/amd64/default/20240505_05:24"
ROOT = f"/{VERSION}/rootfs.squashfs"
ASKED = ROOT.replace(":", "%3A")

Check = Callable[..., CheckReport]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "netrc").touch()
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a mirror of one version, by the paths that are asked for."""
    root = write_tree(tmp_path_factory.mktemp("mirror"), version())
    fastindex.Mirror(root).build(jobs=1)
    return {
        f"/{path.relative_to(root)}".replace(":", "%3A"): path.read_bytes()
        for path in root.rglob("*.*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), days=30)


@pytest.fixture
def server(lasting: Certificate, files: dict[str, bytes]) -> Iterator[FaultyServer]:
    with serve_faulty(lasting) as served:
        served.files |= files
        yield served


@pytest.fixture
def look(server: FaultyServer, lasting: Certificate) -> Check:
    def look_at(**options: Any) -> CheckReport:
        remote = RemoteOptions(
            user_agent="tests",
            ca_file=str(lasting.path),
            retries=1,
            first_delay_seconds=0.001,
            timeout_seconds=5,
        )
        return check(CheckOptions(url=server.url, remote=remote, **options))

    return look_at


def codes(report: CheckReport) -> list[tuple[Code, str]]:
    wrong = [(one.code, one.file or one.version) for one in report.mismatches]
    return wrong + [(one.code, one.path.rpartition("/")[2]) for one in report.findings]


def change(server: FaultyServer, path: str, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(server.files[path])
    edit(document)
    server.files[path] = json.dumps(document).encode()


def test_a_good_server(look: Check) -> None:
    assert codes(look()) == []
    report = look(full=True)
    assert codes(report) == []
    assert (report.products, report.versions, report.files, report.files_read) == (1, 1, 2, 2)


def test_an_endless_index_ends(look: Check, server: FaultyServer) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 20))

    server.always[INDEX] = answer
    with pytest.raises(FetchError, match="it is larger than "):
        look()


def test_an_index_of_too_much_is_refused(look: Check, server: FaultyServer) -> None:
    server.files[INDEX] = b'{"index": {%s}}' % b",".join(b'"%d": {}' % n for n in range(300_000))
    with pytest.raises(FormatError, match="it has more than 200,000 products"):
        look()


def test_too_many_product_files_are_refused(look: Check, server: FaultyServer) -> None:
    def multiply(document: dict[str, Any]) -> None:
        entry = document["index"]["images"]
        for number in range(1001):
            document["index"][f"s{number}"] = {**entry, "path": f"streams/v1/{number}.json"}

    change(server, INDEX, multiply)
    with pytest.raises(FormatError, match="it has more than 1,000 product files"):
        look()
    assert len(server.requests) == 1


def test_too_many_products_are_refused_without_filling_the_memory(
    look: Check, server: FaultyServer
) -> None:
    server.files[IMAGES] = b'{"products": {%s}}' % b",".join(
        b'"%d": {}' % n for n in range(300_000)
    )
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="it has more than 200,000 products"):
            look()
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_paths_that_lead_out_are_not_asked_for(look: Check, server: FaultyServer) -> None:
    def lead_out(document: dict[str, Any]) -> None:
        document["index"]["images"]["path"] = "../secret.json"

    change(server, INDEX, lead_out)
    assert codes(look()) == [(Code.BAD_CATALOGUE, INDEX[1:])]
    assert {asked.path for asked in server.requests} == {INDEX}


def test_files_that_lead_out_are_not_asked_for(look: Check, server: FaultyServer) -> None:
    def lead_out(document: dict[str, Any]) -> None:
        (product,) = document["products"].values()
        for content in product["versions"].values():
            for item in content["items"].values():
                item["path"] = f"../{item['path']}"

    change(server, IMAGES, lead_out)
    assert {code for code, _ in codes(look())} == {Code.BAD_CATALOGUE}
    assert not any("rootfs" in asked.path for asked in server.requests)


def test_a_catalogue_that_is_published_meanwhile_is_no_damage(
    look: Check, server: FaultyServer
) -> None:
    new = json.loads(server.files[INDEX])
    old = json.loads(server.files[INDEX])
    old["index"]["images"]["products"].append("gone:1:amd64:default")
    server.files[INDEX] = json.dumps(old).encode()

    def publish(handler: Handler) -> None:
        handler.serve()
        server.files[INDEX] = json.dumps(new).encode()

    server.faults[INDEX] = [publish]
    assert codes(look()) == []


def test_control_characters_are_only_escaped_later(look: Check, server: FaultyServer) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["products"] = {"a\x1b[31m:b:c:d": {"arch": "\x1b"}}

    change(server, IMAGES, rename)
    assert Code.UNKNOWN_ARCHITECTURE in {code for code, _ in codes(look())}


# Files


def by_get(fault: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Return what answers HEAD rightly, and GET wrongly."""

    def answer(handler: Handler) -> None:
        if handler.command == "HEAD" or handler.headers.get("Range") == "bytes=0-0":
            handler.serve()
        else:
            fault(handler)

    return answer


def test_other_bytes_of_the_same_length(look: Check, server: FaultyServer) -> None:
    size = len(server.files[ASKED])
    server.always[ASKED] = by_get(lambda handler: handler.answer(200, bytes(size), ("ETag", "")))
    assert codes(look()) == []
    assert codes(look(sample=1)) == [(Code.CHECKSUM_MISMATCH, "rootfs.squashfs")]


def test_another_length_by_get(look: Check, server: FaultyServer) -> None:
    def longer(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.serve()
        else:
            handler.answer(200, bytes(7))

    server.always[ASKED] = longer
    report = look()
    assert codes(report) == [(Code.CHECKSUM_MISMATCH, "rootfs.squashfs")]
    size = len(server.files[ASKED])
    assert report.mismatches[0].problem == f"has {size} bytes by HEAD, and 7 by GET"


def test_a_body_that_is_cut_off(look: Check, server: FaultyServer) -> None:
    def cut(handler: Handler) -> None:
        handler.answer(200, b"hsqs", length=len(server.files[ASKED]))
        handler.hang_up()

    server.always[ASKED] = by_get(cut)
    assert codes(look()) == []
    assert codes(look(full=True)) == [(Code.UNREADABLE, "rootfs.squashfs")]


def test_a_size_that_only_reading_tells(look: Check, server: FaultyServer) -> None:
    def tell_no_size(handler: Handler) -> None:
        content = b"" if handler.command == "HEAD" else server.files[ASKED]
        handler.close_connection = True
        handler.answer(200, content, ("Connection", "close"), length=None)

    server.always[ASKED] = tell_no_size
    found = {code for code, _ in codes(look())}
    assert found == {Code.SIZE_UNKNOWN, Code.NOT_RESUMABLE}
    assert Code.CHECKSUM_MISMATCH not in {code for code, _ in codes(look(full=True))}


def test_a_file_that_head_alone_answers(look: Check, server: FaultyServer) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.serve()
        else:
            handler.answer(403, b"")

    server.always[ASKED] = answer
    report = look()
    assert codes(report) == [(Code.UNREADABLE, "rootfs.squashfs")]
    assert report.mismatches[0].problem.startswith("answers HEAD, but not GET: ")


def test_a_server_that_dies_meanwhile_ends_the_check(
    look: Check, server: FaultyServer, lasting: Certificate
) -> None:
    def multiply(document: dict[str, Any]) -> None:
        (product,) = document["products"].values()
        (content,) = product["versions"].values()
        for number in range(100):
            product["versions"][f"20240506_{number:04}"] = content

    change(server, IMAGES, multiply)
    for path in server.files:
        if "images/" in path:
            server.always[path] = Handler.hang_up
    with pytest.raises(FetchError, match="its server has failed too often"):
        look()


def test_bad_gzip_is_damage(look: Check, server: FaultyServer) -> None:
    def compress(handler: Handler) -> None:
        if handler.headers["Accept-Encoding"] == "gzip":
            handler.answer(200, b"junk", ("Content-Encoding", "gzip"))
        else:
            handler.serve()

    server.always[INDEX] = compress
    report = look()
    assert codes(report) == [(Code.BAD_CATALOGUE, INDEX[1:])]
    assert "clients, which ask for gzip, cannot read it" in report.mismatches[0].problem


def test_the_function_of_the_package(server: FaultyServer, lasting: Certificate) -> None:
    report = fastindex.check(server.url, ca_file=lasting.path, full=True, connections=2)
    assert report.exit_code is fastindex.ExitCode.DONE
    assert report.files_read == 2
    with pytest.raises(fastindex.UsageError):
        fastindex.check(server.url, filters="os=debian")
