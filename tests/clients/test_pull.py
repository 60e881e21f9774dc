"""What the real clients see of a copy that ``fastindex pull`` made of a server with TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.canonical import NEWER as NEWER_SERIAL
from tests.support.clients.canonical import OLDER as OLDER_SERIAL
from tests.support.clients.canonical import CanonicalServer, make_delta
from tests.support.clients.image_maker import (
    DISK,
    INCUS_COMBINED,
    INCUS_METADATA,
    LXD_COMBINED,
    LXD_METADATA,
    NEWER,
    OLDER,
    SQUASHFS,
    TARBALL,
    ImageMaker,
    fingerprint,
)
from tests.support.clients.mirror_server import Certificate, Mirror, serve
from tests.support.clients.real_clients import Client, Flavour, ListedImage, contents
from tests.support.command import Run
from tests.support.tools import needs
from tests.support.trees import stamps

Pull = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[[Path], Mirror]

ALPINE = "alpine/3.20/arm64/default"
BUSYBOX = "busybox/1.36/amd64/default"
CATALOGUE = ("streams/v1/index.json", "streams/v1/images.json")


@pytest.fixture
def serve_tree(tmp_path: Path, certificate: Certificate) -> Iterator[Serve]:
    """Return what serves a tree over TLS until the test ends."""
    with ExitStack() as stack:

        def serve_it(root: Path) -> Mirror:
            work = tmp_path / f"nginx-{root.name}"
            work.mkdir()
            return stack.enter_context(serve(root, work, certificate))

        yield serve_it


@pytest.fixture
def pull(fastindex: Run, certificate: Certificate) -> Pull:
    """Return what pulls from a server."""

    def pull_it(
        url: str, root: Path, *options: object, exit_code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        root.mkdir(exist_ok=True)
        done = fastindex("pull", "--ca", certificate.path, *options, url, root)
        assert done.returncode == exit_code, done.stderr
        return done

    return pull_it


@pytest.fixture
def ask(
    flavour: Flavour, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mirror], Client]:
    """Return what makes a client that knows a mirror and nothing else."""

    def ask_it(mirror: Mirror) -> Client:
        client = Client(flavour, tmp_path_factory.mktemp("home"), certificate.path)
        client.add_remote(mirror.url)
        return client

    return ask_it


Ask = Callable[[Mirror], Client]


def make_upstream(maker: ImageMaker, root: Path) -> Path:
    """Make a mirror of ours with every kind of file."""
    root.mkdir()
    both = (INCUS_METADATA, LXD_METADATA)
    older = maker.add_version(root, [*both, SQUASHFS, DISK])
    newer = maker.add_version(root, [*both, SQUASHFS, TARBALL, DISK], version=NEWER)
    make_delta(older / SQUASHFS, newer / SQUASHFS, newer / f"delta-{OLDER}.vcdiff")
    maker.add_version(root, [INCUS_COMBINED, LXD_COMBINED], product=ALPINE)
    (older.parent / ".product.toml").write_text(
        'release_title = "1.36 (stable)"\naliases = ["bb", "tools/busybox"]\n'
        'support_eol = 2031-05-01\n[requirements]\nsecureboot = "false"\n'
    )
    (older.parent / ".lxd_requirements").write_text('{"secureboot": "true"}')
    Mirror(root, "", 0).index()
    return root


def told(client: Client) -> list[ListedImage]:
    """Return what a client tells of all images, in an order."""
    listed = client.list_images()
    return sorted(
        (replace(image, aliases=tuple(sorted(image.aliases))) for image in listed),
        key=lambda image: image.fingerprint,
    )


def compare(
    before: Sequence[ListedImage], after: Sequence[ListedImage], theirs: Client, ours: Client
) -> None:
    """See that each image of an upstream is in the copy, with all that was said of it."""
    found = {image.fingerprint: image for image in after}
    for old in before:
        new = found[old.fingerprint]
        for name in ("type", "architecture", "size", "date"):
            assert getattr(new, name) == getattr(old, name)
        assert set(old.aliases) <= set(new.aliases)
        for key in old.properties.keys() & new.properties.keys():
            assert (key, new.properties[key]) == (key, old.properties[key])
        is_vm = old.type == "virtual-machine"
        exports = [one.export(old.fingerprint, vm=is_vm) for one in (theirs, ours)]
        assert sorted(exports[0].values()) == sorted(exports[1].values())


def check(fastindex: Run, root: Path) -> None:
    """See that every file is what the catalogue says."""
    done = fastindex("verify", "--sha256", root)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def read_catalogue(root: Path) -> list[bytes]:
    return [(root / path).read_bytes() for path in CATALOGUE]


def test_both_clients_list_and_export_the_same_from_the_copy(
    maker: ImageMaker, tmp_path: Path, serve_tree: Serve, pull: Pull, ask: Ask, fastindex: Run
) -> None:
    upstream = make_upstream(maker, tmp_path / "upstream")
    served, copy = serve_tree(upstream), tmp_path / "copy"

    pull(served.url, copy, "--keep", "2")
    check(fastindex, copy)
    ours, theirs = ask(serve_tree(copy)), ask(served)

    listed = told(ours)
    assert listed == told(theirs)
    assert len(listed) == 6
    for image in listed:
        is_vm = image.type == "virtual-machine"
        infos = [one.info(image.fingerprint, vm=is_vm) for one in (ours, theirs)]
        assert sorted(infos[0].splitlines()) == sorted(infos[1].splitlines())
        exports = [one.export(image.fingerprint, vm=is_vm) for one in (ours, theirs)]
        assert exports[0] == exports[1]
    newest = f"images/{BUSYBOX}/{NEWER}"
    assert ours.export("bb") == contents(upstream / newest, ours.flavour.metadata, SQUASHFS)


def test_a_copy_of_a_copy_is_the_same_catalogue(
    maker: ImageMaker, tmp_path: Path, serve_tree: Serve, pull: Pull, fastindex: Run
) -> None:
    upstream = make_upstream(maker, tmp_path / "upstream")
    copy, second = tmp_path / "copy", tmp_path / "second"

    pull(serve_tree(upstream).url, copy, "--keep", "9")
    pull(serve_tree(copy).url, second, "--keep", "9")

    check(fastindex, second)
    assert read_catalogue(copy) == read_catalogue(upstream)
    assert read_catalogue(second) == read_catalogue(upstream)
    for root in (copy, second):
        names = {path.relative_to(root) for path in root.glob("images/*/*/*/*/*/[!.]*")}
        assert names == {
            path.relative_to(upstream) for path in upstream.glob("images/*/*/*/*/*/[!.]*")
        }
        for name in names:
            assert (root / name).read_bytes() == (upstream / name).read_bytes()


def test_the_newest_version_and_its_alias_follow_the_upstream(
    maker: ImageMaker, tmp_path: Path, serve_tree: Serve, pull: Pull, ask: Ask, fastindex: Run
) -> None:
    upstream, copy = tmp_path / "upstream", tmp_path / "copy"
    upstream.mkdir()
    served = serve_tree(upstream)
    files = [INCUS_METADATA, LXD_METADATA, SQUASHFS]
    versions = []
    for name in (OLDER, NEWER):
        versions.append(maker.add_version(upstream, files, version=name))
        served.index()
        pull(served.url, copy)

    client = ask(serve_tree(copy))
    (image,) = client.list_images()

    metadata = versions[-1] / client.flavour.metadata
    assert image.fingerprint == fingerprint(metadata, versions[-1] / SQUASHFS)
    assert client.export("busybox/1.36") == contents(versions[-1], metadata.name, SQUASHFS)
    check(fastindex, copy)
    # What a client of a moment ago may still be fetching is there until prune takes it.
    assert (copy / f"images/{BUSYBOX}/{OLDER}/{SQUASHFS}").exists()


@pytest.fixture
def flat(maker: ImageMaker, tmp_path: Path) -> Path:
    """Return a tree that the real ``incus-simplestreams`` published."""
    tool = needs("incus-simplestreams", "apt-get install incus-extra")
    root = tmp_path / "flat"
    root.mkdir()

    def add(directory: Path, *names: str, alias: Sequence[str] = ()) -> None:
        files = [directory / name for name in names]
        words = [f"--alias={one}" for one in alias]
        subprocess.run(
            [tool, "add", *files, *words], cwd=root, check=True, timeout=60, capture_output=True
        )

    split = maker.add_version(tmp_path / "built", [INCUS_METADATA, SQUASHFS, DISK])
    add(split, INCUS_METADATA, SQUASHFS, alias=["mine"])
    add(split, INCUS_METADATA, DISK)
    unified = maker.add_version(tmp_path / "built", [INCUS_COMBINED], product=ALPINE)
    add(unified, INCUS_COMBINED)
    return root


def test_a_tree_of_incus_simplestreams_is_laid_out_and_seen_alike(
    flat: Path, tmp_path: Path, serve_tree: Serve, pull: Pull, ask: Ask, fastindex: Run
) -> None:
    served, copy = serve_tree(flat), tmp_path / "copy"

    pull(served.url, copy)
    check(fastindex, copy)

    directories = {
        str(path.relative_to(copy / "images")) for path in copy.glob("images/*/*/*/*/2*")
    }
    assert directories == {f"{BUSYBOX}/202405050524", "alpine/3.20/amd64/default/202405050524"}
    ours, theirs = ask(serve_tree(copy)), ask(served)
    built = tmp_path / "built/images"
    split = built / BUSYBOX / OLDER
    unified = built / ALPINE / OLDER / INCUS_COMBINED
    expected = {
        fingerprint(split / INCUS_METADATA, split / SQUASHFS): "container",
        fingerprint(split / INCUS_METADATA, split / DISK): "virtual-machine",
        fingerprint(unified): "container",
    }
    assert {image.fingerprint: image.type for image in told(ours)} == expected
    # Lone metadata of one client serves the other, too; the upstream has it for Incus alone.
    before = told(theirs)
    assert len(before) == (3 if ours.flavour.tool == "incus" else 0)
    compare(before, told(ours), theirs, ours)
    exported = sorted(ours.export("mine").values())
    assert exported == sorted(contents(split, INCUS_METADATA, SQUASHFS).values())


@pytest.fixture
def canonical(maker: ImageMaker, tmp_path: Path) -> CanonicalServer:
    """Return a server as Canonical's, with two versions of a release, and what nobody wants."""
    root, workshop = tmp_path / "canonical", tmp_path / "workshop"
    root.mkdir()
    workshop.mkdir()
    server = CanonicalServer(root, workshop, maker)
    server.add_version("jammy", "amd64", OLDER_SERIAL)
    server.add_version("jammy", "amd64", NEWER_SERIAL)
    server.add_version("jammy", "arm64", NEWER_SERIAL)
    server.add_version("trusty", "amd64", OLDER_SERIAL)
    server.publish()
    return server


