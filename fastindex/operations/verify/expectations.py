"""Pure but for ``stat``: the published catalogue → what must be read, and what is wrong already.

A file whose stamp is still valid is compared with the BLAKE3 in its version's cache, if the cache
agrees with the catalogue about that file. Any other is compared with the catalogue, by SHA-256 and
with its fingerprints.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from fastindex.catalogue.contract import (
    Claim,
    describe_fingerprint,
    describe_sha256,
    describe_size,
    find_version_faults,
    get_claim,
    is_unsafe_path,
    list_fingerprints,
)
from fastindex.catalogue.published import Mismatch
from fastindex.errors import Code, is_shortage
from fastindex.formats.simplestreams import (
    CachedItem,
    Item,
    Version,
    get_fingerprint,
    has_sound_digests,
)
from fastindex.hashing.tasks import Failed, FileDigest, FileRef
from fastindex.mirror.cache import Cached
from fastindex.mirror.mirror import Mirror
from fastindex.system.directories import is_inside
from fastindex.system.stamps import Stamp, stamp_of

_MAX_DIRECTORIES = 1024
"""How many directories are remembered: the files of a version come one after the other."""


class Advertised(Struct, frozen=True):
    """A file of a version that is on the disk with the size that the catalogue says."""

    path: str
    """Relative to ROOT."""
    sha256: str
    """What the catalogue says."""
    ref: FileRef
    """The file on the disk."""
    blake3: str = ""
    """What the version's cache says, if it may be compared with that; else empty."""


class Fingerprint(Struct, frozen=True):
    """A fingerprint of a metadata file and a root in the catalogue."""

    metadata: Advertised
    root: Advertised
    combined: str
    """What the catalogue says."""
    is_vouched_for: bool
    """Whether the cache has the same fingerprint of the same files."""


class Expected(Struct, frozen=True):
    """What a version must look like on the disk."""

    version: str
    """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
    files: tuple[Advertised, ...]
    fingerprints: tuple[Fingerprint, ...]


class Tree:
    """Finds advertised files; follows symlinks only inside the mirror.

    Args:
        mirror: the mirror, with the published streams, which may be symlinks themselves.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._inside: dict[str, bool] = {}

    def find(self, path: str, size_bytes: int) -> FileRef | tuple[Code, str]:
        """Return the file at ``path``, or what is wrong with it."""
        full = self._mirror.path(path)
        try:
            status = os.lstat(full)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = os.stat(full)
        except FileNotFoundError:
            return Code.MISSING_FILE, "no such file"
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_shortage(error):
                raise
            reason = getattr(error, "strerror", None) or error
            return Code.UNREADABLE, f"cannot stat it ({reason})"
        if not self._is_inside(os.path.realpath(full) if is_link else full):
            return Code.LINK_LEADS_OUT, "is a symlink that leads out of the mirror"
        if not stat.S_ISREG(status.st_mode):
            return Code.NOT_A_FILE, "is not a regular file"
        if status.st_size != size_bytes:
            return Code.CHECKSUM_MISMATCH, describe_size(status.st_size, size_bytes)
        return FileRef(full, stamp_of(status))

    def _is_inside(self, full: str) -> bool:
        directory = os.path.dirname(full)
        if directory not in self._inside:
            if len(self._inside) >= _MAX_DIRECTORIES:
                self._inside.clear()
            self._inside[directory] = is_inside(directory, self._mirror.bounds)
        return self._inside[directory]


