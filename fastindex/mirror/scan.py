"""Tree → found products, versions and files: names and stamps, no bytes read.

``STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILE``. Everything here may come from a
stranger's upload: symlinks are followed only while they stay inside, what is no
regular file is never opened, and a name that breaks a path, an alias or the JSON is
left out with a finding while the rest goes on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from fastindex.errors import TreeError, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import (
    ARCHITECTURES,
    ProductName,
    classify,
    find_forbidden_character,
    is_ignored_name,
    is_version_name,
)
from fastindex.formats.simplestreams import (
    IMAGE_YAML_NAME,
    LXD_REQUIREMENTS_NAME,
    PRODUCT_TOML_NAME,
    REQUIREMENTS_NAME,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import Found, FoundFile, FoundProduct, FoundVersion
from fastindex.system.directories import LeadsOutError, is_inside, real_path
from fastindex.system.stamps import Stamp, stamp_of

HUGE_BYTES = 1 << 40
"""No image is so large, but a sparse file can be, at no cost: it must be on the disk, too."""

_DOTFILES = (REQUIREMENTS_NAME, LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME)
_PRODUCT_DEPTH = 4
_TREE_SHAPE = "STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILES, for instance\n" + (
    "  images/debian/12/amd64/default/20240505_05:24/incus.tar.xz\n"
    "  images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
)


def require_streams(mirror: Mirror) -> None:
    """Check that each stream of ``mirror`` can be listed; raises TreeError where one cannot."""
    for stream in mirror.streams:
        top = os.path.join(mirror.root, stream)
        try:
            with os.scandir(top):
                pass
        except OSError as error:
            raise TreeError(
                f"{top}: cannot list the stream directory ({error.strerror}); "
                f"expected {_TREE_SHAPE}"
            ) from error


class Scanned(Struct):
    """What lies in the tree."""

    found: list[Found]
    """Products with their versions, stream by stream."""
    findings: list[Finding]
    """What was left out, and why."""


def scan(mirror: Mirror) -> Scanned:
    """Return what lies in the streams of ``mirror``."""
    scanned = Scanned([], [])
    for stream in mirror.streams:
        walk = _Scan(mirror, stream)
        scanned.found += walk.products()
        scanned.findings += walk.findings
    return scanned


class _Scan:
    """One pass over a stream directory."""

    def __init__(self, mirror: Mirror, stream: str) -> None:
        self.findings: list[Finding] = []
        self._root = os.path.join(mirror.root, "")
        self._stream = stream
        self._bounds = mirror.bounds

    def products(self) -> Iterator[Found]:
        """Yield each product with its versions, oldest first, as the walk comes to it."""
        yield from self._products(self._stream, (), ())

    def _products(
        self, path: str, names: tuple[str, ...], dotfiles: tuple[str, ...]
    ) -> Iterator[Found]:
        """Descend from the stream (no names) to a product (OS, RELEASE, ARCH, VARIANT)."""
        directories, own = self._directories(path, holds_versions=len(names) == _PRODUCT_DEPTH)
        dotfiles = (*own, *dotfiles)
        if len(names) == _PRODUCT_DEPTH:
            os_name, release, arch, variant = names
            if directories and self._is_known_architecture(path, arch, len(directories)):
                versions = self._versions(path, directories)
                if versions and versions[-1].has_image_yaml:
                    dotfiles = (*dotfiles, f"{versions[-1].path}/{IMAGE_YAML_NAME}")
                product = ProductName(os_name, release, arch, variant)
                yield FoundProduct(self._stream, product, path, dotfiles), versions
            return
        for name in directories:
            child = f"{path}/{name}"
            if self._is_fit(name, child, forbidden=":"):
                yield from self._products(child, (*names, name), dotfiles)

    def _directories(self, path: str, *, holds_versions: bool) -> tuple[list[str], list[str]]:
        """Return the visible directories in ``path`` and its dotfiles, both sorted."""
        directories: list[str] = []
        own: list[str] = []
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        if name in _DOTFILES and not self._leads_out(entry, path):
                            own.append(f"{path}/{name}")
                    elif is_ignored_name(name) or self._leads_out(entry, path):
                        continue
                    elif _is_directory(entry):
                        directories.append(name)
                    elif not _is_file(entry) or (holds_versions and is_version_name(name)):
                        self._refuse_non_directory(f"{path}/{name}")
        except OSError as error:
            self._refuse_unreadable_directory(path, error)
        return sorted(directories), sorted(own)

    def _refuse_non_directory(self, path: str) -> None:
        self.findings.append(
            Finding(
                path,
                "no directory, or a symlink to none",
                "put a directory in its place, hide it with a dot, or remove it",
                versions_left_out=1,
            )
        )

    def _is_known_architecture(self, path: str, arch: str, versions: int) -> bool:
        if arch in ARCHITECTURES:
            return True
        self.findings.append(
            Finding(
                path,
                f"unknown architecture {arch!r}: no client would show its images",
                "name the directory as clients do (amd64, arm64, armhf, riscv64 …)",
                versions_left_out=versions,
            )
        )
        return False

    def _versions(self, directory: str, names: list[str]) -> list[FoundVersion]:
        versions: list[FoundVersion] = []
        for name in names:
            path = f"{directory}/{name}"
            if not is_version_name(name):
                self.findings.append(
                    Finding(
                        path,
                        "no version name: it does not start with a real date as YYYYMMDD",
                        "rename it, for instance to 20240505_05:24, or hide it with a dot",
                        versions_left_out=1,
                    )
                )
            elif self._is_fit(name, path):
                version = self._version(name, path)
                if version is not None:
                    versions.append(version)
        return versions

    def _version(self, name: str, path: str) -> FoundVersion | None:
        files: list[FoundFile] = []
        broken: list[str] = []
        has_image_yaml = False
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    role = classify(entry.name)
                    if role is None:
                        if entry.name == IMAGE_YAML_NAME and not self._leads_out(entry, path):
                            has_image_yaml = True
                        continue
                    stamp = self._stamp(entry, path)
                    if stamp is not None:
                        files.append(FoundFile(entry.name, role, stamp))
                    else:
                        broken.append(role.ftype)
        except FileNotFoundError:
            return None  # removed since its parent was listed: simply gone
        except OSError as error:
            self._refuse_unreadable_directory(path, error)
            return None
        files.sort(key=_by_name)
        return FoundVersion(name, path, tuple(files), tuple(sorted(broken)), has_image_yaml)

    def _stamp(self, entry: os.DirEntry[str], directory: str) -> Stamp | None:
        """Return the stamp of a regular file; None, with a finding, where it is none."""
        try:
            if not entry.is_symlink():
                status = entry.stat(follow_symlinks=False)
            elif self._leads_out(entry, directory):
                return None
            else:
                status = self._status_behind(entry)
        except OSError as error:
            if is_shortage(error):
                raise
            problem = f"cannot stat it ({error.strerror})"
            remedy = "repair or remove it"
        else:
            is_regular = stat.S_ISREG(status.st_mode)
            if is_regular and (status.st_size < HUGE_BYTES or not _is_sparse(status)):
                return stamp_of(status)
            if is_regular:
                problem = f"nearly all of its {status.st_size} bytes are holes, so it is no image"
                remedy = "remove it"
            else:
                problem = f"not a regular file but a {_kind_of_file(status.st_mode)}"
                remedy = "put the image file in its place, or remove it"
        self.findings.append(
            Finding(f"{directory}/{entry.name}", problem, remedy, files_left_out=1)
        )
        return None

    def _status_behind(self, entry: os.DirEntry[str]) -> os.stat_result:
        """Return the status of what a symlink leads to; not of what was put there meanwhile."""
        real = real_path(entry.path)
        if not real.startswith(self._bounds):
            raise LeadsOutError(entry.path)
        status = os.lstat(real)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), entry.path)
        return status

    def _leads_out(self, entry: os.DirEntry[str], directory: str) -> bool:
        """Return whether ``entry`` is a symlink that leads out of ROOT, with a finding if so."""
        if not entry.is_symlink():
            return False
        path = f"{directory}/{entry.name}"
        if is_inside(self._root + path, self._bounds):
            return False
        is_directory = _is_directory(entry)
        self.findings.append(
            Finding(
                path,
                "a symlink that leads out of the mirror",
                "copy or hard-link what it points to into the tree, or remove it",
                versions_left_out=int(is_directory),
                files_left_out=int(not is_directory),
            )
        )
        return True

    def _is_fit(self, name: str, path: str, forbidden: str = "") -> bool:
        unfit = find_forbidden_character(name) or next((c for c in forbidden if c in name), None)
        if unfit is None:
            return True
        what = f"the character {unfit!r}"
        if "\ud800" <= unfit <= "\udfff":
            what = "bytes that are no UTF-8"
        self.findings.append(
            Finding(
                path,
                f"the name has {what}, which can stand in no path or alias",
                "rename it",
                versions_left_out=1,
            )
        )
        return False

    def _refuse_unreadable_directory(self, path: str, error: OSError) -> None:
        if is_shortage(error):
            raise error
        self.findings.append(
            Finding(
                path,
                f"the directory cannot be listed ({error.strerror})",
                "give this user the right to list it, or mend the file system",
                versions_left_out=1,
            )
        )


def _by_name(file: FoundFile) -> str:
    return file.name


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink loop, or one into a directory that may not be searched
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # as above
        return False


def _is_sparse(status: os.stat_result) -> bool:
    """Return whether a huge file would take hours to read, and nobody any disk to make."""
    return status.st_blocks * 512 < status.st_size // 1024


def _kind_of_file(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISLNK(mode):
        return "symlink that was not one before"
    return "device"
