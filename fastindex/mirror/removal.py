"""Removing versions from the tree: only known files, and never half a version in sight.

The directory is first renamed to a hidden name, so that it is out of the way of whoever makes a
version of its name. If a run is killed, the next one finds the directory by that name and goes on.
Files that do not belong to an image stay in it.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress

from fastindex.formats.names import PRODUCT_DEPTH, classify, is_companion, is_version_name
from fastindex.formats.simplestreams import CACHE_NAME
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import MARK, NOTES
from fastindex.system import directories, locks

ABANDONED_SECONDS = 24 * 60 * 60
"""An upload or an incomplete version that has not changed for so long is abandoned."""
MAX_ENTRIES = 100_000
"""A directory with more in it is never abandoned: nobody waits for a count of millions."""

_SUFFIX = ".pruned"
_IS_PRUNED = re.compile(rf"{re.escape(_SUFFIX)}(\.[0-9]+)?$")
_OTHER_NAMES = (CACHE_NAME, f"{CACHE_NAME}.tmp", MARK, NOTES, f"{NOTES}.tmp", "meta.tar.xz")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def remove_version(mirror: Mirror, version_path: str) -> list[str]:
    """Remove a version directory; of a symlink, only itself and not where it leads.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.

    Returns:
        Paths, relative to ROOT, of files that do not belong to an image; they stay, in a hidden
        directory.

    Raises:
        OSError: a file cannot be removed, or an import is working in it; the version is hidden or
            unchanged.
    """
    product, name = os.path.split(version_path)
    with suppress(FileNotFoundError), mirror.open_directory(product) as above:
        try:
            is_symlink = _is_symlink(name, above)
        except FileNotFoundError:
            return _finish_removals(version_path, above)
        if is_symlink:
            os.unlink(name, dir_fd=above)
            os.fsync(above)
            return []
        return _hide_and_empty(version_path, above)
    return []


def _finish_removals(version_path: str, above: int) -> list[str]:
    """Remove what is left of a version whose removal was interrupted."""
    stem = f".{os.path.basename(version_path)}{_SUFFIX}"
    return [
        kept
        for name in sorted(os.listdir(above))
        if name.startswith(stem) and _IS_PRUNED.search(name) and _is_directory(name, above)
        for kept in _empty(version_path, name, above)
    ]


def remove_leftover(mirror: Mirror, path: str, before_ns: int) -> list[str]:
    """Remove a hidden directory in a product and the files of an image in it.

    Args:
        mirror: the mirror.
        path: the directory, relative to ROOT.
        before_ns: as for ``find_leftovers``.

    Returns:
        Paths, relative to ROOT, of files that do not belong to an image; they stay.

    Raises:
        FileNotFoundError: it is gone: its uploader has renamed or removed it.
        OSError: a file cannot be removed, or somebody works there by now.
    """
    product, name = os.path.split(path)
    with mirror.open_directory(product) as above:
        _require_directory(name, above)
        if _IS_PRUNED.search(name):
            return _empty(path, name, above)
        if not is_abandoned(mirror.path(path), before_ns):
            raise OSError(None, "somebody is working in it", name)
        return _hide_and_empty(path, above)


def _hide_and_empty(path: str, above: int) -> list[str]:
    """Rename a directory to a free hidden name, so that nobody else works in it, and empty it."""
    name = os.path.basename(path)
    _require_directory(name, above)
    with ExitStack() as stack:
        directory = stack.enter_context(directories.closing(directories.open_in(above, name)))
        if not stack.enter_context(locks.hold(MARK, directory)):
            raise OSError(None, "an import is working in it", name)
        # What was published or renamed since it was opened is not what was to be removed.
        if not locks.is_at(directory, name, above):
            raise OSError(None, "replaced by another directory meanwhile", name)
        return _empty(path, _hide(name, above), above)


def _hide(name: str, above: int) -> str:
    """Rename a directory to a hidden name that is free; return that name."""
    stem = f".{name.removeprefix('.')}{_SUFFIX}"
    for hidden in itertools.chain((stem,), (f"{stem}.{number}" for number in itertools.count(1))):
        try:
            # An empty directory there is replaced, as nothing is lost.
            os.rename(name, hidden, src_dir_fd=above, dst_dir_fd=above)
        except OSError as error:
            if error.errno in _TAKEN:
                continue
            raise
        os.fsync(above)
        return hidden
    raise AssertionError("there are infinitely many names")


def _empty(path: str, name: str, above: int) -> list[str]:
    """Remove the files of an image in a directory, and the directory if nothing is left.

    Args:
        path: the directory that is being removed, relative to ROOT.
        name: its name now.
        above: descriptor of the product directory.
    """
    _require_directory(name, above)
    kept: list[str] = []
    with directories.closing(directories.open_in(above, name)) as directory:
        for file in sorted(os.listdir(directory)):
            if is_image_file(file) and not _is_directory(file, directory):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
            else:
                kept.append(f"{os.path.dirname(path)}/{name}/{file}")
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
    version, name = os.path.split(path)
    product, version_name = os.path.split(version)
    with suppress(FileNotFoundError), mirror.open_directory(product) as above:
        if _is_symlink(version_name, above):
            version_name = _find_hidden_target(version_name, above)
        _require_directory(version_name, above)
        with directories.closing(directories.open_in(above, version_name)) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)


def _find_hidden_target(name: str, above: int) -> str:
    """Return the name of the hidden directory beside it that a symlink leads to.

    Raises:
        OSError: it leads elsewhere; what is there is not this version's alone.
    """
    target = os.path.normpath(os.readlink(name, dir_fd=above))
    if "/" in target or target[0] != "." or target in (".", ".."):
        raise OSError(None, f"its version is a symlink to {target}", name)
    return target


def _require_directory(name: str, above: int) -> None:
    """Raise OSError if ``name`` is not a directory; a symlink may lead to other people's files."""
    if not _is_directory(name, above):
        raise OSError(None, "not a directory", name)


