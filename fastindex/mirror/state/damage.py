"""``streams/.damaged.json``: files whose bytes changed while their stamp did not.

A version with such a file is left out until the stamp of the file changes or ``--rehash``
accepts the file as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.mirror.tree import FoundFile, FoundVersion

_NAME = ".damaged.json"


class DamagedFiles:
    """The files of a mirror that are known to be damaged.

    Args:
        mirror: the mirror.

    Raises:
        TreeError: the record of earlier runs cannot be read.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._path = mirror.state_path(_NAME)
        remedy = "repair it, or remove it and run with --rehash"
        # Path relative to ROOT → the cache key that the file had when it was found damaged.
        self._keys = documents.load(self._path, dict[str, str], remedy)
        self._saved = dict(self._keys)

    def items(self) -> list[tuple[str, str]]:
        """Return (path relative to ROOT, cache key) of each file, sorted."""
        return sorted(self._keys.items())

    def save_changes(self) -> None:
        """Write the record if it has changed since it was loaded or saved.

        Raises:
            PublishError: it cannot be written; the old one is unchanged.
        """
        if self._keys != self._saved:
            documents.save(self._path, self._keys)
            self._saved = dict(self._keys)

    def add(self, path: str, key: str) -> None:
        """Record a damaged file.

        Args:
            path: the file, relative to ROOT.
            key: its cache key now.
        """
        self._keys[path] = key

    def forget_changed(self, version: FoundVersion, *, is_accepted: bool) -> None:
        """Forget the files of ``version`` whose stamp has changed.

        Args:
            version: the version as it is now.
            is_accepted: forget all of its files: they are accepted as they are.
        """
        if not self._keys:
            return
        for file in version.files:
            path = f"{version.path}/{file.name}"
            if is_accepted or self._keys.get(path) != file.stamp.key:
                self._keys.pop(path, None)

    def find_in(self, version: FoundVersion, files: Iterable[FoundFile]) -> list[Finding]:
        """Return a finding for each damaged file whose stamp has not changed since.

        Args:
            version: the version.
            files: those of its files that count.
        """
        if not self._keys:
            return []
        damaged = [
            file.name
            for file in files
            if self._keys.get(f"{version.path}/{file.name}") == file.stamp.key
        ]
        return describe_damage(version.path, damaged)


def describe_damage(version_path: str, names: Sequence[str]) -> list[Finding]:
    """Return a finding for each damaged file of a version; together they cost one version.

    Args:
        version_path: the version, relative to ROOT.
        names: the names of its damaged files.
    """
    return [
        Finding(
            Code.DAMAGED,
            f"{version_path}/{name}",
            "damaged: its bytes changed since it was hashed, but its size and time did not",
            "restore the file and touch it (the disk may be failing), or accept it with --rehash",
            versions_left_out=int(number == 0),
        )
        for number, name in enumerate(names)
    ]
