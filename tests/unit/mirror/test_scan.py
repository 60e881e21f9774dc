from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from fastindex.errors import Code, TreeError
from fastindex.events import Finding
from fastindex.mirror import scan
from fastindex.mirror.mirror import Mirror, make_absolute
from fastindex.mirror.scan import collect, require_streams, split_streams
from fastindex.mirror.tree import FoundVersion
from fastindex.system.directories import real_path
from fastindex.system.listing import MIN_DENSITY, SPARSE_BYTES
from fastindex.system.stamps import Stamp
from tests.support.contents import make_content
from tests.support.trees import OLD_NS, Tree, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"


def scanned(root: Path, stream: str = "images") -> tuple[dict[str, FoundVersion], list[Finding]]:
    seen = collect(scan.scan(Mirror.at(root, streams=[stream])))
    found = {version.path: version for _, versions in seen.found for version in versions}
    return found, seen.findings


def test_files_with_a_role_are_found_with_their_stamps(tmp_path: Path) -> None:
    made = {name: make_content(name, "") for name in ("incus.tar.xz", "rootfs.squashfs")}
    tree: Tree = {f"{VERSION}/{name}": content for name, content in made.items()}
    write_tree(tmp_path, {**tree, f"{VERSION}/x.log": b""})
    found, findings = scanned(tmp_path)
    assert not findings
    files = found[VERSION].files
    assert [(file.name, file.stamp.size_bytes, file.stamp.mtime_ns) for file in files] == [
        (name, len(content), OLD_NS) for name, content in made.items()
    ]
    status = (tmp_path / VERSION / "incus.tar.xz").stat()
    size_bytes = len(made["incus.tar.xz"])
    assert files[0].stamp == Stamp(size_bytes, OLD_NS, status.st_dev, status.st_ino)


def test_dotfiles_come_nearest_first(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **version(),
            "images/.requirements": b"{}",
            "images/debian/.requirements": b"{}",
            f"{PRODUCT}/.lxd_requirements": ".requirements",
            f"{PRODUCT}/.requirements": b"{}",
        },
    )
    (product, _), *_ = collect(scan.scan(Mirror.at(tmp_path))).found
    assert product.dotfiles == (
        f"{PRODUCT}/.lxd_requirements",
        f"{PRODUCT}/.requirements",
        "images/debian/.requirements",
        "images/.requirements",
    )


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "x.part",
        "x.partial",
        "x.filepart",
        "x.tmp",
        "x~",
        ".~tmp~",
        ".nfs01",
        "lost+found",
    ],
)
@pytest.mark.parametrize("level", ["images", "images/debian", PRODUCT])
def test_uploaders_temporaries_are_passed_over(tmp_path: Path, level: str, name: str) -> None:
    write_tree(tmp_path, {**version(), f"{level}/{name}/12/amd64/default/20240505/x": b""})
    found, findings = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert not findings


def test_stray_files_where_directories_belong_are_passed_over(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), "images/README": b"", f"{PRODUCT}/SHA256SUMS": b""})
    found, findings = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert not findings


@pytest.mark.parametrize("name", ["latest", "20240230_00:00", "2024"])
def test_bad_version_names_are_left_out_by_name(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {**version(), **version(f"debian/12/amd64/default/{name}")})
    found, (finding,) = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert finding.path == f"{PRODUCT}/{name}"
    assert finding.versions_left_out == 1


def test_an_unknown_architecture_costs_all_its_versions(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **version(),
            **version("debian/12/AMD64/default/20240505_05:24"),
            **version("debian/12/AMD64/default/20240506_05:24"),
        },
    )
    found, (finding,) = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert finding.path == "images/debian/12/AMD64/default"
    assert finding.versions_left_out == 2


@pytest.mark.parametrize(
    "name", ["a,b", "a%20b", "a\nb", "a\x1b[31mb", "a:b", "a\udcffb", "a\u202eb", "a\u200bb"]
)
@pytest.mark.parametrize("position", [0, 1, 3])
def test_names_that_break_paths_or_aliases_are_left_out(
    tmp_path: Path, name: str, position: int
) -> None:
    parts = ["debian", "12", "amd64", "default", "20240505_05:24"]
    parts[position] = name
    write_tree(tmp_path, {**version(), **version("/".join(parts))})
    found, (finding,) = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert finding.path == "images/" + "/".join(parts[: position + 1])


