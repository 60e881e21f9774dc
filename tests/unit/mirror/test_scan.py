from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fastindex.errors import TreeError
from fastindex.events import Finding
from fastindex.formats.names import FileRole, classify
from fastindex.mirror import scan
from fastindex.mirror.mirror import Mirror, make_absolute
from fastindex.mirror.scan import HUGE_BYTES, require_streams
from fastindex.mirror.tree import FoundVersion
from fastindex.system.stamps import Stamp
from tests.support.trees import OLD_NS, Tree, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"


def scanned(root: Path, stream: str = "images") -> tuple[dict[str, FoundVersion], list[Finding]]:
    seen = scan.scan(Mirror.at(root, streams=[stream]))
    found = {version.path: version for _, versions in seen.found for version in versions}
    return found, seen.findings


def test_files_with_a_role_are_found_with_their_stamps(tmp_path: Path) -> None:
    tree: Tree = {**version(incus_tar_xz=b"meta", rootfs_squashfs=b"root"), f"{VERSION}/x.log": b""}
    write_tree(tmp_path, tree)
    found, findings = scanned(tmp_path)
    assert not findings
    files = found[VERSION].files
    assert [(file.name, file.stamp.size_bytes, file.stamp.mtime_ns) for file in files] == [
        ("incus.tar.xz", 4, OLD_NS),
        ("rootfs.squashfs", 4, OLD_NS),
    ]
    status = (tmp_path / VERSION / "incus.tar.xz").stat()
    assert files[0].stamp == Stamp(4, OLD_NS, status.st_dev, status.st_ino)


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
    (product, _), *_ = scan.scan(Mirror.at(tmp_path)).found
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


def test_symlinks_that_stay_inside_are_followed(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **version(),
            "images/alias": "debian",
            f"{PRODUCT}/20240506_05:24/incus.tar.xz": "../20240505_05:24/incus.tar.xz",
        },
    )
    found, findings = scanned(tmp_path)
    assert not findings
    assert "images/alias/12/amd64/default/20240505_05:24" in found
    linked = found[f"{PRODUCT}/20240506_05:24"].files[0]
    assert linked.stamp == found[VERSION].files[0].stamp


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


def test_a_huge_file_of_holes_is_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    root = tmp_path / VERSION / "rootfs.squashfs"
    os.truncate(root, HUGE_BYTES - 1)
    assert scanned(tmp_path)[1] == []
    os.truncate(root, HUGE_BYTES)
    found, (finding,) = scanned(tmp_path)
    assert [file.name for file in found[VERSION].files] == ["incus.tar.xz"]
    assert "bytes are holes" in finding.problem
    assert finding.files_left_out == 1


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
    [("images/a", "nowhere"), (f"{PRODUCT}/20240506", "20240506"), (PRODUCT + "s", VERSION + "/x")],
)
def test_a_symlink_to_something_else_than_a_directory_is_named(
    tmp_path: Path, place: str, target: str
) -> None:
    write_tree(tmp_path, version())
    (tmp_path / place).symlink_to(target)
    _, (finding,) = scanned(tmp_path)
    assert (finding.path, finding.problem) == (place, "is not a directory")


def test_a_file_in_the_place_of_a_version_is_named_and_any_other_is_not(tmp_path: Path) -> None:
    for name in ("images/README", f"{PRODUCT}/notes.txt", f"{PRODUCT}/20240506"):
        write_tree(tmp_path, {**version("x/1/amd64/d/20240505"), name: b""})
    _, (finding,) = scanned(tmp_path)
    assert finding.path == f"{PRODUCT}/20240506"


@pytest.mark.parametrize(
    ("was", "problem"),
    [
        ("file", "is a symlink by now, not a regular file"),
        ("link", "cannot stat it (leads out of the mirror)"),
    ],
)
def test_what_is_swapped_for_a_link_just_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, problem: str
) -> None:
    root = write_tree(tmp_path / "root", version())
    secret = write_tree(tmp_path, {"secret": b"precious"}) / "secret"
    upload = root / "images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
    if was == "link":
        upload.symlink_to(upload.rename(upload.with_name("kept")))
    look = scan._Walk._leads_out

    def swap(name: str) -> None:
        if name == upload.name:
            upload.unlink()
            upload.symlink_to(secret)

    def swap_file(name: str) -> FileRole | None:
        swap(name)
        return classify(name)

    def swap_link(self: scan._Walk, entry: os.DirEntry[str], directory: str) -> bool:
        leads_out = look(self, entry, directory)
        swap(entry.name)
        return leads_out

    if was == "file":
        monkeypatch.setattr("fastindex.mirror.scan.classify", swap_file)
    else:
        monkeypatch.setattr(scan._Walk, "_leads_out", swap_link)
    seen = scan.scan(Mirror.at(root))
    ((_, (found,)),) = seen.found
    assert [file.name for file in found.files] == ["incus.tar.xz"]
    assert [finding.problem for finding in seen.findings] == [problem]


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
