"""The web servers that the documentation configures, and ``serve``, do what clients need."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients.mirror_server import Certificate
from tests.support.command import COMMAND, Run
from tests.support.serving import Reply, ask, connect, run_serve
from tests.support.trees import version, write_tree
from tests.support.web_servers import PASSWORD, SERVERS, USER, run_as_shown

VERSION = "images/debian/12/amd64/default/20240505_05:24"
IMAGE = f"/{VERSION}/rootfs.squashfs"
CATALOGUE = "/streams/v1/images.json"
INDEX = "/streams/v1/index.json"


@dataclass(frozen=True, slots=True)
class Asker:
    """Sends requests to a server."""

    url: str
    certificate: Path

    def __call__(self, target: str, method: str = "GET", **headers: str) -> Reply:
        """Return the answer to a request."""
        with connect(self.url, self.certificate) as connection:
            return ask(connection, target, method, **headers)


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory for the servers, which may have a user of their own.

    Pytest's own are private, and become so again while others' tests start.
    """
    with tempfile.TemporaryDirectory(prefix="fastindex-served-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Return a published tree."""
    with open_directory() as place:
        write_tree(place, version())
        options = ("--gzip", "--lists", "--page")
        subprocess.run([COMMAND, *options, str(place)], check=True, capture_output=True)
        yield place


@pytest.fixture
def work() -> Iterator[Path]:
    """Return an empty directory for a server."""
    with open_directory() as place:
        yield place


@contextmanager
def serving(server: str, root: Path, work: Path, certificate: Certificate) -> Iterator[str]:
    """Serve a tree with one of the servers; return the URL."""
    if server == "serve":
        options = ("--cert", certificate.path, "--key", certificate.key)
        with run_serve(root, work, *options) as served:
            yield served.url
    else:
        with run_as_shown(server, root, work, certificate) as url:
            yield url


@pytest.fixture(scope="module", params=[*SERVERS, "serve"])
def get(
    request: pytest.FixtureRequest,
    root: Path,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asker]:
    """Return what asks each server in turn."""
    server: str = request.param
    with serving(server, root, tmp_path_factory.mktemp(server), certificate) as url:
        yield Asker(url, certificate.path)


def test_the_catalogue(get: Asker, root: Path) -> None:
    told = get(INDEX)
    assert (told.status, told.body) == (200, (root / INDEX[1:]).read_bytes())
    assert told.headers["content-type"].partition(";")[0] == "application/json"
    assert told.headers["cache-control"] == "public, max-age=300"
    assert "last-modified" in told.headers


@pytest.mark.parametrize(
    "path", ["streams/files.txt", "streams/fullfiletimelist", "streams/trace.json", "index.html"]
)
def test_what_accompanies_the_catalogue_is_not_kept_for_ever(
    get: Asker, root: Path, path: str
) -> None:
    told = get(f"/{path}")
    assert (told.status, told.body) == (200, (root / path).read_bytes())
    assert told.headers["cache-control"] == "public, max-age=300"


def test_the_catalogue_is_compressed_for_who_asks(get: Asker, root: Path) -> None:
    told = get(CATALOGUE, Accept_Encoding="gzip")
    assert told.status == 200
    assert told.headers["content-encoding"] == "gzip"
    assert told.headers["content-type"].partition(";")[0] == "application/json"
    assert told.headers["vary"].lower() == "accept-encoding"
    assert told.body == (root / f"{CATALOGUE[1:]}.gz").read_bytes()
    plain = get(CATALOGUE)
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"].lower() == "accept-encoding"
    assert json.loads(plain.body)["products"]
    assert plain.headers["etag"] != told.headers["etag"]


def test_an_image(get: Asker, root: Path) -> None:
    told = get(IMAGE, Accept_Encoding="gzip")
    assert (told.status, told.body) == (200, (root / IMAGE[1:]).read_bytes())
    assert "content-encoding" not in told.headers
    assert told.headers["content-length"] == str(len(told.body))
    assert told.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert told.headers["accept-ranges"] == "bytes"
    head = get(IMAGE, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(told.body))


def test_a_part_of_an_image(get: Asker, root: Path) -> None:
    tag = get(IMAGE, "HEAD").headers["etag"]
    told = get(IMAGE, Range="bytes=10-19", If_Range=tag)
    whole = (root / IMAGE[1:]).read_bytes()
    assert (told.status, told.body) == (206, whole[10:20])
    assert told.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert get(IMAGE, Range="bytes=10-19", If_Range='"other"').status == 200
    assert get(IMAGE, Range=f"bytes={len(whole)}-").status == 416


@pytest.mark.parametrize("target", [IMAGE, INDEX])
def test_what_has_not_changed_is_not_sent_again(get: Asker, target: str) -> None:
    told = get(target)
    assert get(target, If_None_Match=told.headers["etag"]).status == 304
    assert get(target, If_Modified_Since=told.headers["last-modified"]).status == 304


@pytest.mark.parametrize(
    "target",
    [
        f"/{VERSION}/.items.json",
        f"/{VERSION}/%2eitems.json",
        "/streams/.lock",
        "/streams/.snapshot.json",
        "/.outputs.json",
        "/images/.product.toml",
    ],
)
def test_dotfiles_are_not_there(get: Asker, target: str) -> None:
    assert get(target).status == 404


def test_the_page_is_what_a_browser_sees_first(get: Asker, root: Path) -> None:
    assert get("/").body == (root / "index.html").read_bytes()


@pytest.mark.parametrize("target", ["/images/", "/streams/", "/streams/v1/", f"/{VERSION}/"])
def test_directories_are_not_listed(get: Asker, target: str) -> None:
    told = get(target)
    assert told.status in (403, 404)
    assert b"rootfs" not in told.body
    assert b"index.json" not in told.body


@pytest.mark.parametrize("target", ["/nothing", f"/{VERSION}/nothing", "/streams/v1/nothing.json"])
def test_what_is_not_there_is_not_kept_by_caches(get: Asker, target: str) -> None:
    told = get(target)
    assert told.status == 404
    assert told.headers.get("cache-control", "no-store") == "no-store"


@pytest.mark.parametrize(
    "target",
    ["/../etc/hostname", "/%2e%2e/etc/hostname", "/images/..%2f..%2f..%2fetc/hostname"],
)
def test_nothing_leads_out(get: Asker, target: str) -> None:
    told = get(target)
    assert told.status in (400, 403, 404)
    assert Path("/etc/hostname").read_bytes() not in told.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(get: Asker, method: str) -> None:
    assert get(INDEX, method, Content_Length="0").status in (403, 405)


@pytest.mark.parametrize("server", SERVERS)
def test_images_come_from_a_cdn(
    root: Path, work: Path, certificate: Certificate, server: str
) -> None:
    with run_as_shown(server, root, work, certificate, addition="cdn") as url:
        get = Asker(url, certificate.path)
        told = get(IMAGE)
        assert told.status == 301
        assert told.headers["location"] == f"https://cdn.example.org{IMAGE}"
        assert "immutable" not in told.headers.get("cache-control", "")
        assert get(INDEX).status == 200
        assert get("/streams/.lock").status == 404


@pytest.mark.parametrize("server", SERVERS)
def test_a_password_is_asked_for(
    root: Path, work: Path, certificate: Certificate, server: str
) -> None:
    with run_as_shown(server, root, work, certificate, addition="password") as url:
        get = Asker(url, certificate.path)
        for target in (INDEX, IMAGE):
            assert get(target).status == 401
            for password, status in ((PASSWORD, 200), ("wrong", 401)):
                words = base64.b64encode(f"{USER}:{password}".encode()).decode()
                assert get(target, Authorization=f"Basic {words}").status == status


@pytest.mark.root
@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_a_symlink_to_what_belongs_to_another_is_not_followed(
    work: Path, tmp_path: Path, certificate: Certificate, server: str
) -> None:
    place = write_tree(work / "place", version())
    target = place / IMAGE[1:]
    (target.parent / "own").symlink_to("rootfs.squashfs")
    (target.parent / "other").symlink_to("rootfs.squashfs")
    os.lchown(target.parent / "other", 65534, 65534)
    with run_as_shown(server, place, tmp_path, certificate) as url:
        get = Asker(url, certificate.path)
        assert get(f"/{VERSION}/own").status == 200
        assert get(f"/{VERSION}/other").status == 403


def test_check_finds_nothing_wrong_with_them(
    get: Asker, fastindex: Run, certificate: Certificate
) -> None:
    done = fastindex("check", "--full", "--expiry", "1s", "--ca", certificate.path, get.url)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