def test_a_percent_sign_in_a_version_name_is_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/20240506%41")})
    found, (finding,) = scanned(tmp_path)
    assert list(found) == [VERSION]
    assert "'%'" in finding.problem


def test_symlinks_within_a_product_are_followed(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **version(),
            f"{PRODUCT}/.pool/rootfs.squashfs": b"root",
            f"{PRODUCT}/20240506_05:24/incus.tar.xz": "../20240505_05:24/incus.tar.xz",
            f"{PRODUCT}/20240506_05:24/rootfs.squashfs": "../.pool/rootfs.squashfs",
            f"{PRODUCT}/20240506_05:24/SHA256SUMS": "../.pool/rootfs.squashfs",
            f"{PRODUCT}/20240506_05:24/image.yaml": "../.pool/rootfs.squashfs",
            f"{PRODUCT}/20240507_05:24": "20240505_05:24",
            f"{PRODUCT}/20240508_05:24": f"{tmp_path}/{VERSION}",
            f"{PRODUCT}/.product.toml": ".pool/rootfs.squashfs",
        },
    )
    found, findings = scanned(tmp_path)
    assert not findings
    linked = found[f"{PRODUCT}/20240506_05:24"]
    assert linked.files[0].stamp == found[VERSION].files[0].stamp
    assert linked.checksums == linked.files[1].stamp
    assert linked.image_yaml
    for name in ("20240507_05:24", "20240508_05:24"):
        assert found[f"{PRODUCT}/{name}"].files == found[VERSION].files


OTHER = "images/alpine/3/amd64/default"


@pytest.mark.parametrize(
    ("place", "target", "cost"),
    [
        ("images/alias", "debian", "versions"),
        ("images/alias", "debian/12/..", "versions"),
        ("images/debian/11", "12", "versions"),
        ("images/debian/12/arm64", "amd64", "versions"),
        ("images/debian/12/amd64/cloud", "default", "versions"),
        (f"{PRODUCT}/20240506", f"../../../../../{OTHER}/20240505", "versions"),
        (f"{PRODUCT}/20240506", "..", "versions"),
        (f"{PRODUCT}/20240506", "../cloud/20240505", "files"),
        (f"{VERSION}/disk.qcow2", f"../../../../../../{OTHER}/20240505/rootfs.squashfs", "files"),
        (f"{VERSION}/disk.qcow2", "../../default-2/20240505/disk.qcow2", "files"),
        (f"{VERSION}/SHA256SUMS", f"../../../../../../{OTHER}/20240505/incus.tar.xz", "files"),
        (f"{VERSION}/image.yaml", f"../../../../../../{OTHER}/20240505/incus.tar.xz", "files"),
        (f"{PRODUCT}/.product.toml", f"../../../../../{OTHER}/.product.toml", "files"),
        ("images/debian/.requirements", "../.requirements", "files"),
        ("images/.requirements", "debian/.requirements", "files"),
        (f"{PRODUCT}/.requirements", "../.requirements", "files"),
    ],
)
def test_a_symlink_to_another_product_is_left_out(
    tmp_path: Path, place: str, target: str, cost: str
) -> None:
    """Even within one mirror: each product may be another uploader's."""
    write_tree(tmp_path, {**version(), **version("alpine/3/amd64/default/20240505"), place: target})
    found, (finding,) = scanned(tmp_path)
    assert set(found) == {VERSION, f"{OTHER}/20240505"}
    assert [file.name for file in found[VERSION].files] == ["incus.tar.xz", "rootfs.squashfs"]
    assert (finding.code, finding.path) == (Code.LINK_LEADS_OUT, place)
    assert "--allow-links" in finding.remedy
    is_version = cost == "versions"
    assert (finding.versions_left_out, finding.files_left_out) == (is_version, not is_version)


