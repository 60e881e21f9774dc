"""``.items.json``: what is already known of a version's files. Load, trust or not, save.

A cache is believed only while its key, xxh3_64 of (size, mtime_ns), equals the
file's own. One that is unreadable, torn, foreign or of wrong types is as good as
none. The blind spot: other bytes under the same size and mtime_ns go unnoticed.
"""

from __future__ import annotations

import os
import time

import msgspec
from xxhash import xxh3_64_hexdigest

from fastindex.formats.simplestreams import (
    CACHE_NAME,
    UNDECODABLE,
    CachedItem,
    decode_cache,
    encode,
    with_both_metadata,
)
from fastindex.mirror.tree import Cached, FoundFile
from fastindex.system import atomic, directories

TICK_NS = 2_000_000_000
"""Coarsest timestamp granularity of a file system in use (FAT: 2 s): a stamp younger
than this may hide a later write in the same tick."""

_USUAL_BYTES = 16 << 10  # a read of a megabyte would cost six times the read
_MOST_BYTES = 1 << 20
NO_CACHE = Cached({}, 0)
"""What is known where there is no usable cache file."""


def stamp_key(size_bytes: int, mtime_ns: int) -> str:
    """Return the cache key of a stamp: 16 hex digits."""
    return xxh3_64_hexdigest(b"%d %d" % (size_bytes, mtime_ns))


def key_if_settled(size_bytes: int, mtime_ns: int, hashing_began_ns: int) -> str:
    """Return the cache key, or "" where the file is too young to trust its stamp.

    Args:
        size_bytes: the file's length.
        mtime_ns: its modification time since the epoch.
        hashing_began_ns: the clock just before the first byte was read.
    """
    is_settled = mtime_ns + TICK_NS <= hashing_began_ns
    return stamp_key(size_bytes, mtime_ns) if is_settled else ""


def cache_path(directory: str, version_path: str) -> str:
    """Return where the cache of the version at ``version_path`` lies below ``directory``."""
    return f"{directory}/{version_path}/{CACHE_NAME}"


def load(root: str, cache_dir: str | None, version_path: str) -> Cached:
    """Read what is cached of a version; anything wrong with it makes it empty. Never raises.

    With a ``cache_dir`` that has no cache of the version yet, the tree's own is taken.
    """
    if cache_dir is not None:
        cached = _load_file(cache_path(cache_dir, version_path))
        if cached is not NO_CACHE:
            return cached
    return _load_file(cache_path(root, version_path))


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

    A lone metadata file's item stands under the other's name as well: an item that is
    another file's is never believed, even if a builder gave both one stamp. An item
    without a key is the seed tool's: it is adopted if the size is equal and the file is
    clearly older than the cache.
    """
    if item is None or item.size != file.size_bytes or not item.path.endswith("/" + file.name):
        return None
    key = stamp_key(file.size_bytes, file.mtime_ns)
    if item.key == key:
        return item
    is_adoptable = item.key is None and file.mtime_ns + TICK_NS <= cache_mtime_ns
    return msgspec.structs.replace(item, key=key) if is_adoptable else None


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
    path: str,
    items: dict[str, CachedItem],
    metadata_ftypes: set[str],
    directory: int | None = None,
) -> None:
    """Write a cache file that both tools can use.

    Args:
        path: of the cache file.
        items: file name → item.
        metadata_ftypes: the kinds of metadata that lie in the version; the seed tool
            expects a lone one under the other's name as well.
        directory: as for ``atomic.replace_file``. Always in the tree: a version that was
            removed meanwhile would come back, empty, and be in the way.

    Raises:
        OSError: it could not be written; the old one is as it was.
    """
    both = with_both_metadata(items, metadata_ftypes)
    data = encode(dict(sorted(both.items())))
    atomic.replace_file(path, data, is_durable=False, directory=directory)
