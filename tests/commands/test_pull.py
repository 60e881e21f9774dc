"""``fastindex pull``: the command against a server that does what the test says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from fastindex.cli.output import format_size
from fastindex.errors import ExitCode
from tests.support.clients.mirror_server import Certificate
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.contents import make_content
from tests.support.faults.pulls import pull_at_once
from tests.support.faults.upstream_server import Fault, UpstreamServer, serve_upstream
from tests.support.file_systems import file_system_of
from tests.support.trees import (
    OLD_NS,
    Files,
    catalogue,
    in_stream,
    published,
    sha256,
    stamps,
    version,
    write_file,
    write_tree,
)
from tests.support.upstreams import flat_product, index_json, item, product_json

INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"
DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
KEY = "debian:12:amd64:default"

Result = CompletedProcess[str]


def many(count: int, name: str = OLD) -> Files:
    """Return so many products of one version each."""
    tree: Files = {}
    for number in range(count):
        tree |= version(f"debian/{number}/amd64/default/{name}")
    return tree


def big(path: str, size_bytes: int = 100_000) -> Files:
    """Return a version with a root that takes a while."""
    body = bytes(range(256)) * (size_bytes // 256)
    return version(
        path,
        incus_tar_xz=make_content("incus.tar.xz", path),
        rootfs_squashfs=make_content("rootfs.squashfs", body + path.encode()),
    )


@dataclass
class Site:
    """An upstream, its server, and a mirror of it."""

    server: UpstreamServer
    upstream: Path
    mirror: Path
    fastindex: Run

    def publish(self, *trees: Files) -> None:
        """Add to the upstream, and publish it."""
        for tree in trees:
            write_tree(self.upstream, tree)
        done = self.fastindex("--force", self.upstream)
        assert done.returncode == 0, done.stderr

    def drop(self, path: str) -> None:
        """Remove a directory of the upstream; it still has to be published."""
        shutil.rmtree(self.upstream / "images" / path)

    def pull(self, *arguments: object, exit_code: int = 0) -> Result:
        """Pull; a message never has what a terminal obeys."""
        place = ["--ca", self.server.certificate, self.server.url, self.mirror]
        done = self.fastindex("pull", *arguments, *place)
        assert done.returncode == exit_code, done.stderr
        assert done.stderr.replace("\n", "").isprintable()
        return done

    def published(self) -> set[str]:
        return published(self.mirror)

    def is_same(self) -> bool:
        """Return whether both have the same catalogue."""
        return (self.mirror / PRODUCTS).read_bytes() == (self.upstream / PRODUCTS).read_bytes()


@pytest.fixture
def site(tmp_path: Path, root: Path, certificate: Certificate, fastindex: Run) -> Iterator[Site]:
    """Return an empty upstream with an empty mirror; whatever happens, the mirror is sound."""
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    with serve_upstream(upstream, certificate) as server:
        yield Site(server, upstream, root, fastindex)
    assert {path.name for path in tmp_path.iterdir()} <= {"mirror", "upstream", "aside"}
    if (root / INDEX).exists():
        checked = fastindex("verify", "--sha256", root)
        assert checked.returncode == 0, checked.stderr


def records(root: Path, name: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads((root / "streams" / name).read_bytes())
    return decoded


def state(site: Site) -> dict[str, tuple[int, int]]:
    """Return what is in the mirror, but for the locks that each run takes."""
    return {path: stamp for path, stamp in stamps(site.mirror).items() if ".lock" not in path}


# What is pulled


def test_a_pull_makes_the_same_catalogue(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    done = site.pull()
    assert site.is_same()
    assert done.stdout.splitlines() == [f"images/{ALPINE}/{OLD}", f"images/{DEBIAN}/{OLD}"]
    assert "0 files hashed, 4 reused; nothing read" in done.stderr
    assert "2 versions pulled, 0 here already, 0 withdrawn, 0 failed" in done.stderr


def test_an_unchanged_upstream_is_asked_for_its_catalogue_only(site: Site) -> None:
    site.publish(many(5))
    site.pull()
    before = state(site)
    site.server.behave()
    done = site.pull()
    assert site.server.paths() == [PRODUCTS, INDEX]
    assert "0 versions pulled, 5 here already" in done.stderr
    assert state(site) == before


def test_a_version_that_is_lost_here_is_pulled_again_from_an_unchanged_upstream(
    site: Site,
) -> None:
    site.publish(many(5))
    site.pull()
    shutil.rmtree(site.mirror / f"images/debian/3/amd64/default/{OLD}")
    assert site.pull().stdout.splitlines() == [f"images/debian/3/amd64/default/{OLD}"]
    assert site.is_same()


def test_filters_choose(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"), version(f"debian/12/arm64/cloud/{OLD}"))
    site.pull("--filter", "os=debian variant!=cloud")
    assert site.published() == {f"{KEY} {OLD}"}
    site.pull("--filter", "os=debian variant!=cloud", "--filter", "os=alpine")
    assert site.published() == {f"{KEY} {OLD}", f"alpine:3.20:arm64:default {OLD}"}


def test_a_filter_that_nothing_passes_changes_nothing(site: Site) -> None:
    site.publish(version())
    done = site.pull("--filter", "os=gentoo", exit_code=1)
    assert "has nothing of what is asked for that can be used; nothing was changed" in done.stderr
    assert not (site.mirror / INDEX).exists()


def test_narrower_filters_withdraw_nothing(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    site.pull()
    site.pull("--filter", "os=alpine")
    assert site.is_same()


def test_another_stream_directory_can_be_chosen(site: Site) -> None:
    site.publish(version())
    site.pull("--stream", "copies")
    assert published(site.mirror, "copies") == {f"{KEY} {OLD}"}
    site.server.behave()
    site.pull("--stream", "copies")
    assert site.server.paths() == [PRODUCTS, INDEX]


def test_all_streams_of_an_upstream_are_pulled(site: Site) -> None:
    site.publish(version())
    write_tree(site.upstream, in_stream("daily", version(f"{ALPINE}/{OLD}")))
    assert site.fastindex("--stream", "daily", site.upstream).returncode == 0
    site.pull()
    assert site.published() == {f"{KEY} {OLD}"}
    assert published(site.mirror, "daily") == {f"alpine:3.20:arm64:default {OLD}"}


def test_settings_of_the_upstream_arrive(site: Site) -> None:
    toml = b'release_title = "Bookworm"\naliases = ["stable"]\n[requirements]\nnesting = "true"'
    site.publish(version(), {f"images/{DEBIAN}/.product.toml": toml})
    site.pull()
    assert site.is_same()
    product = catalogue(site.mirror)["products"][KEY]
    assert (product["release_title"], product["requirements"]) == (
        "Bookworm",
        {"nesting": "true"},
    )
    write_file(site.upstream / f"images/{DEBIAN}/.product.toml", toml.replace(b"Book", b"Bad"))
    site.publish()
    site.pull()
    assert catalogue(site.mirror)["products"][KEY]["release_title"] == "Badworm"


def test_an_operators_own_settings_stay(site: Site) -> None:
    site.publish(version(), {f"images/{DEBIAN}/.product.toml": b'release_title = "Theirs"'})
    own = b'release_title = "Ours"\n'
    write_tree(site.mirror, {f"images/{DEBIAN}/.product.toml": own})
    site.pull()
    assert (site.mirror / f"images/{DEBIAN}/.product.toml").read_bytes() == own
    assert catalogue(site.mirror)["products"][KEY]["release_title"] == "Ours"


def test_a_copy_of_a_copy_has_the_same_catalogue(
    site: Site, tmp_path: Path, certificate: Certificate
) -> None:
    toml = b'aliases = ["stable"]\nrelease_title = "Bookworm"\n'
    site.publish(version(), version(f"{DEBIAN}/{NEW}"), {f"images/{DEBIAN}/.product.toml": toml})
    site.pull("--keep", 2)
    copy = tmp_path / "aside"
    copy.mkdir()
    with serve_upstream(site.mirror, certificate) as second:
        place = ["--keep", 2, "--ca", second.certificate, second.url, copy]
        assert site.fastindex("pull", *place).returncode == 0
    for name in (INDEX, PRODUCTS):
        assert (copy / name).read_bytes() == (site.upstream / name).read_bytes()


def test_a_local_upstream_needs_no_server(site: Site) -> None:
    site.publish(version())
    done = site.fastindex("pull", site.upstream.as_uri(), site.mirror)
    assert done.returncode == 0
    assert site.is_same()
    assert not site.server.requests


def test_files_that_another_version_has_are_linked_and_not_fetched(site: Site) -> None:
    first, second = f"images/{DEBIAN}/{OLD}", f"images/{DEBIAN}/{NEW}"
    site.publish(version())
    site.pull()
    root = make_content("rootfs.squashfs", f"{DEBIAN}/{OLD}")
    metadata = make_content("incus.tar.xz", "another")
    site.publish(version(f"{DEBIAN}/{NEW}", incus_tar_xz=metadata, rootfs_squashfs=root))
    site.server.behave()
    site.pull("--keep", 2)
    assert site.server.paths() == [f"{second}/incus.tar.xz", PRODUCTS, INDEX]
    linked = [site.mirror / f"{one}/rootfs.squashfs" for one in (first, second)]
    assert linked[0].samefile(linked[1])
    assert site.is_same()


def test_a_damaged_file_of_another_version_is_fetched_instead(site: Site) -> None:
    root = make_content("rootfs.squashfs", f"{DEBIAN}/{OLD}")
    site.publish(version())
    site.pull()
    here = site.mirror / f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    damaged = root[:-1] + b"\0"
    before = here.stat()
    here.write_bytes(damaged)
    os.utime(here, ns=(before.st_mtime_ns, before.st_mtime_ns))
    metadata = make_content("incus.tar.xz", "another")
    site.publish(version(f"{DEBIAN}/{NEW}", incus_tar_xz=metadata, rootfs_squashfs=root))
    site.pull("--keep", 2)
    assert (site.mirror / f"images/{DEBIAN}/{NEW}/rootfs.squashfs").read_bytes() == root
    here.write_bytes(root)
    os.utime(here, ns=(before.st_mtime_ns, before.st_mtime_ns))


def test_a_file_that_another_version_has_lost_is_fetched(site: Site) -> None:
    root = make_content("rootfs.squashfs", f"{DEBIAN}/{OLD}")
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    site.pull()
    (site.mirror / f"images/{DEBIAN}/{OLD}/rootfs.squashfs").unlink()
    metadata = make_content("incus.tar.xz", "another")
    site.publish(version(f"{DEBIAN}/{NEW}", incus_tar_xz=metadata, rootfs_squashfs=root))
    site.drop(f"{DEBIAN}/{OLD}")
    site.publish()
    site.pull()
    assert site.is_same()


def test_deltas_come_with_both_versions_only(site: Site) -> None:
    delta: Files = {f"images/{DEBIAN}/{NEW}/delta-{OLD}.vcdiff": make_content("a.vcdiff", "delta")}
    site.publish(version(), version(f"{DEBIAN}/{NEW}"), delta)
    site.pull()
    assert list(site.mirror.rglob("*.vcdiff")) == []
    site.pull("--filter", "os=debian", "--keep", 2)
    assert site.published() == {f"{KEY} {OLD}", f"{KEY} {NEW}"}


def test_a_version_appears_whole(site: Site) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}"))
    product = site.mirror / "images" / DEBIAN
    seen: list[list[str]] = []
    look = Fault(before=lambda: seen.append(os.listdir(product) if product.exists() else []))
    site.server.plan("rootfs.squashfs", look, look)
    site.pull("--connections", 1)
    assert seen == [[f".{OLD}"]]
    assert {one.name for one in product.iterdir()} == {OLD}
    assert {one.name for one in (product / OLD).iterdir()} == {
        ".items.json",
        "incus.tar.xz",
        "rootfs.squashfs",
    }


# What goes


def test_newer_versions_replace_older_ones_which_prune_deletes(site: Site) -> None:
    old, new = (site.mirror / f"images/{DEBIAN}/{name}" for name in (OLD, NEW))
    site.publish(version())
    site.pull()
    site.publish(version(f"{DEBIAN}/{NEW}"))
    done = site.pull()
    assert f"withdrawn images/{DEBIAN}/{OLD}" in done.stdout
    assert site.published() == {f"{KEY} {NEW}"}
    assert list(records(site.mirror, ".withdrawn.json")) == [f"images/{DEBIAN}/{OLD}"]
    assert (old.is_dir(), new.is_dir()) == (True, True)
    assert site.fastindex("prune", "--keep", 2, "--grace", 0, site.mirror).returncode == 0
    assert (old.is_dir(), new.is_dir()) == (False, True)
    site.server.behave()
    assert site.pull().stdout == ""
    assert site.published() == {f"{KEY} {NEW}"}


def test_keep_says_how_many_versions_stay(site: Site) -> None:
    names = [f"2024050{day}_05:24" for day in range(1, 5)]
    for name in names:
        site.publish(version(f"{DEBIAN}/{name}"))
        site.pull("--keep", 2)
    assert site.published() == {f"{KEY} {name}" for name in names[2:]}
    site.pull("--keep", 1)
    assert site.published() == {f"{KEY} {names[3]}"}
    done = site.pull("--keep", 3)
    assert site.published() == {f"{KEY} {name}" for name in names[1:]}
    assert "0 versions pulled, 3 here already" in done.stderr


def test_a_version_that_the_upstream_loses_is_withdrawn(site: Site) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    site.pull("--keep", 2)
    site.drop(f"{DEBIAN}/{OLD}")
    site.publish()
    site.pull("--keep", 2)
    assert site.published() == {f"{KEY} {NEW}"}
    assert (site.mirror / f"images/{DEBIAN}/{OLD}").is_dir()


def test_what_the_upstream_has_again_is_published_again(site: Site) -> None:
    site.publish(many(3))
    site.pull()
    shutil.move(site.upstream / "images/debian/0", site.upstream / "images/debian/.0")
    site.publish()
    site.pull()
    assert len(site.published()) == 2
    shutil.move(site.upstream / "images/debian/.0", site.upstream / "images/debian/0")
    site.publish()
    done = site.pull()
    assert done.stdout == ""
    assert site.is_same()


def test_a_product_that_vanishes_is_withdrawn(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"), version(f"{ALPINE}/{NEW}"))
    site.pull("--keep", 2)
    site.drop("alpine")
    site.publish()
    done = site.pull("--keep", 2)
    assert done.stdout.splitlines() == [
        f"withdrawn images/{ALPINE}/{OLD}",
        f"withdrawn images/{ALPINE}/{NEW}",
    ]
    assert site.is_same()
    assert (site.mirror / f"images/{ALPINE}/{NEW}").is_dir()


def test_what_others_put_here_stays(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    write_tree(site.mirror, version(f"{DEBIAN}/20230101"))
    write_tree(site.mirror, version("gentoo/1/amd64/default/20230101"))
    site.pull()
    site.drop("alpine")
    site.publish(version(f"{DEBIAN}/{NEW}"))
    site.pull()
    assert site.published() == {
        f"{KEY} 20230101",
        f"{KEY} {NEW}",
        "gentoo:1:amd64:default 20230101",
    }


def test_a_version_that_was_removed_here_is_not_pulled_again(site: Site) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    site.pull("--keep", 2)
    path = f"images/{DEBIAN}/{OLD}"
    assert site.fastindex("remove", path, cwd=site.mirror).returncode == 0
    site.pull("--keep", 2)
    assert site.published() == {f"{KEY} {NEW}"}
    assert site.fastindex("prune", "--keep", 2, "--grace", 0, site.mirror).returncode == 0
    assert not (site.mirror / path).exists()
    site.publish(version(f"{ALPINE}/{OLD}"))
    site.pull("--keep", 2)
    assert site.published() == {f"{KEY} {NEW}", f"alpine:3.20:arm64:default {OLD}"}
    assert not (site.mirror / path).exists()


@pytest.mark.parametrize("command", [("remove", f"images/{DEBIAN}/{OLD}"), ("prune", "--keep", 1)])
def test_what_was_deleted_here_at_once_is_not_pulled_again(
    site: Site, command: tuple[object, ...]
) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"), version(f"{DEBIAN}/20230101"))
    site.pull("--keep", 2)
    assert site.fastindex(*command, "--grace", 0, site.mirror).returncode == 0
    assert not (site.mirror / f"images/{DEBIAN}/{OLD}").exists()
    done = site.pull("-v", "--keep", 2)
    assert site.published() == {f"{KEY} {NEW}"}  # nor an older one in its place
    assert f"{DEBIAN}/{OLD}: was removed here, and is not pulled again" in done.stderr


def test_an_upstream_may_move(site: Site) -> None:
    both = [f"{product}/{name}" for product in (DEBIAN, ALPINE) for name in (OLD, NEW)]
    site.publish(*map(version, both))
    site.pull("--keep", 2)
    assert site.fastindex("remove", f"images/{ALPINE}/{OLD}", site.mirror).returncode == 0
    site.drop(f"{DEBIAN}/{OLD}")
    site.publish()
    words = ("pull", "--keep", 2, site.upstream.as_uri(), site.mirror)
    hint = f"most of this was pulled from {site.server.url} before; if that is the same upstream"
    assert hint in site.fastindex(*words, "--dry-run", "-q").stderr
    moved = ("--moved-from", f"{site.server.url}/")
    for options in (("--dry-run", "-v"), ("-v",)):
        done = site.fastindex(*words, *moved, *options)
        assert done.returncode == 0, done.stderr
        assert hint not in done.stderr
        assert f"{ALPINE}/{OLD}: was removed here, and is not pulled again" in done.stderr
    assert site.fastindex(*words, *moved).returncode == 0
    assert site.published() == {f"{KEY} {NEW}", f"alpine:3.20:arm64:default {NEW}"}
    assert [*records(site.mirror, ".pulled.json")] == [site.upstream.as_uri()]


def test_an_upstream_that_was_pulled_under_both_addresses_is_one(site: Site) -> None:
    site.publish(version(f"{DEBIAN}/{OLD}"))
    site.pull()
    site.publish(version(f"{DEBIAN}/{NEW}"))
    words = ("pull", site.upstream.as_uri(), site.mirror)
    assert "was pulled from" in site.fastindex(*words).stderr
    assert site.published() == {f"{KEY} {OLD}", f"{KEY} {NEW}"}
    assert "was pulled from" not in site.fastindex(*words).stderr
    assert site.fastindex(*words, "--moved-from", site.server.url).returncode == 0
    assert site.published() == {f"{KEY} {NEW}"}


def test_what_was_never_pulled_cannot_have_moved(site: Site) -> None:
    site.publish(version(f"{DEBIAN}/{OLD}"))
    told = site.pull("--moved-from", "https://localhost/", exit_code=2).stderr
    assert "--moved-from https://localhost: nothing was pulled from there; leave it out" in told
    site.pull()
    words = ("pull", site.upstream.as_uri(), site.mirror, "--moved-from", "https://localhost")
    assert f"give one of {site.server.url}" in site.fastindex(*words).stderr


def test_undoing_a_removal_counts_for_pulls_too(site: Site) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    site.pull("--keep", 2)
    path = f"images/{DEBIAN}/{OLD}"
    assert site.fastindex("remove", path, site.mirror).returncode == 0
    site.pull("--keep", 2)
    assert site.fastindex("prune", "--undo", path, site.mirror).returncode == 0
    assert "removed here" not in site.pull("-v", "--keep", 2).stderr
    assert site.published() == {f"{KEY} {OLD}", f"{KEY} {NEW}"}
    site.pull("--keep", 1)
    assert site.published() == {f"{KEY} {NEW}"}


def test_a_file_that_comes_again_does_not_pass_for_the_old_one(site: Site) -> None:
    site.publish(version())
    site.pull()
    root = f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    content = (site.upstream / root).read_bytes()
    write_file(site.upstream / root, content[:-1] + bytes([content[-1] ^ 1]), OLD_NS + 1)
    site.publish()
    site.pull(exit_code=3)
    (site.mirror / root).unlink()
    site.pull()
    assert site.is_same()


def test_another_stream_is_refused_before_anything_is_fetched(site: Site) -> None:
    site.publish(version())
    site.pull()
    before = state(site)
    done = site.pull("--stream", "other", exit_code=2)
    assert "was pulled into images/ before, so --stream other" in done.stderr
    assert state(site) == before


def test_an_older_version_may_be_asked_for(site: Site) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    site.pull()
    site.pull("--filter", f"version={OLD}")
    assert f"{KEY} {OLD}" in site.published()


def test_what_comes_back_can_be_withdrawn_again(site: Site) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    aside = site.upstream / "aside"
    for expected in ({OLD, NEW}, {NEW}, {OLD, NEW}, {NEW}):
        place = site.upstream / f"images/{DEBIAN}/{OLD}"
        if OLD in expected and aside.exists():
            aside.rename(place)
        elif OLD not in expected:
            place.rename(aside)
        site.publish()
        site.pull("--keep", 2)
        assert site.published() == {f"{KEY} {name}" for name in expected}


def test_an_own_version_that_was_removed_is_not_replaced(site: Site) -> None:
    write_tree(site.mirror, {**version(), **version(f"{ALPINE}/{OLD}")})
    assert site.fastindex(site.mirror).returncode == 0
    assert site.fastindex("remove", f"images/{DEBIAN}/{OLD}", site.mirror).returncode == 0
    site.publish(version(), version(f"{DEBIAN}/20230101"), version(f"{ALPINE}/{OLD}"))
    site.pull()
    assert site.published() == {f"alpine:3.20:arm64:default {OLD}"}


def test_only_what_is_asked_for_is_withdrawn(site: Site) -> None:
    arm = f"debian/12/arm64/default/{OLD}"
    site.publish(version(), version(arm), version(f"{ALPINE}/{OLD}"))
    site.pull()
    site.drop("debian/12/arm64")
    site.publish()
    site.pull("--filter", "arch=amd64")
    assert f"debian:12:arm64:default {OLD}" in site.published()
    site.pull()
    assert f"debian:12:arm64:default {OLD}" not in site.published()


def test_names_that_are_no_versions_do_not_count_as_the_newest(site: Site) -> None:
    site.publish(version())
    product_file = site.upstream / PRODUCTS
    for name in ("latest", "20201301_00:00"):
        document = json.loads(product_file.read_bytes())
        versions = document["products"][KEY]["versions"]
        versions[name] = versions[OLD]
        product_file.write_text(json.dumps(document))
    done = site.pull(exit_code=3)
    assert "'latest'" in done.stderr
    assert site.published() == {f"{KEY} {OLD}"}


def test_a_disk_that_is_not_mounted_is_not_filled(site: Site) -> None:
    site.publish(version())
    site.pull()
    site.publish(version(f"{DEBIAN}/{NEW}"))
    shutil.rmtree(site.mirror / "images")
    (site.mirror / "images").mkdir()
    assert "is empty, but images were pulled into it" in site.pull(exit_code=1).stderr
    (site.mirror / "images").rmdir()
    (site.mirror / "images").symlink_to(site.mirror.parent / "gone/disk")
    assert "is a symlink that leads nowhere" in site.pull(exit_code=1).stderr
    assert not (site.mirror.parent / "gone").exists()
    (site.mirror / "images").unlink()
    site.pull("--force")
    assert site.published() == {f"{KEY} {NEW}"}


def test_pulls_with_different_filters_do_not_take_each_other_for_an_older_upstream(
    site: Site,
) -> None:
    site.publish(version(), version(f"{DEBIAN}/{NEW}"))
    site.pull("--filter", f"version={NEW}")
    site.pull("--filter", f"version={OLD}")
    site.pull("--filter", f"version={NEW}")


def test_a_quiet_pull_prints_nothing(site: Site) -> None:
    site.publish(version())
    done = site.pull("-q")
    assert (done.stdout, done.stderr) == ("", "")


def test_an_existing_version_with_other_content_is_named(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    other = make_content("rootfs.squashfs", "ours")
    files = version()
    write_tree(site.mirror, {**files, f"images/{DEBIAN}/{OLD}/rootfs.squashfs": other})
    done = site.pull(exit_code=3)
    assert f"images/{DEBIAN}/{OLD}: is published here with a different rootfs" in done.stderr
    assert "delete that file, then pull again" in done.stderr
    assert "1 version pulled, 0 here already, 0 withdrawn, 1 failed" in done.stderr
    assert (site.mirror / f"images/{DEBIAN}/{OLD}/rootfs.squashfs").read_bytes() == other
    shutil.rmtree(site.mirror / f"images/{DEBIAN}/{OLD}")
    site.pull()
    assert site.is_same()


def test_a_file_in_the_place_of_a_version_is_named_and_nothing_is_fetched_for_it(
    site: Site,
) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    write_tree(site.mirror, {f"images/{DEBIAN}/{OLD}": b"a file"})
    done = site.pull(exit_code=3)
    assert f"images/{DEBIAN}/{OLD}: is not a directory" in done.stderr
    assert f"images/{DEBIAN}/{OLD}: is not published as the upstream has it" in done.stderr
    assert not [path for path in site.server.paths() if DEBIAN in path]


def test_what_did_not_arrive_is_not_recorded_as_pulled(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    site.server.always(f"{ALPINE}/{OLD}/rootfs.squashfs", Fault(status=404))
    site.pull(exit_code=3)
    site.drop("alpine")
    site.publish()
    write_tree(site.mirror, version(f"{ALPINE}/{OLD}"))
    site.pull()
    assert len(site.published()) == 2


def test_settings_that_are_removed_come_back(site: Site) -> None:
    theirs = f"images/{DEBIAN}/.product.toml"
    site.publish(version(), {theirs: b'release_title = "Theirs"'})
    site.pull()
    (site.mirror / theirs).write_bytes(b"aliases = [")
    assert site.pull().stderr.count("cannot be used") == 1
    (site.mirror / theirs).unlink()
    site.pull()
    assert site.is_same()


@pytest.mark.parametrize("path", [INDEX, f"{DEBIAN}/{OLD}/rootfs.squashfs"])
def test_why_it_asks_again_is_told_unless_quiet(site: Site, path: str) -> None:
    site.publish(version(f"{DEBIAN}/{OLD}"))
    site.server.plan(path, Fault(status=503))
    told = site.pull().stderr
    assert "503 Service Unavailable; asking again in" in told
    assert "at most 5 times" in told


@pytest.mark.parametrize("command", ["list", "status", "verify"])
def test_a_pull_that_has_published_nothing_yet_is_named(
    site: Site, fastindex: Run, command: str
) -> None:
    site.publish(version(f"{DEBIAN}/{OLD}"))
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", Fault(status=404))
    site.pull(exit_code=1)
    done = fastindex(command, site.mirror)
    assert done.returncode == 1
    assert f"run the pull of {site.server.url} again, which has not ended yet" in done.stderr


def test_a_quiet_pull_does_not_tell_that_it_asks_again(site: Site) -> None:
    site.publish(version(f"{DEBIAN}/{OLD}"))
    site.server.plan(INDEX, Fault(status=503))
    assert not site.pull("--quiet").stderr


def test_settings_that_cannot_be_written_are_written_by_the_next_run(site: Site) -> None:
    site.publish(version(), {f"images/{DEBIAN}/.product.toml": b'release_title = "Theirs"'})
    obstacle = site.mirror / f"images/{DEBIAN}/.product.toml"
    obstacle.mkdir(parents=True)
    assert "its settings cannot be written" in site.pull(exit_code=3).stderr
    obstacle.rmdir()
    site.pull()
    assert site.is_same()


# Whether the upstream is to be believed


def test_an_upstream_that_shrinks_by_more_than_half_changes_nothing(site: Site) -> None:
    site.publish(many(5))
    site.pull()
    for number in range(3):
        site.drop(f"debian/{number}")
    site.publish()
    before = state(site)
    done = site.pull(exit_code=1)
    assert "of 5 products that were pulled from there, 3 are gone; nothing was" in done.stderr
    assert state(site) == before
    site.pull("--force")
    assert site.is_same()


def test_an_older_upstream_changes_nothing(site: Site, tmp_path: Path) -> None:
    site.publish(many(3))
    shutil.copytree(site.upstream, tmp_path / "aside")
    site.publish(many(3, NEW))
    site.pull()
    site.server.root = tmp_path / "aside"
    before = state(site)
    done = site.pull(exit_code=1)
    assert "is older than what was pulled from there before" in done.stderr
    assert state(site) == before


EMPTY = (
    b'{"content_id":"images","datatype":"image-downloads","format":"products:1.0","products":{}}'
)
NOTHING = index_json({})


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (INDEX, b""),
        (INDEX, bytes(500)),
        (INDEX, b"<html><body>Under maintenance</body></html>"),
        (INDEX, b"[" * 100_000),
        (INDEX, b"\xff\xfe"),
        (INDEX, NOTHING),
        (PRODUCTS, b""),
        (PRODUCTS, bytes(500)),
        (PRODUCTS, b"<html>\x1b[2J</html>"),
        (PRODUCTS, b'{"products":' + b"[" * 100_000),
        (PRODUCTS, EMPTY),
        (PRODUCTS, EMPTY[:50]),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_a_catalogue_that_is_none_changes_nothing(site: Site, path: str, content: bytes) -> None:
    site.publish(many(3))
    site.pull()
    before = state(site)
    site.server.always(path, Fault(content=content))
    done = site.pull(exit_code=1)
    assert site.server.url in done.stderr
    assert len(done.stderr) < 600
    assert state(site) == before


@pytest.mark.parametrize("path", [INDEX, PRODUCTS])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_torn_catalogue_changes_nothing(site: Site, path: str, share: float) -> None:
    site.publish(many(3))
    site.pull()
    before = state(site)
    whole = (site.upstream / path).read_bytes()
    site.server.always(path, Fault(content=whole[: int(len(whole) * share)]))
    assert site.server.url in site.pull(exit_code=1).stderr
    assert state(site) == before


def test_an_upstream_without_new_versions_is_told(site: Site) -> None:
    site.publish(version())
    done = site.pull("--lag", "1d", exit_code=3)
    assert f"its newest version, {OLD}, is " in done.stderr
    assert site.is_same()
    assert f"its newest version, {OLD}, is " in site.pull("--lag", "1d", exit_code=3).stderr
    site.pull("--lag", "100000d")


# Options


def test_a_dry_run_writes_nothing(site: Site) -> None:
    site.publish(version())
    done = site.pull("--dry-run")
    assert list(site.mirror.iterdir()) == []
    sizes = [path.stat().st_size for path in (site.upstream / "images").rglob("[!.]*.*")]
    assert done.stdout.split() == [
        *("VERSION", "FILES", "TO", "FETCH"),
        *("pull", f"images/{DEBIAN}/{OLD}", "2", *format_size(sum(sizes)).split()),
    ]
    assert "1 version to pull, 0 here already" in done.stderr
    site.pull()
    site.publish(version(f"{DEBIAN}/{NEW}"))
    before = state(site)
    done = site.pull("--dry-run", "--json")
    assert state(site) == before
    report = json.loads(done.stdout)
    pull = report["pull"]
    assert [step["verb"] for step in pull["steps"]] == ["fetch", "fetch", "withdraw"]
    assert pull["bytes_to_fetch"] == sum(step["size_bytes"] for step in pull["steps"])
    assert pull["bytes_free"] > sum(sizes)
    assert "build" not in report


def test_the_report_is_json(site: Site) -> None:
    site.publish(version())
    report = json.loads(site.pull("--json").stdout)
    pull = report["pull"]
    assert (pull["pulled"], pull["failed"]) == ([f"images/{DEBIAN}/{OLD}"], 0)
    files = (site.upstream / f"images/{DEBIAN}/{OLD}").glob("[a-z]*")
    assert pull["bytes_fetched"] == sum(path.stat().st_size for path in files)
    assert report["build"]["versions"] == 1
    assert [change["kind"] for change in report["build"]["changes"]] == ["added"]


def test_rates_and_connections_are_limited(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    site.pull("--limit-rate", "10M", "--connections", 1, "--user-agent", "mine/1.0")
    assert site.is_same()
    assert {asked.headers["user-agent"] for asked in site.server.requests} == {"mine/1.0"}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "https://me:secret@127.0.0.1/",
        "https://127.0.0.1/?token=secret",
        "127.0.0.1",
        "https://",
        "https://127.0.0.1:99999/",
        "https://127.0.0.1/\x1b[2Jsecret",
    ],
)
def test_urls_that_cannot_be_asked_are_wrong_usage(site: Site, url: str) -> None:
    for words in ([url], ["--mirror", url, site.server.url]):
        done = site.fastindex("pull", *words, site.mirror)
        assert done.returncode == 2
        assert done.stderr.replace("\n", "").isprintable()
        assert "secret@" not in done.stderr
        assert "token" not in done.stderr
    assert list(site.mirror.iterdir()) == []


def test_too_small_a_disk_is_seen_before(site: Site) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}", 1 << 20))
    with file_system_of("512k", site.mirror / "images") as small:
        done = site.pull(exit_code=1)
        assert "the disk has 5" in done.stderr
        assert "nothing was changed; free some space, or choose less" in done.stderr
        assert list(small.iterdir()) == []
    assert not (site.mirror / INDEX).exists()


def test_a_full_disk_is_named_and_the_next_run_goes_on(site: Site) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}", 1 << 20))
    with file_system_of("2m", site.mirror / "images") as small:
        filler = small / "filler"
        full = Fault(before=lambda: filler.write_bytes(bytes(filler_bytes(small))))
        site.server.plan("incus.tar.xz", full)
        done = site.pull("--connections", 1, exit_code=1)
        assert "cannot be written (No space left on device)" in done.stderr
        filler.unlink()
        site.server.behave()
        site.pull()
        assert site.is_same()
        assert site.fastindex("verify", "--sha256", site.mirror).returncode == 0
        shutil.rmtree(site.mirror / "streams")


def filler_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize - (256 << 10)


def test_two_pulls_at_once_do_not_mix(site: Site) -> None:
    site.publish(version())
    codes: list[int] = []

    def try_another() -> None:
        codes.append(
            site.fastindex(
                "pull", "--ca", site.server.certificate, site.server.url, site.mirror
            ).returncode
        )

    site.server.plan("rootfs.squashfs", Fault(before=try_another))
    site.pull()
    assert codes == [ExitCode.LOCKED]
    assert site.is_same()


def test_a_build_meanwhile_publishes_nothing_unfinished(site: Site) -> None:
    site.publish(version())
    site.pull()
    site.publish(version(f"{ALPINE}/{OLD}"))
    seen: list[object] = []

    def build() -> None:
        seen.extend([site.fastindex(site.mirror).returncode, site.published()])

    site.server.plan("rootfs.squashfs", Fault(before=build))
    site.pull()
    assert seen == [0, {f"{KEY} {OLD}"}]
    assert site.is_same()


@contextmanager
def running(site: Site, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a pull in the background."""
    words = [COMMAND, "pull", "--ca", site.server.certificate, *arguments]
    command = [*map(str, words), site.server.url, str(site.mirror)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=UNMEASURED) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("file", ["incus.tar.xz", "rootfs.squashfs"])
