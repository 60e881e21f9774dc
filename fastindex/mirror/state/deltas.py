"""``streams/.deltas.json``: how many deltas the operator wants, and which are of no use.

Written by ``fastindex deltas``. A record that is lost or torn is as if there were none: one delta
of each root is published, and deltas that are too large are made once more.
"""

from __future__ import annotations

from msgspec import Struct

from fastindex.formats.simplestreams import UNDECODABLE, decode_state
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.system.files import read_small_file

_NAME = ".deltas.json"
_MAX_BYTES = 64 << 20


class DeltaRules(Struct, frozen=True):
    """Which deltas are published."""

    per_root: int = 1
    """How many of each root, those from the newest versions."""
    with_machines: bool = False
    """Whether those of disks are."""


ONE_DELTA = DeltaRules()
"""What Incus and LXD can use without a doubt."""


class Refusal(Struct, frozen=True):
    """A delta that is too large to be of use."""

    base_sha256: str
    """The digest of the root that it starts from."""
    sha256: str
    """The digest of the root that it leads to."""
    max_ratio: float
    """It is larger than so many per cent of the root."""


class DeltaRecord(Struct, frozen=True):
    """What is recorded."""

    rules: DeltaRules = ONE_DELTA
    """Which deltas are published."""
    refusals: dict[str, Refusal] = {}
    """Path of a delta, relative to ROOT → why it is not made."""


def load(mirror: Mirror) -> DeltaRecord:
    """Return what is recorded; of a record that cannot be used, nothing."""
    try:
        data = read_small_file(mirror.state_path(_NAME), _MAX_BYTES)
        return decode_state(data, DeltaRecord)
    except (OSError, *UNDECODABLE):
        return DeltaRecord()


def save(mirror: Mirror, record: DeltaRecord) -> None:
    """Write the record, durably; the mirror's lock is held.

    Raises:
        PublishError: it cannot be written; the old one is unchanged.
    """
    documents.save(mirror.state_path(_NAME), record)
