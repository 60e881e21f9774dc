"""Removing versions from the tree: each as a whole, and only files that are known.

The directory gets a hidden name first, so that nobody sees a half of it; what a killed
run leaves is found by that name and removed by the next.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fastindex import atomic
from fastindex.contract import CACHE_NAME
from fastindex.names import classify, is_version_name
from fastindex.recognition import is_companion
from fastindex.staging import MARK

_SUFFIX = ".pruned"
_OTHERS = (CACHE_NAME, f"{CACHE_NAME}.tmp", MARK, "meta.tar.xz")


def remove_version(version: str) -> list[str]:
    """Remove a version directory.

    Args:
        version: its absolute path.

    Returns:
        The names of files that are not known; they stay, in the hidden directory.

    Raises:
        OSError: something could not be removed; the version is hidden or as it was.
    """
    directory, name = os.path.split(version)
    hidden = os.path.join(directory, f".{name}{_SUFFIX}")
    if os.path.lexists(version):
        _require_directory(version)
        if os.path.lexists(hidden):
            empty(hidden)
        os.rename(version, hidden)
        atomic.sync_directory(directory)
    return empty(hidden) if os.path.lexists(hidden) else []


def empty(directory: str) -> list[str]:
    """Remove the known files in ``directory``, and it, if nothing is left; return what is."""
    _require_directory(directory)
    left: list[str] = []
    for name in sorted(os.listdir(directory)):
        if is_known(name):
            os.unlink(os.path.join(directory, name))
        else:
            left.append(name)
    if not left:
        os.rmdir(directory)
        atomic.sync_directory(os.path.dirname(directory))
    return left


def remove_file(path: str) -> None:
    """Remove one file of a version that stays; raises OSError."""
    directory = os.path.dirname(path)
    with suppress(FileNotFoundError):
        _require_directory(directory)
        os.unlink(path)
        atomic.sync_directory(directory)


def _require_directory(path: str) -> None:
    """Raise OSError where ``path`` is a link: what lies behind it is another's."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(None, "no directory but a link or a file", path)


def is_known(name: str) -> bool:
    """Return whether a file of a version is one that images consist of or bring along."""
    is_delta = name.endswith(".vcdiff")
    return classify(name) is not None or is_companion(name) or is_delta or name in _OTHERS


def leftovers(product: str, before_ns: int) -> list[str]:
    """Return the hidden version directories in a product's that nobody works in any more.

    Args:
        product: absolute path of the variant directory.
        before_ns: an upload or an import is taken for given up if nothing in it is younger;
            what a removal left is one at once.
    """
    found: list[str] = []
    with suppress(OSError), os.scandir(product) as entries:
        for entry in sorted(entries, key=_name):
            name = entry.name.removeprefix(".")
            is_hidden = name != entry.name and entry.is_dir(follow_symlinks=False)
            if not is_hidden or not is_version_name(name):
                continue
            if name.endswith(_SUFFIX) or is_given_up(entry.path, before_ns):
                found.append(entry.path)
    return found


def is_given_up(directory: str, before_ns: int) -> bool:
    """Return whether ``directory`` and all in it are older: nobody uploads there any more.

    The directory's own time counts, as an upload may give its files their old times.
    """
    try:
        times = [os.lstat(directory).st_mtime_ns]
        with os.scandir(directory) as entries:
            times += [entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries]
    except OSError:  # somebody is at it
        return False
    return max(times) < before_ns


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