def test_a_signal_ends_a_pull_that_waits_for_a_server(
    site: Site, number: signal.Signals, file: str
) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}"))
    site.server.always(file, Fault(stall=50))
    with running(site) as process:
        wait_for(lambda: any(asked.path.endswith(file) for asked in site.server.requests))
        wait_for(lambda: len(site.server.requests) == 4)
        time.sleep(0.1)  # until the other thread waits for the metadata
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "finished work is kept" in told
    site.server.behave()
    site.pull()
    assert site.is_same()


def test_the_next_run_fetches_only_what_is_left(site: Site) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}", 3_000_000))
    site.server.plan("rootfs.squashfs", Fault(stall=2_000_000))
    staged = site.mirror / f"images/{DEBIAN}/.{OLD}/rootfs.squashfs"
    with running(site) as process:
        wait_for(lambda: staged.exists() and staged.stat().st_size > 0)
        process.kill()
        process.communicate()
    present = staged.stat().st_size
    site.server.behave()
    site.pull()
    parts = {asked.path.rpartition("/")[2]: asked.part for asked in site.server.requests}
    assert parts["rootfs.squashfs"].startswith(f"bytes={present}-")
    assert "incus.tar.xz" not in parts
    assert site.is_same()


def test_the_next_run_begins_again_if_the_file_is_another_one(site: Site) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}", 3_000_000), version(f"{ALPINE}/{OLD}"))
    content = (site.upstream / f"images/{DEBIAN}/{OLD}/rootfs.squashfs").read_bytes()
    other = Fault(content=bytes(100) + content[100:], is_whole=True, cut=2_000_000)
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", other)
    result = pull_at_once(site.server, site.mirror, retries=0)
    assert result.exit_code == 3
    assert f"images/{DEBIAN}/{OLD}: {site.server.url}/images/" in result.told
    staged = site.mirror / f"images/{DEBIAN}/.{OLD}/rootfs.squashfs"
    assert staged.read_bytes()[:100] == bytes(100)
    site.server.behave()
    site.pull()
    assert site.is_same()


