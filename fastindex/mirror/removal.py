"""Removing versions from the tree: each as a whole, and only files that are known.

The directory gets a hidden name first, so that nobody sees a half of it; what a killed
run leaves is found by that name and removed by the next.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fastindex.formats.names import classify, is_version_name
from fastindex.formats.recognition import is_companion
from fastindex.formats.simplestreams import CACHE_NAME
from fastindex.mirror.staging import MARK
from fastindex.system import directories

_SUFFIX = ".pruned"
WITHDRAWN_MARK = ".withdrawn"
"""In a version directory: it is withdrawn, by whatever output, and its files will go."""
_OTHERS = (CACHE_NAME, f"{CACHE_NAME}.tmp", MARK, WITHDRAWN_MARK, "meta.tar.xz")
_NEW_MARK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_version(version: str, bounds: tuple[str, ...]) -> list[str]:
    """Remove a version directory.

    Args:
        version: its absolute path.
        bounds: what it must lie in, as ``directories.bounds_of`` tells.

    Returns:
        The names of files that are not known; they stay, in the hidden directory.

    Raises:
        OSError: something could not be removed; the version is hidden or as it was.
    """
    product, name = os.path.split(version)
    hidden = f".{name}{_SUFFIX}"
    with suppress(FileNotFoundError), directories.inside(product, bounds) as above:
        with suppress(FileNotFoundError):
            _require_directory(name, above)
            with suppress(FileNotFoundError):
                _empty(hidden, above)
            os.rename(name, hidden, src_dir_fd=above, dst_dir_fd=above)
            os.fsync(above)
        return _empty(hidden, above)
    return []


def empty(directory: str, bounds: tuple[str, ...]) -> list[str]:
    """Remove the known files in ``directory``, and it, if nothing is left; return what is."""
    product, name = os.path.split(directory)
    with directories.inside(product, bounds) as above:
        return _empty(name, above)


def _empty(name: str, above: int) -> list[str]:
    _require_directory(name, above)
    left: list[str] = []
    with directories.held(directories.open_in(above, name)) as directory:
        for file in sorted(os.listdir(directory)):
            if is_known(file):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
            else:
                left.append(file)
    if not left:
        os.rmdir(name, dir_fd=above)
        os.fsync(above)
    return left


def remove_file(path: str, bounds: tuple[str, ...]) -> None:
    """Remove one file of a version that stays; raises OSError."""
    version, name = os.path.split(path)
    product, version_name = os.path.split(version)
    with suppress(FileNotFoundError), directories.inside(product, bounds) as above:
        _require_directory(version_name, above)
        with directories.held(directories.open_in(above, version_name)) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)


def mark_withdrawn(version: str, bounds: tuple[str, ...]) -> None:
    """Let a version's directory say that it is withdrawn, to imports told of no output.

    Where it cannot be marked, it cannot be deleted either.
    """
    with suppress(OSError), directories.inside(version, bounds) as directory:
        mark = os.open(WITHDRAWN_MARK, _NEW_MARK, 0o644, dir_fd=directory)
        with directories.held(mark):
            directories.settle(mark, directory, 0o644)


def unmark_withdrawn(version: str, bounds: tuple[str, ...]) -> None:
    """Take the mark away; raises OSError where it stays."""
    with suppress(FileNotFoundError), directories.inside(version, bounds) as directory:
        os.unlink(WITHDRAWN_MARK, dir_fd=directory)


def _require_directory(name: str, above: int) -> None:
    """Raise OSError where ``name`` is a link: what lies behind it is another's."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
        raise OSError(None, "no directory but a link or a file", name)


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
