"""``streams/.snapshot.json``: what a run with nothing left to do saw; if it holds, all is done.

A run that finds every product as it is known (see ``known``), and the published files as they
were, has nothing to do. The snapshot is in a directory that only the operator can write to. A
missing or torn one costs a few seconds, nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct
from xxhash import xxh3_128

from fastindex import __version__
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    decode_state,
    encode_state,
    product_file_path,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import deltas, outputs
from fastindex.mirror.state.damage import read_records
from fastindex.system import atomic, files

_NAME = ".snapshot.json"
_MAX_BYTES = 64 << 20
_RULES = 5
"""Raise it when a build decides otherwise about the same tree: the next run then looks again."""
PASSING = (Code.COMPANIONS_REMOVED, Code.DIRECTORY_VANISHED, Code.INDEX_REBUILT)
"""Codes of findings about what one run does: no later run tells them."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """What a run with nothing left to do saw."""

    known: str
    """Digest of what is known of the products."""
    published: str
    """Digest of the product files and the index."""
    findings: list[Finding]
    """What people should know that is about more than one product."""

    @staticmethod
    def select_lasting(findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that a run with nothing to do would have, too.

        The others compare a run with the one before.
        """
        return [finding for finding in findings if finding.code not in PASSING]


def digest_context(mirror: Mirror) -> bytes:
    """Return a digest of what all products follow from (16 bytes)."""
    rules = (__version__, _RULES, mirror.cache_dir, deltas.load(mirror).rules)
    hasher = xxh3_128(repr(rules).encode())
    # Runs for other outputs note in the caches what they find damaged; a cache is not looked at
    # unless its product has changed.
    for record in read_records(outputs.find_known_others(mirror), mirror.cache_dir):
        hasher.update(record)
    return hasher.digest()


def digest_known(mirror: Mirror, checksums: Iterable[bytes]) -> str:
    """Return a digest of the streams, their order and what is known of them (32 hex digits)."""
    return xxh3_128(repr((mirror.streams, list(checksums))).encode()).hexdigest()


class PublishedDigests(Struct, frozen=True):
    """Digests of the published catalogue files."""

    streams: dict[str, bytes]
    """Stream → digest of its product file; without those that cannot be read."""
    everything: str
    """Digest of all of them, and of the index; "" if one is missing."""


def digest_published(mirror: Mirror) -> PublishedDigests:
    """Return digests of the published catalogue files.

    Those of other streams count: an image that they have may not be published twice. So does
    whether the directories of those streams are there.
    """
    directory = os.path.dirname(INDEX_PATH)
    own = {product_file_path(stream) for stream in mirror.streams}
    try:
        names = os.listdir(os.path.join(mirror.output, directory))
    except OSError:
        return PublishedDigests({}, "")
    others = {f"{directory}/{name}" for name in names if name.endswith(".json")}
    whole = xxh3_128()
    streams: dict[str, bytes] = {}
    is_complete = True
    for path in sorted({*own, *others, INDEX_PATH}):
        stream = os.path.basename(path).removesuffix(".json")
        hasher = xxh3_128()
        try:
            # Piece by piece: the catalogue of a big mirror has hundreds of MB.
            for piece in files.read_pieces(os.path.join(mirror.output, path), MAX_CATALOGUE_BYTES):
                hasher.update(piece)
        except OSError:
            is_complete = False
            continue
        if path in own:
            streams[stream] = hasher.digest()
        is_there = os.path.isdir(mirror.path(stream))
        whole.update(f"{path}\0{is_there}\0".encode("utf-8", "surrogatepass") + hasher.digest())
    return PublishedDigests(streams, whole.hexdigest() if is_complete else "")


def load(mirror: Mirror) -> Snapshot | None:
    """Return the snapshot of the last run, or None if there is none that can be used."""
    try:
        data = files.read_small_file(mirror.state_path(_NAME), _MAX_BYTES)
        return decode_state(data, Snapshot)
    except (OSError, *UNDECODABLE):
        return None


def save(mirror: Mirror, snapshot: Snapshot) -> None:
    """Write ``snapshot``; errors are ignored, as no run depends on it."""
    # A finding about a name that is not valid UTF-8 cannot be encoded.
    with suppress(OSError, UnicodeEncodeError):
        data = encode_state(snapshot)
        atomic.replace_file(mirror.state_path(_NAME), data, is_durable=False)
