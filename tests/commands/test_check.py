"""``fastindex check`` of a mirror that nginx serves: each planted fault is named, nothing else."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.mirror_server import Certificate, Mirror, make_certificate, serve
from tests.support.command import Run, run_command
from tests.support.trees import version, write_tree

INDEX = "streams/v1/index.json"
IMAGES = "streams/v1/images.json"
DAY = datetime.now(UTC) - timedelta(days=1)
NEW = f"{DAY:%Y%m%d}_05:24"
OLD = "20240505_05:24"
ALPINE = f"images/alpine/3.20/arm64/default/{NEW}"
DEBIAN = f"images/debian/12/amd64/default/{NEW}"
UBUNTU = f"images/ubuntu/noble/amd64/default/{OLD}"
METADATA, ROOT, DISK = "incus.tar.xz", "rootfs.squashfs", "disk.qcow2"

Found = tuple[str, str]
"""The code of a mismatch or finding, and what it is about."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def trusted(work: Path) -> Certificate:
    """Return a certificate that is valid for long enough."""
    directory = work / "trusted"
    directory.mkdir()
    return make_certificate(directory, days=30)


@pytest.fixture(scope="module")
def clean(work: Path) -> Path:
    """Return a mirror of four versions of three products, without a fault."""
    tree = (
        version(ALPINE.removeprefix("images/"), incus_tar_xz=b"alpine", disk_qcow2=b"disk")
        | version(f"debian/12/amd64/default/{OLD}")
        | version(DEBIAN.removeprefix("images/"))
        | version(UBUNTU.removeprefix("images/"), lxd_tar_xz=b"ubuntu", rootfs_tar_xz=b"root")
    )
    root = write_tree(work / "clean", tree)
    done = run_command("-q", root, cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    return root


@dataclass(frozen=True)
class Site:
    """A copy of the clean mirror, and a server of it that is started when it is checked."""

    root: Path
    work: Path
    certificate: Certificate
    ca: Path

    @contextmanager
    def serving(self, settings: str = "") -> Iterator[Mirror]:
        with serve(self.root, self.work, self.certificate, settings) as mirror:
            yield mirror

    def check(self, *options: object, settings: str = "") -> subprocess.CompletedProcess[str]:
        with self.serving(settings) as mirror:
            run = partial(run_command, cwd=self.work)
            return run("check", "--ca", self.ca, *options, mirror.url)


@pytest.fixture
def site(clean: Path, tmp_path: Path, trusted: Certificate) -> Site:
    root = tmp_path / "mirror"
    shutil.copytree(clean, root)
    (tmp_path / "nginx").mkdir()
    return Site(root, tmp_path / "nginx", trusted, trusted.path)


def list_found(done: subprocess.CompletedProcess[str]) -> set[Found]:
    report = json.loads(done.stdout)
    wrong = {
        (one["code"], "/".join(filter(None, (one["version"], one["file"]))))
        for one in report["check"]["mismatches"]
    }
    return wrong | {(one["code"], one["path"]) for one in report["findings"]}


def test_a_clean_mirror_is_not_mentioned(site: Site) -> None:
    for options in ((), ("--full",), ("--sample", 2), ("--max-age", "20000d")):
        done = site.check("-q", *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_summary_tells_what_was_done(site: Site) -> None:
    done = site.check("--full")
    assert done.stdout == ""
    assert "8 files of 4 versions checked in " in done.stderr
    assert "; 8 files read, " in done.stderr
    assert done.stderr.endswith("; 0 mismatches; 0 warnings\n")


# Faults of files and of the catalogue. Each plants one and returns what must be named.


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def edit_products(site: Site, change: Callable[[dict[str, Any]], object]) -> None:
    edit(site.root / IMAGES, lambda document: change(document["products"]))


def debian(products: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = products["debian:12:amd64:default"]
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def remove_metadata(site: Site) -> Found:
    (site.root / DEBIAN / METADATA).unlink()
    return "missing-file", f"{DEBIAN}/{METADATA}"


def remove_disk(site: Site) -> Found:
    (site.root / ALPINE / DISK).unlink()
    return "missing-file", f"{ALPINE}/{DISK}"


def cut_root(site: Site) -> Found:
    path = site.root / DEBIAN / ROOT
    path.write_bytes(path.read_bytes()[:-1])
    return "checksum-mismatch", f"{DEBIAN}/{ROOT}"


def empty_root(site: Site) -> Found:
    (site.root / DEBIAN / ROOT).write_bytes(b"")
    return "checksum-mismatch", f"{DEBIAN}/{ROOT}"


def lengthen_metadata(site: Site) -> Found:
    with (site.root / UBUNTU / "lxd.tar.xz").open("ab") as file:
        file.write(b"\0")
    return "checksum-mismatch", f"{UBUNTU}/lxd.tar.xz"


def put_a_directory(site: Site) -> Found:
    path = site.root / DEBIAN / ROOT
    path.unlink()
    path.mkdir()  # nginx redirects to it with a slash, over the scheme of the request, then 403
    return "unreadable", f"{DEBIAN}/{ROOT}"


def flip_root(site: Site) -> Found:
    flip(site.root / DEBIAN / ROOT)
    return "checksum-mismatch", f"{DEBIAN}/{ROOT}"


def flip_metadata(site: Site) -> Found:
    flip(site.root / UBUNTU / "lxd.tar.xz")
    return "checksum-mismatch", f"{UBUNTU}/lxd.tar.xz"


def change_fingerprint(site: Site) -> Found:
    def change(products: dict[str, Any]) -> None:
        for item in debian(products)["versions"][NEW]["items"].values():
            if "combined_squashfs_sha256" in item:
                item["combined_squashfs_sha256"] = "0" * 64

    edit_products(site, change)
    return "checksum-mismatch", f"{DEBIAN}/{METADATA}"


def cut_index(site: Site) -> Found:
    path = site.root / INDEX
    path.write_bytes(path.read_bytes()[:-20])
    return "bad-catalogue", INDEX


def empty_index(site: Site) -> Found:
    (site.root / INDEX).write_bytes(b"")
    return "bad-catalogue", INDEX


def serve_a_page(site: Site) -> Found:
    (site.root / INDEX).write_bytes(b"<!DOCTYPE html><p>Welcome to nginx!")
    return "bad-catalogue", INDEX


def remove_product_file(site: Site) -> Found:
    (site.root / IMAGES).unlink()
    return "missing-file", IMAGES


def cut_product_file(site: Site) -> Found:
    path = site.root / IMAGES
    path.write_bytes(path.read_bytes()[:-20])
    return "bad-catalogue", IMAGES


def mistype_aliases(site: Site) -> Found:
    edit_products(site, lambda products: debian(products).update(aliases=["debian/12"]))
    return "bad-catalogue", IMAGES


def mistype_size(site: Site) -> Found:
    def change(products: dict[str, Any]) -> None:
        debian(products)["versions"][NEW]["items"]["incus.tar.xz"]["size"] = "7"

    edit_products(site, change)
    return "bad-catalogue", DEBIAN


def lose_a_product(site: Site) -> Found:
    edit_products(site, lambda products: products.pop("alpine:3.20:arm64:default"))
    return "product-lost", IMAGES


def repeat_an_image(site: Site) -> Found:
    def change(products: dict[str, Any]) -> None:
        versions = debian(products)["versions"]
        versions[NEW] = versions[OLD]

    edit_products(site, change)
    # It stays with the newer version.
    return "duplicate-image", f"{DEBIAN.replace(NEW, OLD)}/{ROOT}"


def misname_the_architecture(site: Site) -> Found:
    edit_products(site, lambda products: debian(products).update(arch="amd46"))
    return "unknown-architecture", "images/debian/12/amd64/default"


def forget_the_fingerprint(site: Site) -> Found:
    def change(products: dict[str, Any]) -> None:
        for item in debian(products)["versions"][NEW]["items"].values():
            item.pop("combined_squashfs_sha256", None)

    edit_products(site, change)
    return "bad-catalogue", DEBIAN


def use_an_unknown_ftype(site: Site) -> Found:
    def change(products: dict[str, Any]) -> None:
        items = debian(products)["versions"][NEW]["items"]
        for item in items.values():
            if item["ftype"] == "squashfs":
                item["ftype"] = "root.squashfs"

    edit_products(site, change)
    return "bad-catalogue", DEBIAN


def leave_compressed_index_behind(site: Site) -> Found:
    path = site.root / INDEX
    stale = path.read_bytes().replace(b"alpine", b"alpina")
    path.with_suffix(".json.gz").write_bytes(gzip.compress(stale))
    return "bad-catalogue", INDEX


DAMAGE = [
    *(remove_metadata, remove_disk, cut_root, empty_root, lengthen_metadata, put_a_directory),
    *(flip_root, flip_metadata, change_fingerprint),
    *(cut_index, empty_index, serve_a_page, remove_product_file, cut_product_file),
    *(mistype_aliases, mistype_size, lose_a_product, repeat_an_image),
    *(misname_the_architecture, forget_the_fingerprint, use_an_unknown_ftype),
    leave_compressed_index_behind,
]


@pytest.mark.parametrize("plant", DAMAGE, ids=lambda plant: plant.__name__)
def test_planted_damage_is_named_and_nothing_else(
    site: Site, plant: Callable[[Site], Found]
) -> None:
    expected = plant(site)
    done = site.check("-q", "--json", "--full", settings="gzip_static on;")
    assert list_found(done) == {expected}
    assert done.returncode == 4
    assert done.stderr == ""


def at(path: str, settings: str) -> str:
    return f'location = "/{path}" {{ {settings} }}'


SERVED_BADLY = {
    "forbidden": (
        at(f"{DEBIAN}/{ROOT}", "return 403;"),
        4,
        ("unreadable", f"{DEBIAN}/{ROOT}"),
    ),
    "forbidden product file": (at(IMAGES, "return 403;"), 4, ("unreadable", IMAGES)),
    "an image redirected to http": (
        at(f"{DEBIAN}/{ROOT}", "return 302 http://localhost:1/;"),
        4,
        ("insecure", f"{DEBIAN}/{ROOT}"),
    ),
    "the index redirected to http": (
        at(INDEX, "return 302 http://localhost:1/;"),
        4,
        ("insecure", INDEX),
    ),
    "the product file redirected to http": (
        at(IMAGES, "return 302 http://localhost:1/;"),
        4,
        ("insecure", IMAGES),
    ),
    "an image redirected to a private address": (
        at(f"{DEBIAN}/{ROOT}", "return 302 https://127.0.0.1:$server_port/;"),
        4,
        ("unreadable", f"{DEBIAN}/{ROOT}"),
    ),
    "an image redirected in a circle": (
        at(f"{DEBIAN}/{ROOT}", "return 302 $request_uri;"),
        4,
        ("unreadable", f"{DEBIAN}/{ROOT}"),
    ),
    "another length by GET": (
        at(f"{ALPINE}/{DISK}", "if ($request_method = GET) { rewrite ^ /other.qcow2 break; }"),
        4,
        ("checksum-mismatch", f"{ALPINE}/{DISK}"),
    ),
    "a catalogue that is cached for a day": (
        at(INDEX, 'add_header Cache-Control "public, max-age=86400";'),
        3,
        ("cached-too-long", INDEX),
    ),
    "a catalogue that shared caches keep": (
        at(IMAGES, 'add_header Cache-Control "max-age=60, s-maxage=7200";'),
        3,
        ("cached-too-long", IMAGES),
    ),
    "an immutable catalogue": (
        at(IMAGES, 'add_header Cache-Control "max-age=60, immutable";'),
        3,
        ("cached-too-long", IMAGES),
    ),
    "a catalogue that expires tomorrow": (
        at(INDEX, 'expires 1d; add_header Cache-Control ""; add_header Expires $date_gmt;'),
        3,
        ("cached-too-long", INDEX),
    ),
    "an image without validators": (
        at(f"{DEBIAN}/{ROOT}", 'etag off; add_header Last-Modified "";'),
        3,
        ("not-resumable", f"{DEBIAN}/{ROOT}"),
    ),
    "an image without ranges": (
        at(f"{DEBIAN}/{ROOT}", "max_ranges 0;"),
        3,
        ("not-resumable", f"{DEBIAN}/{ROOT}"),
    ),
    "an image that is compressed": (
        at(f"{DEBIAN}/{ROOT}", "gzip on; gzip_min_length 1; gzip_types *;"),
        3,
        ("compressed-file", f"{DEBIAN}/{ROOT}"),
    ),
    "plain HTTP": (
        "error_page 497 =200 /streams/v1/index.json;",
        3,
        ("plain-http", INDEX),
    ),
}


@pytest.mark.parametrize("fault", SERVED_BADLY)
def test_what_the_server_does_badly_is_named_and_nothing_else(site: Site, fault: str) -> None:
    settings, exit_code, expected = SERVED_BADLY[fault]
    (site.root / "other.qcow2").write_bytes(b"another")
    done = site.check("-q", "--json", settings=settings)
    assert list_found(done) == {expected}
    assert done.returncode == exit_code


# What only options ask for


def test_a_certificate_that_expires_soon_is_told(site: Site) -> None:
    done = site.check("-q", "--json", "--expiry", "60d")
    assert {code for code, _ in list_found(done)} == {"certificate-expires"}
    assert done.returncode == 3
    assert "its certificate expires in 30.0 days, on 20" in done.stderr


@pytest.mark.parametrize("names", ["DNS:localhost", "DNS:images.example.org"])
def test_a_certificate_that_clients_refuse_is_damage(
    site: Site, tmp_path: Path, names: str
) -> None:
    certificate = make_certificate(tmp_path, days=30, names=names)
    # The one is trusted by nobody, the other is of another host.
    ca = site.ca if names == "DNS:localhost" else certificate.path
    done = Site(site.root, site.work, certificate, ca).check("-q", "--json")
    assert list_found(done) == {("insecure", INDEX)}
    assert done.returncode == 4
    assert "certificate is not valid: " in done.stdout


def test_products_that_are_too_old_are_told(site: Site) -> None:
    done = site.check("-q", "--json", "--max-age", "10d")
    assert list_found(done) == {("product-old", "images/ubuntu/noble/amd64/default")}
    assert done.returncode == 3


def test_the_lag_behind_an_upstream_is_told(site: Site, fastindex: Run, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    shutil.copytree(site.root, upstream)
    options = ("--json", "--upstream", f"file://{upstream}")
    assert site.check(*options).returncode == 0
    newer = f"debian/12/amd64/default/{DAY + timedelta(hours=12):%Y%m%d_%H:%M}"
    write_tree(upstream, version(newer) | version(f"void/current/amd64/default/{OLD}"))
    assert fastindex("-q", upstream).returncode == 0
    done = site.check("-q", *options)
    expected = {
        ("mirror-behind", "images/debian/12/amd64/default"),
        ("mirror-behind", "images/void/current/amd64/default"),
    }
    assert list_found(done) == expected
    assert done.returncode == 3
    assert site.check("-q", *options, "--lag", "20000d").returncode == 0
    done = site.check("-q", *options, "--lag", "3d")
    assert list_found(done) == {("mirror-behind", "images/void/current/amd64/default")}
    done = site.check("-q", *options, "--filter", "os=debian")
    assert list_found(done) == {("mirror-behind", "images/debian/12/amd64/default")}


def test_an_upstream_that_cannot_be_read_is_told(site: Site, tmp_path: Path) -> None:
    done = site.check("-q", "--json", "--upstream", f"file://{tmp_path}/nowhere")
    assert {code for code, _ in list_found(done)} == {"upstream-failed"}
    assert done.returncode == 3


def test_a_filter_says_whose_files_are_asked_for(site: Site) -> None:
    remove_metadata(site)
    done = site.check("-q", "--json", "--filter", "os=ubuntu")
    assert (done.returncode, list_found(done)) == (0, set())
    report = json.loads(done.stdout)["check"]
    assert (report["products"], report["versions"], report["files"]) == (1, 1, 2)
    done = site.check("-q", "--json", "--filter", "os=ubunut")
    assert list_found(done) == {("unused-filter", "filter os=ubunut")}


def test_a_sample_is_read_and_no_more(site: Site) -> None:
    done = site.check("-q", "--json", "--sample", 1)
    assert json.loads(done.stdout)["check"]["files_read"] == 2
    flip_root(site)
    done = site.check("-q", "--json", "--sample", 4)
    assert list_found(done) == {("checksum-mismatch", f"{DEBIAN}/{ROOT}")}


def test_lint_is_that_of_verify(site: Site, fastindex: Run) -> None:
    edit_products(site, lambda products: debian(products).update(aliases=""))
    done = site.check("-q", "--json")
    assert list_found(done) == {("no-alias", "images/debian/12/amd64/default")}
    assert done.returncode == 3
    told = json.loads(fastindex("verify", "--json", site.root).stdout)
    assert json.loads(done.stdout)["findings"] == told["findings"]


def test_what_cannot_be_checked_is_told(site: Site) -> None:
    (site.root / INDEX).unlink()
    done = site.check()
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{INDEX}: the server answers 404 Not Found; check the URL" in done.stderr


def test_mismatches_are_printed_as_verify_prints_them(site: Site, fastindex: Run) -> None:
    cut_root(site)
    done = site.check("-q")
    assert done.stdout == fastindex("verify", "--quick", site.root).stdout
    assert done.stdout.startswith(f"{DEBIAN}\n  {ROOT}: is ")


def test_a_local_mirror_is_checked_without_a_server(site: Site, fastindex: Run) -> None:
    done = fastindex("check", "-q", "--full", f"file://{site.root}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    flip_root(site)
    assert fastindex("check", "-q", "--full", f"file://{site.root}").returncode == 4


def test_a_password_is_never_sent_in_clear(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    done = site.check("-q", "--json")
    (found,) = list_found(done)
    assert found[0] == "plain-http"  # nginx answers 400 to what is sent in clear
    assert "they send the password in clear" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lag", "1d", "https://a"], "--lag does nothing without --upstream"),
        (["--full", "--sample", "2", "https://a"], "--sample: cannot be used together with --full"),
        (["--sample", "0", "https://a"], "must be an integer of at least 1"),
        (["https://a/streams/v1/index.json"], "the URL is what stands before /streams/v1"),
        (["ftp://a"], "the URL must begin with https://"),
        (["--filter", "os", "https://a"], "has no operator"),
    ],
)
def test_wrong_usage(fastindex: Run, words: list[str], said: str) -> None:
    done = fastindex("check", *words)
    assert done.returncode == 2
    assert said in done.stderr
