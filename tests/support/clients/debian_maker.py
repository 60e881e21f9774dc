"""A real Debian, packed as each builder would: the root that debootstrap made, once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

import pytest

from tests.support.tools import needs

ROOTFS_VARIABLE = "FASTINDEX_TEST_ROOTFS"
_HOW = (
    f"{ROOTFS_VARIABLE} names no root file system: "
    "debootstrap --variant=minbase --include=systemd-sysv bookworm DIR"
)
_COMPRESS = {
    ".xz": "xz -0",
    ".gz": "gzip -1",
    ".lzma": "xz --format=lzma -0",
    ".lz4": "lz4",
    ".zst": "zstd -q",
}
_CREATED = 1_714_886_640
_AGE_SECONDS = 2 * 24 * 60 * 60


def debian_rootfs() -> Path:
    """Return the root file system that debootstrap made; skip, or fail in CI, without.

    Made beforehand, as tests talk to nobody but this machine.
    """
    named = os.environ.get(ROOTFS_VARIABLE)
    if named and (Path(named) / "etc/debian_version").is_file():
        return Path(named)
    if os.environ.get("CI") == "true":
        pytest.fail(_HOW)
    pytest.skip(_HOW)


class DebianMaker:
    """Packs a Debian.

    Args:
        workshop: an empty directory to work in.
    """

    def __init__(self, workshop: Path) -> None:
        self.rootfs = debian_rootfs()
        self._workshop = workshop

    @cached_property
    def squashfs(self) -> Path:
        """The root as a squashfs."""
        path = self._workshop / "made.squashfs"
        mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
        quick = ("-Xcompression-level", "1", "-noappend", "-no-progress", "-quiet")
        _run(mksquashfs, self.rootfs, path, *quick)
        return path

    @cached_property
    def tarball(self) -> Path:
        """The root as a tarball."""
        needs("xz", "apt-get install xz-utils")
        path = self._workshop / "made.tar.xz"
        _tar(path, "xz -0 -T2", self.rootfs, ".")
        return path

    @cached_property
    def disk(self) -> Path:
        """A disk with one file system, that of the root; it has no boot loader."""
        mke2fs = needs("mke2fs", "apt-get install e2fsprogs")
        qemu_img = needs("qemu-img", "apt-get install qemu-utils")
        raw, disk = self._workshop / "disk.raw", self._workshop / "made.qcow2"
        _run(mke2fs, "-q", "-t", "ext4", "-d", self.rootfs, raw, "1G")
        _run(qemu_img, "convert", "-f", "raw", "-O", "qcow2", raw, disk)
        raw.unlink()
        return disk

    def distrobuilder(self, directory: Path, release: str) -> Path:
        """Leave what ``distrobuilder build-incus`` and ``--vm`` leave."""
        self._describe(directory / "incus.tar.xz", release)
        _put(self.squashfs, directory / "rootfs.squashfs")
        return _aged(_put(self.disk, directory / "disk.qcow2").parent)

    def distrobuilder_lxc(self, directory: Path, release: str) -> Path:
        """Leave what ``distrobuilder build-lxc`` and ``build-incus`` leave together."""
        self._describe(directory / "incus.tar.xz", release)
        self._describe(directory / "lxd.tar.xz", release)
        config = self._workshop / "config"
        config.write_text("lxc.include = LXC_TEMPLATE_CONFIG/common.conf\n")
        _tar(directory / "meta.tar.xz", "xz -0", self._workshop, config.name)
        return _aged(_put(self.tarball, directory / "rootfs.tar.xz").parent)

    def named(
        self, directory: Path, release: str, metadata: str, root: str, *, is_squashfs: bool = True
    ) -> Path:
        """Leave metadata and a root under names of the builder's choice."""
        self._describe(directory / metadata, release)
        _put(self.squashfs if is_squashfs else self.tarball, directory / root)
        return _aged(directory)

    def nix(self, directory: Path, release: str) -> list[Path]:
        """Leave what ``nix build`` leaves: symlinks to a metadata and a root, without a date."""
        store = directory / "store"
        self._describe(store / "metadata/tarball/nixos.tar.xz", release, created=1)
        _put(self.squashfs, store / "squashfs/nixos.squashfs")
        for path in store.rglob("nixos.*"):
            os.utime(path, (_CREATED, _CREATED))
        links = [directory / "result", directory / "result-1"]
        for link, name in zip(links, ("metadata/tarball", "squashfs"), strict=True):
            link.symlink_to(store / name)
        return links

    def lxd_imagebuilder(self, directory: Path, release: str) -> Path:
        """Leave what ``lxd-imagebuilder`` leaves."""
        self._describe(directory / "lxd.tar.xz", release)
        _put(self.squashfs, directory / "rootfs.squashfs")
        (directory / "image.yaml").write_text(
            f"image:\n  distribution: debian\nsimplestream:\n  release_aliases:\n"
            f"    {release}: lxd-built\n  requirements:\n  - requirements:\n"
            "      secureboot: false\n"
        )
        sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(directory.iterdir())]
        (directory / "SHA256SUMS").write_text("".join(sums))
        return _aged(directory)

    def split_export(self, directory: Path, release: str) -> Path:
        """Leave what ``incus image export IMAGE DIRECTORY`` leaves of a split image."""
        metadata = self._describe(directory / "meta.tar.xz", release)
        image = sha256(metadata, self.squashfs)
        metadata.rename(directory / f"meta-{image}.tar.xz")
        return _aged(_put(self.squashfs, directory / f"{image}.squashfs").parent)

    def unified_export(self, directory: Path, release: str) -> Path:
        """Leave what ``incus image export IMAGE DIRECTORY/web`` leaves of a unified image."""
        self._describe(directory / "web.tar.gz", release, rootfs=self.rootfs)
        return _aged(directory)

    def unified_vm_export(self, directory: Path, release: str) -> Path:
        """Leave the same of a virtual machine."""
        self._describe(directory / "vm.tar.gz", release, disk=self.disk)
        return _aged(directory)

    def _describe(
        self,
        path: Path,
        release: str,
        *,
        rootfs: Path | None = None,
        disk: Path | None = None,
        created: int = _CREATED,
    ) -> Path:
        """Make a tarball with a metadata.yaml, and with a root where one is given."""
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = self._workshop / "contents"
        (contents / "templates").mkdir(parents=True)
        (contents / "templates/hostname.tpl").write_text("{{ container.name }}\n")
        (contents / "metadata.yaml").write_text(
            f"architecture: x86_64\ncreation_date: {created}\nproperties:\n"
            f"  architecture: amd64\n  description: Debian {release} in {path.name}\n"
            f"  os: debian\n  release: {release}\n  variant: default\n"
            "templates:\n  /etc/hostname:\n    when: [create]\n    template: hostname.tpl\n"
        )
        members = ["metadata.yaml", "templates"]
        transform: list[str] = []
        if disk is not None:
            shutil.copy(disk, contents / "rootfs.img")
            members.append("rootfs.img")
        if rootfs is not None:
            # The root is too big to be copied: it is taken from where it is.
            transform = ["--transform", r"s,^\./,rootfs/,S", "-C", str(rootfs), "."]
        compress = _COMPRESS[path.suffix]
        _tar(path, compress, contents, *members, *transform)
        shutil.rmtree(contents)
        return path


def sha256(*paths: Path) -> str:
    """Return the digest of the files' bytes, one after the other."""
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _tar(path: Path, compress: str, directory: Path, *members: str) -> None:
    options = ("--numeric-owner", "--one-file-system", f"--use-compress-program={compress}")
    _run("tar", *options, "-cf", path, "-C", directory, *members)


def _put(root: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(root, path)
    return path


def _aged(directory: Path) -> Path:
    for path in directory.iterdir():
        old = path.stat().st_mtime - _AGE_SECONDS
        os.utime(path, (old, old))
    return directory


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
