"""``streams/.withdrawn.json``: what is no longer published although it is still in the tree.

Clients keep a catalogue for an hour, so a file must outlive the catalogues that name it. A
version is withdrawn first: it is recorded here, and every build leaves it out. When a
catalogue without it has been published, the record gets the time, and the grace begins.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import TreeError
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.mirror.tree import Found, FoundVersion

_NAME = ".withdrawn.json"


class Withdrawal(Struct, frozen=True, omit_defaults=True):
    """A version, or some of its files, that is withdrawn."""

    unpublished_at: float = 0
    """When a catalogue without it was first seen (seconds since the epoch); 0: not yet."""
    files: tuple[str, ...] = ()
    """The names of the files that are withdrawn; empty: the entire version."""
    is_asked_for: bool = False
    """Whether a person named it. Then it may be the last version of its product."""

    def grace_began(self, now: float) -> float:
        """Return when its grace began, if it is no longer published.

        A time in the future comes from a clock that has been set back since. Then the grace
        begins anew.

        Args:
            now: seconds since the epoch; so is the result.
        """
        return self.unpublished_at if 0 < self.unpublished_at <= now else now


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


def list_withdrawn_versions(withdrawals: Withdrawals) -> frozenset[str]:
    """Return the versions that are withdrawn entirely."""
    return frozenset(name for name, withdrawal in withdrawals.items() if not withdrawal.files)


def drop_withdrawn(found: Iterable[Found], withdrawals: Withdrawals) -> list[Found]:
    """Return ``found`` without the versions and files that are withdrawn."""
    if not withdrawals:
        return list(found)
    return [
        (product, [kept for version in versions if (kept := _drop_files(version, withdrawals))])
        for product, versions in found
    ]


def _drop_files(version: FoundVersion, withdrawals: Withdrawals) -> FoundVersion | None:
    withdrawal = withdrawals.get(version.path)
    if withdrawal is None:
        return version
    files = tuple(file for file in version.files if file.name not in withdrawal.files)
    return replace(version, files=files) if withdrawal.files else None