JAMMY = "images/ubuntu/jammy/amd64/default"


def test_both_clients_see_in_the_copy_what_they_see_of_canonical(
    canonical: CanonicalServer,
    tmp_path: Path,
    serve_tree: Serve,
    pull: Pull,
    ask: Ask,
    fastindex: Run,
) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"

    pull(served.url, copy, "--filter", "os=ubuntu arch=amd64 release=jammy", "--keep", "2")
    check(fastindex, copy)

    theirs, ours = ask(served), ask(serve_tree(copy))
    before = [
        image
        for image in told(theirs)
        if (image.architecture, image.properties["release"]) == ("x86_64", "jammy")
    ]
    after = told(ours)
    # Incus looks for no metadata of LXD, and sees nothing of the upstream itself.
    assert len(before) == (8 if ours.flavour.tool == "lxc" else 0)
    compare(before, after, theirs, ours)
    expected = {
        value: "container" if "squashfs" in field or "rootxz" in field else "virtual-machine"
        for serial in (OLDER_SERIAL, NEWER_SERIAL)
        for field, value in canonical.describe("jammy", "amd64", serial)["lxd.tar.xz"].items()
        if field.startswith("combined_") and field != "combined_sha256"
    }
    assert {image.fingerprint: image.type for image in after} == expected
    top = tmp_path / f"canonical/server/releases/jammy/release-{NEWER_SERIAL}"
    stem = "ubuntu-22.04-server-cloudimg-amd64"
    newest = contents(top, f"{stem}-lxd.tar.xz", f"{stem}.squashfs")
    for alias in ("22.04", "j", "jammy"):
        assert sorted(ours.export(alias).values()) == sorted(newest.values())


