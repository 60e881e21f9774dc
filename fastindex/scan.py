"""Tree → found products, versions and files: names and stamps, no bytes read.

``STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILE``. Everything here may come from a
stranger's upload: symlinks are followed only while they stay inside, what is no
regular file is never opened, and a name that breaks a path, an alias or the JSON is
left out with a finding while the rest goes on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from fastindex.contract import (
    ARCHITECTURES,
    LXD_REQUIREMENTS_NAME,
    REQUIREMENTS_NAME,
    FileRole,
    classify,
    is_version_name,
    unfit_character,
)
from fastindex.errors import TreeError
from fastindex.model import Finding, FoundFile, FoundProduct, FoundStream, FoundVersion

_DOTFILES = (REQUIREMENTS_NAME, LXD_REQUIREMENTS_NAME)
_UPLOAD_SUFFIXES = (".part", ".partial", ".filepart", ".tmp", "~")
_FOREIGN_NAMES = frozenset(
    ("lost+found", "@eaDir", "#recycle", "#snapshot", "System Volume Information")
)
_TREE_SHAPE = "STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILES, for instance\n" + (
    "  images/debian/12/amd64/default/20240505_05:24/incus.tar.xz\n"
    "  images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
)


def require_stream(root: str, stream: str) -> None:
    """See that ``root/stream`` can be listed; raises TreeError where it cannot."""
    top = os.path.join(root, stream)
    try:
        with os.scandir(top):
            pass
    except OSError as error:
        raise TreeError(
            f"{top}: the stream directory cannot be listed ({error.strerror}); "
            f"looked for {_TREE_SHAPE}"
        ) from error


def scan_stream(root: str, stream: str) -> FoundStream:
    """Find the products of ``root/stream``.

    Args:
        root: the directory that is served.
        stream: the name of the stream directory in it.

    Returns:
        Products with at least one usable version name, by key, and all findings.

    Raises:
        TreeError: the stream directory is missing or cannot be listed.
    """
    require_stream(root, stream)
    walk = _Walk(root, stream)
    products = tuple(walk.products())
    return FoundStream(stream, products, tuple(walk.findings))


class _Walk:
    """One pass over a stream directory."""

    def __init__(self, root: str, stream: str) -> None:
        self.findings: list[Finding] = []
        self._root = os.path.join(root, "")
        self._stream = stream
        # The operator may have made the stream directory itself a symlink.
        bounds = (os.path.realpath(root), os.path.realpath(os.path.join(root, stream)))
        self._bounds = tuple(os.path.join(bound, "") for bound in bounds)

    def products(self) -> list[FoundProduct]:
        found = [
            product
            for os_name, os_path, dotfiles in self._levels(self._stream, ())
            for release, release_path, dotfiles in self._levels(os_path, dotfiles)
            for arch, arch_path, dotfiles in self._levels(release_path, dotfiles)
            for variant, path, dotfiles in self._levels(arch_path, dotfiles)
            if (product := self._product(os_name, release, arch, variant, path, dotfiles))
        ]
        return sorted(found, key=lambda product: product.key)

    def _levels(
        self, path: str, dotfiles: tuple[str, ...]
    ) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the fit directories in ``path``: name, path, dotfiles seen so far."""
        directories, dotfiles = self._directories(path, dotfiles)
        for name in directories:
            child = f"{path}/{name}"
            if self._is_fit(name, child, forbidden=":"):
                yield name, child, dotfiles

    def _directories(
        self, path: str, dotfiles: tuple[str, ...]
    ) -> tuple[list[str], tuple[str, ...]]:
        """Return the visible directories in ``path``, sorted, and ``path``'s dotfiles first."""
        directories: list[str] = []
        own: list[str] = []
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        if name in _DOTFILES and not self._leads_out(entry, path):
                            own.append(f"{path}/{name}")
                    elif (
                        entry.is_dir()
                        and not _is_passed_over(name)
                        and not self._leads_out(entry, path)
                    ):
                        directories.append(name)
        except OSError as error:
            self._unreadable_directory(path, error)
        return sorted(directories), (*sorted(own), *dotfiles)

    def _product(
        self,
        os_name: str,
        release: str,
        arch: str,
        variant: str,
        path: str,
        dotfiles: tuple[str, ...],
    ) -> FoundProduct | None:
        names, dotfiles = self._directories(path, dotfiles)
        if names and arch not in ARCHITECTURES:
            self.findings.append(
                Finding(
                    path,
                    f"unknown architecture {arch!r}: no client would show its images",
                    "name the directory as clients do (amd64, arm64, armhf, riscv64 …)",
                    versions_left_out=len(names),
                )
            )
            return None
        versions = tuple(
            version for name in names if (version := self._version(name, f"{path}/{name}"))
        )
        if not versions:
            return None
        return FoundProduct(os_name, release, arch, variant, path, versions, dotfiles)

    def _version(self, name: str, path: str) -> FoundVersion | None:
        if not is_version_name(name):
            self.findings.append(
                Finding(
                    path,
                    "no version name: it does not start with a real date as YYYYMMDD",
                    "rename the directory, for instance to 20240505_05:24, or hide it with a dot",
                    versions_left_out=1,
                )
            )
            return None
        if not self._is_fit(name, path):
            return None
        files: list[FoundFile] = []
        broken: list[str] = []
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    role = classify(entry.name)
                    if role is None:
                        continue
                    file = self._file(entry, role, path)
                    if file is not None:
                        files.append(file)
                    elif role.kind == "metadata":
                        broken.append(role.ftype)
        except FileNotFoundError:
            return None  # removed since its parent was listed: simply gone
        except OSError as error:
            self._unreadable_directory(path, error)
            return None
        files.sort(key=_by_name)
        return FoundVersion(name, path, tuple(files), tuple(broken))

    def _file(self, entry: os.DirEntry[str], role: FileRole, directory: str) -> FoundFile | None:
        name = entry.name
        try:
            if self._leads_out(entry, directory):
                return None
            status = entry.stat()
        except OSError as error:
            self._left_out_file(
                f"{directory}/{name}",
                f"cannot be looked at ({error.strerror})",
                "mend or remove it",
            )
            return None
        if not stat.S_ISREG(status.st_mode):
            self._left_out_file(
                f"{directory}/{name}",
                f"not a regular file but a {_kind_of_file(status.st_mode)}",
                "put the image file in its place, or remove it",
            )
            return None
        return FoundFile(
            name, role, status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino
        )

    def _leads_out(self, entry: os.DirEntry[str], directory: str) -> bool:
        """Return whether ``entry`` is a symlink that leads out of ROOT, with a finding if so."""
        if not entry.is_symlink():
            return False
        path = f"{directory}/{entry.name}"
        target = os.path.realpath(self._root + path)
        if os.path.join(target, "").startswith(self._bounds):
            return False
        is_directory = entry.is_dir()
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
        unfit = unfit_character(name) or next((c for c in forbidden if c in name), None)
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

    def _unreadable_directory(self, path: str, error: OSError) -> None:
        self.findings.append(
            Finding(
                path,
                f"the directory cannot be listed ({error.strerror})",
                "give this user the right to list it, or mend the file system",
                versions_left_out=1,
            )
        )

    def _left_out_file(self, path: str, problem: str, remedy: str) -> None:
        self.findings.append(Finding(path, problem, remedy, files_left_out=1))


def _by_name(file: FoundFile) -> str:
    return file.name


def _is_passed_over(name: str) -> bool:
    """Return whether a directory is no one's product: an uploader's or a file system's."""
    return name.endswith(_UPLOAD_SUFFIXES) or name in _FOREIGN_NAMES


def _kind_of_file(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"
