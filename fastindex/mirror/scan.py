"""Tree → products, versions and files: their names and stamps, without reading a byte.

``STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILE``. All of it may come from an uploader whom
nobody trusts. Symlinks are followed only inside the mirror, only regular files count, and a
name that does not fit into a path, an alias or JSON leaves its directory out, with a finding.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from fastindex.errors import Code, TreeError, is_shortage
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
"""No image has this size, but anybody can make a sparse file that has. From here on a file
counts only if most of it takes space on the disk."""

_DOTFILES = (REQUIREMENTS_NAME, LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME)
_PRODUCT_DEPTH = 4
_TREE_SHAPE = "STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILES, such as\n" + (
    "  images/debian/12/amd64/default/20240505_05:24/incus.tar.xz\n"
    "  images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
)


def require_streams(mirror: Mirror) -> None:
    """Check that each stream directory of ``mirror`` can be listed.

    Raises:
        TreeError: one cannot, or ROOT is missing.
    """
    for stream in mirror.streams:
        top = os.path.join(mirror.root, stream)
        try:
            with os.scandir(top):
                pass
        except PermissionError as error:
            raise TreeError(
                f"{top}: {error.strerror}; give this user the right to read it"
            ) from error
        except OSError as error:
            mirror.require_root()
            raise TreeError(
                f"{top}: cannot list the stream directory ({error.strerror}); "
                f"expected {_TREE_SHAPE}"
            ) from error


class Scanned(Struct):
    """What is in the tree."""

    found: list[Found]
    """Products with their versions, stream by stream."""
    findings: list[Finding]
    """What was left out, and why."""


def scan(mirror: Mirror) -> Scanned:
    """Return what is in the streams of ``mirror``.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    scanned = Scanned([], [])
    for stream in mirror.streams:
        walk = _Walk(mirror, stream)
        scanned.found += walk.find_products()
        scanned.findings += walk.findings
    return scanned


