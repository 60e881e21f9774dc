"""From the records of a product's directory to its versions and findings."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import classify, is_version_name, looks_like_image_file
from fastindex.formats.simplestreams import CHECKSUMS_NAME, IMAGE_YAML_NAME
from fastindex.mirror.levels import TREE_LEVELS
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scanning.levels import (
    LevelReader,
    Place,
    refuse_unfit,
    refuse_unreadable,
)
from fastindex.mirror.scanning.links import (
    Links,
    is_unservable,
    stat_real,
    warn_unservable,
    warn_unservable_directory,
)
from fastindex.mirror.tree import FoundFile, FoundVersion
from fastindex.system import listing
from fastindex.system.listing import Records, Row
from fastindex.system.stamps import Stamp, stamp_of

_MAX_NAMES_LOOKED_INTO = 16
_KIND_WORDS = {
    listing.DIRECTORY: "directory",
    ord("p"): "FIFO",
    ord("s"): "socket",
}

VersionLister = Callable[[bytes], Records]
"""Lists a version directory that is a symlink, given its absolute path."""


class ReadProduct(Struct):
    """What is in a product's directory."""

    settings: tuple[str, ...]
    """Paths of its own settings files, sorted."""
    versions: list[FoundVersion]
    """Oldest first."""
    findings: list[Finding]
    """From its directory down."""
    is_plain: bool
    """Whether all of that follows from the records, and nothing needs telling again."""


