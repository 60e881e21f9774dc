"""Where a mirror's files are: one value, made once and passed to every operation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from msgspec import Struct

from fastindex.errors import ResourceError, TreeError, UsageError, translate_system_errors
from fastindex.formats.names import is_stream_name
from fastindex.formats.simplestreams import CACHE_NAME, STREAMS_DIRECTORY
from fastindex.system import directories, locks

DEFAULT_STREAMS = ("images",)


class Mirror(Struct, frozen=True):
    """The directories of a mirror, as absolute paths. Make one with ``Mirror.at``."""

    root: str
    """The directory that the web server serves; it contains the stream directories."""
    output: str
    """The directory that contains ``streams/``, or will."""
    cache_dir: str | None
    """Where the ``.items.json`` caches go; None: into the tree."""
    streams: tuple[str, ...]
    """Names of the stream directories in ``root``; each has its own product file."""
    bounds: tuple[str, ...]
    """Prefixes of the real paths inside the mirror, each with a final ``/``. Symlinks may lead
    there and nowhere else. A stream directory itself may be a symlink to another disk."""

    @classmethod
    @translate_system_errors()
    def at(
        cls,
        root: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        streams: Sequence[str] = DEFAULT_STREAMS,
    ) -> Mirror:
        """Return the mirror at ``root``. The directories need not exist yet.

        Args:
            root: the directory that the web server serves.
            output: the directory for ``streams/``; None: ``root``.
            cache_dir: the directory for the caches; None or ``root``: they go into the tree.
            streams: names of stream directories in ``root``.

        Raises:
            UsageError: a path or a stream cannot have its name, a stream is named twice or
                there is none, or ``streams`` is a ``str``, which would be a stream a letter.
            ResourceError: a path is relative, and the current directory has been deleted.
        """
        absolute_root = make_absolute(root)
        names = _check_streams(streams)
        return cls(
            absolute_root,
            absolute_root if output is None else make_absolute(output),
            _find_cache_dir(absolute_root, cache_dir),
            names,
            directories.bounds_of(absolute_root, *names),
        )

    def with_streams(self, streams: Sequence[str]) -> Mirror:
        """Return the same mirror with other streams.

        Args:
            streams: names of stream directories in ``root``.

        Raises:
            UsageError: as ``at`` does for ``streams``.
        """
        return Mirror.at(self.root, output=self.output, cache_dir=self.cache_dir, streams=streams)

    def path(self, relative: str) -> str:
        """Return the absolute path of ``relative``, a path relative to ROOT."""
        return f"{self.root}/{relative}"

    def cache_path(self, version_path: str) -> str:
        """Return the absolute path of the cache of a version (a path relative to ROOT)."""
        return f"{self.cache_dir or self.root}/{version_path}/{CACHE_NAME}"

    def state_path(self, name: str) -> str:
        """Return the absolute path of ``name``, a file in ``streams/`` for the next runs."""
        return os.path.join(self.output, STREAMS_DIRECTORY, name)

    def lock(self, wait_seconds: float) -> AbstractContextManager[None]:
        """Return a context that holds the mirror's lock; only one run at a time has it.

        Args:
            wait_seconds: how long to wait for another run; 0: not at all.

        Raises:
            LockHeldError: on entry: another run holds it.
            PublishError: on entry: it cannot be created.
        """
        return locks.lock(self.state_path(".lock"), wait_seconds)

    def require_root(self) -> None:
        """Check that ``root`` is a directory.

        Raises:
            TreeError: it is not.
        """
        if not os.path.isdir(self.root):
            raise TreeError(
                f"{self.root}: no such directory; ROOT must be the directory that the web "
                "server serves"
            )


def _find_cache_dir(root: str, cache_dir: str | os.PathLike[str] | None) -> str | None:
    if cache_dir is None:
        return None
    path = make_absolute(cache_dir)
    return None if directories.real_path(path) == directories.real_path(root) else path


def make_absolute(path: str | os.PathLike[str]) -> str:
    """Return ``path`` as an absolute path; only symlinks before a ``..`` are resolved.

    A ``..`` after a symlink means the parent of the directory that the symlink leads to.

    Raises:
        UsageError: it is a path of bytes, is empty or has a character that no path can have.
        ResourceError: it is relative, and the current directory has been deleted.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not name or not _can_be_path(name):
        raise UsageError(f"{name!r} cannot be a path; give the path of a directory or file")
    parts = name.split(os.sep)
    try:
        if os.pardir not in parts:
            return os.path.abspath(name)
        end = len(parts) - parts[::-1].index(os.pardir)
        head = directories.real_path(os.sep.join(parts[:end]))
        if not head:
            raise UsageError(f"{name!r}: too many levels of symlinks; give a shorter path")
        return os.path.abspath(os.path.join(head, *parts[end:]))
    except FileNotFoundError as error:
        raise ResourceError(
            f"{name!r}: the current directory has been deleted; give an absolute path"
        ) from error


def _can_be_path(name: str) -> bool:
    """Return whether a file could be called so: no null byte, no lone surrogate."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _check_streams(streams: Sequence[str]) -> tuple[str, ...]:
    if isinstance(streams, str):
        raise UsageError(f"streams must be a sequence of names, such as ({streams!r},)")
    names = tuple(streams)
    if not names or len(set(names)) < len(names):
        raise UsageError("--stream: name at least one stream, and each of them once")
    for name in names:
        if not isinstance(name, str) or not is_stream_name(name):
            raise UsageError(f"--stream {name!r}: not a valid name of a stream directory")
    return names
