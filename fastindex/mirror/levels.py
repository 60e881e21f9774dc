"""The levels of the tree: what is said where one of them is missing."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress

from fastindex.formats.names import (
    ARCHITECTURES,
    PRODUCT_DEPTH,
    is_ignored_name,
    is_stream_name,
    is_version_name,
)

_LEVELS = ("STREAM", "OS", "RELEASE", "ARCH", "VARIANT", "VERSION")
TREE_LEVELS = "/".join(_LEVELS)
TREE_SHAPE = f"{TREE_LEVELS}/FILES, such as\n" + (
    "  images/debian/12/amd64/default/20240505_05:24/incus.tar.xz\n"
    "  images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
)
_MAX_LOOKED_AT = 100
"""How many directories of one level to look at, to see what kind of directory ROOT is."""


def describe_missing_levels(names: tuple[str, ...]) -> str:
    """Return, for people, which levels of the tree are missing where image files were found.

    Args:
        names: the directories below the stream that they are in; at most OS, RELEASE, ARCH and
            VARIANT.
    """
    if not names or not is_version_name(names[-1]):
        missing = _LEVELS[1 + len(names) :]
        verb = "is" if len(missing) == 1 else "are"
        return f"the level{'s' if len(missing) > 1 else ''} {'/'.join(missing)} {verb} missing"
    above = names[:-1]
    if len(above) == PRODUCT_DEPTH - 1 and above[-1] in ARCHITECTURES:
        return f"the level VARIANT is missing above {names[-1]}"
    count = PRODUCT_DEPTH - len(above)
    levels = "a level is" if count == 1 else f"{count} levels are"
    return f"{levels} missing above {names[-1]}, of OS/RELEASE/ARCH/VARIANT"


def find_version(root: str) -> tuple[str, ...]:
    """Return the path of a version below a directory, from a look at some.

    A version is known by its date and by the ARCH two levels above it, which may be that of
    ``root`` itself. Symlinks are not followed, and what cannot be read has none.

    Args:
        root: an absolute path.

    Returns:
        The names from ``root`` down to the version; none, if there is none where a tree may have
        it, with or without the levels above ARCH.
    """
    level = [root]
    for depth in range(1, len(_LEVELS) + 1):
        level = [path for above in level for path in _list_some(above)][:_MAX_LOOKED_AT]
        for path in level:
            arch, _, name = ("", *path.split(os.sep))[-3:]
            if is_version_name(name) and arch in ARCHITECTURES:
                return tuple(path.split(os.sep)[-depth:])
    return ()


def _list_some(directory: str) -> list[str]:
    """Return the paths of some visible directories in ``directory``."""
    with suppress(OSError), os.scandir(directory) as entries:
        some = itertools.islice(entries, _MAX_LOOKED_AT)
        return [
            entry.path
            for entry in some
            if entry.name[0] != "."
            and not is_ignored_name(entry.name)
            and entry.is_dir(follow_symlinks=False)
        ]
    return []


def explain_missing_stream(root: str, stream: str) -> tuple[str, str]:
    """Return why a stream of ROOT has no versions, if others lack the upper levels of the tree.

    Args:
        root: ROOT, an absolute path.
        stream: the name of the stream.

    Returns:
        The problem and the remedy; both are empty if no version lacks the level STREAM.
    """
    version = find_version(root)
    missing = _LEVELS[: -len(version)]
    if not missing:
        return "", ""
    where = "/".join((stream, *missing[1:]))
    levels = f"stream level {stream}/ is" if len(missing) == 1 else f"levels {where} are"
    remedies = [f"move the directories into {root}/{where}"]
    top, *names = root.rsplit(os.sep, len(missing))
    if len(names) == len(missing) and names[0] == stream:  # ROOT is in a tree, it seems
        remedies.insert(0, f"give {top or os.sep} for ROOT, if this is in a tree already")
    elif len(missing) == 1 and is_stream_name(names[0]):
        remedies.append(f"give {top or os.sep} for ROOT, with --stream {names[0]}")
    return f"the {levels} missing above {'/'.join(version)}", ", or ".join(remedies)
