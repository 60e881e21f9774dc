"""Deletes what has been unpublished for the grace, and what was abandoned."""

from __future__ import annotations

import os
import time
from collections.abc import Set
from functools import cached_property

from msgspec.structs import replace

from fastindex.catalogue.published import read_published_paths
from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding
from fastindex.mirror import removal
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.prune.retention import find_incomplete_versions
from fastindex.system import directories

ABANDONED_SECONDS = 24 * 60 * 60
"""An upload or an incomplete version that nobody touched for so long is abandoned."""


class Deletion:
    """Deletes in one mirror, and collects findings. The caller holds the mirror's lock.

    The published catalogue is read once: make a new one after each build.

    Args:
        mirror: the mirror, with the streams of everything that may be deleted.
        grace_seconds: how long files outlive the last catalogue that named them.
    """

    def __init__(self, mirror: Mirror, grace_seconds: float) -> None:
        self.findings: list[Finding] = []
        """What a person should know."""
        self.has_failed = False
        """Whether something could not be deleted."""
        self._mirror = mirror
        self._grace_seconds = grace_seconds
        self._abandoned_ns = time.time_ns() - round(ABANDONED_SECONDS * 1e9)

    @cached_property
    def _published_paths(self) -> set[str] | None:
        return read_published_paths(self._mirror.output)

    def update_times(self, known: Withdrawals) -> Withdrawals:
        """Return ``known`` with the times since when the published catalogue is without each.

        Call it before that catalogue is replaced, as clients cache it: what it names again loses
        its time.
        """
        published = self._published_paths if known else None
        return known if published is None else _update_times(known, published, time.time())

    def delete_withdrawn(self) -> tuple[list[str], list[str]]:
        """Record since when what is withdrawn is unpublished; delete what has had its grace.

        Returns:
            The versions that were deleted, and those that a later run will delete.

        Raises:
            TreeError: the record of what is withdrawn cannot be used.
            PublishError: the record cannot be written.
        """
        known = withdrawals.load(self._mirror)
        published = self._published_paths
        if published is None:
            self.has_failed = True
            problem = "the catalogue cannot be read completely, so nothing was deleted"
            self._warn(self._mirror.output, problem, "run fastindex verify to see why")
            return [], sorted(known)
        now = time.time()
        known = _update_times(known, published, now)
        withdrawals.save(self._mirror, known)
        due = [
            name
            for name, withdrawal in sorted(known.items())
            if 0 < withdrawal.unpublished_at <= now - self._grace_seconds
            and self._has_product(name)
        ]
        in_use = _Published(self._mirror.root, published) if due else None
        deleted: list[str] = []
        for name in due:
            if in_use is not None and self._may_delete(name, known[name], in_use):
                self._delete(name, known[name], deleted)
        for name in deleted:
            del known[name]
        withdrawals.save(self._mirror, known)
        return deleted, sorted(known)

    def delete_abandoned(self, found: list[Found]) -> list[str]:
        """Delete hidden leftovers, and versions that are not images; return their paths.

        Args:
            found: the tree as it is now.
        """
        published = self._published_paths
        if published is None:
            return []
        deleted: list[str] = []
        for path in self.find_abandoned(found):
            if path in published:
                continue
            is_hidden = os.path.basename(path)[0] == "."
            remove = removal.remove_leftover if is_hidden else removal.remove_version
            try:
                kept = remove(self._mirror, path)
            except OSError as error:
                self._fail(path, error)
                continue
            self._warn_of_kept(path, kept)
            deleted += [] if kept else [path]
        return deleted

    def find_abandoned(self, found: list[Found]) -> list[str]:
        """Return what was abandoned, as paths relative to ROOT."""
        paths = [
            version.path
            for version in find_incomplete_versions(found)
            if removal.is_abandoned(self._mirror.path(version.path), self._abandoned_ns)
        ]
        for product, _ in found:
            paths += removal.find_leftovers(self._mirror, product.path, self._abandoned_ns)
        return paths

    def _has_product(self, name: str) -> bool:
        """Return whether the product's directory exists.

        If it does not, a disk may not be mounted. The record then stays, so that the version is
        not published again when the disk is back.
        """
        return os.path.isdir(os.path.dirname(self._mirror.path(name)))

    def _may_delete(self, name: str, withdrawal: Withdrawal, in_use: _Published) -> bool:
        """Return whether a version may be deleted, with a finding if not."""
        if not withdrawal.is_asked_for and not in_use.has_product(os.path.dirname(name)):
            # The versions that were to stay have become unreadable since.
            problem = "not deleted: nothing else of its product is published any more"
            self._warn(name, problem, "repair the newer versions, or use prune --undo")
            return False
        version = directories.real_path(self._mirror.path(name))
        going = {os.path.join(version, file) for file in withdrawal.files} or {version}
        if in_use.leads_to(going):
            problem = "not deleted: a published version links to its files"
            self._warn(name, problem, "replace the links by copies")
            return False
        return True

    def _delete(self, name: str, withdrawal: Withdrawal, deleted: list[str]) -> None:
        mirror = self._mirror
        try:
            if not directories.is_inside(mirror.path(name), mirror.bounds):
                self._warn(
                    name, "not deleted: a symlink leads out of the mirror", "remove the symlink"
                )
                return
            if withdrawal.files:
                for file in withdrawal.files:
                    removal.remove_file(mirror, f"{name}/{file}")
            else:
                self._warn_of_kept(name, removal.remove_version(mirror, name))
        except OSError as error:
            self._fail(name, error)
            return
        deleted.append(name)

    def _warn_of_kept(self, path: str, kept: list[str]) -> None:
        if kept:
            problem = f"deleted, except for files that do not belong to an image: {', '.join(kept)}"
            self._warn(path, problem, "remove them if nobody needs them")

    def _fail(self, path: str, error: OSError) -> None:
        self.has_failed = True
        self._warn(path, f"cannot be deleted ({error.strerror})", suggest_remedy(error))

    def _warn(self, path: str, problem: str, remedy: str, code: Code = Code.NOT_DELETED) -> None:
        self.findings.append(Finding(code, path, problem, remedy))


