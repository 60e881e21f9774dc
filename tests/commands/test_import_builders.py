"""What real builders leave: where files lie, what they are called, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import METADATA, PRODUCT, VERSION, Workshop, age
from tests.support.command import COMMAND, Run
from tests.support.contents import make_qcow2
from tests.support.tools import needs
from tests.support.trees import catalogue, sha256

IMAGE = f"{PRODUCT}/{VERSION}"
OTHER = f"images/debian/11/amd64/default/{VERSION}"
OTHER_METADATA = METADATA.replace("release: 12", "release: 11")
HTML = b"<!doctype html><title>404</title>"


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.name[0] != "."}


def sum_up(directory: Path) -> str:
    return "".join(f"{sha256(path.read_bytes())}  {path.name}\n" for path in directory.iterdir())


# Several images in one directory, and one in several.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("x.incus.tar.xz", "x.qcow2"), ("y.incus.tar.xz", "y.qcow2")),
        (("x.lxd.tar.xz", "x.disk.qcow2"), ("y.incus.tar.xz", "y.squashfs")),
        (("x-lxd.tar.xz", "x.img"), ("y-lxd.tar.xz", "y.squashfs")),
        (("meta-12ab.tar.xz", "12ab.squashfs"), ("meta-34cd.tar.xz", "34cd.squashfs")),
        (("12ab.incus.tar.xz", "12ab.squashfs"), ("34cd.incus.tar.xz", "34cd.qcow2")),
        (("x", "x.root"), ("y.tar.gz",)),
    ],
)
@pytest.mark.parametrize("has_checksums", [False, True])
def test_several_images_in_one_directory_are_told_apart(
    fastindex: Run,
    root: Path,
    workshop: Workshop,
    tmp_path: Path,
    one: tuple[str, ...],
    other: tuple[str, ...],
    has_checksums: bool,
) -> None:
    source = tmp_path / "source"
    for given, text in ((one, METADATA), (other, OTHER_METADATA)):
        if len(given) == 1:
            workshop.unified(source / given[0], text)
            continue
        workshop.metadata(source / given[0], text)
        is_disk = given[1].endswith((".qcow2", ".img"))
        workshop.put(workshop.disk if is_disk else workshop.squashfs, source / given[1])
    if has_checksums:
        (source / "SHA256SUMS").write_text(sum_up(source))
    result = fastindex("import", "--index", source, root)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.splitlines()) == {IMAGE, OTHER}
    assert names(source) == ({"SHA256SUMS"} if has_checksums else set())


def test_one_bad_image_of_a_directory_does_not_cost_the_others(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    workshop.metadata(source / "x.incus.tar.xz")
    (source / "x.qcow2").write_bytes(HTML)
    workshop.metadata(source / "y.incus.tar.xz", OTHER_METADATA)
    workshop.put(workshop.disk, source / "y.qcow2")
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (3, f"{OTHER}\n")
    assert f"{source}/x.qcow2: not an image file (HTML page" in result.stderr
    assert names(source) == {"x.incus.tar.xz", "x.qcow2"}


def test_an_image_yaml_of_several_images_goes_to_all_and_stays(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for name, text in (("x", METADATA), ("y", OTHER_METADATA)):
        workshop.metadata(source / f"{name}.incus.tar.xz", text)
        workshop.put(workshop.squashfs, source / f"{name}.squashfs")
    (source / "image.yaml").write_text("simplestream: {distro_name: Debian}\n")
    result = fastindex("import", source, root)
    assert result.returncode == 0
    assert "image.yaml: copied, not moved" in result.stderr
    assert names(source) == {"image.yaml"}
    assert (root / IMAGE / "image.yaml").exists()
    assert (root / OTHER / "image.yaml").exists()


@pytest.mark.parametrize("is_directory", [False, True])
def test_metadata_and_root_may_lie_in_different_directories(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, is_directory: bool
) -> None:
    metadata = workshop.metadata(tmp_path / "metadata/nixos.tar.xz")
    squashfs = workshop.put(workshop.squashfs, tmp_path / "root/nixos-image.squashfs")
    given = (metadata.parent, squashfs.parent) if is_directory else (metadata, squashfs)
    result = fastindex("import", *given, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert names(metadata.parent) | names(squashfs.parent) == set()


def test_halves_of_several_images_are_joined_by_name(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.metadata(tmp_path / "metadata/x.tar.xz")
    workshop.metadata(tmp_path / "metadata/y.tar.xz", OTHER_METADATA)
    workshop.put(workshop.squashfs, tmp_path / "root/x.squashfs")
    workshop.put(workshop.disk, tmp_path / "root/y.qcow2")
    given = (*(tmp_path / "metadata").iterdir(), *(tmp_path / "root").iterdir())
    result = fastindex("import", *given, root)
    assert result.returncode == 0, result.stderr
    assert names(root / IMAGE) == {"incus.tar.xz", "rootfs.squashfs"}
    assert names(root / OTHER) == {"incus.tar.xz", "disk.qcow2"}


def test_halves_of_many_directories_are_not_mixed(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    """Two builds that failed need not belong together."""
    workshop.metadata(tmp_path / "builds/a/incus.tar.xz")
    workshop.put(workshop.squashfs, tmp_path / "builds/b/rootfs.squashfs")
    workshop.split(tmp_path / "builds/c", OTHER_METADATA)
    result = fastindex("import", *sorted((tmp_path / "builds").iterdir()), root)
    assert (result.returncode, result.stdout) == (3, f"{OTHER}\n")
    assert "2 failed" in result.stderr


def test_checksums_of_each_directory_count(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    metadata = workshop.metadata(tmp_path / "metadata/a.tar.xz")
    squashfs = workshop.put(workshop.squashfs, tmp_path / "root/a.squashfs")
    for path in (metadata, squashfs):
        sums = path.with_name("SHA256SUMS")
        sums.write_text(f"{'0' * 64}  {path.name}\n")
        result = fastindex("import", "--copy", metadata, squashfs, root)
        assert result.returncode == 1
        assert f"{path}: its SHA-256 is" in result.stderr
        sums.unlink()


# Directories of directories.


def test_a_directory_of_directories_is_told_and_looked_into(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    builds = tmp_path / "builds"
    workshop.split(builds / "a")
    workshop.split(builds / "deep/b", OTHER_METADATA)
    workshop.split(builds / ".hidden/c")
    (builds / "logs").mkdir()
    (builds / "logs/build.log").write_text("x")
    (builds / "loop").symlink_to("..")
    result = fastindex("import", builds, root)
    assert result.returncode == 1
    assert "--recursive" in result.stderr
    result = fastindex("import", "--recursive", builds, root)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.splitlines()) == {IMAGE, OTHER}
    result = fastindex("import", "-r", builds, root)
    assert result.returncode == 1
    assert "contains no image file" in result.stderr
    assert "--recursive" not in result.stderr


def test_the_mirror_below_a_source_is_not_looked_into(
    fastindex: Run, workshop: Workshop, tmp_path: Path
) -> None:
    root = tmp_path / "all/mirror"
    root.mkdir(parents=True)
    assert fastindex("import", workshop.split(tmp_path / "first"), root).returncode == 0
    workshop.split(tmp_path / "all/new", OTHER_METADATA)
    result = fastindex("import", "--recursive", tmp_path / "all", root)
    assert (result.returncode, result.stdout) == (0, f"{OTHER}\n")
    assert names(root / IMAGE) == {"incus.tar.xz", "rootfs.squashfs"}


# Symlinks, as `result` of Nix.


@pytest.fixture(params=["directory", "files", "named files"])
def linked(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> list[Path]:
    """Return sources that lead to ``source`` through symlinks."""
    links = tmp_path / "result"
    if request.param == "directory":
        links.symlink_to(source)
        return [links]
    links.mkdir()
    for path in source.iterdir():
        (links / path.name).symlink_to(path)
    return [links] if request.param == "files" else sorted(links.iterdir())


@pytest.mark.parametrize("mode", ["--copy", "--move", "--link"])
def test_what_symlinks_lead_to_is_imported_and_stays(
    fastindex: Run, root: Path, source: Path, linked: list[Path], mode: str
) -> None:
    (source / "image.yaml").write_text("simplestream: {}\n")
    result = fastindex("import", mode, *linked, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert {"incus.tar.xz", "rootfs.squashfs"} <= names(source)
    assert ("copied, not moved: a symlink leads to it" in result.stderr) is (mode == "--move")
    for path in (root / IMAGE).iterdir():
        assert path.lstat().st_nlink == (2 if mode == "--link" and path.name[0] != "." else 1) or (
            path.name == "image.yaml"
        )
        assert not path.is_symlink()


@pytest.mark.root
@pytest.mark.parametrize("name", ["rootfs.squashfs", "SHA256SUMS", "image.yaml", "notes"])
def test_a_symlink_to_a_file_of_another_user_is_not_followed(
    fastindex: Run, root: Path, source: Path, tmp_path: Path, name: str
) -> None:
    """Whoever fills the directory must not publish what he could not read."""
    secret = tmp_path / "secret"
    there = source / name
    if there.exists():
        there.rename(secret)
    else:
        secret.write_text("simplestream: {}\n")
    there.symlink_to(secret)
    os.chown(there, 12345, -1, follow_symlinks=False)
    result = fastindex("import", "--copy", source, root)
    if name in ("image.yaml", "notes"):
        assert result.returncode == 0
        assert not (root / IMAGE / name).exists()
    else:
        assert result.returncode == 1
        assert f"{there}: " in result.stderr
        assert "a symlink to a file of another user" in result.stderr


def test_a_symlink_beside_its_file_is_a_second_name(
    fastindex: Run, root: Path, source: Path
) -> None:
    (source / "root.squashfs").symlink_to("rootfs.squashfs")
    result = fastindex("import", "--copy", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")


def test_a_symlink_that_leads_nowhere_is_named(fastindex: Run, root: Path, source: Path) -> None:
    (source / "disk.qcow2").symlink_to("gone")
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert f"{source}/disk.qcow2: cannot be read (No such file or directory)" in result.stderr


# Dates, architectures and compressions of metadata.


@pytest.mark.parametrize("date", ["0", "1", "315532800"])
def test_the_date_of_a_reproducible_build_is_that_of_the_file(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, date: str
) -> None:
    text = METADATA.replace("1714886640", date)
    source = workshop.split(tmp_path / "source", text)
    os.utime(source / "incus.tar.xz", (1_714_886_640, 1_714_886_640))
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert f"that of the file is taken: {VERSION}" in result.stderr
    source = workshop.split(tmp_path / "source", text)
    os.utime(source / "incus.tar.xz", (1, 1))
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "use --serial or --version-name" in result.stderr
    result = fastindex("import", "--version-name", "20250101", source, root)
    assert (result.returncode, result.stdout) == (0, f"{PRODUCT}/20250101\n")
    assert "0 warnings" in result.stderr


@pytest.mark.parametrize(
    ("written", "directory"),
    [('"x86_64\\nx86_64"', "amd64"), ("x86_64_v3", "x86_64_v3"), ("amd64v3", "amd64v3")],
)
def test_architectures_of_canonical_and_of_newer_cpus(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, written: str, directory: str
) -> None:
    text = METADATA.replace("architecture: x86_64", f"architecture: {written}")
    text = text.replace("  architecture: amd64\n", "")
    result = fastindex("import", workshop.split(tmp_path / "source", text), root)
    assert result.stdout == f"images/debian/12/{directory}/default/{VERSION}\n"


@pytest.mark.parametrize(
    ("command", "suffix"),
    [("xz --format=lzma", "lzma"), ("lz4", "lz4"), ("zstd", "zst"), ("bzip2", "bz2")],
)
def test_every_compression_that_daemons_know_is_taken(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, command: str, suffix: str
) -> None:
    needs(command.split(maxsplit=1)[0], f"apt-get install {command.split(maxsplit=1)[0]}")
    option = f"--use-compress-program={command}"
    source = tmp_path / "source"
    workshop.metadata(source / f"incus.tar.{suffix}", compression=option)
    workshop.put(workshop.squashfs, source / "rootfs.squashfs")
    result = fastindex("import", "--index", source, root)
    assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n")
    assert names(root / IMAGE) == {f"incus.tar.{suffix}", "rootfs.squashfs"}


def test_a_unified_virtual_machine_is_warned_of(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    for name, is_machine in (("vm", True), ("container", False)):
        text = METADATA.replace("release: 12", f"release: {name}")
        made = workshop.unified(tmp_path / f"{name}.tar.gz", text, vm=is_machine)
        result = fastindex("import", made, root)
        assert result.returncode == 0
        assert ("Incus before 7.0.1" in result.stderr) is is_machine


# Files that no daemon could use.


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)
    age(path)


def replace(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)
        age(path)

    return write


@pytest.mark.parametrize(
    ("made", "name", "spoil"),
    [
        ("squashfs", "rootfs.squashfs", cut),
        ("squashfs", "rootfs.squashfs", replace(b"")),
        ("squashfs", "rootfs.squashfs", replace(os.urandom(5000))),
        ("squashfs", "rootfs.squashfs", replace(HTML)),
        ("squashfs", "web.root", cut),
        ("disk", "disk.qcow2", replace(HTML)),
        ("disk", "disk.qcow2", replace(make_qcow2(b"x", version=7))),
        ("disk", "web.img", replace(make_qcow2(b"x", cluster_bits=40))),
        ("disk", "web.qcow2", replace(bytes(510) + b"\x55\xaa" + bytes(512))),
        ("tarball", "rootfs.tar.xz", cut),
        ("tarball", "rootfs.tar.xz", replace(HTML)),
        ("tarball", "rootfs.tar.gz", replace(gzip.compress(b"x" * 5000)[:-4])),
        ("metadata", "lxd.tar.xz", cut),
        ("metadata", "lxd.tar.xz", replace(b"")),
        ("unified", "web.tar.gz", cut),
    ],
)
def test_a_file_that_no_daemon_could_use_refuses_its_image(
    fastindex: Run,
    root: Path,
    source: Path,
    workshop: Workshop,
    made: str,
    name: str,
    spoil: Callable[[Path], None],
) -> None:
    (source / "rootfs.squashfs").rename(source.with_name("kept"))
    if made == "metadata":
        workshop.metadata(source / name)
        source.with_name("kept").rename(source / "rootfs.squashfs")
    elif made == "unified":
        workshop.unified(source / name)
    else:
        workshop.put(getattr(workshop, made), source / name)
    spoil(source / name)
    before = names(source)
    result = fastindex("import", "--index", source, root)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{source}/{name}: " in result.stderr
    assert names(source) == before
    assert list(root.iterdir()) == []


def test_a_raw_disk_is_named_with_what_converts_it(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    workshop.metadata(source / "incus.tar.xz")
    workshop.put(workshop.raw, source / "disk.raw")
    result = fastindex("import", source, root)
    assert result.returncode == 1
    assert "disk.raw: not an image file (raw disk; expected" in result.stderr
    command = f"qemu-img convert -O qcow2 {source}/disk.raw {source}/disk.qcow2"
    assert command in result.stderr
    subprocess.run(command.split(), check=True)
    assert fastindex("import", source, root).returncode == 0


# A root without metadata.


@pytest.mark.parametrize("made", ["squashfs", "tarball", "disk"])
def test_a_bare_root_gets_metadata(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, made: str
) -> None:
    bare = workshop.put(getattr(workshop, made), tmp_path / "bare")
    os.utime(bare, (1_714_886_640, 1_714_886_640))
    told = ("--os", "debian", "--release", "12", "--arch", "x86_64")
    contents: set[bytes] = set()
    for _ in range(2):
        result = fastindex("import", "--copy", "--index", *told, bare, root)
        assert (result.returncode, result.stdout) == (0, f"{IMAGE}\n"), result.stderr
        contents.add((root / IMAGE / "incus.tar.xz").read_bytes())
        again = fastindex("import", *told, "--copy", bare, root)
        assert "exists already, with the same content" in again.stderr
        shutil.rmtree(root / "images")
    assert len(contents) == 1
    (tmp_path / "incus.tar.xz").write_bytes(contents.pop())
    command = ["tar", "-xOJf", str(tmp_path / "incus.tar.xz"), "metadata.yaml"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "architecture: x86_64\ncreation_date: 1714886640\n" in text
    assert 'architecture: "amd64"' in text
    move = fastindex("import", *told, bare, root)
    assert (move.returncode, bare.exists()) == (0, False)
    assert "0 warnings" in move.stderr


def test_a_bare_root_without_a_name_is_told_what_to_say(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    bare = workshop.put(workshop.squashfs, tmp_path / "bare")
    for told in ((), ("--os", "debian", "--release", "12")):
        result = fastindex("import", *told, bare, root)
        assert result.returncode == 1
        assert "--os, --release and --arch" in result.stderr
    result = fastindex("import", *told, "--arch", "vax", bare, root)
    assert result.returncode == 1
    assert "its architecture 'vax' is unknown to clients" in result.stderr
    assert bare.exists()


def test_a_dry_run_says_that_metadata_is_made(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    bare = workshop.put(workshop.squashfs, tmp_path / "bare")
    told = ("--os", "debian", "--release", "12", "--arch", "x86_64", "--version-name", VERSION)
    result = fastindex("import", "-n", *told, "--alias", "web", bare, root)
    assert f"write {root}/{PRODUCT}/.{VERSION}/incus.tar.xz\n" in result.stdout
    assert f"write {root}/{PRODUCT}/.product.toml\n" in result.stdout
    assert list(root.iterdir()) == []


# Aliases and requirements.


def test_aliases_go_into_the_products_settings(
    fastindex: Run, root: Path, source: Path, workshop: Workshop
) -> None:
    result = fastindex("import", "--index", "--alias", "web", "--alias", "{os}-x", source, root)
    assert result.returncode == 0
    aliases = catalogue(root)["products"]["debian:12:amd64:default"]["aliases"]
    assert {"web", "debian-x"} <= set(aliases.split(","))
    settings = root / PRODUCT / ".product.toml"
    before = settings.read_bytes()
    workshop.split(source)
    again = fastindex("import", "--version-name", "20250101", "--alias", "web", source, root)
    assert (again.returncode, settings.read_bytes()) == (0, before)
    assert "0 warnings" in again.stderr
    workshop.split(source)
    other = fastindex("import", "--version-name", "20250102", "--alias", "db", source, root)
    assert (other.returncode, settings.read_bytes()) == (0, before)
    assert 'write there: aliases = ["web", "{os}-x", "db"]' in other.stderr


def test_an_alias_that_cannot_be_one_is_wrong_usage(
    fastindex: Run, root: Path, source: Path, workshop: Workshop, tmp_path: Path
) -> None:
    for alias in ("a,b", "", "{x}", "a" * 300, " a"):
        result = fastindex("import", "--alias", alias, source, root)
        assert result.returncode == 2
        assert "--alias" in result.stderr
    other = workshop.split(tmp_path / "other", OTHER_METADATA)
    result = fastindex("import", "--alias", "web", source, other, root)
    assert result.returncode == 2
    assert "--alias is for one product" in result.stderr
    assert list(root.iterdir()) == []


def requirements(root: Path) -> dict[str, str]:
    found: dict[str, str] = catalogue(root)["products"]["debian:12:amd64:default"]["requirements"]
    return found


def require(text: str, **values: str) -> str:
    lines = "".join(f"  requirements.{key}: {value}\n" for key, value in values.items())
    return text.replace("properties:\n", f"properties:\n{lines}", 1)


@pytest.mark.parametrize("mode", ["--copy", "--move"])
def test_what_the_builder_requires_reaches_the_catalogue(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, mode: str
) -> None:
    text = require(METADATA, secureboot='"false"', nesting="true")
    source = workshop.split(tmp_path / "source", text)
    kept = shutil.copytree(source, tmp_path / "kept")
    result = fastindex("import", "--index", mode, source, root)
    assert result.returncode == 0
    assert requirements(root) == {"secureboot": "false", "nesting": "true"}
    before = (root / PRODUCT / ".requirements").stat()
    for version in ((), ("--version-name", "20250101")):
        again = fastindex("import", "--copy", *version, kept, root)
        assert again.returncode == 0
        assert "0 warnings" in again.stderr
    assert (root / PRODUCT / ".requirements").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("path", "content", "published", "problem"),
    [
        (".requirements", '{"cgroup": "v1"}', {"cgroup": "v1", "secureboot": "false"}, ""),
        (".requirements", '{"secureboot": "false"}', {"secureboot": "false"}, ""),
        (".requirements", '{"secureboot": "true"}', {"secureboot": "true"}, "which stays"),
        (".requirements", "{torn", None, "left behind: 'secureboot'"),
        (".requirements", "[]", None, "left behind: 'secureboot'"),
        (".product.toml", '[requirements]\nsecureboot = "true"', None, "which stays"),
        (".product.toml", '[requirements]\nsecureboot = "false"', None, ""),
        ("../../../.requirements", '{"secureboot": "true"}', None, "which stays"),
        ("../../../.requirements", '{"secureboot": "false"}', None, ""),
    ],
)
def test_what_the_operator_has_set_stays(
    fastindex: Run,
    root: Path,
    workshop: Workshop,
    tmp_path: Path,
    path: str,
    content: str,
    published: dict[str, str] | None,
    problem: str,
) -> None:
    product = root / PRODUCT
    product.mkdir(parents=True)
    (product / path).write_text(content)
    source = workshop.split(tmp_path / "source", require(METADATA, secureboot='"false"'))
    result = fastindex("import", "--copy", source, root)
    assert result.returncode == 0
    assert problem in result.stderr
    assert ("warning" in result.stderr.replace("0 warnings", "")) is bool(problem)
    if published is None:
        assert (product / path).read_text() == content
        assert not (product / ".requirements").exists() or path == ".requirements"
    else:
        assert json.loads((product / ".requirements").read_text()) == published


@pytest.mark.parametrize(
    "values",
    [
        {"secure_boot": "no"},
        {"secureboot": "x" * 300},
        {"secureboot": '"a\\e[31m"'},
        {f"key{number}": "x" for number in range(1000)},
        {"secureboot": "[a, b]"},
        {"x" * 1000: "1"},
    ],
)
def test_what_strangers_require_breaks_no_catalogue(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path, values: dict[str, str]
) -> None:
    source = workshop.split(tmp_path / "source", require(METADATA, **values))
    result = fastindex("import", "--index", source, root)
    assert result.returncode == 0
    assert requirements(root) == {}
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 5000
    assert "left behind: " in result.stderr


def test_requirements_that_cannot_be_written_are_told(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    product = root / PRODUCT
    product.mkdir(parents=True)
    (product / ".requirements").symlink_to("elsewhere")
    source = workshop.split(tmp_path / "source", require(METADATA, secureboot="no"))
    result = fastindex("import", source, root)
    assert result.returncode == 0
    assert "left behind: 'secureboot'" in result.stderr
    assert (product / ".requirements").is_symlink()


# Checksums.


W = "0" * 63 + "1"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{W}  rootfs.squashfs\n", "its SHA-256 is"),
        (f"{W} *./rootfs.squashfs\r\n", "its SHA-256 is"),
        (f"SHA2-256(rootfs.squashfs)= {W}\n", "its SHA-256 is"),
        (f"\\{W}  rootfs.squashfs\n", "its SHA-256 is"),
        (f"{W}  build/rootfs.squashfs\n", "names none of the files"),
        (f"{W}  disk.qcow2\n", "names none of the files"),
        (f"\ufeff{W}  rootfs.squashfs\n", "byte order mark"),
        ("hello\n", "line 1"),
        ("", "empty"),
        (f"{W}  rootfs.squashfs\n{'2' * 64}  rootfs.squashfs\n", "contradicts itself"),
    ],
)
def test_checksums_that_are_wrong_refuse_the_image(
    fastindex: Run, root: Path, source: Path, content: str, problem: str
) -> None:
    (source / "SHA256SUMS").write_text(content, newline="")
    before = names(source)
    result = fastindex("import", source, root)
    assert (result.returncode, result.stdout) == (1, "")
    assert problem in result.stderr
    assert "SHA256SUMS" in result.stderr
    assert names(source) == before


def test_a_file_that_checksums_do_not_name_is_told(
    fastindex: Run, root: Path, source: Path
) -> None:
    digest = sha256((source / "rootfs.squashfs").read_bytes())
    (source / "SHA256SUMS").write_text(f"{digest}  rootfs.squashfs\n")
    result = fastindex("import", source, root)
    assert result.returncode == 0
    assert "does not name incus.tar.xz, imported without a check" in result.stderr


# ROOT itself, and sources that fail in other ways.


@pytest.mark.parametrize("is_published", [False, True])
def test_a_stream_directory_is_not_a_root(
    fastindex: Run, root: Path, source: Path, workshop: Workshop, is_published: bool
) -> None:
    assert fastindex("import", source, root).returncode == 0
    if is_published:
        assert fastindex(root).returncode == 0
    workshop.split(source)
    result = fastindex("import", source, root / "images")
    assert result.returncode == 1
    assert f"give {root} for ROOT" in result.stderr
    assert names(source) == {"incus.tar.xz", "rootfs.squashfs"}


def test_whatever_is_wrong_with_one_source_the_others_are_imported(
    fastindex: Run, root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    good = workshop.split(tmp_path / "good", OTHER_METADATA)
    bad: list[Path] = []

    def add(name: str) -> Path:
        text = METADATA.replace("release: 12", f"release: {name}")
        bad.append(workshop.split(tmp_path / name, text))
        return bad[-1]

    def place(name: str) -> Path:
        return root / f"images/debian/{name}/amd64/default"

    cut(add("cut") / "incus.tar.xz")
    (add("contradiction") / "SHA256SUMS").write_text(f"{W}  a\n{'2' * 64}  a\n")
    add("obstacle")
    place("obstacle").mkdir(parents=True)
    (place("obstacle") / f".{VERSION}").write_text("x")
    add("file")
    place("file").parent.mkdir(parents=True)
    place("file").write_text("x")
    add("loop")
    place("loop").parent.mkdir(parents=True)
    place("loop").symlink_to("default")
    add("foreign")
    (place("foreign") / VERSION).mkdir(parents=True)
    add("nowhere")
    place("nowhere").mkdir(parents=True)
    (place("nowhere") / VERSION).symlink_to("/nonexistent")
    (add("fifo") / "rootfs.squashfs").unlink()
    os.mkfifo(tmp_path / "fifo/rootfs.squashfs")
    bad.append(tmp_path / "gone")
    before = {path: names(path) for path in bad[:-1]}
    result = fastindex("import", *bad, good, root)
    assert (result.returncode, result.stdout) == (3, f"{OTHER}\n"), result.stderr
    assert f"{len(bad)} failed" in result.stderr
    for path in bad:
        assert str(path) in result.stderr
    assert {path: names(path) for path in bad[:-1]} == before
    assert "Traceback" not in result.stderr


def test_few_descriptors_are_enough_for_many_images(
    root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    for number in range(40):
        text = METADATA.replace("release: 12", f"release: {number}")
        workshop.split(tmp_path / f"many/{number}", text)
    command = f"ulimit -n 64; exec '{COMMAND}' import -r '{tmp_path}/many' '{root}'"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 40
