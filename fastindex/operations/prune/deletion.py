"""Off the disk: what has been published no more for the grace, and what was given up."""

from __future__ import annotations

import os
import time

from msgspec.structs import replace

from fastindex.catalogue.published import published_paths
from fastindex.events import Finding
from fastindex.mirror import removal
from fastindex.mirror.state import withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.prune.options import PruneOptions
from fastindex.operations.prune.retention import incomplete_versions
from fastindex.system import directories

GIVEN_UP_SECONDS = 24 * 60 * 60
"""After which nobody is taken to work on an upload or an incomplete version any more."""


class Deletion:
    """Deletes in one mirror, whose lock the caller holds, and keeps what people must know.

    ``has_failed`` tells whether something that was to go is still there.

    Args:
        options: the grace and the streams.
        root: absolute path of the mirror.
        output: absolute path of where its ``streams/`` is.
    """

    def __init__(self, options: PruneOptions, root: str, output: str) -> None:
        self.findings: list[Finding] = []
        self.has_failed = False
        self._grace_seconds = options.grace_seconds
        self._root = root
        self._output = output
        self._bounds = directories.bounds_of(root, *options.streams)
        self._places: set[str] | None = None
        self._given_up_ns = time.time_ns() - round(GIVEN_UP_SECONDS * 1e9)

    def delete_withdrawn(self) -> tuple[list[str], list[str]]:
        """Time what is published no more; delete what has had its grace.

        Returns:
            The versions that are deleted, and those that wait.
        """
        known = withdrawals.load(self._output)
        published = published_paths(self._output)
        if published is None:
            self.has_failed = True
            problem = "not all of the catalogue can be read, so nothing was deleted"
            self._find(self._output, problem, "fastindex verify tells what is wrong with it")
            return [], sorted(known)
        now = time.time()
        known = _timed(known, published, now)
        withdrawals.save(self._output, known)
        deleted: list[str] = []
        for name, withdrawal in sorted(known.items()):
            since = withdrawal.unpublished_at
            is_due = since and since + self._grace_seconds <= now
            if not is_due or not self._has_product(name):
                continue
            if self._is_last(name, withdrawal, published):
                continue
            if self._is_linked(name, withdrawal, published):
                continue
            if self._delete(name, withdrawal):
                deleted.append(name)
                del known[name]
        withdrawals.save(self._output, known)
        return deleted, sorted(known)

    def timed(self, known: Withdrawals) -> Withdrawals:
        """Return ``known`` without the times of what the published catalogue names again.

        To be asked before that catalogue is replaced: clients keep it.
        """
        published = published_paths(self._output) if known else None
        return known if published is None else _timed(known, published, time.time())

    def delete_given_up(self, found: list[Found]) -> list[str]:
        """Delete hidden leftovers, and versions that can be no image; return their paths.

        Args:
            found: the tree as it is now.
        """
        published = published_paths(self._output)
        if published is None:
            return []
        deleted: list[str] = []
        for path in self.given_up(found):
            if path in published:
                continue
            try:
                full = os.path.join(self._root, path)
                is_hidden = os.path.basename(path)[0] == "."
                left = (removal.empty if is_hidden else removal.remove_version)(full, self._bounds)
                self._tell_unknown(path, left)
                deleted += [] if left else [path]
            except OSError as error:
                self._fail(path, error)
        return deleted

    def given_up(self, found: list[Found]) -> list[str]:
        """Return the paths of what nobody works on any more, from the mirror's root on."""
        paths = [
            version.path
            for version in incomplete_versions(found)
            if removal.is_given_up(os.path.join(self._root, version.path), self._given_up_ns)
        ]
        for product, _ in found:
            full = os.path.join(self._root, product.path)
            paths += [
                os.path.relpath(path, self._root)
                for path in removal.leftovers(full, self._given_up_ns)
            ]
        return paths

    def _has_product(self, name: str) -> bool:
        """Return whether the product's directory is there.

        Where it is not, a disk may not be mounted: the note stays until the version can be
        seen to be gone, lest it be published again.
        """
        return os.path.isdir(os.path.dirname(os.path.join(self._root, name)))

    def _is_last(self, name: str, withdrawal: Withdrawal, published: set[str]) -> bool:
        """Return, and tell, whether what was to stay instead has become unreadable since."""
        product = os.path.dirname(name)
        is_last = not any(os.path.dirname(path) == product for path in published)
        if not is_last or withdrawal.is_asked_for:
            return False
        problem = "not deleted: nothing else of its product is published any more"
        self._find(name, problem, "mend the newer versions, or use prune --undo")
        return True

    def _is_linked(self, name: str, withdrawal: Withdrawal, published: set[str]) -> bool:
        """Return, and tell, whether something published is a link to what is to go."""
        if self._places is None:
            self._places = _places_of(self._root, published)
        version = os.path.realpath(os.path.join(self._root, name))
        going = {os.path.join(version, file) for file in withdrawal.files} or {version}
        if not going & self._places:
            return False
        problem = "not deleted: a published version links to its files"
        self._find(name, problem, "copy them there instead of linking")
        return True

    def _delete(self, name: str, withdrawal: Withdrawal) -> bool:
        path = os.path.join(self._root, name)
        try:
            if not directories.is_inside(path, self._bounds):
                self._find(name, "leads out of the mirror; not removed", "remove the symlink")
                return False
            if withdrawal.files:
                for file in withdrawal.files:
                    removal.remove_file(os.path.join(path, file), self._bounds)
                removal.unmark_withdrawn(path, self._bounds)
                return True
            self._tell_unknown(name, removal.remove_version(path, self._bounds))
        except OSError as error:
            self._fail(name, error)
            return False
        return True

    def _tell_unknown(self, path: str, left: list[str]) -> None:
        if left:
            problem = f"emptied of what images consist of, but for {', '.join(left)}"
            self._find(path, problem, "remove it, if it is of no use")

    def _fail(self, path: str, error: OSError) -> None:
        self.has_failed = True
        self._find(path, f"cannot be removed ({error.strerror})", "look into it")

    def _find(self, path: str, problem: str, remedy: str) -> None:
        self.findings.append(Finding(path, problem, remedy))


def _timed(known: Withdrawals, published: set[str], now: float) -> Withdrawals:
    return {
        name: replace(withdrawal, unpublished_at=0)
        if _is_named(name, withdrawal, published)
        else replace(withdrawal, unpublished_at=withdrawals.begun(withdrawal, now))
        for name, withdrawal in known.items()
    }


def _is_named(name: str, withdrawal: Withdrawal, published: set[str]) -> bool:
    if withdrawal.files:
        return any(f"{name}/{file}" in published for file in withdrawal.files)
    return name in published


def _places_of(root: str, published: set[str]) -> set[str]:
    """Return the real paths of all published files, and of the directories they lie in."""
    real_paths: dict[str, str] = {}
    places: set[str] = set()
    for path in published:
        directory, name = os.path.split(os.path.join(root, path))
        if directory not in real_paths:
            real_paths[directory] = os.path.realpath(directory)
        place = os.path.join(real_paths[directory], name)
        if os.path.islink(place):
            place = os.path.realpath(place)
        places |= {place, os.path.dirname(place)}
    return places