def _is_directory(name: str, above: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)


def _is_symlink(name: str, above: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)


def is_image_file(name: str) -> bool:
    """Return whether a file with this name belongs to an image, or comes with one."""
    is_delta = name.endswith(".vcdiff")
    return classify(name) is not None or is_companion(name) or is_delta or name in _OTHER_NAMES


def find_deltas(mirror: Mirror, product_path: str) -> Iterator[tuple[str, str]]:
    """Yield each delta of the visible versions in a product, after the version it starts from.

    Both are paths relative to ROOT. Directories that cannot be listed have none.

    Args:
        mirror: the mirror.
        product_path: the variant directory, relative to ROOT.
    """
    for version in _list_directories(mirror, product_path):
        path = f"{product_path}/{version}"
        with suppress(OSError):
            for name in sorted(os.listdir(mirror.path(path))):
                role = classify(name)
                if role is not None and role.delta_base:
                    yield f"{product_path}/{role.delta_base}", f"{path}/{name}"


def measure(mirror: Mirror, path: str, names: Collection[str]) -> int:
    """Return how many bytes are free once files of a version are removed; 0 if it is a symlink.

    A file that has another name, too, frees nothing.

    Args:
        mirror: the mirror.
        path: the version, relative to ROOT.
        names: the files of it that count; none: all.
    """
    total = 0
    with suppress(OSError), mirror.open_directory(os.path.dirname(path)) as above:
        version = directories.open_in(above, os.path.basename(path))
        with directories.closing(version):
            for name in names or os.listdir(version):
                with suppress(OSError):
                    status = os.stat(name, dir_fd=version, follow_symlinks=False)
                    is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
                    total += status.st_size if is_alone else 0
    return total


