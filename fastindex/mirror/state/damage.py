"""``streams/.damaged.json``: files that changed, or became unreadable, under an unchanged stamp.

The same is noted beside the file's digests, in the cache of its version, so that it is known
wherever those are believed: under another name, in another output, without ``streams/``.

A version with such a file is left out. A file that was touched since, in whatever way (``cp -p`` of
the right one leaves size and time as they were, but not the time of the inode's change), is read
again, and so is one whose share of ``--recheck`` is due; with the right bytes it is no longer
damaged. One with another stamp is a new file, and ``--rehash`` accepts any as it is. One that is
gone is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from msgspec import Struct

from fastindex.errors import Code, PublishError
from fastindex.events import Finding
from fastindex.formats.simplestreams import STREAMS_DIRECTORY, CachedItem, encode_state
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.mirror.tree import FoundFile, FoundVersion
from fastindex.system.files import exists

_NAME = ".damaged.json"
_EMPTY = encode_state({})
CHANGED = "its bytes changed since it was hashed, but its size and time did not"
"""The problem of a file that a failing disk has changed."""


class Damage(Struct, frozen=True, omit_defaults=True):
    """What is known of a damaged file."""

    key: str
    """The cache key that it had when it was found damaged."""
    problem: str = CHANGED
    """What is wrong with it, for people."""
    sha256: str = ""
    """The digest of the right bytes; empty if unknown."""
    changed_ns: int = 0
    """When its inode last changed, since 1970, when it was last read; 0 if unknown."""


class DamagedFiles:
    """The files of a mirror that are known to be damaged, as far as they still exist.

    Args:
        mirror: the mirror.

    Raises:
        TreeError: the record of earlier runs cannot be read.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._path = mirror.state_path(_NAME)
        remedy = "repair it, or remove it and run with --rehash"
        recorded = documents.load(self._path, dict[str, Damage | str], remedy)
        # Path relative to ROOT → what is known. Earlier releases recorded the key alone.
        self._saved = {
            path: Damage(damage) if isinstance(damage, str) else damage
            for path, damage in recorded.items()
        }
        self._damages = {
            path: damage for path, damage in self._saved.items() if not _is_gone(mirror.path(path))
        }

    @property
    def is_empty(self) -> bool:
        """Whether no file is known to be damaged."""
        return not self._damages

    def list_all(self) -> list[tuple[str, Damage]]:
        """Return each damaged file with what is known of it, by path relative to ROOT."""
        return sorted(self._damages.items())

    def list_products(self) -> set[str]:
        """Return the products with damaged files, as paths relative to ROOT."""
        return {path.rsplit("/", 2)[0] for path in self._damages}

    def describe_product(self, product: str) -> list[tuple[str, Damage, int]]:
        """Return each damaged file of a product with when its inode changed, sorted.

        Args:
            product: its path relative to ROOT.
        """
        return [
            (path, damage, _find_change_ns(self._mirror.path(path)))
            for path, damage in sorted(self._damages.items())
            if path.startswith(f"{product}/")
        ]

    def save_changes(self) -> None:
        """Write the record if it has changed since it was loaded or saved.

        Raises:
            PublishError: it cannot be written; the old one is unchanged.
        """
        if self._damages == self._saved:
            return
        documents.save(self._path, self._damages)
        self._saved = dict(self._damages)
        if self._mirror.cache_dir is not None:
            with suppress(PublishError):  # where caches cannot be written, nothing is noted in them
                documents.save(_find_common_path(self._mirror.cache_dir), self._damages)

    def add(self, path: str, key: str, sha256: str, problem: str = CHANGED) -> Damage:
        """Record a damaged file; return what is known of it.

        Args:
            path: the file, relative to ROOT.
            key: its cache key now.
            sha256: the digest of the right bytes; empty if unknown.
            problem: what is wrong with it.
        """
        known = self._damages.get(path)
        if known is not None and known.key == key and known.sha256:
            sha256 = known.sha256
        changed_ns = _find_change_ns(self._mirror.path(path))
        damage = self._damages[path] = Damage(key, problem, sha256, changed_ns)
        return damage

    def adopt(self, version: FoundVersion, items: Mapping[str, CachedItem]) -> None:
        """Record what the cache of a version knows of damage, unless more is known already.

        Args:
            version: the version.
            items: file name → item, of those files whose stamps have not changed.
        """
        for name, item in items.items():
            if item.damaged:
                damage = Damage(item.key or "", item.damaged, item.sha256, item.changed_ns)
                self._damages.setdefault(f"{version.path}/{name}", damage)

    def forget(self, path: str) -> None:
        """Forget the file at ``path``, relative to ROOT: it is all right."""
        self._damages.pop(path, None)

    def forget_changed(self, version: FoundVersion, *, is_accepted: bool) -> None:
        """Forget the files of ``version`` whose stamp has changed.

        Args:
            version: the version as it is now.
            is_accepted: forget all of its files: they are accepted as they are.
        """
        if not self._damages:
            return
        for file in version.files:
            path = f"{version.path}/{file.name}"
            damage = self._damages.get(path)
            if damage is not None and (is_accepted or damage.key != file.stamp.key):
                del self._damages[path]

    def find_in(self, version: FoundVersion, files: Iterable[FoundFile]) -> dict[str, Damage]:
        """Return the damaged files of a version whose stamp has not changed since, by name.

        Args:
            version: the version.
            files: those of its files that count.
        """
        if not self._damages:
            return {}
        return {
            file.name: damage
            for file in files
            if (damage := self._damages.get(f"{version.path}/{file.name}")) is not None
            and damage.key == file.stamp.key
        }

    def is_worth_reading(self, version: FoundVersion, damaged: Mapping[str, Damage]) -> bool:
        """Return whether one of the damaged files may be another one since it was read."""
        return any(
            _find_change_ns(self._mirror.path(f"{version.path}/{name}")) != damage.changed_ns
            for name, damage in damaged.items()
        )


def read_records(others: Iterable[str], cache_dir: str | None) -> Iterator[bytes]:
    """Yield the records of other output directories, as they are, without those that are empty.

    Args:
        others: the directories.
        cache_dir: the cache directory, which may be shared with outputs that nobody knows; None:
            the caches are in the tree.
    """
    paths = [os.path.join(output, STREAMS_DIRECTORY, _NAME) for output in others]
    paths += [] if cache_dir is None else [_find_common_path(cache_dir)]
    for path in paths:
        record = documents.read_bytes(path)
        if record not in (b"", _EMPTY):
            yield record


def _find_common_path(cache_dir: str) -> str:
    """Return where the run that found damage last says so to all that share its caches."""
    return os.path.join(cache_dir, _NAME)


def _find_change_ns(path: str) -> int:
    """Return when the inode at ``path`` changed, which nobody can set; 0 if there is none."""
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return 0


def _is_gone(path: str) -> bool:
    with suppress(OSError):  # nobody can tell
        return "\0" in path or not exists(path)
    return False


def describe_damage(version_path: str, damaged: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each damaged file of a version; together they cost one version.

    Args:
        version_path: the version, relative to ROOT.
        damaged: the names of its damaged files → what is wrong.
    """
    for number, (name, problem) in enumerate(sorted(damaged.items())):
        yield Finding(
            Code.DAMAGED,
            f"{version_path}/{name}",
            f"damaged: {problem}",
            "put the right file back (the disk may be failing), or accept it with --rehash",
            versions_left_out=int(number == 0),
        )