class ProductReader:
    """Makes versions of records.

    Args:
        mirror: the mirror.
        links: says where symlinks may lead.
        levels: reads the product's own directory, as those above it.
        list_version: lists a version that is a symlink.
    """

    def __init__(
        self, mirror: Mirror, links: Links, levels: LevelReader, list_version: VersionLister
    ) -> None:
        self._mirror = mirror
        self._links = links
        self._levels = levels
        self._list_version = list_version

    def read(self, place: Place, records: Records) -> ReadProduct:
        """Return what is in the product at ``place``.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        return _Reading(self._mirror, self._links, self._levels, self._list_version, place).read(
            records
        )


class _Reading:
    """The reading of one product; as ``ProductReader``."""

    def __init__(
        self,
        mirror: Mirror,
        links: Links,
        levels: LevelReader,
        list_version: VersionLister,
        place: Place,
    ) -> None:
        self._mirror = mirror
        self._links = links
        self._levels = levels
        self._list_version = list_version
        self._place = place
        self._findings: list[Finding] = []
        self._is_plain = True

    def read(self, records: Records) -> ReadProduct:
        """Return what is in the product."""
        rows = list(listing.unpack(records))
        path = self._place.path
        contents = self._levels.read_contents(path, self._place.names, rows)
        self._findings += contents.findings
        blocks = _split(rows)
        versions: list[FoundVersion] = []
        for name in contents.directories:
            directory = f"{path}/{name}"
            if is_unservable(self._mirror, directory):
                self._findings.append(warn_unservable_directory(directory))
            if not is_version_name(name):
                if not self._has_versions_below(directory):
                    self._findings.append(_refuse_version_name(directory))
            elif finding := refuse_unfit(name, directory):
                self._findings.append(finding)
            else:
                if name in contents.links:
                    version_rows = self._list_link(directory)
                else:
                    version_rows = blocks[name]
                version = self._read_version(name, directory, version_rows)
                if version is not None:
                    versions.append(version)
        is_plain = self._is_plain and not self._findings and not records[-1]
        return ReadProduct(tuple(contents.settings), versions, self._findings, is_plain)

    def _list_link(self, path: str) -> Sequence[Row]:
        self._is_plain = False
        records = self._list_version(os.fsencode(self._mirror.path(path)))
        return list(listing.unpack(records))

    def _has_versions_below(self, path: str) -> bool:
        """Return whether a directory that is no version has versions; say so."""
        with suppress(OSError), os.scandir(self._mirror.path(path)) as entries:
            names = [entry.name for entry in entries if is_version_name(entry.name)]
            if names:
                problem = (
                    f"not a version name, but has versions in it ({min(names)}): a level too many"
                )
                remedy = f"move them to {os.path.dirname(path)}, and remove it"
                self._findings.append(
                    Finding(
                        Code.MISPLACED_FILE, path, problem, remedy, versions_left_out=len(names)
                    )
                )
                return True
        return False

    def _read_version(self, name: str, path: str, rows: Sequence[Row]) -> FoundVersion | None:
        """Return a version; None if there is none.

        Args:
            name: that of its directory.
            path: relative to ROOT.
            rows: of the directory itself, and of the entries in it.
        """
        files: list[FoundFile] = []
        broken: list[str] = []
        image_yaml: Stamp | None = None
        checksums: Stamp | None = None
        others: list[str] = []
        error_number = rows[0][0][2]
        if error_number:
            error = OSError(error_number, "")
            if not isinstance(error, FileNotFoundError):  # removed since its name was read
                self._findings.append(refuse_unreadable(path, error_number))
            self._is_plain = False
            return None
        for row in rows[1:]:
            (kind, marks, size_bytes, _, _), _, file_name = row
            role = classify(file_name)
            if role is None:
                if file_name == IMAGE_YAML_NAME:
                    image_yaml = self._find_image_yaml(path, row)
                elif file_name == CHECKSUMS_NAME:
                    checksums = self._find_checksums(path, row)
                else:
                    others.append(file_name)
                    self._is_plain &= kind != listing.DIRECTORY
            elif kind == listing.FILE and marks == listing.IS_READABLE and size_bytes:
                files.append(FoundFile(file_name, role, listing.make_stamp(row)))
            elif odd_stamp := self._find_stamp(path, row):
                files.append(FoundFile(file_name, role, odd_stamp))
            else:
                broken.append(role.ftype)
        if not files and not broken and self._has_images_below(path, others):
            return None
        return FoundVersion(name, path, tuple(files), tuple(sorted(broken)), image_yaml, checksums)

    def _find_stamp(self, directory: str, row: Row) -> Stamp | None:
        """Return the stamp of a regular file; None, with a finding, if it cannot be used."""
        (kind, marks, number, _, _), _, name = row
        path = f"{directory}/{name}"
        stamp = listing.make_stamp(row)
        error_number = number if marks & listing.HAS_FAILED else 0
        if kind == listing.LINK:
            target = self._links.find_target(path)
            if target is None:
                self._findings.append(self._links.refuse(path, is_file=True))
                return None
            try:
                status = stat_real(target)
            except OSError as error:
                if is_shortage(error):
                    raise
                error_number = error.errno or 0
            else:
                kind, marks = listing.find_kind_and_marks(status)
                stamp = stamp_of(status)
        finding = _find_problem(path, kind, marks, stamp.size_bytes, error_number)
        if finding is None:
            return stamp
        self._findings.append(finding)
        return stamp if finding.code is Code.NOT_SERVABLE else None

    def _find_image_yaml(self, directory: str, row: Row) -> Stamp | None:
        """Return the stamp of a file of settings; of one that is odd, reading it says why."""
        (kind, marks, *_), _, name = row
        if kind == listing.FILE and not marks & listing.HAS_FAILED:
            return listing.make_stamp(row)
        self._is_plain = False
        path = f"{directory}/{name}"
        if kind == listing.LINK and self._links.find_target(path) is None:
            self._findings.append(self._links.refuse(path))
            return None
        for follow in (True, False):
            try:
                return stamp_of(os.stat(self._mirror.path(path), follow_symlinks=follow))
            except OSError as error:
                if is_shortage(error):
                    raise
        return None  # removed since its name was read

    def _find_checksums(self, directory: str, row: Row) -> Stamp | None:
        """Return the stamp of a ``SHA256SUMS``; None, with a finding, if it cannot be used."""
        (kind, marks, number, _, _), _, name = row
        path = f"{directory}/{name}"
        reason = "not a regular file"
        if kind == listing.LINK:
            if self._links.find_target(path) is None:
                self._findings.append(self._links.refuse(path))
                return None
            try:
                status = os.stat(self._mirror.path(path))
                if stat.S_ISREG(status.st_mode):
                    return stamp_of(status)
            except OSError as error:
                if is_shortage(error):
                    raise
                reason = os.strerror(error.errno or 0)
        elif marks & listing.HAS_FAILED:
            reason = os.strerror(number)
        elif kind == listing.FILE:
            return listing.make_stamp(row)
        problem = f"cannot be used ({reason}); nothing is checked against it"
        self._findings.append(Finding(Code.BAD_CHECKSUMS, path, problem, "repair or remove it"))
        return None

    def _has_images_below(self, path: str, names: list[str]) -> bool:
        """Return whether a version without files has a directory with image files; say so."""
        for name in sorted(names)[:_MAX_NAMES_LOOKED_INTO]:
            with suppress(OSError), os.scandir(self._mirror.path(f"{path}/{name}")) as entries:
                if any(looks_like_image_file(entry.name) for entry in entries):
                    problem = (
                        f"has no image files, but its directory {name} has: one level too deep"
                    )
                    remedy = f"move them to {TREE_LEVELS}"
                    self._findings.append(
                        Finding(Code.MISPLACED_FILE, path, problem, remedy, versions_left_out=1)
                    )
                    return True
        return False


def _split(rows: list[Row]) -> dict[str, Sequence[Row]]:
    """Return the rows of each directory in a product, by its name."""
    count = rows[0][0][3]
    names = [
        name
        for (kind, *_), _, name in rows[1 : 1 + count]
        if kind == listing.DIRECTORY and name[0] != "."
    ]
    blocks: dict[str, Sequence[Row]] = {}
    start = 1 + count
    for name in names:
        end = start + 1 + rows[start][0][3]
        blocks[name] = rows[start:end]
        start = end
    return blocks


def _find_problem(
    path: str, kind: int, marks: int, size_bytes: int, error_number: int
) -> Finding | None:
    """Return what is wrong with a file that has a role, if anything."""
    if error_number:
        problem = f"cannot stat it ({os.strerror(error_number)})"
        code, remedy = Code.UNREADABLE, "fix it or remove it"
    elif kind != listing.FILE:
        problem = f"is a {_describe_kind(kind)}, not a regular file"
        code, remedy = Code.NOT_A_FILE, "replace it with the image file, or remove it"
    elif not size_bytes:
        code, problem, remedy = Code.EMPTY_FILE, "is empty", "upload it again, or remove it"
    elif marks & listing.IS_SPARSE:
        problem = f"not an image: nearly all of its {size_bytes:,} bytes are holes"
        code, remedy = Code.SPARSE_FILE, "remove it"
    elif not marks & listing.IS_READABLE:
        return warn_unservable(path, "a+r")
    else:
        return None
    return Finding(code, path, problem, remedy, files_left_out=1)


def _describe_kind(kind: int) -> str:
    return _KIND_WORDS.get(kind, "device")


def _refuse_version_name(path: str) -> Finding:
    return Finding(
        Code.BAD_NAME,
        path,
        "not a version name: it must start with a valid date (YYYYMMDD)",
        "rename it, for example to 20240505_05:24, or hide it with a leading dot",
        versions_left_out=1,
    )
