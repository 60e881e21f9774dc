"""``streams/.withdrawn.json``: what is to be published no more, though it still lies there.

Clients keep a catalogue for an hour, so a file must outlive the catalogues that name it.
A version is withdrawn first: noted here, left out by every build from then on. When a
catalogue without it stands, the note gets its time; from that on the grace runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from fastindex.mirror.state import notes
from fastindex.mirror.tree import Found, FoundVersion

_NAME = ".withdrawn.json"


class Withdrawal(Struct, frozen=True, omit_defaults=True):
    """Something withdrawn from one version."""

    unpublished_at: float = 0
    """Since when the published catalogue has been without it, by the clock (seconds since
    the epoch); 0: not seen yet."""
    files: tuple[str, ...] = ()
    """Which of its files; empty: the whole version."""
    is_asked_for: bool = False
    """Whether a person named it: then it may be the last of its product."""


Withdrawals = dict[str, Withdrawal]
"""Version (STREAM/OS/RELEASE/ARCH/VARIANT/VERSION) → what of it is withdrawn."""


def load(output: str) -> Withdrawals:
    """Return what is withdrawn; raises TreeError where the note cannot be used."""
    path = notes.path_of(output, _NAME)
    return notes.load(path, Withdrawals, "mend it, or remove it to publish all in the tree")


def save(output: str, withdrawals: Withdrawals) -> None:
    """Write what is withdrawn, durably; raises OSError."""
    notes.save(notes.path_of(output, _NAME), withdrawals)


def whole(withdrawals: Withdrawals) -> frozenset[str]:
    """Return the versions that are withdrawn with all their images."""
    return frozenset(name for name, withdrawal in withdrawals.items() if not withdrawal.files)


def begun(withdrawal: Withdrawal, now: float) -> float:
    """Return when the grace of something that is published no more has begun.

    A time that lies ahead is of a clock that has been set back since: it begins anew.
    """
    return withdrawal.unpublished_at if 0 < withdrawal.unpublished_at <= now else now


def left(found: Iterable[Found], withdrawals: Withdrawals) -> list[Found]:
    """Return ``found`` without what is withdrawn."""
    if not withdrawals:
        return list(found)
    return [
        (product, [rest for version in versions if (rest := _left_of(version, withdrawals))])
        for product, versions in found
    ]


def _left_of(version: FoundVersion, withdrawals: Withdrawals) -> FoundVersion | None:
    withdrawal = withdrawals.get(version.path)
    if withdrawal is None:
        return version
    files = tuple(file for file in version.files if file.name not in withdrawal.files)
    return msgspec.structs.replace(version, files=files) if withdrawal.files else None
