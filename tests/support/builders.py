"""Builders' output, made with the real tools: tar, xz, mksquashfs, qemu-img."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.tools import needs
from tests.support.trees import OLD_NS

CREATED = 1_714_886_640
VERSION = "20240505_05:24"
PRODUCT = "images/debian/12/amd64/default"
METADATA = f"""\
architecture: x86_64
creation_date: {CREATED}
properties:
  architecture: amd64
  description: Debian 12
  os: debian
  release: 12
  serial: "20240505_0524"
  variant: default
templates:
  /etc/hostname: {{when: [create], template: hostname.tpl, properties: {{os: no}}}}
"""


def age(path: Path) -> Path:
    """Make ``path`` old enough for its stamp to be trusted; return it."""
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


class Workshop:
    """Makes images of a tiny root file system.

    Args:
        directory: an empty directory to work in.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        root = directory / "rootfs"
        for name in ("etc", "bin", "usr", "var"):
            (root / name).mkdir(parents=True)
        (root / "etc/hostname").write_text("here\n")
        (root / "bin/blob").write_bytes(os.urandom(100_000))
        self.squashfs = directory / "made.squashfs"
        mksquashfs = needs("mksquashfs", "apt-get install squashfs-tools")
        self._run(mksquashfs, root, self.squashfs, "-noappend", "-no-progress", "-quiet")
        self.tarball = self._pack(directory / "made.tar.xz", root, ["."], "--xz")
        self.disk = directory / "made.qcow2"
        qemu_img = needs("qemu-img", "apt-get install qemu-utils")
        self._run(qemu_img, "create", "-q", "-f", "qcow2", self.disk, "64M")
        self.raw = directory / "made.img"
        self.raw.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(5000))

    def put(self, root: Path, path: Path) -> Path:
        """Put a copy of one of the roots at ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root, path)
        return age(path)

    def metadata(self, path: Path, text: str = METADATA, compression: str = "--xz") -> Path:
        """Make a metadata tarball."""
        return self._described(path, text, [], compression)

    def unified(self, path: Path, text: str = METADATA, *, vm: bool = False) -> Path:
        """Make a unified image, as ``incus image export`` gives it."""
        return self._described(path, text, ["rootfs.img" if vm else "rootfs"], "--gzip")

    def split(self, directory: Path, text: str = METADATA) -> Path:
        """Make what ``distrobuilder build-incus`` leaves."""
        self.metadata(directory / "incus.tar.xz", text)
        self.put(self.squashfs, directory / "rootfs.squashfs")
        return directory

    def _described(self, path: Path, text: str, roots: list[str], compression: str) -> Path:
        contents = self._directory / "contents"
        (contents / "templates").mkdir(parents=True)
        (contents / "metadata.yaml").write_text(text, newline="")
        (contents / "templates/hostname.tpl").write_text("{{ container.name }}\n")
        for name in roots:
            if name == "rootfs":
                shutil.copytree(self._directory / "rootfs", contents / name)
            else:
                shutil.copy(self.disk, contents / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._pack(path, contents, ["metadata.yaml", "templates", *roots], compression)
        finally:
            shutil.rmtree(contents)

    def _pack(self, path: Path, directory: Path, members: list[str], compression: str) -> Path:
        options = [compression] if compression else []
        self._run("tar", "--force-local", "-C", directory, *options, "-cf", path, *members)
        return age(path)

    def _run(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