@pytest.mark.usefixtures("canonical")
def test_what_canonical_says_of_a_release_survives(
    tmp_path: Path, serve_tree: Serve, pull: Pull
) -> None:
    copy = tmp_path / "copy"

    pull(
        serve_tree(tmp_path / "canonical").url, copy, "--filter", "os=ubuntu arch=amd64", "--keep=2"
    )

    products = read_products(copy)
    assert products.keys() == {"ubuntu:jammy:amd64:default", "ubuntu:trusty:amd64:default"}
    product = products["ubuntu:jammy:amd64:default"]
    said = {
        "release_title": "22.04 LTS",
        "release_codename": "Jammy Jellyfish",
        "version": "22.04",
        "support_eol": "2027-06-01",
        "supported": True,
    }
    assert {key: product.get(key) for key in said} == said
    assert {"22.04", "j", "jammy"} <= set(product["aliases"].split(","))
    assert product["versions"].keys() == {OLDER_SERIAL, NEWER_SERIAL}
    assert {path.name for path in (copy / JAMMY / NEWER_SERIAL).iterdir()} >= {
        "lxd.tar.xz",
        "rootfs.squashfs",
        "rootfs.tar.xz",
        f"delta-{OLDER_SERIAL}.vcdiff",
    }
    deltas = [
        item
        for item in product["versions"][NEWER_SERIAL]["items"].values()
        if item["ftype"] == "squashfs.vcdiff"
    ]
    assert [item["delta_base"] for item in deltas] == [OLDER_SERIAL]