def check_version(
    label: str, version: Version, tree: Tree, cached: Cached | None
) -> tuple[Expected, list[Mismatch]]:
    """Check a version against what clients accept and the disk, without reading files.

    Args:
        label: the version, as STREAM/OS/RELEASE/ARCH/VARIANT/VERSION.
        version: as published.
        tree: finds its files.
        cached: the version's cache; None: do not trust any.

    Returns:
        What must be read, and what is wrong already.
    """
    wrong = [
        Mismatch(code, label, "", problem) for code, problem in find_version_faults(label, version)
    ]
    found: dict[Claim, Advertised] = {}
    for item in version.items.values():
        if get_claim(item) in found or is_unsafe_path(item.path):
            continue
        ref = tree.find(item.path, item.size)
        if not isinstance(ref, FileRef):
            mismatch = Mismatch(ref[0], label, os.path.basename(item.path), ref[1])
            wrong += [mismatch] if mismatch not in wrong else []
            continue
        known = _find_cached(item, ref, cached)
        found[get_claim(item)] = Advertised(
            item.path, item.sha256, ref, known.blake3 if known is not None else ""
        )
    fingerprints = tuple(_list_fingerprints(version, found, cached))
    return Expected(label, tuple(found.values()), fingerprints), wrong


def _find_cached(item: Item, ref: FileRef, cached: Cached | None) -> CachedItem | None:
    """Return what the cache knows of a file, if it is valid and agrees with the catalogue."""
    if cached is None:
        return None
    name = os.path.basename(item.path)
    known = cached.items.get(name)
    is_sound = (
        known is not None
        and known.key == ref.stamp.key
        and known.size == ref.stamp.size_bytes
        and known.path.endswith("/" + name)
        and known.sha256 == item.sha256
        and has_sound_digests([known.sha256, known.blake3])
    )
    return known if is_sound else None


def _list_fingerprints(
    version: Version, found: dict[Claim, Advertised], cached: Cached | None
) -> Iterator[Fingerprint]:
    for item, root, combined in list_fingerprints(version):
        metadata, end = found.get(get_claim(item)), found.get(get_claim(root))
        if metadata is None or end is None:
            continue
        known = _find_cached(item, metadata.ref, cached)
        is_vouched_for = (
            known is not None
            and bool(metadata.blake3 and end.blake3)
            and get_fingerprint(known, root.ftype) == combined
        )
        yield Fingerprint(metadata, end, combined, is_vouched_for)


Digests = dict[Stamp, FileDigest | Failed]


def compare(
    expected: Expected,
    quick: Digests,
    full: Digests,
    fingerprints: dict[tuple[Stamp, Stamp], str],
) -> list[Mismatch]:
    """Compare what was read of a version with what is expected.

    Args:
        expected: what the version must look like.
        quick: BLAKE3 by file.
        full: SHA-256 by file.
        fingerprints: sha256(metadata ‖ root) by both files.

    Returns:
        All mismatches; not a fingerprint, if one of its files is wrong itself.
    """
    wrong: list[Mismatch] = []
    bad: set[str] = set()
    for file in expected.files:
        problem = _find_problem(file, quick.get(file.ref.stamp), full.get(file.ref.stamp))
        if problem is not None:
            bad.add(file.path)
            name = os.path.basename(file.path)
            wrong.append(Mismatch(problem[0], expected.version, name, problem[1]))
    for print_ in expected.fingerprints:
        found = fingerprints.get((print_.metadata.ref.stamp, print_.root.ref.stamp))
        is_bad = bad & {print_.metadata.path, print_.root.path}
        if found is not None and found != print_.combined and not is_bad:
            names = [os.path.basename(end.path) for end in (print_.metadata, print_.root)]
            wrong.append(
                Mismatch(
                    Code.CHECKSUM_MISMATCH,
                    expected.version,
                    names[0],
                    describe_fingerprint(names[1], found, print_.combined),
                )
            )
    return wrong


def _find_problem(
    file: Advertised, quick: FileDigest | Failed | None, full: FileDigest | Failed | None
) -> tuple[Code, str] | None:
    for digest in (full, quick):
        if isinstance(digest, Failed):
            return digest.code, digest.problem
    if isinstance(full, FileDigest):
        if full.sha256 != file.sha256:
            return Code.CHECKSUM_MISMATCH, describe_sha256(full.sha256, file.sha256)
        return None
    if isinstance(quick, FileDigest) and file.blake3 and quick.blake3 != file.blake3:
        problem = (
            f"its BLAKE3 is {quick.blake3}; it was {file.blake3} when it was hashed: its bytes "
            "have changed, but not its size and time"
        )
        return Code.DAMAGED, problem
    return None
