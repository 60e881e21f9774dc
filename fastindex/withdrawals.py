"""``streams/.withdrawn.json``: what is to be published no more, though it still lies there.

Clients keep a catalogue for an hour, so a file must outlive the catalogues that name it.
A version is withdrawn first: noted here, left out by every build from then on. When a
catalogue without it stands, the note gets its time; from that on the grace runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from fastindex import atomic
from fastindex.contract import STREAMS_DIRECTORY
from fastindex.errors import TreeError
from fastindex.model import Found, FoundVersion

_MOST_BYTES = 64 << 20


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


def _path(output: str) -> str:
    return os.path.join(output, STREAMS_DIRECTORY, ".withdrawn.json")


def load(output: str) -> Withdrawals:
    """Return what is withdrawn; raises TreeError where the note cannot be read.

    To go on without it would publish what is about to be deleted.
    """
    path = _path(output)
    try:
        return msgspec.json.decode(atomic.read_small_file(path, _MOST_BYTES), type=Withdrawals)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        raise TreeError(
            f"{path}: cannot be used ({error}), so it is not known which versions are to be "
            "published no more; mend it, or remove it to publish all that lies in the tree"
        ) from error


def save(output: str, withdrawals: Withdrawals) -> None:
    """Write what is withdrawn, durably; raises OSError."""
    data = msgspec.json.encode(dict(sorted(withdrawals.items())))
    atomic.replace_file(_path(output), data + b"\n")


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
