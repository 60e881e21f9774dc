"""``streams/.damaged.json``: files whose bytes changed under an unchanged stamp.

A version with such a file is left out until the file's stamp changes or ``--rehash`` accepts
what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        TreeError: what earlier runs found cannot be read.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._path = mirror.state_path(_NAME)
        remedy = "repair it, or remove it and run with --rehash"
        # Path relative to ROOT → the file's cache key when it was found damaged.
        self._keys = documents.load(self._path, dict[str, str], remedy)
        self._saved = dict(self._keys)

    def items(self) -> list[tuple[str, str]]:
        """Return each file with its key, sorted."""
        return sorted(self._keys.items())

    def save_changes(self) -> None:
        """Write what has changed since it was loaded; raises PublishError."""
        if self._keys != self._saved:
            documents.save(self._path, self._keys)
            self._saved = dict(self._keys)

    def add(self, path: str, key: str) -> None:
        """Remember that the file at ``path`` is damaged."""
        self._keys[path] = key

    def forget_changed(self, version: FoundVersion, *, is_accepted: bool) -> None:
        """Forget the files of ``version`` that have another stamp now, or are accepted as they are.

        Args:
            version: the version as it is now.
            is_accepted: whether its files are accepted as they are.
        """
        if not self._keys:
            return
        for file in version.files:
            path = f"{version.path}/{file.name}"
            if is_accepted or self._keys.get(path) != file.stamp.key:
                self._keys.pop(path, None)

    def find_in(self, version: FoundVersion, files: Iterable[FoundFile]) -> list[Finding]:
        """Return a finding for each of ``files`` that is as it was when found damaged."""
        if not self._keys:
            return []
        damaged = [
            file.name
            for file in files
            if self._keys.get(f"{version.path}/{file.name}") == file.stamp.key
        ]
        return describe_damage(version.path, damaged)


def describe_damage(version_path: str, names: Sequence[str]) -> list[Finding]:
    """Return what is said of the damaged files of one version: a finding each, one version lost.

    Args:
        version_path: the version, relative to ROOT.
        names: its damaged files.
    """
    return [
        Finding(
            f"{version_path}/{name}",
            "damaged: its bytes changed since it was hashed, under the same size and time",
            "restore the right file (the disk may be failing), or accept this one with --rehash",
            versions_left_out=int(number == 0),
        )
        for number, name in enumerate(names)
    ]