# Servers that misbehave


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut=0),
        Fault(cut=30_000),
        Fault(stall=0),
        Fault(stall=30_000),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=503),
        Fault(status=500),
        Fault(longer=100),
        Fault(is_whole=True),
        Fault(is_whole=True, cut=50_000),
        Fault(status=404),
        Fault(flipped=40),
        Fault(flipped=-1),
        Fault(is_endless=True),
        Fault(content=b"too short"),
        Fault(content=b""),
    ],
    ids=str,
)
def test_one_bad_answer_is_overcome(site: Site, fault: Fault) -> None:
    site.publish(big(f"{DEBIAN}/{OLD}"), version(f"{ALPINE}/{OLD}"))
    site.server.plan(f"{DEBIAN}/{OLD}/rootfs.squashfs", fault)
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 0, result.told
    assert site.is_same()


@pytest.mark.parametrize(
    "fault",
    [Fault(cut=0), Fault(cut=100), Fault(stall=10), Fault(status=503), Fault(longer=100)],
    ids=str,
)
@pytest.mark.parametrize("path", [INDEX, PRODUCTS])
def test_one_bad_answer_about_the_catalogue_is_overcome(
    site: Site, path: str, fault: Fault
) -> None:
    site.publish(version())
    site.server.plan(path, fault)
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 0, result.told
    assert site.is_same()


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault(status=404), "the server answers 404 Not Found"),
        (Fault(status=410), "the server answers 410 Gone"),
        (Fault(status=403), "the server answers 403 Forbidden"),
        (Fault(status=503), "the server answers 503 Service Unavailable"),
        (Fault(status=999), "the server answers 999"),
        (Fault(cut=3), "the server closed the connection early"),
        (Fault(stall=3), "the server is silent for too long"),
        (Fault(content=b"too short"), "has 9 bytes instead of "),
        (Fault(content=b""), "has 0 bytes instead of "),
        (Fault(flipped=60), "has the SHA-256 "),
        (Fault(headers={"Content-Encoding": "gzip"}), "compressed, unasked"),
        (Fault(headers={"Content-Range": "bytes \x1b0-9/9"}, flipped=5), "has the SHA-256 "),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_had_is_named_and_the_rest_is_published(
    site: Site, fault: Fault, problem: str
) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", fault)
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 3
    assert problem in result.told
    assert f"images/{DEBIAN}/{OLD}: " in result.told
    assert "/rootfs.squashfs" in result.told
    assert result.told.isprintable()
    assert site.published() == {f"alpine:3.20:arm64:default {OLD}"}
    assert not (site.mirror / f"images/{DEBIAN}/{OLD}").exists()
    site.server.behave()
    assert pull_at_once(site.server, site.mirror).exit_code == 0
    assert site.is_same()


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://127.0.0.1/x", "https to http"),
        ("ftp://127.0.0.1/x", "must begin with"),
        ("file:///etc/passwd", "https to file"),
        ("https://127.0.0.1:1/x", "private address 127.0.0.1"),
        ("https://localhost:1/x", "private address localhost"),
        ("https://[::1]:1/x", "private address ::1"),
        ("https://169.254.169.254/latest", "private address 169.254.169.254"),
        ("https://me:secret@127.0.0.1/x", "credentials"),
        ("/x\x1b[2J", "malformed"),
        ("", "nowhere"),
    ],
)
def test_redirects_to_elsewhere_are_refused(site: Site, location: str, problem: str) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    away = Fault(status=302, headers={"Location": location})
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", away)
    done = site.pull(exit_code=3)
    assert problem in done.stderr
    assert "secret" not in done.stderr
    site.server.behave()
    site.server.always(INDEX, away)
    done = site.pull(exit_code=1)
    assert problem in done.stderr
    assert "secret" not in done.stderr


