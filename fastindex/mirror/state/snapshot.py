"""``streams/.snapshot.json``: what the last run saw, as a digest; if it still holds, all is done.

The catalogue is a function of the names and stamps in the tree, the settings files and this
program. A run that sees the same as the last one ends after the scan, without opening an
``.items.json``. The snapshot is in a directory that only the operator can write to. A missing
or torn one costs a few seconds, nothing else. A run does not write it if the next one must
look again: after a file failed, or was too young to trust.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from xxhash import xxh3_128

from fastindex import __version__
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    IMAGE_YAML_NAME,
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    decode_state,
    encode_state,
    product_file_path,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.state import outputs
from fastindex.mirror.state.damage import DamagedFiles, read_records
from fastindex.mirror.tree import Found
from fastindex.system import atomic, files

_NAME = ".snapshot.json"
_RULES = 2
"""Raise it when a build decides otherwise about the same tree: the next run then looks again."""
PASSING = (Code.DIRECTORY_VANISHED, Code.INDEX_REBUILT)
"""Codes of findings about what one run does: no later run tells them."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """The input of a run as one digest, its output as another, and its report."""

    state: str
    """Digest of all that the catalogue depends on."""
    published: str
    """Digest of the product files and the index."""
    products: int
    """How many products were published."""
    versions: int
    """How many versions were published."""
    files: int
    """How many files they have."""
    findings: list[Finding]
    """What was left out, and what people should know."""

    @staticmethod
    def select_lasting(findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that a run with nothing to do would have, too.

        The others compare a run with the one before.
        """
        return [finding for finding in findings if finding.code not in PASSING]


def digest_state(
    mirror: Mirror,
    found: Sequence[Found],
    findings: Iterable[Finding],
    settings: SettingsReader,
    damaged: DamagedFiles,
) -> str:
    """Return a digest of all that the catalogue and the caches depend on.

    Args:
        mirror: its streams, their order and its cache directory count.
        found: what the scan found.
        findings: what the scan left out.
        settings: reads the settings files, whose bytes count.
        damaged: the files that are known to be damaged.

    Returns:
        32 hex digits.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    hasher = xxh3_128(repr((__version__, _RULES, mirror.streams, mirror.cache_dir)).encode())
    hasher.update(repr(damaged.describe_state()).encode("utf-8", "surrogatepass"))
    # Runs for other outputs note in the caches what they find damaged; a cache is not looked at
    # here.
    for record in read_records(outputs.find_known_others(mirror)):
        hasher.update(record)
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y%m%d}"
    for product, versions in found:
        lines = [f"{product.path}\0{product.dotfiles}"]
        for version in versions:
            lines.append(version.name)
            is_ahead = version.name[:8] > tomorrow
            if version.broken or is_ahead:
                lines.append(f"{version.broken}\0{is_ahead}")
            if version.checksums is not None:
                lines.append(f"{version.checksums.size_bytes} {version.checksums.mtime_ns}")
            lines += [
                f"{file.name}\0{file.stamp.size_bytes} {file.stamp.mtime_ns}"
                for file in version.files
            ]
            if version.image_yaml is not None:
                stamp = version.image_yaml
                lines.append(f"{IMAGE_YAML_NAME}\0{stamp.size_bytes} {stamp.mtime_ns}")
        hasher.update("\0\0".join(lines).encode("utf-8", "surrogatepass"))
    for finding in findings:
        hasher.update(repr(finding).encode("utf-8", "surrogatepass"))
    dotfiles = (path for product, _ in found for path in product.dotfiles)
    for path, content in settings.read_contents(dotfiles):
        hasher.update(repr((path, content)).encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def digest_published(mirror: Mirror) -> str:
    """Return a digest of the published catalogue files (32 hex digits); "" if one is missing.

    Those of other streams count: an image that they have may not be published twice. So does
    whether the directories of those streams are there.
    """
    hasher = xxh3_128()
    directory = os.path.dirname(INDEX_PATH)
    try:
        names = os.listdir(os.path.join(mirror.output, directory))
    except OSError:
        return ""
    own = (*map(product_file_path, mirror.streams), INDEX_PATH)
    others = (f"{directory}/{name}" for name in names if name.endswith(".json"))
    for path in sorted({*own, *others}):
        stream = os.path.basename(path).removesuffix(".json")
        is_there = os.path.isdir(mirror.path(stream))
        hasher.update(f"{path}\0{is_there}".encode("utf-8", "surrogatepass"))
        try:
            # Piece by piece: the catalogue of a big mirror has hundreds of MB.
            for piece in files.read_pieces(os.path.join(mirror.output, path), MAX_CATALOGUE_BYTES):
                hasher.update(piece)
        except OSError:
            return ""
    return hasher.hexdigest()


def load(mirror: Mirror) -> Snapshot | None:
    """Return the snapshot of the last run, or None if there is none that can be used."""
    try:
        data = files.read_small_file(mirror.state_path(_NAME), MAX_CATALOGUE_BYTES)
        return decode_state(data, Snapshot)
    except (OSError, *UNDECODABLE):
        return None


def save(mirror: Mirror, snapshot: Snapshot) -> None:
    """Write ``snapshot``; errors are ignored, as no run depends on it."""
    # A finding about a name that is not valid UTF-8 cannot be encoded.
    with suppress(OSError, UnicodeEncodeError):
        data = encode_state(snapshot)
        atomic.replace_file(mirror.state_path(_NAME), data, is_durable=False)
