"""Removing versions from the tree: only known files, and never half a version in sight.

The version directory is first renamed to a hidden name. If a run is killed, the next one
finds the directory by that name and goes on.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fastindex.formats.names import classify, is_companion, is_version_name
from fastindex.formats.simplestreams import CACHE_NAME
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import MARK
from fastindex.system import directories

_SUFFIX = ".pruned"
_OTHER_NAMES = (CACHE_NAME, f"{CACHE_NAME}.tmp", MARK, "meta.tar.xz")


def remove_version(mirror: Mirror, version_path: str) -> list[str]:
    """Remove a version directory.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.

    Returns:
        The names of files that do not belong to an image; they stay, in the hidden directory.

    Raises:
        OSError: a file cannot be removed; the version is hidden or unchanged.
    """
    product, name = os.path.split(mirror.path(version_path))
    hidden = f".{name}{_SUFFIX}"
    with suppress(FileNotFoundError), directories.open_inside(product, mirror.bounds) as above:
        with suppress(FileNotFoundError):
            _require_directory(name, above)
            with suppress(FileNotFoundError):
                _empty(hidden, above)
            os.rename(name, hidden, src_dir_fd=above, dst_dir_fd=above)
            os.fsync(above)
        return _empty(hidden, above)
    return []


def remove_leftover(mirror: Mirror, path: str) -> list[str]:
    """Remove a hidden directory in a product and the files of an image in it.

    Args:
        mirror: the mirror.
        path: the directory, relative to ROOT.

    Returns:
        The names of files that do not belong to an image; they stay, and so does the directory.

    Raises:
        OSError: a file cannot be removed.
    """
    product, name = os.path.split(mirror.path(path))
    with directories.open_inside(product, mirror.bounds) as above:
        return _empty(name, above)


def _empty(name: str, above: int) -> list[str]:
    _require_directory(name, above)
    kept: list[str] = []
    with directories.closing(directories.open_in(above, name)) as directory:
        for file in sorted(os.listdir(directory)):
            if is_image_file(file):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
            else:
                kept.append(file)
    if not kept:
        os.rmdir(name, dir_fd=above)
        os.fsync(above)
    return kept


def remove_file(mirror: Mirror, path: str) -> None:
    """Remove one file of a version that stays.

    Args:
        mirror: the mirror.
        path: the file, relative to ROOT; it may be gone already.

    Raises:
        OSError: it cannot be removed.
    """
    version, name = os.path.split(mirror.path(path))
    product, version_name = os.path.split(version)
    with suppress(FileNotFoundError), directories.open_inside(product, mirror.bounds) as above:
        _require_directory(version_name, above)
        with directories.closing(directories.open_in(above, version_name)) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)


def _require_directory(name: str, above: int) -> None:
    """Raise OSError if ``name`` is not a directory; a symlink may lead to other people's files."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
        raise OSError(None, "not a directory", name)


def is_image_file(name: str) -> bool:
    """Return whether a file with this name belongs to an image, or comes with one."""
    is_delta = name.endswith(".vcdiff")
    return classify(name) is not None or is_companion(name) or is_delta or name in _OTHER_NAMES


def find_leftovers(mirror: Mirror, product_path: str, before_ns: int) -> list[str]:
    """Return the hidden version directories in a product that nobody is working in any more.

    Args:
        mirror: the mirror.
        product_path: the variant directory, relative to ROOT.
        before_ns: time in ns since the epoch; an upload or import is abandoned if all in it
            is older. The remains of a removal are abandoned at any age.

    Returns:
        Paths relative to ROOT, sorted.
    """
    found: list[str] = []
    with suppress(OSError), os.scandir(mirror.path(product_path)) as entries:
        for entry in sorted(entries, key=_by_name):
            name = entry.name.removeprefix(".")
            is_hidden = name != entry.name and entry.is_dir(follow_symlinks=False)
            if not is_hidden or not is_version_name(name):
                continue
            if name.endswith(_SUFFIX) or is_abandoned(entry.path, before_ns):
                found.append(f"{product_path}/{entry.name}")
    return found


def is_abandoned(directory: str, before_ns: int) -> bool:
    """Return whether ``directory`` and all in it are older: nobody is uploading to it any more.

    The directory's own time counts, too: an upload may preserve the old times of its files.

    Args:
        directory: its path.
        before_ns: time in ns since the epoch.
    """
    try:
        times = [os.lstat(directory).st_mtime_ns]
        with os.scandir(directory) as entries:
            times += [entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries]
    except OSError:  # somebody is changing it
        return False
    return max(times) < before_ns


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name
