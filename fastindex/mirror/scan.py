"""Tree → products, versions and files: their names and stamps, without reading a byte.

``STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/FILE``. All of it may come from an uploader whom
nobody trusts. A symlink is followed only within the directory of its product, or to where the
operator allows it; only regular files count; and a name that does not fit into a path, an alias or
JSON leaves its directory out, with a finding.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct

from fastindex.errors import Code, TreeError, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import (
    ARCHITECTURES,
    PRODUCT_DEPTH,
    ProductName,
    classify,
    find_forbidden_character,
    is_flat_name,
    is_ignored_name,
    is_version_name,
    looks_like_image_file,
)
from fastindex.formats.simplestreams import (
    CHECKSUMS_NAME,
    IMAGE_YAML_NAME,
    LXD_REQUIREMENTS_NAME,
    PRODUCT_TOML_NAME,
    REQUIREMENTS_NAME,
)
from fastindex.mirror.levels import (
    TREE_LEVELS,
    TREE_SHAPE,
    describe_missing_levels,
    explain_missing_stream,
    find_version,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import Found, FoundFile, FoundProduct, FoundVersion
from fastindex.system.directories import MAX_LINKS, real_path
from fastindex.system.stamps import Stamp, stamp_of

SPARSE_BYTES = 64 << 20
"""Anybody can make a huge file of holes, which takes as long to read as one with data. From this
size on, a file counts only if at least a ``MIN_DENSITY``-th of it takes space on the disk."""
MIN_DENSITY = 64

_DOTFILES = (REQUIREMENTS_NAME, LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME)
_MAX_NAMES_LOOKED_INTO = 16
_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_USABLE_BY_OTHERS = stat.S_IXGRP | stat.S_IXOTH
_NO_PROBLEM = (Code.NOT_A_FILE, "", "")


def require_streams(mirror: Mirror) -> None:
    """Check that each stream directory of ``mirror`` can be listed.

    Raises:
        TreeError: one cannot, or ROOT is missing.
        OSError: the system is out of descriptors or memory.
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
            if is_shortage(error):
                raise
            mirror.require_root()
            problem, remedy = explain_missing_stream(mirror.root, stream)
            if problem:
                raise TreeError(f"{mirror.root}: {problem}; {remedy}") from error
            hint = f"expected {TREE_SHAPE}"
            if version := find_version(mirror.root):
                hint = f"there are versions in {version[0]}/, which --stream {version[0]} names"
            raise TreeError(
                f"{top}: cannot list the stream directory ({error.strerror}); {hint}"
            ) from error


def refuse_flat_trees(mirror: Mirror) -> None:
    """Check that no stream of ``mirror`` is a flat tree, which cannot become one of fastindex.

    Raises:
        TreeError: one is.
    """
    for stream in mirror.streams:
        path = mirror.path(stream)
        absent = suppress(FileNotFoundError, NotADirectoryError, PermissionError)
        with absent, os.scandir(path) as entries:
            if any(is_flat_name(entry.name) for entry in entries):
                raise TreeError(f"{path}: {'; '.join(_describe_flat_tree(path))}")


def _describe_flat_tree(path: str) -> tuple[str, str]:
    """Return, for people, what the directory of a flat tree is, and what to do."""
    return (
        "the flat tree of incus-simplestreams: files named after digests, in no directories",
        "import into another root, also what is here: "
        f"fastindex import --copy {path} NEW_ROOT, then fastindex NEW_ROOT",
    )