@pytest.mark.parametrize("level", ["images", "images/debian", PRODUCT])
def test_settings_beside_each_other_may_share_a_file(tmp_path: Path, level: str) -> None:
    tree: Tree = {f"{level}/.requirements": b"{}", f"{level}/.lxd_requirements": ".requirements"}
    write_tree(tmp_path, {**version(), **tree})
    found, findings = scanned(tmp_path)
    assert (list(found), findings) == ([VERSION], [])


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("images/debian", "disk2/debian"),
        ("images/debian/12", "disk2/debian/12"),
        (PRODUCT, "disk2/debian/12/amd64/default"),
        (VERSION, "disk2/debian/12/amd64/default/20240505_05:24"),
        (f"{VERSION}/rootfs.squashfs", "disk2/rootfs.squashfs"),
        ("images/.requirements", "disk2/debian/.requirements"),
    ],
)
def test_links_may_lead_below_the_directories_that_are_allowed(
    tmp_path: Path, place: str, target: str
) -> None:
    root = write_tree(tmp_path / "root", {**version(), "images/.requirements": b"{}"})
    (tmp_path / target).parent.mkdir(parents=True)
    (root / place).symlink_to((root / place).rename(tmp_path / target))
    wrong: list[list[Path]] = [[], [tmp_path / "disk"], [tmp_path / "disk22", root]]
    for allowed in wrong:
        seen = collect(scan.scan(Mirror.at(root, allow_links=allowed)))
        assert Code.LINK_LEADS_OUT in {finding.code for finding in seen.findings}
    (tmp_path / "mnt").symlink_to("disk2")
    for allowed in ([tmp_path / "disk2"], [Path("/nowhere"), tmp_path], [tmp_path / "mnt"]):
        seen = collect(scan.scan(Mirror.at(root, allow_links=allowed)))
        ((product, (found,)),) = seen.found
        assert not seen.findings
        assert found.path == VERSION
        assert len(found.files) == 2
        assert product.dotfiles == ("images/.requirements",)


