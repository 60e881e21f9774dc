"""What others in the tree lead to: files that must stay although their own version goes.

A version may be a symlink to a hidden directory beside it, a file a symlink into another version,
and either may lead there through further symlinks. Real paths are compared. Every visible symlink
counts, published or not, and every published path: deleting is at least as careful as the scan
is generous.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cached_property

from fastindex.formats.names import ARCHITECTURES, PRODUCT_DEPTH
from fastindex.formats.simplestreams import STREAMS_DIRECTORY
from fastindex.mirror.mirror import Mirror
from fastindex.system import directories

MAX_STEPS = 128
"""Names that one symlink may lead through. The kernel follows 40 symlinks of many names each, so
a few hostile ones could take hours."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of what is missing, or is not of the kind that was expected."""

_ARCH_LEVEL, _VERSION_LEVEL = 2, PRODUCT_DEPTH + 1
"""Of a directory that contains ARCH, of VARIANT and of VERSION; that of a stream is 0."""


class PlacesInUse:
    """The places in a tree that symlinks and published paths lead to.

    The tree is walked when the first place is asked for.

    Args:
        mirror: the mirror; the links of streams that are not its own count as well.
        published: published paths, relative to ROOT.
        ignored: hidden directories whose links do not count, as they are to be deleted themselves;
            relative to ROOT. Those of all other hidden directories in a product do: an upload
            may be under way there.
    """

    def __init__(
        self, mirror: Mirror, published: Iterable[str], ignored: Collection[str] = ()
    ) -> None:
        self._mirror = mirror
        self._root = directories.real_path(mirror.root) or mirror.root
        self._published = published
        self._ignored = {self.find_place(path) for path in ignored}
        self._links: dict[str, str] = {}
        self._unknown: dict[str, str] = {}

    def find_place(self, path: str) -> str:
        """Return the real path of a directory entry; a symlink there is not followed.

        Args:
            path: relative to ROOT.

        Raises:
            OSError: its directory cannot be found.
        """
        above, name = os.path.split(self._mirror.path(path))
        return os.path.join(os.path.realpath(above, strict=True), name)

    def find_users(self, place: str) -> list[str]:
        """Return the symlinks and published paths that lead to a place, or into it.

        Args:
            place: a file or directory, as ``find_place`` returns it.

        Returns:
            Real paths but for the last name, of those of symlinks; published paths below ROOT.

        Raises:
            OSError: the tree cannot be read, so it is not known what is in use.
        """
        plain, linked = self._users
        found: list[str] = []
        for start, end in ((place, place + "\0"), (place + "/", place + "0")):
            users = [
                (path, path) for path in plain[bisect_left(plain, start) : bisect_left(plain, end)]
            ]
            users += linked[bisect_left(linked, (start,)) : bisect_left(linked, (end,))]
            found += [user for _, user in sorted(users)]
        # What cannot be followed, or cannot be listed, may lead anywhere beside it.
        unknown = self._unknown.get(os.path.dirname(place))
        return found if unknown is None else [*found, unknown]

    def is_used(self, place: str) -> bool:
        """Return whether anything outside a place leads to it, or into it.

        Args:
            place: a file or directory, as ``find_place`` returns it.

        Raises:
            OSError: as ``find_users``.
        """
        inside = place + "/"
        return any(not user.startswith(inside) for user in self.find_users(place))

    def shorten(self, user: str) -> str:
        """Return what ``find_users`` returned relative to ROOT, if it lies there."""
        return user.removeprefix(os.path.join(self._root, ""))

    @cached_property
    def _users(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Published paths without symlinks; and (place, what else leads there); both sorted."""
        users: set[tuple[str, str]] = set()
        plain: list[str] = []
        for path in self._published:
            logical = os.path.join(self._root, path)
            ends = self._trace(self._root, path)
            if ends == [logical]:
                plain.append(logical)
            else:
                users.update((place, logical) for place in ends or ())
        for product, link in self._find_links():
            try:
                places = self._trace(*os.path.split(link))
                is_unknown = places is None and os.path.exists(link)  # else it leads in circles
            except PermissionError:
                places, is_unknown = None, True
            if is_unknown:
                self._unknown[product] = link
            users.update((place, link) for place in places or () if place != link)
        return sorted(plain), sorted(users)

    def _trace(self, directory: str, path: str) -> list[str] | None:
        """Return all symlinks that ``path`` leads through, and where it ends.

        Args:
            directory: the real path of a directory.
            path: relative to it.

        Returns:
            Real paths but for the last name; None if it leads through too many names.
        """
        places: list[str] = []
        here = directory
        names = path.split("/")[::-1]
        steps = 0
        while names:
            name = names.pop()
            steps += 1
            if steps > MAX_STEPS:
                return None
            if name == "..":
                here = os.path.dirname(here)
            elif name not in ("", "."):
                at = os.path.join(here, name)
                target = self._read_link(at, is_kept=bool(names))
                if target:
                    places.append(at)
                    here = "/" if target[0] == "/" else here
                    names += target.split("/")[::-1]
                else:
                    here = at
        return [*places, here]

    def _read_link(self, path: str, *, is_kept: bool) -> str:
        """Return the target of a symlink; "" if ``path`` is none.

        Args:
            path: the symlink.
            is_kept: whether to remember it; others are likely to lead through it, too.
        """
        if path in self._links:
            return self._links[path]
        try:
            target = os.readlink(path)
        except OSError as error:
            _require_absent(error)
            target = ""
        if is_kept:
            self._links[path] = target
        return target

    def _find_links(self) -> Iterator[tuple[str, str]]:
        """Yield each visible symlink in the tree, with the product directory that it is in.

        A directory that several links lead to is listed once for each level, so the walk takes as
        long as the tree is large. Directories outside the mirror are not listed.
        """
        yield from _find_links_of_root(self._root)
        streams = dict.fromkeys((*_list_streams(self._root), *self._mirror.streams))
        bounds = (*self._mirror.bounds, *directories.bounds_of(self._root, *streams))
        queue: list[tuple[str, int, bool]] = []
        for stream in streams:
            real = directories.real_path(os.path.join(self._root, stream))
            queue.append((real, 0, stream in self._mirror.streams))
        seen: set[tuple[str, int]] = set()
        while queue:
            directory, level, is_stream = queue.pop()
            if (directory, level) in seen or not os.path.join(directory, "").startswith(bounds):
                continue
            seen.add((directory, level))
            product = directory if level == PRODUCT_DEPTH else os.path.dirname(directory)
            try:
                entries = _list_entries(directory)
            except PermissionError:
                self._unknown[product] = directory
                continue
            for entry in entries:
                name = entry.name
                is_link = entry.is_symlink()
                if name[0] == ".":
                    if is_link or level != PRODUCT_DEPTH or entry.path in self._ignored:
                        continue
                elif is_link:
                    yield product, entry.path
                if level == _VERSION_LEVEL or not (is_link or entry.is_dir(follow_symlinks=False)):
                    continue
                # Beside the streams, ROOT may hold anything; only what looks like one is walked.
                if level == _ARCH_LEVEL and not is_stream and name not in ARCHITECTURES:
                    continue
                places: list[str] | None = [entry.path]
                with suppress(PermissionError):  # which _users notes
                    places = self._trace(directory, name) if is_link else places
                if places is not None:
                    queue.append((places[-1], level + 1, is_stream))


def _find_links_of_root(root: str) -> Iterator[tuple[str, str]]:
    """Yield each visible symlink in ROOT itself and in ``streams/``, with its directory."""
    published = os.path.join(root, STREAMS_DIRECTORY)
    for above in (root, published, os.path.join(published, "v1")):
        for entry in _list_entries(above):
            if entry.name[0] != "." and entry.is_symlink():
                yield above, entry.path


def _require_absent(error: OSError) -> None:
    """Raise ``error`` if something is there that cannot be read."""
    if error.errno not in _ABSENT:
        raise error


def _list_streams(root: str) -> list[str]:
    """Return the names in ROOT that may be those of streams, published here or not."""
    return [
        entry.name
        for entry in _list_entries(root)
        if entry.name[0] != "." and entry.name != STREAMS_DIRECTORY
    ]


def _list_entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=_by_name)
    except OSError as error:
        _require_absent(error)
        return []


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name
