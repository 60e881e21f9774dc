"""Removing versions from the tree: each as a whole, and only files that are known.

The directory gets a hidden name first, so that nobody sees a half of it; what a killed
run leaves is found by that name and removed by the next.
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
WITHDRAWN_MARK = ".withdrawn"
"""In a version directory: it is withdrawn, by whatever output, and its files will be deleted."""
_OTHERS = (CACHE_NAME, f"{CACHE_NAME}.tmp", MARK, WITHDRAWN_MARK, "meta.tar.xz")
_NEW_MARK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_version(mirror: Mirror, version_path: str) -> list[str]:
    """Remove a version directory.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.

    Returns:
        The names of files that are not an image's; they stay, in the hidden directory.

    Raises:
        OSError: something could not be removed; the version is hidden or as it was.
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
    """Remove a hidden directory of a product's and an image's files in it.

    Args:
        mirror: the mirror.
        path: the directory, relative to ROOT.

    Returns:
        The names of files that are not an image's; they stay, and the directory with them.

    Raises:
        OSError: something could not be removed.
    """
    product, name = os.path.split(mirror.path(path))
    with directories.open_inside(product, mirror.bounds) as above:
        return _empty(name, above)


def _empty(name: str, above: int) -> list[str]:
    _require_directory(name, above)
    left: list[str] = []
    with directories.closing(directories.open_in(above, name)) as directory:
        for file in sorted(os.listdir(directory)):
            if is_image_file(file):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
            else:
                left.append(file)
    if not left:
        os.rmdir(name, dir_fd=above)
        os.fsync(above)
    return left


def remove_file(mirror: Mirror, path: str) -> None:
    """Remove one file (relative to ROOT) of a version that stays; raises OSError."""
    version, name = os.path.split(mirror.path(path))
    product, version_name = os.path.split(version)
    with suppress(FileNotFoundError), directories.open_inside(product, mirror.bounds) as above:
        _require_directory(version_name, above)
        with directories.closing(directories.open_in(above, version_name)) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)


def mark_withdrawn(mirror: Mirror, version_path: str) -> None:
    """Mark a version's directory as withdrawn, for imports that are told of another output.

    A directory that cannot be marked cannot be deleted either.
    """
    version = mirror.path(version_path)
    with suppress(OSError), directories.open_inside(version, mirror.bounds) as directory:
        mark = os.open(WITHDRAWN_MARK, _NEW_MARK, 0o644, dir_fd=directory)
        with directories.closing(mark):
            directories.set_mode_and_group(mark, directory, 0o644)


def unmark_withdrawn(mirror: Mirror, version_path: str) -> None:
    """Remove the mark; raises OSError where it stays."""
    version = mirror.path(version_path)
    with suppress(FileNotFoundError), directories.open_inside(version, mirror.bounds) as directory:
        os.unlink(WITHDRAWN_MARK, dir_fd=directory)


def is_marked_withdrawn(mirror: Mirror, version_path: str) -> bool:
    """Return whether a version's directory is marked as withdrawn, by whatever output."""
    return os.path.lexists(f"{mirror.path(version_path)}/{WITHDRAWN_MARK}")


def _require_directory(name: str, above: int) -> None:
    """Raise OSError where ``name`` is a link: what lies behind it is another's."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
        raise OSError(None, "not a directory", name)


def is_image_file(name: str) -> bool:
    """Return whether a file of a version is one that images consist of or bring along."""
    is_delta = name.endswith(".vcdiff")
    return classify(name) is not None or is_companion(name) or is_delta or name in _OTHERS


def find_leftovers(mirror: Mirror, product_path: str, before_ns: int) -> list[str]:
    """Return the hidden version directories in a product's that nobody works in any more.

    Args:
        mirror: the mirror.
        product_path: the variant directory, relative to ROOT.
        before_ns: an upload or an import counts as abandoned if nothing in it is younger;
            what a removal left behind does at once.

    Returns:
        Their paths, relative to ROOT.
    """
    found: list[str] = []
    with suppress(OSError), os.scandir(mirror.path(product_path)) as entries:
        for entry in sorted(entries, key=_name):
            name = entry.name.removeprefix(".")
            is_hidden = name != entry.name and entry.is_dir(follow_symlinks=False)
            if not is_hidden or not is_version_name(name):
                continue
            if name.endswith(_SUFFIX) or is_abandoned(entry.path, before_ns):
                found.append(f"{product_path}/{entry.name}")
    return found


def is_abandoned(directory: str, before_ns: int) -> bool:
    """Return whether ``directory`` and all in it are older: nobody uploads there any more.

    The directory's own time counts, as an upload may give its files their old times.
    """
    try:
        times = [os.lstat(directory).st_mtime_ns]
        with os.scandir(directory) as entries:
            times += [entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries]
    except OSError:  # somebody is changing it
        return False
    return max(times) < before_ns


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
