"""``.items.json``: what is already known of a version's files. Load, trust or distrust, save.

A cache is believed only while its key, xxh3_64 of (size, mtime_ns), equals the
file's own. One that is unreadable, torn, foreign or of wrong types is as good as
none. The blind spot: other bytes under the same size and mtime_ns go unnoticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Set

from msgspec import Struct
from msgspec.structs import replace

from fastindex.formats.simplestreams import (
    CACHE_NAME,
    UNDECODABLE,
    CachedItem,
    decode_cache,
    encode,
    with_both_metadata,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.system import atomic, directories
from fastindex.system.stamps import COARSEST_TICK_NS

_USUAL_BYTES = 16 << 10  # a read of a megabyte would cost six times the read
_MOST_BYTES = 1 << 20


class Cached(Struct, frozen=True):
    """An ``.items.json`` as read."""

    items: dict[str, CachedItem]
    """File name → item; empty where the file was absent or unusable."""
    mtime_ns: int
    """When it was written; what the seed tool's digests are judged by."""
    is_from_tree: bool = False
    """Whether it comes from the tree though the mirror keeps its caches elsewhere."""


NO_CACHE = Cached({}, 0)
"""What is known where there is no usable cache file."""


def load(mirror: Mirror, version_path: str) -> Cached:
    """Read what is cached of a version; anything wrong with it makes it empty. Never raises.

    Where the mirror has a cache directory without a cache of the version, the tree's own one
    is taken.
    """
    cached = _load_file(mirror.cache_path(version_path))
    if cached is NO_CACHE and mirror.cache_dir is not None:
        cached = _load_file(f"{mirror.root}/{version_path}/{CACHE_NAME}")
        return cached if cached is NO_CACHE else replace(cached, is_from_tree=True)
    return cached


def _load_file(path: str) -> Cached:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return NO_CACHE
    try:
        data = os.read(descriptor, _USUAL_BYTES)
        if len(data) == _USUAL_BYTES:
            data += os.read(descriptor, _MOST_BYTES)
        items = decode_cache(data)
        mtime_ns = os.fstat(descriptor).st_mtime_ns
        # One from the future would vouch for files that are newer than it is.
        return Cached(items, mtime_ns if mtime_ns <= time.time_ns() else 0)
    except (OSError, *UNDECODABLE):
        return NO_CACHE
    finally:
        directories.close(descriptor)


def trusted(item: CachedItem | None, file: FoundFile, cache_mtime_ns: int) -> CachedItem | None:
    """Return what the cache knows of ``file`` if it can be believed, with its key; else None.

    A lone metadata file's item is also kept under the other client's name: an item of another
    file is never believed, even if a builder gave both one stamp. An item without a key is
    the seed tool's: it is adopted if the size is equal and the file is clearly older than
    the cache.
    """
    stamp = file.stamp
    if item is None or item.size != stamp.size_bytes or not item.path.endswith("/" + file.name):
        return None
    key = stamp.key
    if item.key == key:
        return item
    is_adoptable = item.key is None and stamp.mtime_ns + COARSEST_TICK_NS <= cache_mtime_ns
    return replace(item, key=key) if is_adoptable else None


def has_sound_digests(digests: list[str]) -> bool:
    """Return whether all ``digests`` are 64 lowercase hex digits: strangers can write caches."""
    joined = "".join(digests)
    try:
        length = len(bytes.fromhex(joined))
    except ValueError:
        return False
    # Equal lengths: no white space, which fromhex skips.
    return length == 32 * len(digests) and len(joined) == 2 * length and joined == joined.lower()


def save(
    mirror: Mirror, version_path: str, items: dict[str, CachedItem], metadata_ftypes: Set[str]
) -> None:
    """Write the cache of a version where the mirror keeps it; both tools can read it.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.
        items: file name → item.
        metadata_ftypes: the kinds of metadata that lie in the version.

    Raises:
        FileNotFoundError: the version was removed meanwhile.
        OSError: it could not be written; the old one is as it was.
    """
    path = mirror.cache_path(version_path)
    if mirror.cache_dir is not None:
        atomic.replace_file(path, _encode(items, metadata_ftypes), is_durable=False)
        return
    # Through the version's open directory: a version that was removed meanwhile would come
    # back, empty, and be in the way.
    with directories.open_inside(os.path.dirname(path), mirror.bounds) as directory:
        save_in(directory, path, items, metadata_ftypes)


def save_in(
    directory: int, path: str, items: dict[str, CachedItem], metadata_ftypes: Set[str]
) -> None:
    """Write a cache into an open directory; ``path`` is what errors name. Raises OSError."""
    data = _encode(items, metadata_ftypes)
    atomic.replace_file(path, data, is_durable=False, directory=directory)


def _encode(items: dict[str, CachedItem], metadata_ftypes: Set[str]) -> bytes:
    """Encode a cache file; the seed tool expects lone metadata under the other name as well."""
    return encode(dict(sorted(with_both_metadata(items, metadata_ftypes).items())))