def read_products(root: Path) -> dict[str, Any]:
    products: dict[str, Any] = json.loads((root / CATALOGUE[1]).read_bytes())["products"]
    return products


@pytest.mark.parametrize(("kind", "is_vm"), [("container", False), ("vm", True)])
@pytest.mark.usefixtures("canonical")
def test_a_filter_by_type_takes_only_those_images(
    tmp_path: Path, serve_tree: Serve, pull: Pull, ask: Ask, kind: str, is_vm: bool
) -> None:
    copy = tmp_path / "copy"
    pull(
        serve_tree(tmp_path / "canonical").url,
        copy,
        "--filter",
        f"alias=jammy arch=amd64 type={kind}",
    )

    images = ask(serve_tree(copy)).list_images()

    assert {image.type for image in images} == {"virtual-machine" if is_vm else "container"}
    disks = [path for path in copy.glob("images/**/*") if path.suffix == ".img"]
    assert bool(disks) is is_vm


@pytest.mark.usefixtures("canonical")
def test_a_second_pull_changes_nothing(tmp_path: Path, serve_tree: Serve, pull: Pull) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"
    pull(served.url, copy)
    before = stamps(copy / "images"), read_catalogue(copy)

    pull(served.url, copy)

    assert (stamps(copy / "images"), read_catalogue(copy)) == before


@pytest.mark.usefixtures("canonical")
def test_a_name_that_nothing_has_is_told(tmp_path: Path, serve_tree: Serve, pull: Pull) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"

    nothing = pull(served.url, copy, "--filter", "os=ubuntu release=jamy", exit_code=1)
    some = pull(served.url, copy, "--filter", "os=ubuntu,debian arch=arm64")

    assert "nothing has the release 'jamy'; did you mean jammy?" in nothing.stderr
    assert "nothing was changed" in nothing.stderr
    assert "nothing has the os 'debian'" in some.stderr


@pytest.mark.usefixtures("canonical")
@pytest.mark.parametrize("end", ["/streams/v1", "/streams/v1/", "/streams/v1/index.json"])
def test_the_address_of_the_catalogue_is_told_to_be_too_long(
    tmp_path: Path, serve_tree: Serve, pull: Pull, end: str
) -> None:
    served = serve_tree(tmp_path / "canonical")

    done = pull(f"{served.url}{end}", tmp_path / "copy", exit_code=2)

    assert f"the URL is what stands before /streams/v1, so {served.url}\n" in done.stderr