def test_a_first_pull_that_gets_nothing_says_why(site: Site) -> None:
    site.publish(version())
    site.server.always("rootfs.squashfs", Fault(status=404))
    done = site.pull(exit_code=1)
    warning, error = done.stderr.splitlines()
    assert "the server answers 404 Not Found" in warning
    assert "nothing of what was asked for could be pulled; nothing was changed; see" in error
    assert not (site.mirror / INDEX).exists()


def test_metadata_that_comes_again_fits_its_root(site: Site) -> None:
    site.publish(*(big(f"debian/{number}/amd64/default/{OLD}") for number in range(4)))
    site.server.plan("incus.tar.xz", *[Fault(is_endless=True)] * 4)
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 0, result.told
    assert site.is_same()


def test_redirects_on_the_same_server_are_followed(site: Site) -> None:
    site.publish(version())
    path = f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    away = Fault(status=302, headers={"Location": "/elsewhere"})
    site.server.plan("rootfs.squashfs", away)
    content = (site.upstream / path).read_bytes()
    site.server.always("elsewhere", Fault(content=content))
    site.pull()
    assert site.is_same()
    site.server.behave()
    site.server.always("circle", Fault(status=302, headers={"Location": "/circle"}))
    site.server.always(INDEX, Fault(status=301, headers={"Location": "/circle"}))
    assert "redirects more than 5 times" in site.pull(exit_code=1).stderr


