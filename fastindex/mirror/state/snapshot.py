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
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct
from xxhash import xxh3_128

from fastindex import __version__
from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MOST_CATALOGUE_BYTES,
    UNDECODABLE,
    product_file_path,
)
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.tree import Found
from fastindex.system import atomic


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
    streams: Sequence[str],
    found: Sequence[Found],
    findings: Iterable[Finding],
    settings: SettingsReader,
    damaged: Mapping[str, str],
) -> str:
    """Return the digest of all that the catalogue follows from.

    Args:
        streams: in the order of the command line.
        found: what the scan saw.
        findings: what the scan left out.
        settings: reads the settings files, whose contents count.
        damaged: files that are left out as damaged.
    """
    hasher = xxh3_128(repr((__version__, streams)).encode())
    hasher.update(repr(sorted(damaged.items())).encode("utf-8", "surrogatepass"))
    for product, versions in found:
        lines = [f"{product.path}\0{product.dotfiles}"]
        for version in versions:
            lines.append(f"{version.name}\0{version.broken}")
            lines += [f"{file.name}\0{file.size_bytes} {file.mtime_ns}" for file in version.files]
        hasher.update("\0\0".join(lines).encode("utf-8", "surrogatepass"))
    for finding in findings:
        hasher.update(repr(finding).encode("utf-8", "surrogatepass"))
    dotfiles = (path for product, _ in found for path in product.dotfiles)
    for path, content in settings.contents(dotfiles):
        hasher.update(repr((path, content)).encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def published_digest(output: str, streams: Iterable[str]) -> str:
    """Return the digest of the catalogue files as they lie in ``output``; "" where one is not."""
    hasher = xxh3_128()
    for path in (*map(product_file_path, streams), INDEX_PATH):
        try:
            # Piece by piece: the catalogue of a big mirror is of hundreds of MB.
            for piece in atomic.pieces_of(os.path.join(output, path), MOST_CATALOGUE_BYTES):
                hasher.update(piece)
        except OSError:
            return ""
    return hasher.hexdigest()


def load(path: str) -> Snapshot | None:
    """Return the snapshot at ``path``, or None where there is no usable one."""
    try:
        return msgspec.json.decode(
            atomic.read_small_file(path, MOST_CATALOGUE_BYTES), type=Snapshot
        )
    except (OSError, *UNDECODABLE):
        return None


def save(path: str, snapshot: Snapshot) -> None:
    """Write ``snapshot``; raises OSError where that fails."""
    atomic.replace_file(path, msgspec.json.encode(snapshot) + b"\n", is_durable=False)
