"""What the last run saw, as one digest: where nothing has changed, nothing is to be done.

The catalogue is a function of the names and stamps in the tree, the settings files and
this program. A run that sees the same as the last one therefore ends after the scan,
without opening one ``.items.json``. The snapshot lies beside the lock, in a directory
that only the operator writes; a missing or torn one costs a few seconds, nothing else.
It is not written where the next run must look again: after a file that failed, or that
was too young to trust.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from msgspec import Struct
from xxhash import xxh3_128

from fastindex import __version__
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
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.tree import Found
from fastindex.system import atomic, files

_NAME = ".snapshot.json"


class Snapshot(Struct, frozen=True, kw_only=True):
    """A run's input as one digest, its output as another, and what it told."""

    state: str
    """Digest of all that the catalogue follows from."""
    published: str
    """Digest of the product files and the index that followed from it."""
    products: int
    versions: int
    files: int
    findings: list[Finding]


def state_of(
    mirror: Mirror,
    found: Sequence[Found],
    findings: Iterable[Finding],
    settings: SettingsReader,
    damaged: DamagedFiles,
) -> str:
    """Return the digest of all that the catalogue and the caches follow from.

    Args:
        mirror: its streams, in their order, and where it keeps its caches.
        found: what the scan saw.
        findings: what the scan left out.
        settings: reads the settings files, whose contents count.
        damaged: files that are left out as damaged.
    """
    hasher = xxh3_128(repr((__version__, mirror.streams, mirror.cache_dir)).encode())
    hasher.update(repr(damaged.items()).encode("utf-8", "surrogatepass"))
    for product, versions in found:
        lines = [f"{product.path}\0{product.dotfiles}"]
        for version in versions:
            lines.append(f"{version.name}\0{version.broken}")
            for file in version.files:
                stamp = file.stamp
                lines.append(f"{file.name}\0{stamp.size_bytes} {stamp.mtime_ns}")
        hasher.update("\0\0".join(lines).encode("utf-8", "surrogatepass"))
    for finding in findings:
        hasher.update(repr(finding).encode("utf-8", "surrogatepass"))
    dotfiles = (path for product, _ in found for path in product.dotfiles)
    for path, content in settings.contents(dotfiles):
        hasher.update(repr((path, content)).encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def published_digest(mirror: Mirror) -> str:
    """Return the digest of the published catalogue files; "" where one is missing."""
    hasher = xxh3_128()
    for path in (*map(product_file_path, mirror.streams), INDEX_PATH):
        try:
            # Piece by piece: the catalogue of a big mirror is of hundreds of MB.
            for piece in files.read_pieces(os.path.join(mirror.output, path), MAX_CATALOGUE_BYTES):
                hasher.update(piece)
        except OSError:
            return ""
    return hasher.hexdigest()


def load(mirror: Mirror) -> Snapshot | None:
    """Return what the last run saw, or None where there is nothing usable."""
    try:
        data = files.read_small_file(mirror.state_path(_NAME), MAX_CATALOGUE_BYTES)
        return decode_state(data, Snapshot)
    except (OSError, *UNDECODABLE):
        return None


def save(mirror: Mirror, snapshot: Snapshot) -> None:
    """Write ``snapshot``, if that is possible: it saves seconds, and no run needs it."""
    # A finding about a name that is not UTF-8 has no JSON form.
    with suppress(OSError, UnicodeEncodeError):
        data = encode_state(snapshot)
        atomic.replace_file(mirror.state_path(_NAME), data, is_durable=False)