def test_another_server_has_what_the_upstream_does_not_deliver(
    site: Site, tmp_path: Path, certificate: Certificate
) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    copy = tmp_path / "aside"
    shutil.copytree(site.upstream, copy)
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", Fault(status=404))
    site.server.always(f"{ALPINE}/{OLD}/rootfs.squashfs", Fault(flipped=50))
    with serve_upstream(copy, certificate) as second:
        site.pull("--mirror", second.url)
        assert second.paths() == [f"images/{one}/{OLD}/rootfs.squashfs" for one in (ALPINE, DEBIAN)]
    assert site.is_same()


def test_passwords_come_from_netrc_and_are_never_told(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "netrc").write_text("machine 127.0.0.1 login me password s3cr3t\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(aside / "netrc"))
    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", Fault(status=401))
    done = site.pull("-v", exit_code=3)
    assert "netrc" in done.stderr
    assert {asked.headers["authorization"] for asked in site.server.requests} == {
        "Basic bWU6czNjcjN0"
    }
    plain = site.fastindex("pull", site.server.url.replace("https", "http"), site.mirror)
    assert plain.returncode == 2
    for text in (done.stderr, plain.stderr, (site.mirror / "streams/.pulled.json").read_text()):
        assert "s3cr3t" not in text
        assert "bWU6czNjcjN0" not in text


def test_an_unknown_certificate_is_refused(site: Site) -> None:
    site.publish(version())
    done = site.fastindex("pull", site.server.url, site.mirror)
    assert done.returncode == 1
    assert "certificate is not valid" in done.stderr
    assert "--ca FILE" in done.stderr
    assert not site.server.requests


@pytest.mark.parametrize("path", [INDEX, PRODUCTS])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=404),
        Fault(status=503),
        Fault(cut=7),
        Fault(stall=7),
        Fault(headers={"Content-Length": "99999999999"}),
        Fault(headers={"Content-Encoding": "gzip"}),
    ],
    ids=str,
)
def test_a_catalogue_that_does_not_come_changes_nothing(
    site: Site, path: str, fault: Fault
) -> None:
    site.publish(version())
    site.pull()
    site.publish(version(f"{DEBIAN}/{NEW}"))
    before = state(site)
    site.server.always(path, fault)
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 1
    assert f"{site.server.url}/{path}: " in result.told
    assert "; " in result.told
    assert state(site) == before


