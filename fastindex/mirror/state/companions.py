"""``streams/.companions.json``: what accompanies the published catalogue, and what it was made of.

A run that does not make it any more removes it; a run with nothing to do sees here that all of it
is as it was. If the record is lost, everything is made again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_128

from fastindex.errors import Code, TreeError
from fastindex.events import Finding
from fastindex.formats.simplestreams import INDEX_PATH, MAX_CATALOGUE_BYTES
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents
from fastindex.system import atomic, files
from fastindex.system.stamps import Stamp, stamp_of

_NAME = ".companions.json"
COPY_SUFFIXES = (".json.gz", ".json.zst", ".json.gpg", ".sjson")
"""What copies of a catalogue file, compressed or signed, have in their names for its ``.json``."""
_COPY = "|".join(map(re.escape, COPY_SUFFIXES))
_COMPANION = re.compile(
    rf"index\.html|feed\.atom|streams/([^/.][^/]*|v1/[^/]+({_COPY})|page/[^/]+)", re.ASCII
)
"""What makers may call what they make."""


class CompanionRecord(Struct, frozen=True, array_like=True):
    """A file that accompanies the catalogue."""

    of: str = ""
    """The path of the catalogue file that it describes; "": the whole catalogue."""
    source: str = ""
    """The digest of that file (``digest_file``)."""
    maker: str = ""
    """The name of what made it."""
    stamp: Stamp | None = None
    """Its stamp; None: a run was about to write it."""

    def is_at(self, path: str) -> bool:
        """Return whether the file at ``path`` is still the one that was made."""
        try:
            return self.stamp == stamp_of(os.lstat(path))
        except OSError:
            return False


class Companions(Struct, frozen=True, omit_defaults=True):
    """All that accompanies the catalogue."""

    published: str = ""
    """The digest of the catalogue that it was made of; "": not all of it is made."""
    published_at: float = 0
    """When that catalogue was published first, in seconds since 1970."""
    sources: dict[str, str] = {}
    """The path of each of its files → the digest of that."""
    makers: dict[str, str] = {}
    """The name of each maker → its fingerprint."""
    files: dict[str, CompanionRecord] = {}
    """Path relative to the output directory → what is there."""


def load(mirror: Mirror) -> Companions:
    """Return what accompanies the catalogue; nothing if the record cannot be read.

    Of a record that somebody has forged, only what companions can be called is believed.
    """
    try:
        found = documents.load(find_record(mirror), Companions, "")
    except TreeError:
        return Companions()
    files = {path: one for path, one in found.files.items() if _COMPANION.fullmatch(path)}
    return replace(found, files=files) if len(files) < len(found.files) else found


def save(mirror: Mirror, companions: Companions) -> None:
    """Record what accompanies the catalogue, or remove the record if nothing does.

    Raises:
        PublishError: it cannot be written.
        OSError: it cannot be removed.
    """
    if companions.files or companions.makers:
        documents.save(find_record(mirror), companions)
        return
    with suppress(FileNotFoundError):
        atomic.remove_file(find_record(mirror))


def list_paths(mirror: Mirror) -> list[str]:
    """Return the paths of all that accompanies the catalogue, relative to the output directory."""
    return sorted(load(mirror).files)


def is_current(
    mirror: Mirror, companions: Companions, fingerprints: Mapping[str, str], published: str
) -> bool:
    """Return whether everything is made as it is to be, and nobody has touched it.

    Args:
        mirror: the mirror.
        companions: what is recorded.
        fingerprints: of what makes them now.
        published: the digest of the catalogue now.
    """
    if not fingerprints and not companions.files:
        return True
    is_same = companions.published == published and companions.makers == fingerprints
    return is_same and all(
        record.is_at(os.path.join(mirror.output, path)) for path, record in companions.files.items()
    )


def find_stale(mirror: Mirror) -> list[Finding]:
    """Return a finding for each copy of a catalogue file that is older than that.

    Servers send copies in its place. Those that are recorded are made again, or removed.
    """
    directory = os.path.join(mirror.output, os.path.dirname(INDEX_PATH))
    times: dict[str, int] = {}
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                times[entry.name] = entry.stat().st_mtime_ns
    older = {
        f"{os.path.dirname(INDEX_PATH)}/{name}": stem
        for name in sorted(times)
        for suffix in COPY_SUFFIXES
        if (stem := name.removesuffix(suffix)) != name
        if times[name] < times.get(f"{stem}.json", 0)
    }
    known = load(mirror).files if older else {}
    return [
        Finding(
            Code.STALE_COPY,
            path,
            f"is older than {stem}.json, and servers may send it in the place of that",
            "remove it, or see that what makes it runs after each build; fastindex did not make it",
        )
        for path, stem in older.items()
        if path not in known
    ]


def digest_file(path: str) -> str:
    """Return the digest by which it is seen whether a catalogue file has changed: xxh3_128.

    Raises:
        OSError: it cannot be read.
    """
    hasher = xxh3_128()
    for piece in files.read_pieces(path, MAX_CATALOGUE_BYTES):
        hasher.update(piece)
    return hasher.hexdigest()


def find_record(mirror: Mirror) -> str:
    """Return the absolute path of the record."""
    return mirror.state_path(_NAME)
