"""``streams/.withdrawn.json``: what is published no more, though it still lies in the tree.

Clients keep a catalogue for an hour, so a file must outlive the catalogues that name it. A
version is withdrawn first: recorded here, left out by every build from then on. As soon as a
catalogue without it is published, its record gets the time; from then on the grace runs.
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
    """What is withdrawn of one version."""

    unpublished_at: float = 0
    """Since when the published catalogue has been without it, by the clock (seconds since
    the epoch); 0: not seen yet."""
    files: tuple[str, ...] = ()
    """Which of its files; empty: the version as a whole."""
    is_asked_for: bool = False
    """Whether a person named it: then it may be the last of its product."""

    def grace_began(self, now: float) -> float:
        """Return when its grace began, given that it is published no more.

        A time in the future was taken by a clock that has been set back since: the grace
        begins again.
        """
        return self.unpublished_at if 0 < self.unpublished_at <= now else now


Withdrawals = dict[str, Withdrawal]
"""Version (STREAM/OS/RELEASE/ARCH/VARIANT/VERSION) → what of it is withdrawn."""


def load(mirror: Mirror) -> Withdrawals:
    """Return what is withdrawn; raises TreeError where the record cannot be used."""
    path = mirror.state_path(_NAME)
    remedy = "repair it, or remove it to publish everything in the tree"
    withdrawals = documents.load(path, Withdrawals, remedy)
    for name, withdrawal in withdrawals.items():
        if any("\0" in word for word in (name, *withdrawal.files)):
            raise TreeError(f"{path}: cannot be used ({name!r} has a null byte); {remedy}")
    return withdrawals


def save(mirror: Mirror, withdrawals: Withdrawals) -> None:
    """Write what is withdrawn, durably; raises PublishError."""
    documents.save(mirror.state_path(_NAME), withdrawals)


def withdrawn_versions(withdrawals: Withdrawals) -> frozenset[str]:
    """Return the versions that are withdrawn as a whole."""
    return frozenset(name for name, withdrawal in withdrawals.items() if not withdrawal.files)


def without_withdrawn(found: Iterable[Found], withdrawals: Withdrawals) -> list[Found]:
    """Return ``found`` without what is withdrawn."""
    if not withdrawals:
        return list(found)
    return [
        (product, [kept for version in versions if (kept := _without(version, withdrawals))])
        for product, versions in found
    ]


def _without(version: FoundVersion, withdrawals: Withdrawals) -> FoundVersion | None:
    withdrawal = withdrawals.get(version.path)
    if withdrawal is None:
        return version
    files = tuple(file for file in version.files if file.name not in withdrawal.files)
    return replace(version, files=files) if withdrawal.files else None