def test_an_endless_catalogue_is_too_large(site: Site) -> None:
    site.publish(version())
    site.server.always(INDEX, Fault(is_endless=True))
    assert "is larger than" in site.pull(exit_code=1).stderr


def test_a_wrong_fingerprint_is_named(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))
    products = catalogue(site.upstream)["products"]
    items = products[KEY]["versions"][OLD]["items"]
    right = items["incus.tar.xz"]["combined_squashfs_sha256"]
    for one in items.values():
        one.update({field: "0" * 64 for field in one if field.startswith("combined_")})
    site.server.always(PRODUCTS, Fault(content=product_json(products)))
    done = site.pull(exit_code=3)
    assert f"have the fingerprint {right}, but the catalogue says {'0' * 64}" in done.stderr
    assert site.published() == {f"alpine:3.20:arm64:default {OLD}"}


def test_redirects_to_private_addresses_can_be_allowed(
    site: Site, tmp_path: Path, certificate: Certificate
) -> None:
    site.publish(version())
    copy = tmp_path / "aside"
    shutil.copytree(site.upstream, copy)
    path = f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    with serve_upstream(copy, certificate) as second:
        location = {"Location": f"{second.url}/{path}"}
        site.server.always("rootfs.squashfs", Fault(status=307, headers=location))
        site.pull("--allow-private")
        assert second.paths() == [path]
    assert site.is_same()