def test_links_on_another_disk_stay_within_the_product_there(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", version("alpine/3/amd64/default/20240505"))
    disk = tmp_path / "disk2"
    write_tree(
        disk,
        {
            **version(),
            f"{VERSION}/disk.qcow2": "rootfs.squashfs",
            f"{VERSION}/disk1.img": str(root / "images/alpine/3/amd64/default/20240505/x"),
        },
    )
    (root / "images/debian").symlink_to(disk / "images/debian")
    seen = collect(scan.scan(Mirror.at(root, allow_links=[disk / "images/debian"])))
    ((_, _), (_, (found,))) = seen.found
    assert [file.name for file in found.files] == ["disk.qcow2", "incus.tar.xz", "rootfs.squashfs"]
    assert [finding.path for finding in seen.findings] == [f"{VERSION}/disk1.img"]


def test_symlinks_that_lead_out_are_left_out(tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", version())
    root = write_tree(
        tmp_path / "root",
        {
            **version(),
            "images/stolen": str(outside / "images/debian"),
            "images/.requirements": str(outside / "secret"),
            f"{VERSION}/disk.qcow2": "/etc/passwd",
            f"{VERSION}/lxd.tar.xz": "../../../../../../../outside/x",
        },
    )
    found, findings = scanned(root)
    assert list(found) == [VERSION]
    assert {finding.code for finding in findings} == {Code.LINK_LEADS_OUT}
    assert {finding.path for finding in findings} == {
        "images/stolen",
        "images/.requirements",
        f"{VERSION}/disk.qcow2",
        f"{VERSION}/lxd.tar.xz",
    }
    assert [file.name for file in found[VERSION].files] == ["incus.tar.xz", "rootfs.squashfs"]
    assert found[VERSION].broken == ("disk-kvm.img", "lxd.tar.xz")


def test_a_sibling_whose_name_starts_like_root_is_outside(tmp_path: Path) -> None:
    write_tree(tmp_path / "root-2", {"secret": b""})
    root = write_tree(
        tmp_path / "root", {**version(), f"{VERSION}/disk.qcow2": str(tmp_path / "root-2/secret")}
    )
    _, (finding,) = scanned(root)
    assert finding.path == f"{VERSION}/disk.qcow2"


def test_the_operator_may_link_the_stream_directory_elsewhere(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", version())
    (tmp_path / "root").mkdir()
    (tmp_path / "root/images").symlink_to(tmp_path / "data/images")
    write_tree(tmp_path / "data", {f"{VERSION}/disk.qcow2": "rootfs.squashfs"})
    found, findings = scanned(tmp_path / "root")
    assert not findings
    assert len(found[VERSION].files) == 3


def test_a_symlink_loop_costs_nobody_else_anything(tmp_path: Path) -> None:
    write_tree(
        tmp_path, {**version(), "images/loop": "loop", f"{VERSION}/disk.qcow2": "disk.qcow2"}
    )
    found, findings = scanned(tmp_path)
    assert [file.name for file in found[VERSION].files] == ["incus.tar.xz", "rootfs.squashfs"]
    assert {finding.path for finding in findings} == {"images/loop", f"{VERSION}/disk.qcow2"}


def test_what_is_no_regular_file_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {**version(), f"{VERSION}/rootfs.tar.xz": None})
    os.mkfifo(tmp_path / VERSION / "disk.qcow2")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / VERSION)  # a socket's path must be short
        server.bind("disk1.img")
    found, findings = scanned(tmp_path)
    assert [file.name for file in found[VERSION].files] == ["incus.tar.xz", "rootfs.squashfs"]
    assert {(os.path.basename(f.path), f.problem.split()[2].rstrip(",")) for f in findings} == {
        ("rootfs.tar.xz", "directory"),
        ("disk.qcow2", "FIFO"),
        ("disk1.img", "socket"),
    }


@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz"])
def test_a_large_file_of_holes_is_left_out(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, version())
    path = tmp_path / VERSION / name
    os.truncate(path, SPARSE_BYTES - 1)
    assert scanned(tmp_path)[1] == []
    os.truncate(path, SPARSE_BYTES)
    found, (finding,) = scanned(tmp_path)
    assert name not in [file.name for file in found[VERSION].files]
    assert finding.code is Code.SPARSE_FILE
    assert "nearly all of its 67,108,864 bytes are holes" in finding.problem
    assert finding.files_left_out == 1
    with path.open("r+b") as file:  # as a disk image may be
        os.posix_fallocate(file.fileno(), 0, SPARSE_BYTES // MIN_DENSITY + 4096)
    assert scanned(tmp_path)[1] == []


@pytest.mark.parametrize("name", ["rootfs.squashfs", "incus.tar.xz", "disk.qcow2"])
def test_an_empty_file_is_left_out(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {**version(), f"{VERSION}/{name}.part": b"", f"{VERSION}/build.log": b""})
    (tmp_path / VERSION / name).write_bytes(b"")
    found, (finding,) = scanned(tmp_path)
    assert name not in [file.name for file in found[VERSION].files]
    assert len(found[VERSION].broken) == 1
    assert (finding.code, finding.path) == (Code.EMPTY_FILE, f"{VERSION}/{name}")
    assert (finding.problem, finding.files_left_out) == ("is empty", 1)


@pytest.mark.parametrize(
    ("mode", "is_told"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)]
)
def test_a_file_that_only_its_owner_can_read_is_told(
    tmp_path: Path, mode: int, is_told: bool
) -> None:
    write_tree(tmp_path, version())
    (tmp_path / VERSION / "rootfs.squashfs").chmod(mode)
    found, findings = scanned(tmp_path)
    assert len(found[VERSION].files) == 2
    assert [(finding.code, finding.path) for finding in findings] == [
        (Code.NOT_SERVABLE, f"{VERSION}/rootfs.squashfs")
    ][:is_told]
    assert not any(finding.versions_left_out or finding.files_left_out for finding in findings)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("images", "the levels OS/RELEASE/ARCH/VARIANT/VERSION are missing"),
        ("images/debian", "the levels RELEASE/ARCH/VARIANT/VERSION are missing"),
        ("images/debian/12/amd64", "the levels VARIANT/VERSION are missing"),
        (PRODUCT, "the level VERSION is missing"),
        ("images/debian/12/amd64/20240505", "the level VARIANT is missing above 20240505"),
        ("images/debian/12/amd64/20240505_05:24", "VARIANT is missing above 20240505_05:24"),
        ("images/debian/12/20240505", "2 levels are missing above 20240505"),
        ("images/20240505_05:24", "4 levels are missing above 20240505_05:24"),
        ("images/debian/12/cloud/20240505", "a level is missing above 20240505"),
        (f"{VERSION}/incus", "has no image files, but its directory incus has: one level too deep"),
    ],
)
@pytest.mark.parametrize("name", ["incus.tar.xz", "rootfs.squashfs", "debian-12.qcow2", "x.tar.xz"])
def test_a_level_that_is_forgotten_is_named(
    tmp_path: Path, path: str, words: str, name: str
) -> None:
    other = "alpine/3/amd64/default/20240505"
    write_tree(tmp_path, {**version(other), f"{path}/{name}": b"x", f"{path}/rootfs.squashfs": b""})
    found, (finding,) = scanned(tmp_path)
    assert list(found) == [f"images/{other}"]
    assert finding.code is Code.MISPLACED_FILE
    assert finding.path == path.removesuffix("/incus")
    assert words in finding.problem
    assert "STREAM/OS/RELEASE/ARCH/VARIANT/VERSION" in finding.remedy
    assert finding.versions_left_out == 1