class _Published:
    """The part of the tree that the published catalogue uses.

    Args:
        root: absolute path of ROOT.
        paths: all published files, and their versions' directories.
    """

    def __init__(self, root: str, paths: Set[str]) -> None:
        self._directories = {os.path.dirname(path) for path in paths}
        self._places = _find_places(root, paths)

    def has_product(self, path: str) -> bool:
        """Return whether a version of the product at ``path`` is published."""
        return path in self._directories

    def leads_to(self, places: Set[str]) -> bool:
        """Return whether something published is, or is in, one of ``places`` (real paths)."""
        return not self._places.isdisjoint(places)


def _find_places(root: str, paths: Set[str]) -> set[str]:
    """Return the real paths of all published files, and of the directories they are in."""
    real_paths: dict[str, str] = {}
    places: set[str] = set()
    for path in paths:
        directory, name = os.path.split(os.path.join(root, path))
        if directory not in real_paths:
            real_paths[directory] = directories.real_path(directory)
        place = os.path.join(real_paths[directory], name)
        if os.path.islink(place):
            place = directories.real_path(place)
        places |= {place, os.path.dirname(place)}
    return places


def _update_times(known: Withdrawals, published: Set[str], now: float) -> Withdrawals:
    return {
        name: replace(withdrawal, unpublished_at=0)
        if _is_named(name, withdrawal, published)
        else replace(withdrawal, unpublished_at=withdrawal.grace_began(now))
        for name, withdrawal in known.items()
    }


def _is_named(name: str, withdrawal: Withdrawal, published: Set[str]) -> bool:
    if withdrawal.files:
        return any(f"{name}/{file}" in published for file in withdrawal.files)
    return name in published
