"""The directories above the versions: what in them is a directory, a settings file, or misplaced.

Settings count for all products below. Their names, and the stamps that nobody can set (change
time, inode), become a digest, so that it is seen later whether they are as before.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct
from xxhash import xxh3_128_digest

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import (
    ARCHITECTURES,
    PRODUCT_DEPTH,
    find_forbidden_character,
    is_flat_name,
    is_ignored_name,
    is_version_name,
    looks_like_image_file,
)
from fastindex.mirror.levels import TREE_LEVELS, describe_missing_levels
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scanning.links import (
    Links,
    is_unservable,
    warn_unservable_directory,
)
from fastindex.system import listing
from fastindex.system.listing import Records, Row
from fastindex.system.stamps import COARSEST_TICK_NS

NO_SETTINGS = bytes(16)
"""The state of settings where there are none."""


def describe_flat_tree(path: str) -> tuple[str, str]:
    """Return, for people, what the directory of a flat tree is, and what to do."""
    return (
        "the flat tree of incus-simplestreams: files named after digests, in no directories",
        "import into another root, also what is here: "
        f"fastindex import --copy {path} NEW_ROOT, then fastindex NEW_ROOT",
    )


class Contents(Struct):
    """What is in a directory above the versions."""

    directories: list[str]
    """Names of its visible directories, sorted; symlinks to directories among them."""
    settings: list[str]
    """Paths of its own settings files, sorted."""
    links: set[str]
    """Which of both are symlinks: names of directories, paths of settings."""
    findings: list[Finding]
    """What is wrong with it, and in it."""


class Place(NamedTuple):
    """The directory of a product."""

    path: str
    """Relative to ROOT."""
    names: tuple[str, ...]
    """OS, RELEASE, ARCH and VARIANT."""
    dotfiles: tuple[str, ...]
    """Settings files above it, the nearest first."""
    settings_state: bytes
    """A digest of their names and stamps; empty if those cannot vouch for their content."""


class Level:
    """A directory above the products.

    Args:
        path: relative to ROOT.
        names: the directories from below the stream to it.
        above: the settings files above it, the nearest first.
        above_state: a digest of their names and stamps, or an empty one.
    """

    __slots__ = ("above", "above_state", "children", "findings", "names", "path", "variants")

    def __init__(
        self, path: str, names: tuple[str, ...], above: tuple[str, ...], above_state: bytes
    ) -> None:
        self.path = path
        self.names = names
        self.above = above
        self.above_state = above_state
        self.findings: list[Finding] = []
        self.children: list[Level] = []
        self.variants: list[str] = []

    @property
    def is_unknown_product(self) -> bool:
        """Whether it has the place of a product, but clients do not know the architecture."""
        return len(self.names) == PRODUCT_DEPTH

    def list_places(self) -> Iterator[Place]:
        """Yield the products below, in the order of their paths."""
        for name in self.variants:
            yield Place(f"{self.path}/{name}", (*self.names, name), self.above, self.above_state)
        for child in self.children:
            yield from child.list_places()

    def list_findings(self) -> Iterator[Finding]:
        """Yield the findings about it, and about the levels below."""
        yield from self.findings
        for child in self.children:
            yield from child.list_findings()


class LevelReader:
    """Makes ``Level``s and their contents of records.

    Args:
        mirror: the mirror.
        links: says where symlinks may lead.
    """

    def __init__(self, mirror: Mirror, links: Links) -> None:
        self._mirror = mirror
        self._links = links

    def read(self, level: Level, records: Records) -> None:
        """Fill ``level``: with settings, findings and children, or with the names of products."""
        rows = list(listing.unpack(records))
        contents = self.read_contents(level.path, level.names, rows)
        level.findings += contents.findings
        if level.is_unknown_product:
            self._refuse_unknown_product(level, contents.directories)
            return
        level.above_state = self._digest_settings(level, records, rows, contents)
        level.above = (*contents.settings, *level.above)
        depth = len(level.names) + 1
        for name in contents.directories:
            path = f"{level.path}/{name}"
            names = (*level.names, name)
            if ":" in name and is_version_name(name):
                level.findings += self._find_unservable([path])
                level.findings.append(_refuse_misplaced(path, names))
            elif finding := refuse_unfit(name, path, forbidden=":"):
                level.findings += self._find_unservable([path])
                level.findings.append(finding)
            elif depth == PRODUCT_DEPTH and level.names[-1] in ARCHITECTURES:
                level.variants.append(name)
            else:
                level.children.append(Level(path, names, level.above, level.above_state))

    def read_contents(self, path: str, names: tuple[str, ...], rows: list[Row]) -> Contents:
        """Return what is in a directory above the versions.

        Args:
            path: relative to ROOT.
            names: the directories from below the stream to it.
            rows: of the directory itself, and of the entries in it.
        """
        contents = Contents([], [], set(), [])
        has_image_files = is_flat = False
        is_product = len(names) == PRODUCT_DEPTH
        (_, _, error_number, count, _), _, _ = rows[0]
        for (kind, *_), _, name in rows[1 : 1 + count]:
            is_link = kind == listing.LINK
            if name[0] == ".":
                if not is_link or self._may_follow(path, name, contents, is_product=is_product):
                    contents.settings.append(f"{path}/{name}")
                    if is_link:
                        contents.links.add(f"{path}/{name}")
                continue
            if is_ignored_name(name) or (
                is_link and not self._may_follow(path, name, contents, is_product=is_product)
            ):
                continue
            place = self._mirror.path(f"{path}/{name}") if is_link else ""
            if kind == listing.DIRECTORY or (is_link and os.path.isdir(place)):
                contents.directories.append(name)
                if is_link:
                    contents.links.add(name)
                continue
            is_file = kind == listing.FILE or (is_link and os.path.isfile(place))
            if not is_file or (is_product and is_version_name(name)):
                contents.findings.append(_refuse_non_directory(f"{path}/{name}", is_link=is_link))
            elif looks_like_image_file(name):
                has_image_files = True
                is_flat = is_flat or (not names and is_flat_name(name))
        if error_number:
            contents.findings.append(refuse_unreadable(path, error_number))
        if is_flat:
            problem, remedy = describe_flat_tree(self._mirror.path(path))
            contents.findings.append(
                Finding(Code.FOREIGN_TREE, path, problem, remedy, versions_left_out=1)
            )
        elif has_image_files:
            contents.findings.append(_refuse_misplaced(path, names))
        return contents

    def warn_of_dead_ends(self, level: Level) -> bool:
        """Tell which directories that lead to no product only their owner can use.

        Those that lead to products are told with them.

        Returns:
            Whether ``level`` leads to a product.
        """
        leads = [self.warn_of_dead_ends(child) for child in level.children]
        if any(leads) or level.variants:
            return True
        if level.names:
            level.findings[:0] = self._find_unservable([level.path])
        return False

    def _may_follow(self, path: str, name: str, contents: Contents, *, is_product: bool) -> bool:
        if is_product:
            may_follow = self._links.find_target(f"{path}/{name}") is not None
        else:
            may_follow = self._links.may_follow_above(path, name)
        if not may_follow:
            contents.findings.append(self._links.refuse(f"{path}/{name}"))
        return may_follow

    def _refuse_unknown_product(self, level: Level, directories: list[str]) -> None:
        level.findings += self._find_unservable(f"{level.path}/{name}" for name in directories)
        if directories:
            arch = level.names[PRODUCT_DEPTH - 2]
            problem = f"unknown architecture {arch!r}: clients would not show its images"
            remedy = "rename the directory to a name that clients know (amd64, arm64, armhf …)"
            level.findings.append(
                Finding(
                    Code.UNKNOWN_ARCHITECTURE,
                    level.path,
                    problem,
                    remedy,
                    versions_left_out=len(directories),
                )
            )

    def _find_unservable(self, paths: Iterable[str]) -> list[Finding]:
        return [
            warn_unservable_directory(path) for path in paths if is_unservable(self._mirror, path)
        ]

    def _digest_settings(
        self, level: Level, records: Records, rows: list[Row], contents: Contents
    ) -> bytes:
        """Return a digest of the settings that count in ``level``; empty: it is worth nothing."""
        if not level.above_state or rows[0][0][2] or records[-1] & listing.IS_YOUNG:
            return b""
        if not contents.settings:
            return level.above_state
        own = [row for row in rows[1:] if row[2][0] == "."]
        told = [repr((level.path, own, records[3]))]
        for (kind, marks, *_), _, name in own:
            path = f"{level.path}/{name}"
            if kind == listing.LINK and path in contents.links:
                stamp = self._stamp_linked_settings(path)
                if not stamp:
                    return b""
                told.append(stamp)
            elif kind != listing.FILE or marks & listing.HAS_FAILED:
                return b""
        words = "\0".join(told).encode("utf-8", "surrogatepass")
        return xxh3_128_digest(level.above_state + words)

    def _stamp_linked_settings(self, path: str) -> str:
        """Return what vouches for the file that a symlink leads to; "" if nothing does."""
        began_ns = time.time_ns()
        try:
            status = os.stat(self._mirror.path(path))
        except OSError as error:
            if is_shortage(error):
                raise
            return ""
        is_young = status.st_ctime_ns + COARSEST_TICK_NS > began_ns
        if is_young or not stat.S_ISREG(status.st_mode):
            return ""
        target = os.path.realpath(self._mirror.path(path))
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return repr((target, status.st_size, times, status.st_dev, status.st_ino))


def refuse_unfit(name: str, path: str, forbidden: str = "") -> Finding | None:
    """Return a finding about a name that does not fit into a path, an alias or JSON, or None."""
    unfit = find_forbidden_character(name)
    if unfit is None and forbidden and forbidden in name:
        unfit = forbidden
    if unfit is None:
        return None
    problem = f"the name contains {unfit!r}, which is not allowed in paths and aliases"
    if "\ud800" <= unfit <= "\udfff":
        problem = "the name is not valid UTF-8"
    return Finding(Code.BAD_NAME, path, problem, "rename it", versions_left_out=1)


def refuse_unreadable(path: str, error_number: int) -> Finding:
    """Return the finding about a directory that cannot be listed."""
    return Finding(
        Code.UNREADABLE,
        path,
        f"the directory cannot be listed ({os.strerror(error_number)})",
        "give this user read permission, or repair the file system",
        versions_left_out=1,
    )


def _refuse_misplaced(path: str, names: tuple[str, ...]) -> Finding:
    """Return the finding about image files in ``path``, a directory above the versions."""
    return Finding(
        Code.MISPLACED_FILE,
        path,
        f"has image files, but {describe_missing_levels(names)}",
        f"move them to {TREE_LEVELS}",
        versions_left_out=1,
    )


def _refuse_non_directory(path: str, *, is_link: bool) -> Finding:
    problem = "is not a directory"
    remedy = "replace it with a directory, hide it with a leading dot, or remove it"
    if is_link:
        problem = "a symlink that leads to no directory"
        remedy = "mount the disk that it leads to, or remove it"
    return Finding(Code.NOT_A_DIRECTORY, path, problem, remedy, versions_left_out=1)