def test_the_flat_tree_of_another_tool_is_named(tmp_path: Path) -> None:
    for suffix in ("incus.tar.xz", "squashfs"):
        write_tree(tmp_path, {f"images/{'ab' * 32}.{suffix}": b"x"})
    found, (finding,) = scanned(tmp_path)
    assert (found, finding.code, finding.path) == ({}, Code.FOREIGN_TREE, "images")
    assert f"fastindex import --copy {tmp_path}/images NEW_ROOT" in finding.remedy
    assert "--force" not in finding.remedy


def test_an_exported_image_beside_the_directories_is_misplaced(tmp_path: Path) -> None:
    """``incus image export`` names its files after digests, too."""
    write_tree(tmp_path, {**version(), f"images/{'ab' * 32}.squashfs": b"x"})
    found, (finding,) = scanned(tmp_path)
    assert (list(found), finding.code) == ([VERSION], Code.MISPLACED_FILE)


@pytest.mark.parametrize("kind", ["directory", "FIFO", "dangling", "loop"])
def test_checksums_that_cannot_be_used_are_told(tmp_path: Path, kind: str) -> None:
    path = write_tree(tmp_path, version()) / VERSION / "SHA256SUMS"
    match kind:
        case "directory":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
    found, (finding,) = scanned(tmp_path)
    assert found[VERSION].checksums is None
    assert len(found[VERSION].files) == 2
    assert finding.path == f"{VERSION}/SHA256SUMS"
    expected = Code.LINK_LEADS_OUT if kind == "loop" else Code.BAD_CHECKSUMS
    assert finding.code is expected
    if kind in ("directory", "FIFO"):
        assert "not a regular file" in finding.problem


def test_a_missing_stream_says_what_a_tree_looks_like(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="OS/RELEASE/ARCH/VARIANT/VERSION") as caught:
        require_streams(Mirror.at(tmp_path))
    assert str(tmp_path / "images") in str(caught.value)


def test_two_dots_after_a_symlink_lead_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "there/inner").mkdir(parents=True)
    (tmp_path / "here").symlink_to("there/inner")
    assert make_absolute(f"{tmp_path}/here/../mirror/.") == f"{tmp_path}/there/mirror"
    assert make_absolute(f"{tmp_path}/here/..") == f"{tmp_path}/there"
    assert make_absolute(f"{tmp_path}/there/../here/") == f"{tmp_path}/here"
    assert make_absolute("a/./b") == f"{os.getcwd()}/a/b"


@pytest.mark.parametrize("place", ["images/evil", f"{PRODUCT}/20240506", f"{VERSION}/disk.qcow2"])
def test_a_chain_of_more_links_than_a_stack_bears_is_named(tmp_path: Path, place: str) -> None:
    write_tree(tmp_path, version())
    hidden = tmp_path / "images/.chain"
    hidden.mkdir()
    for number in range(2000):
        (hidden / str(number)).symlink_to(str(number + 1))
    (hidden / "2000").mkdir()
    (tmp_path / place).symlink_to(hidden / "0")
    found, findings = scanned(tmp_path)
    assert VERSION in found
    assert place in {finding.path for finding in findings}