@pytest.mark.usefixtures("canonical")
def test_what_is_gone_from_the_tree_is_counted_as_pulled_and_the_rest_as_here(
    tmp_path: Path, serve_tree: Serve, pull: Pull
) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"
    pull(served.url, copy)
    shutil.rmtree(copy / JAMMY / NEWER_SERIAL)

    report = json.loads(pull(served.url, copy, "--json").stdout)

    report = report["pull"]
    assert report["pulled"] == [f"{JAMMY}/{NEWER_SERIAL}"]
    assert (report["existing"], report["failed"]) == (2, 0)


@pytest.mark.usefixtures("canonical")
def test_a_wider_filter_completes_what_is_here(
    tmp_path: Path, serve_tree: Serve, pull: Pull, fastindex: Run
) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"
    pull(served.url, copy, "--filter", "release=jammy arch=amd64 type=container")

    pull(served.url, copy, "--filter", "release=jammy arch=amd64", "--keep", "2")

    check(fastindex, copy)
    assert {path.name for path in (copy / JAMMY / NEWER_SERIAL).glob("[!.]*")} == {
        "disk1.img",
        "lxd.tar.xz",
        "rootfs.squashfs",
        "rootfs.tar.xz",
        "uefi1.img",
        f"delta-{OLDER_SERIAL}.vcdiff",
    }
    assert not [*(copy / JAMMY).glob(".2*")]


@pytest.mark.usefixtures("canonical")
@pytest.mark.parametrize("is_built", [False, True])
def test_a_file_that_was_lost_is_pulled_again(
    tmp_path: Path, serve_tree: Serve, pull: Pull, fastindex: Run, is_built: bool
) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"
    pull(served.url, copy, "--filter", "arch=amd64")
    before = read_catalogue(copy)
    kept = (copy / JAMMY / NEWER_SERIAL / "rootfs.squashfs").stat().st_ino
    (copy / JAMMY / NEWER_SERIAL / "disk1.img").unlink()
    if is_built:
        fastindex(copy)
        assert read_catalogue(copy) != before

    done = pull(served.url, copy, "--filter", "arch=amd64")

    assert done.stdout == f"{JAMMY}/{NEWER_SERIAL}\n"
    assert "0 files hashed" in done.stderr
    assert read_catalogue(copy) == before
    assert (copy / JAMMY / NEWER_SERIAL / "rootfs.squashfs").stat().st_ino == kept
    check(fastindex, copy)


@pytest.mark.usefixtures("canonical")
def test_what_is_different_here_is_left_and_told_until_it_is_deleted(
    tmp_path: Path, serve_tree: Serve, pull: Pull, fastindex: Run
) -> None:
    served, copy = serve_tree(tmp_path / "canonical"), tmp_path / "copy"
    pull(served.url, copy, "--filter", "arch=amd64")
    disk = copy / JAMMY / NEWER_SERIAL / "disk1.img"
    with disk.open("ab") as file:
        file.write(b"something else")

    done = pull(served.url, copy, "--filter", "arch=amd64", exit_code=3)

    assert "a different disk1.img than the upstream has" in done.stderr
    assert "delete that file, then pull again" in done.stderr
    assert disk.read_bytes().endswith(b"something else")
    disk.unlink()
    pull(served.url, copy, "--filter", "arch=amd64")
    check(fastindex, copy)


def test_what_an_upstream_adds_to_a_version_is_pulled(
    maker: ImageMaker, tmp_path: Path, serve_tree: Serve, pull: Pull, ask: Ask, fastindex: Run
) -> None:
    """As incus-simplestreams does, if a machine is added after a container."""
    upstream, copy = tmp_path / "upstream", tmp_path / "copy"
    upstream.mkdir()
    served = serve_tree(upstream)
    version = maker.add_version(upstream, [INCUS_METADATA, LXD_METADATA, SQUASHFS])
    served.index()
    pull(served.url, copy)
    made = maker.add_version(tmp_path / "made", [DISK])
    shutil.copy2(made / DISK, version / DISK)
    served.index()

    pull(served.url, copy)

    check(fastindex, copy)
    assert read_catalogue(copy) == read_catalogue(upstream)
    client = ask(serve_tree(copy))
    assert {image.type for image in client.list_images()} == {"container", "virtual-machine"}
    metadata = client.flavour.metadata
    assert client.export("busybox/1.36", vm=True) == contents(version, metadata, DISK)
