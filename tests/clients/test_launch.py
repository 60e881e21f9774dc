"""A real daemon launches a container from the mirror."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients.debian_maker import DebianMaker
from tests.support.clients.image_maker import (
    INCUS_COMBINED,
    INCUS_METADATA,
    SQUASHFS,
    ImageMaker,
    fingerprint,
)
from tests.support.clients.incus_daemon import (
    IncusDaemon,
    IncusError,
    network_of_its_own,
    run_daemon,
)
from tests.support.clients.mirror_server import Certificate, Mirror, serve
from tests.support.command import COMMAND, Run
from tests.support.documentation import TUTORIAL, blocks_of
from tests.support.serving import require_libraries

PUBLIC = "https://images.linuxcontainers.org"


@pytest.fixture
def daemon(maker: ImageMaker, certificate: Certificate, tmp_path: Path) -> Iterator[IncusDaemon]:
    """Run a daemon that has launched a container from a file; skip where that is impossible.

    What fails after that is the mirror's fault.
    """
    image = maker.add_version(tmp_path / "files", [INCUS_COMBINED]) / INCUS_COMBINED
    with ExitStack() as stack:
        try:
            stack.enter_context(network_of_its_own())
            daemon = stack.enter_context(run_daemon(certificate.path))
            daemon.import_image(image, "trial")
            daemon.launch("trial", "trial")
            daemon.exec("trial", "cat", "/etc/hostname")
            daemon.delete("trial")
        except IncusError as error:
            pytest.skip(f"incusd cannot run a container here: {error}")
        yield daemon


@pytest.fixture
def mirror(daemon: IncusDaemon, mirror: Mirror) -> Mirror:
    """Serve the mirror in the daemon's network, which must be there before."""
    daemon.add_remote(mirror.url)
    return mirror


def test_the_daemon_launches_a_container_from_the_mirror(
    daemon: IncusDaemon, mirror: Mirror, maker: ImageMaker
) -> None:
    version = maker.add_version(mirror.root, [INCUS_METADATA, SQUASHFS])
    mirror.index()

    daemon.launch("mirror:busybox/1.36", "launched")

    assert daemon.exec("launched", "cat", "/etc/hostname") == "busybox\n"
    assert daemon.fingerprint("launched") == _fingerprint_in_catalogue(mirror)
    assert daemon.fingerprint("launched") == fingerprint(
        version / INCUS_METADATA, version / SQUASHFS
    )
    daemon.delete("launched")


def _leave_split_export(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.split_export(directory, "12")]


def _leave_incus_simplestreams(debian: DebianMaker, directory: Path) -> list[str | Path]:
    """Leave the flat directory of all images."""
    debian.named(directory, "11", "34cd.incus.tar.xz", "34cd.squashfs", is_squashfs=False)
    return [debian.named(directory, "12", "12ab.incus.tar.xz", "12ab.squashfs")]


def _leave_canonical(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.named(directory, "12", "debian-12-lxd.tar.xz", "debian-12.squashfs")]


def _leave_lzma(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.named(directory, "12", "incus.tar.lzma", "rootfs.squashfs")]


def _leave_lz4(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.named(directory, "12", "incus.tar.lz4", "rootfs.squashfs")]


def _leave_tarball(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.named(directory, "12", "meta.tar.zst", "root.bin", is_squashfs=False)]


def _leave_halves(debian: DebianMaker, directory: Path) -> list[str | Path]:
    made = debian.named(directory / "made", "12", "meta.tar.xz", "web.squashfs")
    (directory / "roots").mkdir()
    root = (made / "web.squashfs").rename(directory / "roots/web.squashfs")
    return [made / "meta.tar.xz", root]