@pytest.mark.parametrize(
    ("place", "target"),
    [
        (f"{PRODUCT}/20240506", "nowhere"),
        (f"{PRODUCT}/20240506", "20240505_05:24/incus.tar.xz"),
        (f"{PRODUCT}/20240506", f"../default/{'./' * 900}20240505_05:24/incus.tar.xz"),
    ],
)
def test_a_symlink_to_something_else_than_a_directory_is_named(
    tmp_path: Path, place: str, target: str
) -> None:
    write_tree(tmp_path, version())
    (tmp_path / place).symlink_to(target)
    _, (finding,) = scanned(tmp_path)
    assert (finding.path, finding.problem) == (place, "a symlink that leads to no directory")


def test_a_file_in_the_place_of_a_version_is_named_and_any_other_is_not(tmp_path: Path) -> None:
    for name in ("images/README", f"{PRODUCT}/notes.txt", f"{PRODUCT}/20240506"):
        write_tree(tmp_path, {**version("x/1/amd64/d/20240505"), name: b""})
    _, (finding,) = scanned(tmp_path)
    assert finding.path == f"{PRODUCT}/20240506"


def test_what_is_swapped_for_a_link_just_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "root", version())
    secret = write_tree(tmp_path, {"secret": b"precious"}) / "secret"
    upload = root / VERSION / "rootfs.squashfs"
    kept = upload.with_name("kept")
    upload.symlink_to(upload.rename(kept))

    def swap_target(path: str) -> str:
        real = real_path(path)
        if real == str(kept):
            kept.unlink()
            kept.symlink_to(secret)
        return real

    monkeypatch.setattr("fastindex.mirror.scanning.links.real_path", swap_target)
    seen = collect(scan.scan(Mirror.at(root)))
    ((_, (found,)),) = seen.found
    assert [file.name for file in found.files] == ["incus.tar.xz"]
    assert [finding.problem for finding in seen.findings] == [
        "cannot stat it (Too many levels of symbolic links)"
    ]


@pytest.mark.parametrize("links", [1, 40, 41])
def test_a_chain_is_followed_as_far_as_the_system_opens_it(tmp_path: Path, links: int) -> None:
    write_tree(tmp_path, {**version(), f"{VERSION}/end": b"disk"})
    directory = tmp_path / VERSION
    (directory / f"link{links}").symlink_to("end")
    for number in range(1, links):
        (directory / f"link{number}").symlink_to(f"link{number + 1}")
    (directory / "link1").rename(directory / "disk.qcow2")
    found, findings = scanned(tmp_path)
    names = [file.name for file in found[VERSION].files]
    assert ("disk.qcow2" in names) is (links <= 40)
    assert [(finding.path, finding.problem) for finding in findings] == [
        (f"{VERSION}/disk.qcow2", "a symlink that leads in a circle, or over more than 40 others")
    ][: links > 40]
    assert can_open(directory / "disk.qcow2") is (links <= 40)


def can_open(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def test_a_stream_that_may_not_be_listed_is_no_reason_to_show_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(TreeError, match="Permission denied; give this user the right") as caught:
        require_streams(Mirror.at(tmp_path))
    assert "VARIANT" not in str(caught.value)


def test_a_root_that_is_missing_is_named_not_its_stream(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="none: no such directory"):
        require_streams(Mirror.at(tmp_path / "none"))


@pytest.mark.parametrize("place", [VERSION, "images/debian/12"])
def test_a_directory_that_only_its_owner_can_use_is_told(tmp_path: Path, place: str) -> None:
    write_tree(tmp_path, version())
    (tmp_path / place).chmod(0o700)
    found, (finding,) = scanned(tmp_path)
    assert (finding.code, finding.path) == (Code.NOT_SERVABLE, place)
    assert "chmod a+rx" in finding.remedy
    assert VERSION in found


@pytest.mark.parametrize(("code", "error"), [(errno.EIO, TreeError), (errno.ENOMEM, OSError)])
def test_a_stream_that_cannot_be_listed_once_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    write_tree(tmp_path, version())
    scandir = os.scandir
    failures = [code]

    def fail_once(path: str) -> object:
        if failures:
            raise OSError(failures.pop(), "injected", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail_once)
    with pytest.raises(error, match="injected"):
        split_streams(Mirror.at(tmp_path))