def split_streams(mirror: Mirror) -> tuple[Mirror, list[Finding]]:
    """Leave out streams that cannot be listed, as if their disks were not mounted.

    Returns:
        The mirror with the other streams, and a finding for each that is left out.

    Raises:
        TreeError: none can be listed, or ROOT is missing.
        OSError: the system is out of descriptors or memory.
    """
    usable: list[str] = []
    findings: list[Finding] = []
    errors: list[TreeError] = []
    for stream in mirror.streams:
        try:
            require_streams(mirror.with_streams((stream,)))
            usable.append(stream)
        except TreeError as error:
            errors.append(error)
            problem = "the stream directory cannot be listed; what was published of it stays"
            remedy = "mount its disk, or leave out its --stream"
            findings.append(
                Finding(Code.STREAM_REFUSED, stream, problem, remedy, versions_left_out=1)
            )
    if not usable:
        raise errors[0]
    return (mirror.with_streams(usable) if findings else mirror), findings


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
        self._allowed = mirror.allowed_links
        self._product_bound: str | None = None

    def find_products(self) -> Iterator[Found]:
        """Yield each product with its versions, oldest first."""
        yield from self._find_products(self._stream, (), ())

    def _find_products(
        self, path: str, names: tuple[str, ...], dotfiles: tuple[str, ...]
    ) -> Iterator[Found]:
        """Descend from the stream (no names) to a product (OS, RELEASE, ARCH, VARIANT)."""
        self._product_bound = None
        directories, own = self._list(path, names)
        dotfiles = (*own, *dotfiles)
        if len(names) == PRODUCT_DEPTH:
            os_name, release, arch, variant = names
            if self._is_known_architecture(path, arch, len(directories)):
                versions = self._find_versions(path, directories)
                product = ProductName(os_name, release, arch, variant)
                yield FoundProduct(self._stream, product, path, dotfiles), versions
            return
        for name in directories:
            child = f"{path}/{name}"
            if ":" in name and is_version_name(name):
                self._refuse_misplaced(child, (*names, name))
            elif self._is_fit(name, child, forbidden=":"):
                yield from self._find_products(child, (*names, name), dotfiles)

    def _list(self, path: str, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Return the visible directories in ``path`` and its settings files, both sorted."""
        directories: list[str] = []
        own: list[str] = []
        has_image_files = is_flat = False
        is_product = len(names) == PRODUCT_DEPTH
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        if name in _DOTFILES and (
                            not entry.is_symlink() or self._may_follow(entry, path, names)
                        ):
                            own.append(f"{path}/{name}")
                    elif is_ignored_name(name) or (
                        entry.is_symlink() and not self._may_follow(entry, path, names)
                    ):
                        continue
                    elif _is_directory(entry):
                        directories.append(name)
                        if not entry.stat().st_mode & _USABLE_BY_OTHERS:
                            self._warn_unservable(f"{path}/{name}", "a+rx")
                    elif not _is_file(entry) or (is_product and is_version_name(name)):
                        self._refuse_non_directory(entry, f"{path}/{name}")
                    elif looks_like_image_file(name):
                        has_image_files = True
                        is_flat = is_flat or (not names and is_flat_name(name))
        except OSError as error:
            self._refuse_unreadable_directory(path, error)
        if is_flat:
            problem, remedy = _describe_flat_tree(self._root + path)
            self.findings.append(
                Finding(Code.FOREIGN_TREE, path, problem, remedy, versions_left_out=1)
            )
        elif has_image_files:
            self._refuse_misplaced(path, names)
        return sorted(directories), sorted(own)

    def _refuse_misplaced(self, path: str, names: tuple[str, ...]) -> None:
        """Say that ``path``, a directory above the versions, has image files in it."""
        self.findings.append(
            Finding(
                Code.MISPLACED_FILE,
                path,
                f"has image files, but {describe_missing_levels(names)}",
                f"move them to {TREE_LEVELS}",
                versions_left_out=1,
            )
        )

    def _refuse_non_directory(self, entry: os.DirEntry[str], path: str) -> None:
        problem = "is not a directory"
        remedy = "replace it with a directory, hide it with a leading dot, or remove it"
        if entry.is_symlink():
            problem = "a symlink that leads to no directory"
            remedy = "mount the disk that it leads to, or remove it"
        self.findings.append(
            Finding(Code.NOT_A_DIRECTORY, path, problem, remedy, versions_left_out=1)
        )

    def _is_known_architecture(self, path: str, arch: str, versions: int) -> bool:
        if arch in ARCHITECTURES:
            return True
        if versions:
            problem = f"unknown architecture {arch!r}: clients would not show its images"
            remedy = "rename the directory to a name that clients know (amd64, arm64, armhf …)"
            self.findings.append(
                Finding(
                    Code.UNKNOWN_ARCHITECTURE, path, problem, remedy, versions_left_out=versions
                )
            )
        return False

    def _find_versions(self, directory: str, names: list[str]) -> list[FoundVersion]:
        versions: list[FoundVersion] = []
        for name in names:
            path = f"{directory}/{name}"
            if not is_version_name(name):
                if self._has_versions_below(path):
                    continue
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

    def _has_versions_below(self, path: str) -> bool:
        """Return whether a directory that is no version has versions; say so."""
        with suppress(OSError), os.scandir(self._root + path) as entries:
            names = [entry.name for entry in entries if is_version_name(entry.name)]
            if names:
                problem = (
                    f"not a version name, but has versions in it ({min(names)}): a level too many"
                )
                remedy = f"move them to {os.path.dirname(path)}, and remove it"
                self.findings.append(
                    Finding(
                        Code.MISPLACED_FILE, path, problem, remedy, versions_left_out=len(names)
                    )
                )
                return True
        return False

    def _find_version(self, name: str, path: str) -> FoundVersion | None:
        files: list[FoundFile] = []
        broken: list[str] = []
        image_yaml: Stamp | None = None
        checksums: Stamp | None = None
        others: list[str] = []
        try:
            with os.scandir(self._root + path) as entries:
                for entry in entries:
                    role = classify(entry.name)
                    if role is None:
                        if entry.name == IMAGE_YAML_NAME:
                            if self._may_follow_in_product(entry, path):
                                image_yaml = _find_stamp_of_settings(entry)
                        elif entry.name == CHECKSUMS_NAME:
                            checksums = self._find_checksums(entry, path)
                        elif entry.name[0] != ".":
                            others.append(entry.name)
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
        if not files and not broken and self._has_images_below(path, others):
            return None
        files.sort(key=_by_name)
        return FoundVersion(name, path, tuple(files), tuple(sorted(broken)), image_yaml, checksums)

    def _find_checksums(self, entry: os.DirEntry[str], directory: str) -> Stamp | None:
        """Return the stamp of a ``SHA256SUMS``; None, with a finding, if it cannot be used."""
        if not self._may_follow_in_product(entry, directory):
            return None
        try:
            status = entry.stat()
            if stat.S_ISREG(status.st_mode):
                return stamp_of(status)
            reason: str | None = "not a regular file"
        except OSError as error:
            if is_shortage(error):
                raise
            reason = error.strerror
        problem = f"cannot be used ({reason}); nothing is checked against it"
        self.findings.append(
            Finding(Code.BAD_CHECKSUMS, f"{directory}/{entry.name}", problem, "repair or remove it")
        )
        return None

    def _has_images_below(self, path: str, names: list[str]) -> bool:
        """Return whether a version without files has a directory with image files; say so."""
        for name in sorted(names)[:_MAX_NAMES_LOOKED_INTO]:
            with suppress(OSError), os.scandir(f"{self._root}{path}/{name}") as entries:
                if any(looks_like_image_file(entry.name) for entry in entries):
                    problem = (
                        f"has no image files, but its directory {name} has: one level too deep"
                    )
                    remedy = f"move them to {TREE_LEVELS}"
                    self.findings.append(
                        Finding(Code.MISPLACED_FILE, path, problem, remedy, versions_left_out=1)
                    )
                    return True
        return False

    def _find_stamp(self, entry: os.DirEntry[str], directory: str) -> Stamp | None:
        """Return the stamp of a regular file; None, with a finding, if it cannot be used."""
        try:
            if not entry.is_symlink():
                status = entry.stat(follow_symlinks=False)
            else:
                target = self._find_target(entry.path)
                if target is None:
                    self._refuse_link(f"{directory}/{entry.name}", is_directory=False)
                    return None
                status = _stat_real(target)
        except OSError as error:
            if is_shortage(error):
                raise
            code = Code.UNREADABLE
            problem = f"cannot stat it ({error.strerror})"
            remedy = "fix it or remove it"
        else:
            code, problem, remedy = _find_problem(status)
            if not problem:
                if not status.st_mode & _READABLE_BY_OTHERS:
                    self._warn_unservable(f"{directory}/{entry.name}", "a+r")
                return stamp_of(status)
        self.findings.append(
            Finding(code, f"{directory}/{entry.name}", problem, remedy, files_left_out=1)
        )
        return None

    def _warn_unservable(self, path: str, mode: str) -> None:
        problem = "only its owner can read it, so the web server may be unable to serve it"
        self.findings.append(Finding(Code.NOT_SERVABLE, path, problem, f"run chmod {mode} on it"))

    def _may_follow(self, entry: os.DirEntry[str], directory: str, names: tuple[str, ...]) -> bool:
        """Return whether a symlink in a directory above the versions leads to a good place."""
        if len(names) == PRODUCT_DEPTH:
            return self._may_follow_in_product(entry, directory)
        target = real_path(entry.path)
        if target and os.path.join(target, "").startswith(self._allowed):
            return True
        # Settings may share a file, as .lxd_requirements → .requirements.
        if entry.name in _DOTFILES and target.rpartition("/")[0] == real_path(
            self._root + directory
        ):
            return True
        self._refuse_link(f"{directory}/{entry.name}", is_directory=_is_directory(entry))
        return False

    def _may_follow_in_product(self, entry: os.DirEntry[str], directory: str) -> bool:
        """Return whether ``entry``, in a product's directory or below it, leads to a good place."""
        if not entry.is_symlink() or self._find_target(entry.path) is not None:
            return True
        self._refuse_link(f"{directory}/{entry.name}", is_directory=_is_directory(entry))
        return False

    def _find_target(self, path: str) -> str | None:
        """Return the real path that the symlink at ``path``, in a product, leads to.

        None if it leads out of the product and is not allowed to, or takes too many steps.
        """
        if self._product_bound is None:
            product = os.sep.join(path[len(self._root) :].split(os.sep)[: PRODUCT_DEPTH + 1])
            self._product_bound = os.path.join(real_path(self._root + product), "")
        target = real_path(path)
        may_follow = bool(target) and os.path.join(target, "").startswith(
            (self._product_bound, *self._allowed)
        )
        return target if may_follow else None

    def _refuse_link(self, path: str, *, is_directory: bool) -> None:
        if real_path(self._root + path):
            problem = "a symlink that leads out of its product's directory"
            remedy = (
                "replace it with a copy or hard link of its target, or allow where it leads with "
                "--allow-links DIR"
            )
        else:
            problem = f"a symlink that leads in a circle, or over more than {MAX_LINKS} others"
            remedy = "replace it with a copy or hard link of its target, or remove it"
        self.findings.append(
            Finding(
                Code.LINK_LEADS_OUT,
                path,
                problem,
                remedy,
                versions_left_out=int(is_directory),
                files_left_out=int(not is_directory),
            )
        )

    def _is_fit(self, name: str, path: str, forbidden: str = "") -> bool:
        unfit = find_forbidden_character(name)
        if unfit is None and forbidden and forbidden in name:
            unfit = forbidden
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


def _find_stamp_of_settings(entry: os.DirEntry[str]) -> Stamp:
    """Return the stamp of a settings file; of one that cannot be used, reading it says why."""
    try:
        return stamp_of(entry.stat())
    except OSError as error:
        if is_shortage(error):
            raise
        return stamp_of(entry.stat(follow_symlinks=False))


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


def _stat_real(path: str) -> os.stat_result:
    """Return the status of a real path.

    Raises:
        OSError: nothing is there, or what is there has become a symlink.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return status


def _find_problem(status: os.stat_result) -> tuple[Code, str, str]:
    """Return the code, the problem and the remedy of a file that cannot be an image's.

    The problem is empty if it can be one.
    """
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        problem = f"is a {_describe_kind(status.st_mode)}, not a regular file"
        return Code.NOT_A_FILE, problem, "replace it with the image file, or remove it"
    if not size:
        return Code.EMPTY_FILE, "is empty", "upload it again, or remove it"
    if size >= SPARSE_BYTES and status.st_blocks * 512 * MIN_DENSITY < size:
        problem = f"not an image: nearly all of its {size:,} bytes are holes"
        return Code.SPARSE_FILE, problem, "remove it"
    return _NO_PROBLEM


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