def _leave_nix(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return ["--copy", *debian.nix(directory, "12")]


def _leave_directories(debian: DebianMaker, directory: Path) -> list[str | Path]:
    debian.split_export(directory / "debian/12", "12")
    return ["--recursive", directory]


def _leave_bare_squashfs(debian: DebianMaker, directory: Path) -> list[str | Path]:
    made = debian.named(directory, "12", "unused.tar.xz", "debian.squashfs")
    named = ("--os", "debian", "--release", "12", "--arch", "x86_64")
    return [*named, made / "debian.squashfs"]


def _leave_bare_tarball(debian: DebianMaker, directory: Path) -> list[str | Path]:
    made = debian.named(directory, "12", "unused.tar.xz", "debian.tar.xz", is_squashfs=False)
    named = ("--os", "debian", "--release", "12", "--arch", "x86_64")
    return [*named, made / "debian.tar.xz"]


def _leave_unified_export(debian: DebianMaker, directory: Path) -> list[str | Path]:
    return [debian.unified_export(directory, "12")]


_FORMS: dict[str, Callable[[DebianMaker, Path], list[str | Path]]] = {
    form.__name__.removeprefix("_leave_"): form
    for form in (
        _leave_split_export,
        _leave_incus_simplestreams,
        _leave_canonical,
        _leave_lzma,
        _leave_lz4,
        _leave_tarball,
        _leave_halves,
        _leave_nix,
        _leave_directories,
        _leave_bare_squashfs,
        _leave_bare_tarball,
        _leave_unified_export,
    )
}


@pytest.mark.parametrize("form", _FORMS)
def test_the_daemon_launches_an_imported_debian(
    daemon: IncusDaemon,
    mirror: Mirror,
    debian: DebianMaker,
    tmp_path: Path,
    fastindex: Run,
    form: str,
) -> None:
    words = _FORMS[form](debian, tmp_path / "source")
    result = fastindex("import", "--index", *words, mirror.root)
    assert result.returncode == 0, result.stderr

    daemon.launch("mirror:debian/12", "launched")

    told = (debian.rootfs / "etc/debian_version").read_text()
    assert daemon.exec("launched", "cat", "/etc/debian_version") == told
    assert daemon.exec("launched", "dpkg-query", "-W", "-f", "${Status}", "dpkg").endswith(
        "installed"
    )
    assert daemon.fingerprint("launched") == _fingerprint_in_catalogue(mirror)
    daemon.delete("launched")


def test_the_daemon_launches_a_debian_from_a_copy_of_the_mirror(
    daemon: IncusDaemon,
    mirror: Mirror,
    debian: DebianMaker,
    certificate: Certificate,
    tmp_path: Path,
    fastindex: Run,
) -> None:
    upstream, work = tmp_path / "upstream", tmp_path / "nginx-upstream"
    upstream.mkdir()
    work.mkdir()
    words = _leave_split_export(debian, tmp_path / "source")
    result = fastindex("import", "--index", *words, upstream)
    assert result.returncode == 0, result.stderr
    with serve(upstream, work, certificate) as served:
        # Started here, as the fixture's command may run in another network.
        words = [COMMAND, "pull", "--ca", certificate.path, served.url, mirror.root]
        pulled = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert pulled.returncode == 0, pulled.stderr

    daemon.launch("mirror:debian/12", "launched")

    told = (debian.rootfs / "etc/debian_version").read_text()
    assert daemon.exec("launched", "cat", "/etc/debian_version") == told
    assert daemon.fingerprint("launched") == _fingerprint_in_catalogue(mirror)
    daemon.delete("launched")


def test_three_commands_of_the_tutorial_launch_a_debian(
    daemon: IncusDaemon, debian: DebianMaker, certificate: Certificate, tmp_path: Path
) -> None:
    """Nobody but the client is told to trust what ``serve`` made."""
    require_libraries()
    upstream, work, root = tmp_path / "upstream", tmp_path / "nginx-upstream", tmp_path / "root"
    upstream.mkdir()
    work.mkdir()
    words = [COMMAND, "import", "--index", *_leave_split_export(debian, tmp_path / "source")]
    subprocess.run([*words, upstream], capture_output=True, timeout=300, check=True)
    mark = "not run: tests/clients/test_launch.py runs these three together"
    shown = [block.text for block in blocks_of(TUTORIAL) if block.mark == mark]
    environment = {**daemon.environment, "PATH": f"{COMMAND.parent}:{daemon.environment['PATH']}"}

    def start(text: str) -> subprocess.Popen[str]:
        text = text.replace("/srv/images", str(root)).replace(PUBLIC, served.url)
        piped = subprocess.PIPE
        command = ["bash", "-c", text.replace("fastindex serve", "exec fastindex serve")]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=piped, text=True
        )

    with serve(upstream, work, certificate) as served:
        pulling, serving, launching = shown
        with start(pulling) as pull:
            assert pull.wait(120) == 0
        with start(serving) as server:
            assert server.stdout is not None
            try:
                assert server.stdout.readline() == "https://localhost:8444\n"
                with start(launching) as launch:
                    assert launch.wait(120) == 0
            finally:
                server.terminate()
            assert server.wait(30) == 0

    told = (debian.rootfs / "etc/debian_version").read_text()
    assert daemon.exec("web", "cat", "/etc/debian_version") == told
    daemon.delete("web")


def _fingerprint_in_catalogue(mirror: Mirror) -> str:
    """Return the fingerprint of the only image, or of the only one of Debian 12."""
    catalogue = json.loads((mirror.root / "streams/v1/images.json").read_bytes())
    products = catalogue["products"]
    (first, *_) = products.values()
    product = products.get("debian:12:amd64:default", first)
    (version,) = product["versions"].values()
    of_ftype = {item["ftype"]: item for item in version["items"].values()}
    fingerprints = {
        value
        for field, value in of_ftype.get("incus.tar.xz", {}).items()
        if field in ("combined_squashfs_sha256", "combined_rootxz_sha256")
    }
    if "incus_combined.tar.gz" in of_ftype:
        fingerprints.add(of_ftype["incus_combined.tar.gz"]["sha256"])
    (told,) = fingerprints
    assert isinstance(told, str)
    return told
