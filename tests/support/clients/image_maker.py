"""Builds small images that could be launched, with the tools that builders use."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.tools import needs

INCUS_METADATA = "incus.tar.xz"
LXD_METADATA = "lxd.tar.xz"
INCUS_COMBINED = "incus_combined.tar.xz"
LXD_COMBINED = "lxd_combined.tar.xz"
SQUASHFS = "rootfs.squashfs"
TARBALL = "rootfs.tar.xz"
DISK = "disk.qcow2"

PRODUCT = "busybox/1.36/amd64/default"
OLDER, NEWER = "20240505_05:24", "20240506_05:24"

_CREATED = 1_714_886_640
_AGE_SECONDS = 2 * 24 * 60 * 60
_DISK_BYTES = 4 << 20
_METADATA_NAMES = (INCUS_METADATA, LXD_METADATA)
_APPLETS = ("sh", "ls", "cat", "mount", "ip", "hostname", "poweroff", "reboot")
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "hostname": "busybox\n",
    "inittab": "::respawn:/bin/sh\n::shutdown:/bin/umount -a -r\n",
}


def fingerprint(*files: Path) -> str:
    """Return sha256 of the files' bytes one after the other: an image's fingerprint."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


Publish = Callable[..., Path]
"""Adds a version with the files that are named, at a ``product`` and ``version``; returns it."""


class ImageMaker:
    """Makes the three kinds of root once, and versions with metadata of their own of them.

    Args:
        workshop: an empty directory to build in.
    """

    def __init__(self, workshop: Path) -> None:
        self._tar = needs("tar", "apt-get install tar")
        needs("xz", "apt-get install xz-utils")
        self._workshop = workshop
        self._rootfs = _lay_out_rootfs(workshop / "rootfs")
        self._roots = {
            SQUASHFS: self._make_squashfs(),
            TARBALL: self._make_tarball(workshop / TARBALL, self._rootfs, ["."]),
            DISK: self._make_disk(),
        }

    def add_version(
        self,
        mirror_root: Path,
        names: Sequence[str],
        *,
        product: str = PRODUCT,
        version: str = OLDER,
    ) -> Path:
        """Put a version with the files ``names`` into the tree; return its directory.

        Its files are some days old. Metadata differs from version to version and from
        client to client, and with it the fingerprints do.
        """
        directory = mirror_root / "images" / product / version
        directory.mkdir(parents=True)
        for name in names:
            if name in self._roots:
                shutil.copy(self._roots[name], directory / name)
            else:
                self._make_described_tarball(directory / name, product, version)
            old = time.time() - _AGE_SECONDS
            os.utime(directory / name, (old, old))
        return directory

    def _make_described_tarball(self, path: Path, product: str, version: str) -> None:
        """Make metadata, or a unified image: the same with the root beside it."""
        contents = self._workshop / "described"
        contents.mkdir()
        try:
            (contents / "templates").mkdir()
            (contents / "metadata.yaml").write_text(
                _metadata_yaml(path.name.split(".")[0], product, version), encoding="utf-8"
            )
            members = ["metadata.yaml", "templates"]
            if path.name not in _METADATA_NAMES:
                shutil.copytree(self._rootfs, contents / "rootfs", symlinks=True)
                members.append("rootfs")
            self._make_tarball(path, contents, members)
        finally:
            shutil.rmtree(contents)

    def _make_tarball(self, path: Path, directory: Path, members: Sequence[str]) -> Path:
        owned_by_root = ["--numeric-owner", "--owner=0", "--group=0"]
        # The default effort of xz takes most of a second for each.
        compressed = ["--use-compress-program=xz -1", "--create", f"--file={path}"]
        # A version's name has a colon, which tar takes for the end of a host's name.
        _run(self._tar, "--force-local", *owned_by_root, *compressed, "-C", directory, *members)
        return path

    def _make_squashfs(self) -> Path:
        mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
        path = self._workshop / SQUASHFS
        _run(mksquashfs, self._rootfs, path, "-all-root", "-noappend", "-no-progress")
        return path

    def _make_disk(self) -> Path:
        qemu_img = needs("qemu-img", "apt-get install qemu-utils")
        raw, path = self._workshop / "disk.raw", self._workshop / DISK
        with raw.open("wb") as file:
            file.write((self._rootfs / "bin/busybox").read_bytes())
            file.truncate(_DISK_BYTES)
        _run(qemu_img, "convert", "-f", "raw", "-O", "qcow2", raw, path)
        return path


def _lay_out_rootfs(rootfs: Path) -> Path:
    busybox = needs("busybox", "apt-get install busybox-static")
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in _APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "sbin/init").symlink_to("../bin/busybox")
    for name, text in _ETC.items():
        (rootfs / "etc" / name).write_text(text, encoding="utf-8")
    return rootfs


def _metadata_yaml(form: str, product: str, version: str) -> str:
    """Return a metadata file; JSON strings are YAML strings."""
    os_name, release, _, variant = product.split("/")
    return (
        "architecture: x86_64\n"
        f"creation_date: {_CREATED}\n"
        "properties:\n"
        "  architecture: amd64\n"
        f'  description: "{os_name} {release} ({version}), {form}"\n'
        f'  os: "{os_name}"\n'
        f'  release: "{release}"\n'
        f'  serial: "{version}"\n'
        f'  variant: "{variant}"\n'
        "templates: {}\n"
    )


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