# An upstream that changes


def test_an_upstream_that_changes_meanwhile_is_read_again(site: Site, tmp_path: Path) -> None:
    site.publish(many(3), version())
    newer = tmp_path / "aside"
    write_tree(newer, {**many(3, NEW), **version(f"{ALPINE}/{NEW}"), **version()})
    assert site.fastindex(newer).returncode == 0

    def swap() -> None:
        site.server.root = newer

    site.server.plan("rootfs.squashfs", Fault(before=swap))
    site.pull()
    assert (site.mirror / PRODUCTS).read_bytes() == (newer / PRODUCTS).read_bytes()


def test_an_upstream_that_goes_bad_meanwhile_changes_nothing(site: Site, tmp_path: Path) -> None:
    site.publish(many(3))
    site.pull()
    before = (site.mirror / PRODUCTS).read_bytes()
    site.publish(many(3, NEW))
    empty = tmp_path / "aside"
    write_tree(empty, {INDEX: NOTHING})

    def swap() -> None:
        site.server.root = empty

    site.server.plan("rootfs.squashfs", Fault(before=swap))
    done = site.pull(exit_code=1)
    assert "has no images; nothing was changed" in done.stderr
    assert (site.mirror / PRODUCTS).read_bytes() == before


def test_a_server_that_dies_meanwhile_costs_only_what_it_did_not_deliver(site: Site) -> None:
    site.publish(version(), version(f"{ALPINE}/{OLD}"))

    def die() -> None:
        site.server.always("streams/v1/index.json", Fault(status=503))

    site.server.always(f"{DEBIAN}/{OLD}/rootfs.squashfs", Fault(status=404, before=die))
    result = pull_at_once(site.server, site.mirror)
    assert result.exit_code == 3
    assert f"images/{DEBIAN}/{OLD}: " in result.told
    assert site.published() == {f"alpine:3.20:arm64:default {OLD}"}