class _Walk:
    """One walk through a stream directory."""

    def __init__(self, mirror: Mirror, stream: str) -> None:
        self.findings: list[Finding] = []
        self._root = os.path.join(mirror.root, "")
        self._stream = stream
        self._bounds = mirror.bounds

    def find_products(self) -> Iterator[Found]:
        """Yield each product with its versions, oldest first."""
        yield from self._find_products(self._stream, (), ())

    def _find_products(
        self, path: str, names: tuple[str, ...], dotfiles: tuple[str, ...]
    ) -> Iterator[Found]:
        """Descend from the stream (no names) to a product (OS, RELEASE, ARCH, VARIANT)."""
        directories, own = self._list(path, is_product=len(names) == _PRODUCT_DEPTH)
        dotfiles = (*own, *dotfiles)
        if len(names) == _PRODUCT_DEPTH:
            os_name, release, arch, variant = names
            if directories and self._is_known_architecture(path, arch, len(directories)):
                versions = self._find_versions(path, directories)
                if versions and versions[-1].has_image_yaml:
                    dotfiles = (*dotfiles, f"{versions[-1].path}/{IMAGE_YAML_NAME}")
                product = ProductName(os_name, release, arch, variant)
                yield FoundProduct(self._stream, product, path, dotfiles), versions
            return
        for name in directories:
            child = f"{path}/{name}"
            if self._is_fit(name, child, forbidden=":"):
                yield from self._find_products(child, (*names, name), dotfiles)

    def _list(self, path: str, *, is_product: bool) -> tuple[list[str], list[str]]:
        """Return the visible directories in ``path`` and its settings files, both sorted."""
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
                    elif not _is_file(entry) or (is_product and is_version_name(name)):
                        self._refuse_non_directory(f"{path}/{name}")
        except OSError as error:
            self._refuse_unreadable_directory(path, error)
        return sorted(directories), sorted(own)

    def _refuse_non_directory(self, path: str) -> None:
        self.findings.append(
            Finding(
                Code.NOT_A_DIRECTORY,
                path,
                "is not a directory",
                "replace it with a directory, hide it with a leading dot, or remove it",
                versions_left_out=1,
            )
        )

    def _is_known_architecture(self, path: str, arch: str, versions: int) -> bool:
        if arch in ARCHITECTURES:
            return True
        self.findings.append(
            Finding(
                Code.UNKNOWN_ARCHITECTURE,
                path,
                f"unknown architecture {arch!r}: clients would not show its images",
                "rename the directory to a name that clients know (amd64, arm64, armhf, riscv64 …)",
                versions_left_out=versions,
            )
        )
        return False

    def _find_versions(self, directory: str, names: list[str]) -> list[FoundVersion]:
        versions: list[FoundVersion] = []
        for name in names:
            path = f"{directory}/{name}"
            if not is_version_name(name):
                self.findings.append(
                    Finding(
                        Code.BAD_NAME,
                        path,
                        "not a version name: it must start with a valid date (YYYYMMDD)",
                        "rename it, for example to 20240505_05:24, or hide it with a leading dot",
                        versions_left_out=1,
                    )
                )
            elif self._is_fit(name, path):
                version = self._find_version(name, path)
                if version is not None:
                    versions.append(version)
        return versions

    def _find_version(self, name: str, path: str) -> FoundVersion | None:
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
                    stamp = self._find_stamp(entry, path)
                    if stamp is not None:
                        files.append(FoundFile(entry.name, role, stamp))
                    else:
                        broken.append(role.ftype)
        except FileNotFoundError:
            return None  # removed since its parent was listed
        except OSError as error:
            self._refuse_unreadable_directory(path, error)
            return None
        files.sort(key=_by_name)
        return FoundVersion(name, path, tuple(files), tuple(sorted(broken)), has_image_yaml)

    def _find_stamp(self, entry: os.DirEntry[str], directory: str) -> Stamp | None:
        """Return the stamp of a regular file; None, with a finding, if it cannot be used."""
        try:
            if not entry.is_symlink():
                status = entry.stat(follow_symlinks=False)
            elif self._leads_out(entry, directory):
                return None
            else:
                status = self._stat_target(entry)
        except OSError as error:
            if is_shortage(error):
                raise
            code = Code.UNREADABLE
            problem = f"cannot stat it ({error.strerror})"
            remedy = "fix it or remove it"
        else:
            is_regular = stat.S_ISREG(status.st_mode)
            if is_regular and (status.st_size < HUGE_BYTES or not _is_sparse(status)):
                return stamp_of(status)
            if is_regular:
                code = Code.SPARSE_FILE
                problem = f"not an image: nearly all of its {status.st_size} bytes are holes"
                remedy = "remove it"
            else:
                code = Code.NOT_A_FILE
                problem = f"is a {_describe_kind(status.st_mode)}, not a regular file"
                remedy = "replace it with the image file, or remove it"
        self.findings.append(
            Finding(code, f"{directory}/{entry.name}", problem, remedy, files_left_out=1)
        )
        return None

    def _stat_target(self, entry: os.DirEntry[str]) -> os.stat_result:
        """Return the status of what a symlink leads to.

        Raises:
            OSError: it leads nowhere, or out of the mirror, or to what is a symlink by now.
        """
        real = real_path(entry.path)
        if not real.startswith(self._bounds):
            raise LeadsOutError(entry.path)
        status = os.lstat(real)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), entry.path)
        return status

    def _leads_out(self, entry: os.DirEntry[str], directory: str) -> bool:
        """Return whether ``entry`` is a symlink out of the mirror; add a finding if so."""
        if not entry.is_symlink():
            return False
        path = f"{directory}/{entry.name}"
        if is_inside(self._root + path, self._bounds):
            return False
        is_directory = _is_directory(entry)
        self.findings.append(
            Finding(
                Code.LINK_LEADS_OUT,
                path,
                "a symlink that leads out of the mirror",
                "replace it with a copy or hard link of its target, or remove it",
                versions_left_out=int(is_directory),
                files_left_out=int(not is_directory),
            )
        )
        return True

    def _is_fit(self, name: str, path: str, forbidden: str = "") -> bool:
        unfit = find_forbidden_character(name) or next((c for c in forbidden if c in name), None)
        if unfit is None:
            return True
        problem = f"the name contains {unfit!r}, which is not allowed in paths and aliases"
        if "\ud800" <= unfit <= "\udfff":
            problem = "the name is not valid UTF-8"
        self.findings.append(
            Finding(
                Code.BAD_NAME,
                path,
                problem,
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
                Code.UNREADABLE,
                path,
                f"the directory cannot be listed ({error.strerror})",
                "give this user read permission, or repair the file system",
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
    """Return whether less than a thousandth of a file takes space on the disk."""
    return status.st_blocks * 512 < status.st_size // 1024


def _describe_kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISLNK(mode):
        return "symlink by now"
    return "device"
