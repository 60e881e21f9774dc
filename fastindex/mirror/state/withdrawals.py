"""``streams/.withdrawn.json``: what is no longer published although it is still in the tree.

Clients keep a catalogue for an hour, so a file must outlive the catalogues that name it. A
version is withdrawn first: it is recorded here, and every build leaves it out. When a
catalogue without it has been published, the record gets the time, and the grace begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import Code, TreeError
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.mirror.tree import Found, FoundFile, FoundVersion

_NAME = ".withdrawn.json"


class Withdrawal(Struct, frozen=True, omit_defaults=True):
    """A version, or some of its files, that is withdrawn."""

    unpublished_at: float = 0
    """When a catalogue without it was first seen (seconds since the epoch); 0: not yet."""
    files: tuple[str, ...] = ()
    """The names of the files that are withdrawn; empty: the entire version."""
    is_asked_for: bool = False
    """Whether a person named it. Then it may be the last version of its product."""
    withdrawn_at: float = 0
    """When a run last withdrew it (seconds since the epoch); 0: not known."""

    def grace_began(self, now: float) -> float:
        """Return when its grace began, if it is no longer published.

        A time in the future comes from a clock that has been set back since. Then the grace
        begins anew.

        Args:
            now: seconds since the epoch; so is the result.
        """
        return self.unpublished_at if 0 < self.unpublished_at <= now else now

    def covers(self, file: str) -> bool:
        """Return whether a file of the version, given by its name, is withdrawn."""
        return not self.files or file in self.files


Withdrawals = dict[str, Withdrawal]
"""Version (STREAM/OS/RELEASE/ARCH/VARIANT/VERSION) → its withdrawal."""


def load(mirror: Mirror) -> Withdrawals:
    """Return what is withdrawn.

    Raises:
        TreeError: the record cannot be used.
    """
    path = mirror.state_path(_NAME)
    remedy = "repair it, or remove it to publish everything in the tree"
    withdrawals = documents.load(path, Withdrawals, remedy)
    for name, withdrawal in withdrawals.items():
        if any("\0" in word for word in (name, *withdrawal.files)):
            raise TreeError(f"{path}: cannot be used ({name!r} has a null byte); {remedy}")
    return withdrawals


def save(mirror: Mirror, withdrawals: Withdrawals) -> None:
    """Write what is withdrawn, durably.

    Raises:
        PublishError: it cannot be written; the old record is unchanged.
    """
    documents.save(mirror.state_path(_NAME), withdrawals)


def stamp(new: Withdrawals, now: float) -> Withdrawals:
    """Return ``new`` as it is withdrawn now."""
    return {name: replace(withdrawal, withdrawn_at=now) for name, withdrawal in new.items()}


def merge(known: Withdrawals, new: Withdrawals) -> Withdrawals:
    """Return both; a version that is withdrawn both in part and entirely is withdrawn entirely."""
    merged = dict(known)
    for name, withdrawal in new.items():
        old = known.get(name)
        if old is None:
            merged[name] = withdrawal
        elif old.files:
            files = tuple(sorted({*old.files, *withdrawal.files})) if withdrawal.files else ()
            merged[name] = replace(withdrawal, files=files)
        elif withdrawal.is_asked_for:
            merged[name] = replace(old, is_asked_for=True, withdrawn_at=withdrawal.withdrawn_at)
    return merged


def covers(withdrawals: Withdrawals, path: str) -> bool:
    """Return whether a file, given by its path relative to ROOT, is withdrawn."""
    version, _, file = path.rpartition("/")
    withdrawal = withdrawals.get(version)
    return withdrawal is not None and withdrawal.covers(file)


def list_withdrawn_versions(withdrawals: Withdrawals) -> frozenset[str]:
    """Return the versions that are withdrawn entirely."""
    return frozenset(name for name, withdrawal in withdrawals.items() if not withdrawal.files)


def find_newer_files(
    mirror: Mirror, versions: Iterable[FoundVersion], withdrawals: Withdrawals
) -> list[Finding]:
    """Return a finding for each withdrawn version that has files newer than its withdrawal.

    They may be another image under the same name, which its uploader expects to be published.

    Args:
        mirror: the mirror.
        versions: those of a product that are in the tree, with what is withdrawn.
        withdrawals: what is withdrawn.
    """
    is_own = mirror.output == mirror.root
    place = mirror.root if is_own else f"--output {mirror.output} {mirror.root}"
    newer = (
        (version, withdrawal)
        for version in (versions if withdrawals else ())
        if (withdrawal := withdrawals.get(version.path)) is not None
        and any(_is_newer(mirror, version, file, withdrawal) for file in version.files)
    )
    return [
        Finding(
            Code.VERSION_WITHDRAWN,
            version.path,
            "is withdrawn, but has newer files: they are not published, and a later prune deletes "
            "them",
            f"publish them with fastindex prune --undo {version.path} {place}, and give new "
            "images a new version name",
            versions_left_out=0 if withdrawal.files else 1,
            files_left_out=len(withdrawal.files),
        )
        for version, withdrawal in newer
    ]


def _is_newer(
    mirror: Mirror, version: FoundVersion, file: FoundFile, withdrawal: Withdrawal
) -> bool:
    since_ns = round((withdrawal.withdrawn_at or withdrawal.unpublished_at) * 1e9)
    if not since_ns or not withdrawal.covers(file.name) or file.stamp.mtime_ns <= since_ns:
        return False
    # The time may have been in the future from the beginning. Nobody can set the change time.
    try:
        return os.stat(mirror.path(f"{version.path}/{file.name}")).st_ctime_ns > since_ns
    except OSError:  # somebody is changing it
        return True


def drop_withdrawn(found: Iterable[Found], withdrawals: Withdrawals) -> list[Found]:
    """Return ``found`` without the versions and files that are withdrawn."""
    return [(product, drop_versions(versions, withdrawals)) for product, versions in found]


def drop_versions(versions: list[FoundVersion], withdrawals: Withdrawals) -> list[FoundVersion]:
    """Return the versions of a product without those, and those files, that are withdrawn."""
    if not withdrawals:
        return versions
    return [kept for version in versions if (kept := _drop_files(version, withdrawals))]


def _drop_files(version: FoundVersion, withdrawals: Withdrawals) -> FoundVersion | None:
    withdrawal = withdrawals.get(version.path)
    if withdrawal is None:
        return version
    files = tuple(file for file in version.files if file.name not in withdrawal.files)
    return replace(version, files=files) if withdrawal.files else None