# What hostile catalogues say


def test_a_flat_upstream_is_mapped_to_our_tree(site: Site) -> None:
    key, product = flat_product()
    files = {
        name: make_content(name, name) for name in ("incus.tar.xz", "squashfs", "disk-kvm.img")
    }
    files["squashfs"] = make_content("rootfs.squashfs", "a")
    one = product["versions"]["202405050524"]["items"]
    for name, content in files.items():
        one[name] |= {"size": len(content), "sha256": sha256(content)}
        write_tree(site.upstream, {one[name]["path"]: None})
        (site.upstream / one[name]["path"]).rmdir()
        (site.upstream / one[name]["path"]).write_bytes(content)
    one["incus.tar.xz"]["combined_squashfs_sha256"] = sha256(
        files["incus.tar.xz"], files["squashfs"]
    )
    one["incus.tar.xz"]["combined_disk-kvm-img_sha256"] = sha256(
        files["incus.tar.xz"], files["disk-kvm.img"]
    )
    entry = {"path": PRODUCTS, "products": [key], "datatype": "image-downloads"}
    write_tree(site.upstream, {INDEX: index_json({"images": entry})})
    write_tree(site.upstream, {PRODUCTS: product_json({key: product})})
    site.pull()
    names = {
        path.name for path in (site.mirror / "images").rglob("*") if not path.name.startswith(".")
    }
    assert {"incus.tar.xz", "rootfs.squashfs", "disk.qcow2"} <= names
    site.server.behave()
    site.pull()
    assert site.server.paths() == [PRODUCTS, INDEX]


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "images/%2e%2e/%2e%2e/x",
        "https://127.0.0.1/x",
        "images/\x1b[2J/x",
        "images/a?b",
        "images/a#b",
        "images\\..\\x",
        "images/" + "a" * 5000,
        "images/\0/x",
    ],
)
def test_hostile_paths_are_named_and_nothing_is_written_elsewhere(site: Site, path: str) -> None:
    key, product = flat_product()
    evil = {"versions": {OLD: {"items": {"incus.tar.xz": item("incus.tar.xz", path)}}}}
    squashfs = item("squashfs", path)
    evil["versions"][OLD]["items"]["squashfs"] = squashfs
    evil["versions"][OLD]["items"]["incus.tar.xz"]["combined_squashfs_sha256"] = "0" * 64
    entry = {"path": PRODUCTS, "products": [key], "datatype": "image-downloads"}
    write_tree(site.upstream, {INDEX: index_json({"images": entry})})
    write_tree(site.upstream, {PRODUCTS: product_json({key: {**product, **evil}})})
    done = site.fastindex(
        "pull", "--ca", site.server.certificate, site.server.url, site.mirror, patience=120
    )
    assert done.returncode in {1, 3}
    assert done.stderr.replace("\n", "").isprintable()
    assert len(done.stderr) < 2000
    assert [path for path in site.mirror.rglob("*") if path.name == "x"] == []
    entry["path"] = path
    write_tree(site.upstream, {INDEX: index_json({"images": entry})})
    done = site.pull(exit_code=1)
    assert len(done.stderr) < 2000


@pytest.mark.parametrize("name", ["os", "release", "variant"])
@pytest.mark.parametrize("word", ["../..", "..", "a\x1b[2Jb", ".hidden", "", "\ud800", "a" * 300])
def test_hostile_names_are_named_or_made_harmless(site: Site, name: str, word: str) -> None:
    key, product = flat_product()
    entry = {"path": PRODUCTS, "products": [key], "datatype": "image-downloads"}
    write_tree(site.upstream, {INDEX: index_json({"images": entry})})
    content = product_json({key: {**product, name: word}})
    write_tree(site.upstream, {PRODUCTS: content})
    done = site.fastindex(
        "pull", "-n", "--ca", site.server.certificate, site.server.url, site.mirror
    )
    assert done.returncode in {0, 1, 3}
    assert done.stderr.replace("\n", "").isprintable()
    assert "/../" not in done.stdout
    assert "Traceback" not in done.stderr
