"""Which places something else leads to: through links of any kind, in any product and stream."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.operations.prune.in_use import MAX_STEPS, PlacesInUse
from tests.support.trees import Files, write_tree

PRODUCT = "images/debian/12/amd64/default"
OTHER = "images/alpine/3.20/arm64/cloud"
V1, V2, V3 = "20240501_05:24", "20240502_05:24", "20240503_05:24"


def users(root: Path, tree: Files, place: str, *published: str, ignored: str = "") -> list[str]:
    """Return what leads to ``place`` in ``tree``."""
    write_tree(root, tree)
    in_use = PlacesInUse(Mirror.at(root), published, [ignored] if ignored else [])
    return sorted({in_use.shorten(user) for user in in_use.find_users(in_use.find_place(place))})


LEADING: dict[str, tuple[Files, str, str]] = {
    "a version to a hidden directory": (
        {f"{PRODUCT}/.{V1}/incus.tar.xz": b"i", f"{PRODUCT}/{V1}": f".{V1}"},
        f"{PRODUCT}/.{V1}",
        f"{PRODUCT}/{V1}",
    ),
    "a file into a hidden directory": (
        {
            f"{PRODUCT}/.{V1}/rootfs.squashfs": b"s",
            f"{PRODUCT}/{V2}/rootfs.squashfs": f"../.{V1}/rootfs.squashfs",
        },
        f"{PRODUCT}/.{V1}",
        f"{PRODUCT}/{V2}/rootfs.squashfs",
    ),
    "through a hidden link": (
        {
            f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
            f"{PRODUCT}/.current": f".{V1}",
            f"{PRODUCT}/{V1}": ".current",
        },
        f"{PRODUCT}/.{V1}",
        f"{PRODUCT}/{V1}",
    ),
    "through another version's link": (
        {
            f"{PRODUCT}/.{V1}/rootfs.squashfs": b"s",
            f"{PRODUCT}/{V2}/rootfs.squashfs": f"../.{V1}/rootfs.squashfs",
            f"{OTHER}/{V3}/rootfs.squashfs": f"../../../../../debian/12/amd64/default/{V2}"
            "/rootfs.squashfs",
        },
        f"{PRODUCT}/{V2}",
        f"{OTHER}/{V3}/rootfs.squashfs",
    ),
    "from a link in what a link leads to": (
        {
            f"{PRODUCT}/.{V1}/rootfs.squashfs": b"s",
            f"{PRODUCT}/.{V2}/rootfs.squashfs": f"../.{V1}/rootfs.squashfs",
            f"{PRODUCT}/{V2}": f".{V2}",
        },
        f"{PRODUCT}/.{V1}",
        f"{PRODUCT}/.{V2}/rootfs.squashfs",
    ),
    "from another stream": (
        {
            f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
            f"daily/debian/12/amd64/default/{V1}": f"../../../../../{PRODUCT}/.{V1}",
        },
        f"{PRODUCT}/.{V1}",
        f"daily/debian/12/amd64/default/{V1}",
    ),
    "from a hidden upload": (
        {
            f"{PRODUCT}/{V1}/rootfs.squashfs": b"s",
            f"{PRODUCT}/.{V2}/rootfs.squashfs": f"../{V1}/rootfs.squashfs",
        },
        f"{PRODUCT}/{V1}",
        f"{PRODUCT}/.{V2}/rootfs.squashfs",
    ),
    "to a single file": (
        {
            f"{PRODUCT}/{V1}/rootfs.squashfs": b"s",
            f"{PRODUCT}/{V1}/root.squashfs": "rootfs.squashfs",
        },
        f"{PRODUCT}/{V1}/rootfs.squashfs",
        f"{PRODUCT}/{V1}/root.squashfs",
    ),
    "a product that is a link": (
        {
            f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
            f"{PRODUCT}/{V1}": f".{V1}",
            "images/debian/12/amd64/cloud": "default",
        },
        f"{PRODUCT}/.{V1}",
        f"{PRODUCT}/{V1}",
    ),
}


@pytest.mark.parametrize("kind", LEADING)
def test_what_a_link_leads_to_is_in_use(tmp_path: Path, kind: str) -> None:
    tree, place, user = LEADING[kind]
    assert users(tmp_path, tree, place) == [user]


def test_an_absolute_link_counts(tmp_path: Path) -> None:
    tree: Files = {
        f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
        f"{OTHER}/{V1}": str(tmp_path / PRODUCT / f".{V1}"),
    }
    assert users(tmp_path, tree, f"{PRODUCT}/.{V1}") == [f"{OTHER}/{V1}"]


def test_real_paths_are_compared(tmp_path: Path) -> None:
    """ROOT may be named through a link, and a stream may be on another disk."""
    disk = write_tree(tmp_path / "disk", {f"debian/12/amd64/default/.{V1}/incus.tar.xz": b"i"})
    (disk / f"debian/12/amd64/default/{V1}").symlink_to(f".{V1}")
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to("real")
    tree: Files = {"images": str(disk)}
    (user,) = users(tmp_path / "named", tree, f"{PRODUCT}/.{V1}")
    assert user == f"{disk}/debian/12/amd64/default/{V1}"


def test_a_published_path_counts_without_any_visible_link(tmp_path: Path) -> None:
    tree: Files = {f"{PRODUCT}/.{V1}/incus.tar.xz": b"i"}
    path = f"{PRODUCT}/.{V1}/incus.tar.xz"
    assert users(tmp_path, tree, f"{PRODUCT}/.{V1}", path) == [path]


def test_hidden_links_and_what_is_to_go_itself_do_not_count(tmp_path: Path) -> None:
    tree: Files = {
        f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
        f"{PRODUCT}/.current": f".{V1}",
        f"{PRODUCT}/.{V2}/incus.tar.xz": f"../.{V1}/incus.tar.xz",
        ".streams": f"{PRODUCT}/.{V1}",
        "iso/a/b/c/d/e": f"../../../../../{PRODUCT}/.{V1}",
    }
    assert users(tmp_path, tree, f"{PRODUCT}/.{V1}", ignored=f"{PRODUCT}/.{V2}") == []


def test_what_leads_away_or_nowhere_disturbs_nobody(tmp_path: Path) -> None:
    tree: Files = {
        f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
        f"{PRODUCT}/{V1}": V1,
        f"{PRODUCT}/{V2}": "missing",
        f"{PRODUCT}/{V3}": "/",
        "images/slash": "/",
        "images/loop": "loop",
        "images/self": ".",
        "images/up": "..",
        "images/file": b"f",
    }
    assert users(tmp_path, tree, f"{PRODUCT}/.{V1}") == []


def test_a_link_that_is_too_long_to_follow_may_lead_anywhere_beside_it(tmp_path: Path) -> None:
    target = f"../default/{'./a/../' * 2}.{V1}"
    long = "/".join(["a", ".."] * MAX_STEPS) + f"/.{V1}"
    write_tree(tmp_path, {f"{OTHER}/.{V1}/incus.tar.xz": b"i", f"{PRODUCT}/a": None})
    tree: Files = {f"{PRODUCT}/.{V1}/incus.tar.xz": b"i", f"{PRODUCT}/{V1}": long}
    assert users(tmp_path, tree, f"{PRODUCT}/.{V1}") == [f"{PRODUCT}/{V1}"]
    assert users(tmp_path, {f"{PRODUCT}/{V2}": target}, f"{OTHER}/.{V1}") == []


@pytest.mark.parametrize("call", ["readlink", "scandir"])
def test_what_this_user_may_not_read_may_lead_anywhere_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    tree: Files = {
        f"{PRODUCT}/.{V1}/incus.tar.xz": b"i",
        f"{PRODUCT}/{V2}/rootfs.squashfs": f"../.{V1}/rootfs.squashfs",
        f"{OTHER}/.{V1}/incus.tar.xz": b"i",
    }
    write_tree(tmp_path, tree)
    real: Callable[[str], Any] = getattr(os, call)

    def refuse(path: str) -> Any:
        if f"/{V2}" in path:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(f"fastindex.operations.prune.in_use.os.{call}", refuse)
    assert users(tmp_path, {}, f"{PRODUCT}/.{V1}")
    assert users(tmp_path, {}, f"{OTHER}/.{V1}") == []


@pytest.mark.parametrize("call", ["readlink", "scandir"])
def test_a_failing_disk_is_no_reason_to_think_that_nothing_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(path: str) -> Any:
        raise OSError(errno.EIO, "Input/output error", path)

    write_tree(tmp_path, {f"{PRODUCT}/{V1}/incus.tar.xz": b"i"})
    monkeypatch.setattr(f"fastindex.operations.prune.in_use.os.{call}", fail)
    with pytest.raises(OSError, match="Input/output error"):
        users(tmp_path, {}, f"{PRODUCT}/{V1}", f"{PRODUCT}/{V1}")
