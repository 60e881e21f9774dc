"""``.items.json``, the cache of a version: what is known about its files from earlier runs.

A cached item is used only while its key, xxh3_64 of (size, mtime_ns), equals the file's. A
cache that is unreadable, torn, foreign or has values of wrong types counts as absent. The
blind spot: a change that keeps both size and mtime_ns goes unnoticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence, Set
from contextlib import ExitStack, suppress
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from fastindex.formats.simplestreams import (
    CACHE_NAME,
    UNDECODABLE,
    CachedItem,
    decode_cache,
    encode,
    with_both_clients,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.system import atomic, directories
from fastindex.system.stamps import COARSEST_TICK_NS

_FIRST_READ_BYTES = 16 << 10  # enough for nearly all; asking for a megabyte is six times slower
_MAX_REST_BYTES = 1 << 20


class Cached(Struct, frozen=True):
    """The content of an ``.items.json``."""

    items: dict[str, CachedItem]
    """File name → item; empty if the file is absent or unusable."""
    mtime_ns: int
    """When it was written, in ns since the epoch; 0 if unknown or in the future. Items without
    a key are accepted only for files older than this."""
    is_worth_saving: bool = False
    """Whether it is worth saving as it is: it was read from the tree although the mirror has a
    cache directory, or it has been added to."""


NO_CACHE = Cached({}, 0)
"""Stands for an absent or unusable cache file."""


def load(mirror: Mirror, version_path: str, *, adopts: bool = False) -> Cached:
    """Read the cache of a version. Never raises.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.
        adopts: where the mirror has a cache directory, and the version has no usable cache there,
            believe the one in the tree, which whoever uploads images can write.

    Returns:
        The cache; ``NO_CACHE`` if there is none that can be used.
    """
    cached = _load_file(mirror.cache_path(version_path))
    if adopts and cached is NO_CACHE and mirror.cache_dir is not None:
        cached = _load_file(f"{mirror.root}/{version_path}/{CACHE_NAME}")
        return cached if cached is NO_CACHE else replace(cached, is_worth_saving=True)
    return cached


def _load_file(path: str) -> Cached:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return NO_CACHE
    try:
        data = os.read(descriptor, _FIRST_READ_BYTES)
        if len(data) == _FIRST_READ_BYTES:
            data += os.read(descriptor, _MAX_REST_BYTES)
        items = decode_cache(data)
        mtime_ns = os.fstat(descriptor).st_mtime_ns
        # A time in the future would make files acceptable that are newer than the cache.
        return Cached(items, mtime_ns if mtime_ns <= time.time_ns() else 0)
    except (OSError, *UNDECODABLE):
        return NO_CACHE
    finally:
        directories.close(descriptor)


def accept_item(item: CachedItem | None, file: FoundFile, cache_mtime_ns: int) -> CachedItem | None:
    """Return the cached item of ``file``, with its key, if it still holds; else None.

    The cache keeps the item of a lone metadata file under the other client's name as well. An
    item whose path names another file is never accepted, even if both files have one stamp.
    An item without a key was written by the seed tool (antifob's simplestreams.py): it is
    accepted if the size is equal and the file is clearly older than the cache.

    Args:
        item: the item in the cache under the file's name, if there is one.
        file: the file as it is now.
        cache_mtime_ns: when the cache was written.
    """
    stamp = file.stamp
    if item is None or item.size != stamp.size_bytes or not item.path.endswith("/" + file.name):
        return None
    key = stamp.key
    if item.key == key:
        return item
    is_older = stamp.mtime_ns + COARSEST_TICK_NS <= cache_mtime_ns
    return replace(item, key=key) if item.key is None and is_older else None


def save(mirror: Mirror, version_path: str, data: bytes) -> None:
    """Write the cache of a version to where the mirror keeps it; the seed tool can read it, too.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.
        data: the cache, from ``encode_cache``.

    Raises:
        FileNotFoundError: the version has been removed.
        OSError: the cache cannot be written; the old one is unchanged.
    """
    path = mirror.cache_path(version_path)
    if mirror.cache_dir is not None:
        atomic.replace_file(path, data, is_durable=False)
        return
    # Through the open directory: a path would create a version again that has been removed,
    # empty and in the way of the next import.
    with mirror.open_directory(version_path) as directory:
        save_in(directory, path, data)


def save_all(mirror: Mirror, caches: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Write the caches of versions, best those of one product after the other.

    Args:
        mirror: the mirror.
        caches: versions, relative to ROOT, each with what ``save`` needs.

    Returns:
        The versions whose caches cannot be written, each with the reason. Those that have been
        removed meanwhile are not among them: their caches are of no use.
    """
    failures: list[tuple[str, str]] = []
    for product, some in groupby(caches, _find_product):
        with ExitStack() as stack:
            above = None
            if mirror.cache_dir is None:
                with suppress(OSError):  # then each version says why
                    above = stack.enter_context(mirror.open_directory(product))
            for path, data in some:
                try:
                    if above is None or not _save_below(above, mirror, path, data):
                        save(mirror, path, data)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    failures.append((path, error.strerror or str(error)))
    return failures


def _find_product(cache: tuple[str, bytes]) -> str:
    return cache[0].rpartition("/")[0]


def _save_below(above: int, mirror: Mirror, path: str, data: bytes) -> bool:
    """Write the cache of a version in an open directory; return False if a symlink leads to it."""
    try:
        directory = directories.open_in(above, path.rpartition("/")[2])
    except OSError as error:
        if error.errno in directories.SYMLINK_ERRNOS:
            return False
        raise
    try:
        save_in(directory, mirror.cache_path(path), data)
    finally:
        directories.close(directory)
    return True


def save_in(directory: int, path: str, data: bytes) -> None:
    """Write the cache of a version into its open directory.

    Args:
        directory: a descriptor of the directory.
        path: the cache's path, for error messages.
        data: the cache, from ``encode_cache``.

    Raises:
        OSError: the cache cannot be written; the old one is unchanged.
    """
    atomic.replace_file(path, data, is_durable=False, directory=directory)


def encode_cache(items: dict[str, CachedItem], metadata_ftypes: Set[str]) -> bytes:
    """Encode a cache; the seed tool expects lone metadata under the other client's name, too.

    Args:
        items: file name → item.
        metadata_ftypes: the ftypes of the metadata files in the version.
    """
    return encode(dict(sorted(with_both_clients(items, metadata_ftypes).items())))