def find_product_paths(mirror: Mirror) -> list[str]:
    """Return the variant directories that can be reached without symlinks, relative to ROOT.

    Those without a visible version are among them, unlike in a scan: hidden ones may be left there.
    """
    paths = list(mirror.streams)
    for _ in range(PRODUCT_DEPTH):
        paths = [f"{path}/{name}" for path in paths for name in _list_directories(mirror, path)]
    return paths


def _list_directories(mirror: Mirror, path: str) -> list[str]:
    try:
        with os.scandir(mirror.path(path)) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
            )
    except OSError:  # the scan tells it
        return []


def find_leftovers(mirror: Mirror, product_path: str, before_ns: int) -> list[str]:
    """Return the hidden version directories in a product that nobody is working in any more.

    Args:
        mirror: the mirror.
        product_path: the variant directory, relative to ROOT.
        before_ns: time in ns since the epoch; an upload or import is abandoned if the last change
            of anything in it is older. The remains of a removal are abandoned at any age.

    Returns:
        Paths relative to ROOT, sorted.
    """
    found: list[str] = []
    with suppress(OSError), os.scandir(mirror.path(product_path)) as entries:
        hidden = [entry for entry in entries if entry.name[0] == "."]
        for entry in sorted(hidden, key=_by_name):
            name = entry.name[1:]
            if not (is_version_name(name) and entry.is_dir(follow_symlinks=False)):
                continue
            if _IS_PRUNED.search(name) or is_abandoned(entry.path, before_ns):
                found.append(f"{product_path}/{entry.name}")
    return found


def find_last_change_ns(mirror: Mirror, path: str, names: Collection[str], now_ns: int) -> int:
    """Return when a version was changed last, in ns since the epoch; 0: nothing is there.

    As for ``is_abandoned``, the change times count as well. A modification time in the future says
    nothing.

    Args:
        mirror: the mirror.
        path: the version, relative to ROOT. Of a symlink, what it leads to counts as well.
        names: the files of it that count; none: itself and everything that is directly in it, as
            nothing deeper is ever removed.
        now_ns: the time, in ns since the epoch.

    Raises:
        OSError: something cannot be looked at.
    """
    top = mirror.path(path)
    changes = [0]
    with suppress(FileNotFoundError):
        if not names:
            changes += (_change_ns(status, now_ns) for status in (os.lstat(top), os.stat(top)))
            names = os.listdir(top)
    for name in names:
        with suppress(FileNotFoundError):
            changes.append(_change_ns(os.lstat(os.path.join(top, name)), now_ns))
    return max(changes)


def _change_ns(status: os.stat_result, now_ns: int) -> int:
    mtime_ns = status.st_mtime_ns if status.st_mtime_ns <= now_ns else 0
    return max(mtime_ns, status.st_ctime_ns)


def is_half_removed(path: str) -> bool:
    """Return whether ``path`` is in a directory whose removal was interrupted; prune ends it."""
    return any(name[:1] == "." and _IS_PRUNED.search(name) for name in path.split(os.sep))


def is_abandoned(directory: str, before_ns: int) -> bool:
    """Return whether nobody is uploading to ``directory``, or importing into it, any more.

    The last change of the directory and of everything in it, at any depth, must be older. The
    change times count as well, which no uploader can set: ``rsync -a`` and ``cp -a`` give their
    files old modification times. An import that runs holds its lock, whatever its age.

    Args:
        directory: its path.
        before_ns: time in ns since the epoch.
    """
    remaining = MAX_ENTRIES
    try:
        with (
            directories.closing(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)) as opened,
            locks.hold(MARK, opened) as is_free,
        ):
            if not (is_free and _is_older(os.fstat(opened), before_ns)):
                return False
        queue = [directory]
        while queue:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    remaining -= 1
                    status = entry.stat(follow_symlinks=False)
                    if not (remaining and _is_older(status, before_ns)):
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
    except OSError:  # somebody is changing it
        return False
    return True


def _is_older(status: os.stat_result, before_ns: int) -> bool:
    return max(status.st_mtime_ns, status.st_ctime_ns) < before_ns


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name
